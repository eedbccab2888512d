//! What each system does in its own way: its clock, its timer, and how it wakes who waits.

use std::io;

use rustix::fd::{AsFd, BorrowedFd, RawFd};

#[cfg(target_os = "linux")]
use crate::linux;
#[cfg(target_os = "linux")]
pub use crate::linux::{Timer, now};
use crate::portable::Loopback;
#[cfg(not(target_os = "linux"))]
pub use crate::portable::{Timer, now};

/// The number of no descriptor, nor of a socket on Windows.
pub const NO_FD: RawFd = -1_i32 as RawFd;

/// A descriptor that is readable after `set` and until `clear`.
pub enum Signal {
    #[cfg(target_os = "linux")]
    Eventfd(std::os::fd::OwnedFd),
    Loopback(Loopback),
}

impl Signal {
    pub fn new(#[allow(unused)] portable: bool) -> io::Result<Signal> {
        #[cfg(target_os = "linux")]
        if !portable {
            return linux::new_eventfd().map(Signal::Eventfd);
        }
        Loopback::new().map(Signal::Loopback)
    }

    pub fn set(&self) {
        match self {
            #[cfg(target_os = "linux")]
            Signal::Eventfd(fd) => linux::signal(fd),
            Signal::Loopback(socket) => socket.set(),
        }
    }

    pub fn clear(&self) {
        match self {
            #[cfg(target_os = "linux")]
            Signal::Eventfd(fd) => linux::drain(fd),
            Signal::Loopback(socket) => socket.clear(),
        }
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            #[cfg(target_os = "linux")]
            Signal::Eventfd(fd) => fd.as_fd(),
            Signal::Loopback(socket) => socket.0.as_fd(),
        }
    }
}
