//! How a kernel socket is made: every option of it, in the order they have to be set (Ceph's word).
//!
//! ```text
//!   listen   socket, options, IPV6_V6ONLY, SO_REUSEADDR, (SO_REUSEPORT,) bind, listen
//!   accept   accept4; the options are the listener's, but for the priority
//!   connect  socket, options, priority, (SO_REUSEADDR, bind,) connect
//! ```
//!
//! All are non-blocking and not inherited by other programs. Nothing else in `posix` makes a
//! socket; what is done to one in use is in posix/conn.rs.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::{PosixConfig, errno, system};
use crate::stack::{ConnectOptions, SocketError};

/// Class selector 6, "network control", as the traffic class octet (RFC 2474 4.2.2).
const CLASS_CS6: u32 = 6 << 5;

/// With whom a listener shares its address; posix/listen.rs has the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// With nobody.
    Alone,
    /// It is the first of a group; others may join once it stands.
    Founds,
    /// It joins a group.
    Joins,
}

/// A connection that was begun.
#[derive(Debug)]
pub(super) enum Dial {
    /// The kernel will tell.
    UnderWay(OwnedFd),
    /// Refused at once; the owner is told as if it had happened later.
    Refused(OwnedFd),
}

/// Makes the sockets of one worker.
#[derive(Debug)]
pub(super) struct NetHandler {
    config: PosixConfig,
}

impl NetHandler {
    pub(super) fn new(config: PosixConfig) -> Self {
        Self { config }
    }

    /// A listening socket.
    pub(super) fn listen(
        &self,
        addr: SocketAddr,
        backlog: usize,
        sharing: Sharing,
    ) -> io::Result<OwnedFd> {
        let socket = self.socket(addr)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Lets a restart bind beside connections in TIME-WAIT; on Linux never beside a listener.
        socket.set_reuse_address(true)?;
        if sharing == Sharing::Joins {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&addr.into())?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        if sharing == Sharing::Founds {
            socket.set_reuse_port(true)?;
        }
        Ok(socket.into())
    }

