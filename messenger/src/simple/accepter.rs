//! A listening socket with a thread of its own (Ceph's word: Accepter).
//!
//! ```text
//!   bind ---> start: the thread polls {listening socket, stop pipe} ---> stop: the pipe closes
//!                      |  accepted                                        the thread ends
//!                      v
//!                    a pipe
//! ```
//!
//! A failing accept does not end anything: the thread pauses, longer each time, and tries again
//! (contract M-31, the fix).

use super::{Pipe, Simple};
use crate::endpoint::Endpoint;
use crate::worker_loop::{FIRST_PAUSE, LONGEST_PAUSE};
use netstack::posix::{PosixConfig, blocking};
use netstack::stack::{ListenOptions, SocketError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io::{self, PipeReader, PipeWriter};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Accepter {
    addr: SocketAddr,
    options: ListenOptions,
    listener: TcpListener,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    /// Its end tells the thread to stop.
    stop: PipeWriter,
    /// Ends when the thread has closed its socket.
    closed: Receiver<()>,
}

impl Accepter {
    /// Listens; nobody is accepted before [`Accepter::start`].
    pub(super) fn bind(
        config: &PosixConfig,
        addr: SocketAddr,
        options: ListenOptions,
    ) -> Result<Self, SocketError> {
        let listener = blocking::listen(config, addr, &options)?;
        Ok(Self { addr: listener.local_addr()?, options, listener, running: None })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Accepts for `endpoint` from now.
    pub(super) fn start(
        &mut self,
        simple: &Arc<Simple>,
        endpoint: &Arc<Endpoint>,
    ) -> io::Result<()> {
        let (stopped, stop) = io::pipe()?;
        let (closing, closed) = channel();
        let thread = Thread {
            listener: self.listener.try_clone()?,
            addr: self.addr,
            options: self.options,
            simple: Arc::clone(simple),
            endpoint: Arc::clone(endpoint),
            stopped,
            _closing: closing,
        };
        simple.threads.spawn("ms_accepter", move || thread.run())?;
        self.running = Some(Running { stop, closed });
        Ok(())
    }

    /// Stops. What is returned ends when the address is free; does not wait for that.
    pub(super) fn stop(self) -> Option<Receiver<()>> {
        let Running { stop, closed } = self.running?;
        drop(stop);
        Some(closed)
    }
}

/// The thread's side. Its fields go in this order: the socket first, then who waits is told.
struct Thread {
    listener: TcpListener,
    addr: SocketAddr,
    options: ListenOptions,
    simple: Arc<Simple>,
    endpoint: Arc<Endpoint>,
    stopped: PipeReader,
    _closing: Sender<()>,
}

impl Thread {
    fn run(self) {
        let mut pause = FIRST_PAUSE;
        while self.wait(Some(self.listener.as_fd()), None) {
            match blocking::accept(&self.simple.options, &self.listener, &self.options) {
                Ok(None) => {}
                Ok(Some((stream, from))) => {
                    pause = FIRST_PAUSE;
                    Pipe::accept(&self.simple, &self.endpoint, stream, from);
                }
                Err(error) => {
                    self.simple.count(|counters| counters.accept_failures += 1);
                    tracing::warn!(addr = %self.addr, %error, ?pause, "cannot accept");
                    if !self.wait(None, Some(pause)) {
                        return;
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Waits for a connection or the time to be over; `false` if it was told to stop.
    fn wait(&self, listener: Option<BorrowedFd<'_>>, limit: Option<Duration>) -> bool {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut polled = vec![PollFd::new(&self.stopped, PollFlags::IN)];
        polled.extend(listener.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match poll(&mut polled, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => polled[0].revents().is_empty(),
            Err(errno) => {
                tracing::error!(addr = %self.addr, %errno, "cannot wait for connections");
                false
            }
        }
    }
}
