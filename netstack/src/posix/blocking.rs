//! Kernel sockets for callers that give each a thread: the options, rules and errors of the
//! worker's sockets, without the worker.
//!
//! ```text
//!   listen --> accept (never waits; poll the listener)  --> a stream that blocks
//!   connect -> finish_connect (waits, as long as told)  --> a stream that blocks
//! ```
//!
//! A thread that waits in `finish_connect`, `read` or `write` is woken by another thread's
//! [`TcpStream::shutdown`].

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::listen::ACCEPT_TRIES;
use super::net_handler::{Dial, NetHandler, Sharing};
use super::{PosixConfig, errno};
use crate::stack::{ConnectOptions, ListenOptions, SocketError};

/// Listens on `addr` alone.
///
/// # Errors
/// As [`Worker::listen`](crate::stack::Worker::listen).
pub fn listen(
    config: &PosixConfig,
    addr: SocketAddr,
    options: &ListenOptions,
) -> Result<TcpListener, SocketError> {
    let net = NetHandler::new(config.clone());
    let listening = net.listen(addr, options.backlog, Sharing::Alone);
    Ok(listening.map_err(|error| errno::of_bind(error, addr))?.into())
}

/// The oldest connection that waits on a listener made by [`listen`], and where it comes from.
///
/// # Errors
/// As [`Worker::accept`](crate::stack::Worker::accept): the listener is well, and a later call may
/// succeed.
pub fn accept(
    config: &PosixConfig,
    listener: &TcpListener,
    options: &ListenOptions,
) -> Result<Option<(TcpStream, SocketAddr)>, SocketError> {
    let net = NetHandler::new(config.clone());
    for _ in 0..ACCEPT_TRIES {
        match net.accept(listener, options.priority) {
            Ok((fd, from)) => {
                let stream = TcpStream::from(fd);
                stream.set_nonblocking(false)?;
                return Ok(Some((stream, from)));
            }
            Err(errno) if errno::died_in_backlog(errno) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(errno::of_machine(errno.into())),
        }
    }
    Err(SocketError::Io(io::ErrorKind::ConnectionAborted.into()))
}

/// Begins to connect. The stream is good for [`finish_connect`] only.
///
/// # Errors
/// As [`Worker::connect`](crate::stack::Worker::connect), and what the kernel knows at once.
pub fn connect(
    config: &PosixConfig,
    peer: SocketAddr,
    options: &ConnectOptions,
) -> Result<TcpStream, SocketError> {
    match NetHandler::new(config.clone()).connect(peer, options)? {
        Dial::UnderWay(fd) => Ok(fd.into()),
        Dial::Refused(_) => Err(SocketError::Refused),
    }
}

/// Waits until a stream from [`connect`] is open, and returns our end of it; from then on it
/// blocks. `None` if that took too long, or for no reason: the caller may wait again.
///
/// # Errors
/// As [`Worker::is_connected`](crate::stack::Worker::is_connected).
pub fn finish_connect(
    stream: &TcpStream,
    peer: SocketAddr,
    patience: Option<Duration>,
) -> Result<Option<SocketAddr>, SocketError> {
    let mut polled = [PollFd::new(stream, PollFlags::OUT)];
    // One that is too long to be told to the kernel is as good as none.
    let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
    match poll(&mut polled, patience.as_ref()) {
        Ok(0) | Err(Errno::INTR) => return Ok(None),
        Ok(_) => {}
        Err(errno) => return Err(SocketError::Io(errno.into())),
    }
    if let Some(error) = stream.take_error()? {
        return Err(errno::of_connect(error, peer));
    }
    if polled[0].revents().contains(PollFlags::HUP) {
        return Err(SocketError::Reset);
    }
    match stream.peer_addr() {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(None),
        Err(error) => return Err(errno::of_connect(error, peer)),
    }
    let local = stream.local_addr()?;
    // A port nobody listens on may be drawn as our own, and the kernel then connects the socket to
    // itself.
    if local == peer {
        return Err(SocketError::Refused);
    }
    stream.set_nonblocking(false)?;
    Ok(Some(local))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::Shutdown;

    const ANY: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

    /// As long as nothing needs, on any machine.
    const LONG: Option<Duration> = Some(Duration::from_secs(30));

    #[test]
    fn a_connection_carries_bytes_both_ways() {
        let config = PosixConfig::default();
        let listener = listen(&config, ANY.into(), &ListenOptions::default()).unwrap();
        let addr = listener.local_addr().unwrap();
        assert!(accept(&config, &listener, &ListenOptions::default()).unwrap().is_none());
        let mut near = connect(&config, addr, &ConnectOptions::default()).unwrap();
        let local = finish_connect(&near, addr, LONG).unwrap().unwrap();
        let (mut far, from) =
            accept(&config, &listener, &ListenOptions::default()).unwrap().unwrap();
        assert_eq!(local, from);
        near.write_all(b"ping").unwrap();
        let mut read = [0; 4];
        far.read_exact(&mut read).unwrap();
        far.write_all(&read).unwrap();
        near.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"ping");
    }

    #[test]
    fn an_address_has_one_listener() {
        let config = PosixConfig::default();
        let listener = listen(&config, ANY.into(), &ListenOptions::default()).unwrap();
        let addr = listener.local_addr().unwrap();
        let second = listen(&config, addr, &ListenOptions::default());
        assert!(matches!(second, Err(SocketError::AddressInUse(at)) if at == addr));
    }

    #[test]
    fn a_port_without_a_listener_refuses() {
        let config = PosixConfig::default();
        let listener = listen(&config, ANY.into(), &ListenOptions::default()).unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let outcome = connect(&config, addr, &ConnectOptions::default())
            .and_then(|near| finish_connect(&near, addr, LONG));
        assert!(matches!(outcome, Err(SocketError::Refused)));
    }

    #[test]
    fn a_shutdown_ends_a_wait() {
        let config = PosixConfig::default();
        let listener =
            listen(&config, ANY.into(), &ListenOptions { backlog: 1, priority: None }).unwrap();
        let addr = listener.local_addr().unwrap();
        // Beyond the backlog the kernel drops the SYNs, so these do not get anywhere.
        let crowd: Vec<_> =
            (0..8).map(|_| connect(&config, addr, &ConnectOptions::default()).unwrap()).collect();
        let stuck = crowd.last().unwrap();
        let none = finish_connect(stuck, addr, Some(Duration::from_millis(10)));
        assert!(matches!(none, Ok(None)), "{none:?}");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| finish_connect(stuck, addr, LONG));
            stuck.shutdown(Shutdown::Both).unwrap();
            assert!(waiting.join().unwrap().is_err());
        });
    }
}
