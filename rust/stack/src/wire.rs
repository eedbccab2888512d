//! The link between the plane and the stack: two bounded queues of frames.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use mio::Waker;
use rustix::io::{read, write};

use plane::drops::DropCounter;
use plane::link::{Frame, Link};
use plane::lock::lock;

/// Bytes that wait for the plane. smoltcp keeps what does not fit.
const OUTBOUND: usize = 1 << 20;
/// Bytes that wait for the stack. What does not fit is dropped, as by a network card.
const INBOUND: usize = 4 << 20;

#[derive(Default)]
struct Queue {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, frame: Vec<u8>) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }
}

pub struct Wire {
    outbound: Mutex<Queue>,
    inbound: Mutex<Queue>,
    /// The first one is readable while a frame waits for the plane: there is one byte in it.
    ready: (UnixStream, UnixStream),
    waker: Waker,
    offloads: bool,
    /// The stack's thread waits for room in `outbound`.
    waits: AtomicBool,
    panicked: AtomicBool,
    lost: AtomicBool,
}

impl Wire {
    pub fn new(waker: Waker, offloads: bool) -> io::Result<Wire> {
        let ready = UnixStream::pair()?;
        ready.0.set_nonblocking(true)?;
        ready.1.set_nonblocking(true)?;
        Ok(Wire {
            outbound: Mutex::default(),
            inbound: Mutex::default(),
            ready,
            waker,
            offloads,
            waits: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            lost: AtomicBool::new(false),
        })
    }

    /// Wakes the stack's thread.
    pub fn wake(&self) {
        let _ = self.waker.wake();
    }

    /// Returns the bytes that the plane has room for.
    pub fn room(&self) -> usize {
        OUTBOUND.saturating_sub(lock(&self.outbound).bytes)
    }

    /// Returns whether there is no room; the thread is then woken when there is some again.
    pub fn is_full(&self) -> bool {
        let outbound = lock(&self.outbound);
        let full = outbound.bytes >= OUTBOUND;
        self.waits.store(full, Relaxed);
        full
    }

    pub fn send(&self, frames: Vec<Vec<u8>>) {
        if frames.is_empty() {
            return;
        }
        let mut outbound = lock(&self.outbound);
        if outbound.frames.is_empty() {
            let _ = write(&self.ready.1, &[0]);
        }
        frames.into_iter().for_each(|frame| outbound.push(frame));
    }

    pub fn receive(&self) -> VecDeque<Vec<u8>> {
        let mut inbound = lock(&self.inbound);
        inbound.bytes = 0;
        std::mem::take(&mut inbound.frames)
    }

    /// Passes a panic of the stack's thread on to the plane's, which reports and counts it.
    pub fn panicked(&self) {
        self.panicked.store(true, Relaxed);
        self.rouse();
    }

    /// Ends the link.
    pub fn lose(&self) {
        self.lost.store(true, Relaxed);
        self.rouse();
    }

    fn rouse(&self) {
        let outbound = lock(&self.outbound);
        if outbound.frames.is_empty() {
            let _ = write(&self.ready.1, &[0]);
        }
    }
}

impl Link for Wire {
    fn read(&self, frame: &mut [u8]) -> Frame {
        if self.lost.load(Relaxed) {
            return Frame::Lost;
        }
        if self.panicked.swap(false, Relaxed) {
            resume_unwind(Box::new("the stack's thread panicked"));
        }
        let mut outbound = lock(&self.outbound);
        let next = outbound.frames.pop_front();
        if outbound.frames.is_empty() {
            let _ = read(&self.ready.0, &mut [0; 8]);
        }
        let Some(next) = next else { return Frame::Nothing };
        outbound.bytes -= next.len();
        let wanted = outbound.bytes < OUTBOUND / 2 && self.waits.swap(false, Relaxed);
        drop(outbound);
        if wanted {
            self.wake();
        }
        frame[..next.len()].copy_from_slice(&next);
        Frame::Length(next.len())
    }

    fn write(&self, frame: &mut [u8]) {
        let mut inbound = lock(&self.inbound);
        if inbound.bytes >= INBOUND {
            return;
        }
        let first = inbound.frames.is_empty();
        inbound.push(frame.to_vec());
        drop(inbound);
        if first {
            self.wake();
        }
    }

    fn merges(&self, _: u64) -> (bool, bool) {
        (self.offloads, false)
    }

    fn refused_merges(&self) -> DropCounter<i32> {
        DropCounter::default()
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.0.as_fd()
    }
}
