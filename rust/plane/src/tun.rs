//! The TUN device, which is the link of every device with a kernel interface.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::io::{Errno, ioctl_fionbio, read, write};

use crate::drops::DropCounter;
use crate::link::{Frame, Link};
use crate::lock::lock;
use crate::offload::{Segments, VNET_HEADER, is_merged};
use crate::shared::now;

/// How long nothing is merged for a device that refused a merged frame.
const UNMERGED: u64 = 10_000_000_000;

/// A device that Python opened and configured. Frames always have a virtio header here. For a
/// device without one, it is added when reading and removed when writing.
pub struct Tun {
    fd: OwnedFd,
    vnet_header: bool,
    /// Whether TCP packets, and UDP packets, may be merged before they are written.
    merges: (bool, bool),
    /// But not before then, as the kernel has refused a merged frame.
    unmerged_until: AtomicU64,
    refused_merges: Mutex<DropCounter<i32>>,
}

impl Tun {
    /// Without a virtio header nothing is merged, whatever `merges` allows.
    pub fn new(fd: OwnedFd, vnet_header: bool, merges: (bool, bool)) -> io::Result<Self> {
        ioctl_fionbio(&fd, true)?;
        let (unmerged_until, refused_merges) = Default::default();
        Ok(Tun { fd, vnet_header, merges, unmerged_until, refused_merges })
    }

    fn skip(&self) -> usize {
        if self.vnet_header { 0 } else { VNET_HEADER }
    }
}

impl Link for Tun {
    fn read(&self, frame: &mut [u8]) -> Frame {
        let skip = self.skip();
        frame[..skip].fill(0);
        match read(&self.fd, &mut frame[skip..]) {
            Ok(length) if length > 0 => Frame::Length(skip + length),
            Ok(_) | Err(Errno::BADFD | Errno::BADF | Errno::FAULT) => Frame::Lost,
            Err(Errno::INVAL) => Frame::Skipped,
            // Among others EIO: the device is down.
            Err(_) => Frame::Nothing,
        }
    }

    /// Writes a frame. Some kernels accept the offloads but refuse a merged frame. It is then
    /// written as single packets, and nothing is merged for a while.
    fn write(&self, frame: &mut [u8]) {
        #[cfg(test)]
        crate::panics::plant("write", frame);
        let refused = write(&self.fd, &frame[self.skip()..]) == Err(Errno::INVAL);
        if !refused || !is_merged(frame) {
            return;
        }
        let now = now();
        self.unmerged_until.store(now + UNMERGED, Relaxed);
        lock(&self.refused_merges).add(Errno::INVAL.raw_os_error(), now, false);
        let Some(segments) = Segments::new(frame) else { return };
        for number in 0..segments.count() {
            let mut packet = vec![0; VNET_HEADER + segments.length(number)];
            segments.write(number, &mut packet[VNET_HEADER..]);
            let _ = write(&self.fd, &packet);
        }
    }

    fn merges(&self, now: u64) -> (bool, bool) {
        let able = self.vnet_header && now >= self.unmerged_until.load(Relaxed);
        (able && self.merges.0, able && self.merges.1)
    }

    fn refused_merges(&self) -> DropCounter<i32> {
        *lock(&self.refused_merges)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::tests::ipv4;
    use rustix::event::{EventfdFlags, eventfd};

    /// An eventfd returns EINVAL for writes that are not eight bytes, as some kernels do for merged
    /// frames.
    #[test]
    fn no_more_is_merged_for_10_s_once_a_merged_frame_is_refused() {
        let refusing = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let tun = Tun::new(refusing, true, (true, true)).unwrap();
        let mut tcp = vec![0; 20 + 30];
        tcp[12] = 5 << 4;
        let single = [vec![0; VNET_HEADER], ipv4(6, &tcp)].concat();
        tun.write(&mut single.clone());
        assert_eq!(tun.merges(now()), (true, true));
        let mut merged = single;
        merged[1] = 1;
        for (at, value) in [(2, 40u16), (4, 10), (6, 20), (8, 16)] {
            merged[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        tun.write(&mut merged);
        assert_eq!(tun.merges(now()), (false, false));
        assert_eq!(tun.merges(now() + UNMERGED), (true, true));
        assert_eq!(tun.refused_merges().count, 1);
    }

    #[test]
    fn what_may_not_be_merged_is_not() {
        for vnet_header in [false, true] {
            for merges in [(false, false), (false, true), (true, false), (true, true)] {
                let fd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
                let tun = Tun::new(fd, vnet_header, merges).unwrap();
                assert_eq!(tun.merges(0), if vnet_header { merges } else { (false, false) });
            }
        }
    }

    #[test]
    fn a_failed_read_loses_a_packet_and_not_the_device() {
        let read = |fd| Tun::new(fd, true, (true, true)).unwrap().read(&mut [0; 7]);
        let empty = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        assert!(matches!(read(empty), Frame::Skipped)); // EINVAL: fewer than eight bytes of room
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(matches!(read(ours.try_clone().unwrap().into()), Frame::Nothing));
        drop(theirs);
        assert!(matches!(read(ours.into()), Frame::Lost));
    }
}
