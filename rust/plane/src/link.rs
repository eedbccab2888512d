//! What carries a device's frames, and how threads wait.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::sched_yield;

use crate::drops::DropCounter;
use crate::secret::scrub_stack;

/// The app's side of a device: frames in and out. Each is a packet behind a virtio header. The
/// descriptor is readable while there is something to read.
pub trait Link: AsFd + Send + Sync {
    /// Reads a frame without waiting.
    fn read(&self, frame: &mut [u8]) -> Frame;

    /// Writes a frame; who is down or full loses it, as a network card does.
    fn write(&self, frame: &mut [u8]);

    /// Whether packets of TCP, and of UDP, are merged before they are written, for the time being.
    fn merges(&self, now: u64) -> (bool, bool);

    /// Merged frames that were refused all the same, by errno.
    fn refused_merges(&self) -> DropCounter<i32>;
}

/// What a read brought.
pub enum Frame {
    Length(usize),
    /// A packet that could not be handed over.
    Skipped,
    Nothing,
    /// There will never be another one.
    Lost,
}

/// Waits until one of the descriptors is readable or broken; the answer is in their order. What
/// encryption has left on the stack is wiped before.
pub fn wait<const N: usize>(fds: [Option<BorrowedFd<'_>>; N]) -> [bool; N] {
    let mut set: Vec<PollFd<'_>> =
        fds.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    scrub_stack();
    // Others first: where cores are scarce, more has come by then, without a sleep and a wake-up;
    // where they are not, this is one more system call.
    sched_yield();
    let _ = poll(&mut set, None); // EINTR reads as: nothing yet
    let mut ready = set.iter().map(|fd| !fd.revents().is_empty());
    fds.map(|fd| fd.is_some() && ready.next().unwrap_or(false))
}
