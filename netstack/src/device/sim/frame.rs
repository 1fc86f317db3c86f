//! Frames of the simulated network and the pools they return to.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex};

use super::lock;
use crate::device::{ChecksumState, Frame};

/// The buffers of one queue pair: a bounded number, all of one length. Freed ones are used again,
/// so a steady flow of frames allocates nothing.
///
/// Taking a frame is the queue pair's alone and costs no lock, except when its spare buffers are
/// used up and it collects those that were returned meanwhile.
#[derive(Debug)]
pub(super) struct Pool {
    spare: Vec<Box<[u8]>>,
    home: Arc<Home>,
    made: usize,
    made_max: usize,
    frame_len: usize,
}

/// Where frames return to, on whatever thread they are dropped.
#[derive(Debug, Default)]
struct Home(Mutex<Vec<Box<[u8]>>>);

impl Pool {
    pub(super) fn new(frames: usize, frame_len: usize) -> Self {
        Self { spare: Vec::new(), home: Arc::default(), made: 0, made_max: frames, frame_len }
    }

    /// A frame of `len` bytes; `None` if the pool has no more or `len` is too long.
    pub(super) fn take(&mut self, len: usize) -> Option<SimFrame> {
        if len > self.frame_len {
            return None;
        }
        if self.spare.is_empty() {
            mem::swap(&mut self.spare, &mut lock(&self.home.0));
        }
        let buffer = match self.spare.pop() {
            Some(buffer) => buffer,
            None if self.made == self.made_max => return None,
            None => {
                self.made += 1;
                vec![0; self.frame_len].into()
            }
        };
        let home = Arc::clone(&self.home);
        Some(SimFrame { buffer, len, checksum: ChecksumState::Unknown, home })
    }

    /// A copy of `frame`, if there is a buffer for it.
    pub(super) fn copy(&mut self, frame: &SimFrame) -> Option<SimFrame> {
        let mut copy = self.take(frame.len)?;
        copy.bytes_mut().copy_from_slice(frame.bytes());
        copy.checksum = frame.checksum;
        Some(copy)
    }

    /// Frames taken and not returned yet.
    pub(super) fn in_use(&self) -> usize {
        self.made - self.spare.len() - lock(&self.home.0).len()
    }
}

/// One frame of a simulated network. Dropping it returns it to the pool of the queue pair it was
/// made by, on whatever thread.
pub struct SimFrame {
    buffer: Box<[u8]>,
    len: usize,
    pub(super) checksum: ChecksumState,
    home: Arc<Home>,
}

impl Frame for SimFrame {
    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.len]
    }

    fn truncate(&mut self, len: usize) {
        debug_assert!(len <= self.len);
        self.len = self.len.min(len);
    }

    fn checksum(&self) -> ChecksumState {
        self.checksum
    }
}

impl Drop for SimFrame {
    fn drop(&mut self) {
        lock(&self.home.0).push(mem::take(&mut self.buffer));
    }
}

impl fmt::Debug for SimFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFrame")
            .field("len", &self.len)
            .field("checksum", &self.checksum)
            .finish_non_exhaustive()
    }
}
