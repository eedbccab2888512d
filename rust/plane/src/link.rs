//! The link of a device, which carries its frames, and how threads wait.

use std::thread::yield_now;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd};

use crate::drops::DropCounter;
use crate::secret::scrub_stack;

/// The inner side of a device, which reads and writes frames. A frame is a virtio header and a
/// packet. The descriptor is readable while there is a frame to read.
pub trait Link: AsFd + Send + Sync {
    /// Reads a frame without waiting.
    fn read(&self, frame: &mut [u8]) -> Frame;

    /// Writes a frame. A link that is down or full drops it, as a network card does.
    fn write(&self, frame: &mut [u8]);

    /// Returns whether TCP packets, and UDP packets, are merged at present before they are written.
    fn merges(&self, now: u64) -> (bool, bool);

    /// Returns the count of merged frames that were refused, by errno.
    fn refused_merges(&self) -> DropCounter<i32>;
}

/// The result of a read.
pub enum Frame {
    Length(usize),
    /// A packet that could not be read.
    Skipped,
    Nothing,
    /// There will not be another one.
    Lost,
}

/// Waits until one of the descriptors is readable or broken. The result is in their order. Before
/// that it wipes what encryption has left on the stack.
pub fn wait<const N: usize>(fds: [Option<BorrowedFd<'_>>; N]) -> [bool; N] {
    let mut set: Vec<PollFd<'_>> =
        fds.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    scrub_stack();
    // Let others run first: with few cores, more packets have come when this returns, without a
    // sleep and a wake-up. With many cores, it is one more system call.
    yield_now();
    let _ = poll(&mut set, None); // EINTR means nothing yet
    let mut ready = set.iter().map(|fd| !fd.revents().is_empty());
    fds.map(|fd| fd.is_some() && ready.next().unwrap_or(false))
}
