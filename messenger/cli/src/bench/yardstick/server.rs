//! The answering end.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};

use super::Waiting;
use super::frame::Header;
use super::link::{Link, Pen};
use crate::bench::server::{Tally, msg_type};

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
/// Events taken from epoll at a time.
const EVENTS: usize = 256;
/// With so many connections or fewer, spinning reads sockets without asking epoll first.
pub(super) const SPIN_DIRECTLY: usize = 4;

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    addr: SocketAddr,
    ended: Arc<AtomicBool>,
    waker: Waker,
    thread: JoinHandle<io::Result<()>>,
}

impl Server {
    /// # Errors
    /// If the address cannot be served.
    pub(crate) fn start(addr: SocketAddr, waiting: Waiting) -> Result<Self> {
        let listen = || -> io::Result<_> {
            let poll = Poll::new()?;
            let mut listener = TcpListener::bind(addr)?;
            poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
            let waker = Waker::new(poll.registry(), WAKER)?;
            Ok((poll, listener, waker))
        };
        let (poll, listener, waker) =
            listen().with_context(|| format!("cannot serve on {addr}"))?;
        let addr = listener.local_addr()?;
        let ended = Arc::new(AtomicBool::new(false));
        let serving = Serving {
            poll,
            listener,
            waiting,
            links: HashMap::new(),
            next: WAKER.0 + 1,
            tally: Tally::new(),
            ended: Arc::clone(&ended),
        };
        let thread = std::thread::Builder::new().name("yardstick".into());
        let thread = thread.spawn(move || serving.run())?;
        Ok(Self { addr, ended, waker, thread })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// # Errors
    /// If it failed meanwhile.
    pub(crate) fn end(self) -> Result<()> {
        self.ended.store(true, Ordering::Release);
        self.waker.wake()?;
        Ok(self.thread.join().map_err(|_| anyhow!("the server panicked"))??)
    }
}

struct Serving {
    poll: Poll,
    listener: TcpListener,
    waiting: Waiting,
    links: HashMap<Token, Link>,
    next: usize,
    tally: Tally,
    ended: Arc<AtomicBool>,
}

impl Serving {
    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let timeout = (self.waiting == Waiting::Spin).then_some(Duration::ZERO);
        let mut turn = 0_u32;
        while !self.ended.load(Ordering::Relaxed) {
            turn = turn.wrapping_add(1);
            let few = self.waiting == Waiting::Spin && self.links.len() <= SPIN_DIRECTLY;
            if few && !self.links.is_empty() {
                let Self { links, tally, .. } = &mut self;
                links.retain(|_, link| serve(link, tally, false).is_ok());
                if !turn.is_multiple_of(1024) {
                    continue; // newcomers can wait
                }
            }
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    token => self.serve(token),
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let token = Token(self.next);
            self.next += 1;
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, token, interest)?;
            self.links.insert(token, Link::new(socket)?);
        }
    }

    fn serve(&mut self, token: Token) {
        if let Some(link) = self.links.get_mut(&token)
            && serve(link, &self.tally, true).is_err()
        {
            self.links.remove(&token); // the client left, or speaks something else
        }
    }
}

/// Takes what has come, to the last byte or once, and answers it.
fn serve(link: &mut Link, tally: &Tally, to_the_end: bool) -> io::Result<()> {
    if !link.is_flushed() {
        link.flush()?;
    }
    while link.read()? {
        link.take_frames(|header, payload, pen| answer(tally, header, payload, pen))?;
        link.flush()?;
        if !to_the_end {
            break;
        }
    }
    Ok(())
}

fn answer(tally: &Tally, header: Header, payload: &[u8], pen: &mut Pen<'_>) -> io::Result<()> {
    if header.kind == msg_type::CONTROL {
        let answer = tally.answer(payload, None).map_err(io::Error::other)?;
        return pen.write(header, &answer);
    }
    tally.add(payload.len());
    match header.kind {
        msg_type::ECHO => pen.write(header, payload),
        msg_type::PING => pen.write(header, b""),
        _ => Ok(()),
    }
}