    /// The oldest connection that waits. Its buffers, keepalive and timeouts are its listener's;
    /// Linux starts every connection with priority 0.
    pub(super) fn accept(
        &self,
        listener: impl AsFd,
        priority: Option<u32>,
    ) -> Result<(OwnedFd, SocketAddr), Errno> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (fd, peer) = acceptfrom_with(listener, flags)?;
        // BSDs hand out connections without an address, if they died in the backlog.
        let peer = peer.ok_or(Errno::CONNABORTED)?;
        let peer = SocketAddr::try_from(peer).map_err(|_| Errno::AFNOSUPPORT)?;
        set_priority(&fd, peer, priority);
        Ok((fd, peer))
    }

    /// Starts to connect to `peer`.
    pub(super) fn connect(
        &self,
        peer: SocketAddr,
        options: &ConnectOptions,
    ) -> Result<Dial, SocketError> {
        let socket = self.socket(peer).map_err(|error| errno::of_connect(error, peer))?;
        set_priority(&socket, peer, options.priority);
        if let Some(addr) = options.bind {
            socket
                .set_reuse_address(addr.port() != 0)
                .and_then(|()| socket.bind(&addr.into()))
                .map_err(|error| errno::of_bind(error, addr))?;
        }
        let Err(error) = socket.connect(&peer.into()) else {
            return Ok(Dial::UnderWay(socket.into()));
        };
        match Errno::from_io_error(&error) {
            Some(Errno::INPROGRESS) => Ok(Dial::UnderWay(socket.into())),
            Some(Errno::CONNREFUSED) => Ok(Dial::Refused(socket.into())),
            _ => Err(errno::of_connect(error, peer)),
        }
    }

    /// A new socket for the family of `addr`, with the options that all have.
    fn socket(&self, addr: SocketAddr) -> io::Result<Socket> {
        let config = &self.config;
        let kind = Type::STREAM.nonblocking();
        let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
        if config.nodelay {
            socket.set_tcp_nodelay(true)?;
        }
        if let Some(bytes) = config.rcvbuf {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(bytes) = config.sndbuf {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(after) = config.keepalive {
            let probes = TcpKeepalive::new().with_time(after).with_interval(after);
            socket.set_tcp_keepalive(&probes)?;
        }
        if let Some(after) = config.user_timeout {
            system::set_user_timeout(&SockRef::from(&socket), after)?;
        }
        Ok(socket)
    }
}

/// Marks what the socket sends for the queues of this host and of the network (contract M-30).
/// It is a wish: where the kernel does not grant it the socket goes on without.
fn set_priority(socket: impl AsFd, peer: SocketAddr, priority: Option<u32>) {
    let Some(priority) = priority else { return };
    let socket = SockRef::from(&socket);
    let class = match peer {
        SocketAddr::V4(_) => socket.set_tos_v4(CLASS_CS6),
        SocketAddr::V6(_) => socket.set_tclass_v6(CLASS_CS6),
    };
    // Last: Linux derives a priority from the class, too.
    let outcome = class.and_then(|()| system::set_priority(&socket, priority));
    if let Err(error) = outcome {
        tracing::debug!(%peer, priority, %error, "socket priority not granted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    fn handler() -> NetHandler {
        NetHandler::new(PosixConfig {
            rcvbuf: Some(64 << 10),
            sndbuf: Some(32 << 10),
            keepalive: Some(Duration::from_secs(7)),
            user_timeout: Some(Duration::from_secs(9)),
            ..PosixConfig::default()
        })
    }

    fn addr_of(fd: &OwnedFd) -> SocketAddr {
        SockRef::from(fd).local_addr().unwrap().as_socket().unwrap()
    }

    /// A connection over loopback: the calling end, the accepted end.
    fn connection(ip: std::net::IpAddr, priority: Option<u32>) -> [OwnedFd; 2] {
        let handler = handler();
        let any = SocketAddr::new(ip, 0);
        let listener = handler.listen(any, 4, Sharing::Alone).unwrap();
        assert_eq!(handler.accept(&listener, priority).unwrap_err(), Errno::AGAIN);
        let options = ConnectOptions { priority, ..ConnectOptions::default() };
        let Ok(Dial::UnderWay(near)) = handler.connect(addr_of(&listener), &options) else {
            panic!("somebody listens there");
        };
        loop {
            match handler.accept(&listener, priority) {
                Ok((far, peer)) => {
                    assert_eq!(peer, addr_of(&near));
                    return [near, far];
                }
                Err(errno) => assert_eq!(errno, Errno::AGAIN),
            }
        }
    }

    #[test]
    fn both_ends_have_every_option() {
        for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
            for end in connection(ip, None) {
                let socket = SockRef::from(&end);
                assert!(socket.nonblocking().unwrap());
                let flags = rustix::io::fcntl_getfd(&end).unwrap();
                assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
                assert!(socket.tcp_nodelay().unwrap());
                // Linux doubles what it is asked for.
                assert_eq!(socket.recv_buffer_size().unwrap(), 128 << 10);
                assert_eq!(socket.send_buffer_size().unwrap(), 64 << 10);
                assert!(socket.keepalive().unwrap());
                assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(7));
                assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(7));
                assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(9)));
                assert_eq!(socket.priority().unwrap(), 0);
            }
        }
    }

    #[test]
    fn m30_a_priority_marks_both_ends_and_their_packets() {
        for end in connection(Ipv4Addr::LOCALHOST.into(), Some(5)) {
            let socket = SockRef::from(&end);
            assert_eq!((socket.priority().unwrap(), socket.tos_v4().unwrap()), (5, CLASS_CS6));
        }
        for end in connection(Ipv6Addr::LOCALHOST.into(), Some(6)) {
            let socket = SockRef::from(&end);
            assert_eq!((socket.priority().unwrap(), socket.tclass_v6().unwrap()), (6, CLASS_CS6));
        }
    }

    #[test]
    fn an_ipv6_listener_leaves_ipv4_alone() {
        let handler = handler();
        let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
        let six = handler.listen(any, 4, Sharing::Alone).unwrap();
        assert!(SockRef::from(&six).only_v6().unwrap());
        let four = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), addr_of(&six).port());
        handler.listen(four, 4, Sharing::Alone).unwrap();
    }
}
