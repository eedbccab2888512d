//! What each system does in its own way: its clock, its timer, and how it wakes who waits.

use std::io;

use rustix::fd::{AsFd, BorrowedFd, RawFd};
#[cfg(target_os = "linux")]
use rustix::{
    event::{EventfdFlags, eventfd},
    fd::OwnedFd,
    io::{read, write},
    time::{
        ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
        clock_gettime, timerfd_create, timerfd_settime,
    },
};

use crate::portable::Loopback;
#[cfg(not(target_os = "linux"))]
pub use crate::portable::{Timer, now};

/// Returns the ns of CLOCK_BOOTTIME, which counts suspend.
#[cfg(target_os = "linux")]
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The number of no descriptor, nor of a socket on Windows.
pub const NO_FD: RawFd = -1_i32 as RawFd;

/// A descriptor that is readable after `set` and until `clear`.
pub enum Signal {
    #[cfg(target_os = "linux")]
    Eventfd(OwnedFd),
    Loopback(Loopback),
}

impl Signal {
    pub fn new(#[allow(unused)] portable: bool) -> io::Result<Signal> {
        #[cfg(target_os = "linux")]
        if !portable {
            let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
            return Ok(Signal::Eventfd(eventfd(0, flags)?));
        }
        Loopback::new().map(Signal::Loopback)
    }

    pub fn set(&self) {
        match self {
            #[cfg(target_os = "linux")]
            Signal::Eventfd(fd) => drop(write(fd, &1u64.to_ne_bytes())), // EAGAIN: it is set
            Signal::Loopback(socket) => socket.set(),
        }
    }

    pub fn clear(&self) {
        match self {
            #[cfg(target_os = "linux")]
            Signal::Eventfd(fd) => drop(read(fd, &mut [0u8; 8])),
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

/// A timer on the clock of `now`, with a descriptor that is readable once it has fired.
#[cfg(target_os = "linux")]
pub struct Timer(OwnedFd);

#[cfg(target_os = "linux")]
impl Timer {
    pub fn new() -> io::Result<Timer> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Timer(timerfd_create(TimerfdClockId::Boottime, flags)?))
    }

    /// Sets it to a deadline that is not 0, or stops it with 0.
    pub fn set(&self, deadline: u64) -> io::Result<()> {
        let it_value = Timespec {
            tv_sec: (deadline / 1_000_000_000) as i64,
            tv_nsec: (deadline % 1_000_000_000) as _,
        };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = Itimerspec { it_interval, it_value };
        timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &spec)?;
        Ok(())
    }

    pub fn clear(&self) {
        let _ = read(&self.0, &mut [0u8; 8]);
    }
}

#[cfg(target_os = "linux")]
impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
