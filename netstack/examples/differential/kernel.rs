//! The kernel's TCP as a host, in a network namespace of its own.
//!
//! ```text
//!   namespace A: raw socket --> lo --> kernel TCP at 10.98.0.1 --> veth --> namespace B: nothing
//!                                                                   |
//!                                            packet socket <--------'
//! ```
//!
//! The peer's address is nowhere. What it sends is written to a raw socket and takes the way of
//! packets to ourselves, which is not asked where its sender lives; what the kernel answers leaves
//! by a virtual cable, and is copied on its way.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::host::{HOST, Host, PEER, PORT, Read};
use crate::namespace::Namespace;
use crate::segment::{Flags, Segment};

/// All protocols, as a packet socket wants to be told (`ETH_P_ALL` in network order).
const ALL_PROTOCOLS: i32 = (3_u16.to_be()) as i32;
/// What a raw socket is called that is given whole packets (`IPPROTO_RAW`).
const WHOLE_PACKETS: i32 = 255;
/// A port of the peer for packets that are only there to be answered.
const BARRIER_PORT: u16 = 1;
/// Nobody listens there.
const CLOSED_PORT: u16 = 2;
/// Handshakes that scripts leave unfinished are not to hinder later ones.
const BACKLOG: i32 = 4096;
const PATIENCE: Duration = Duration::from_secs(5);

/// What both hosts are to have in common, and no limits on what they answer.
const SYSCTLS: &[(&str, &str)] = &[
    ("tcp_timestamps", "0"),
    ("tcp_ecn", "0"),
    ("tcp_syncookies", "0"),
    ("tcp_invalid_ratelimit", "0"),
    ("tcp_challenge_ack_limit", "2147483647"),
    ("tcp_max_tw_buckets", "200000"),
    ("tcp_max_syn_backlog", "100000"),
    ("tcp_fastopen", "0"),
    ("tcp_rfc1337", "1"),
];

/// Runs `body` where the kernel's TCP is alone with the peer.
pub(crate) fn inside<T: Send>(body: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    if !rustix::process::geteuid().is_root() {
        return Err(io::Error::other("this makes network namespaces and needs root"));
    }
    let [a, b] = ["differential-a", "differential-b"].map(Namespace::new);
    a.ip(&["link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", b.name()]);
    a.ip(&["addr", "add", &format!("{HOST}/24"), "dev", "v0"]);
    for (namespace, link) in [(&a, "lo"), (&a, "v0"), (&b, "v1")] {
        namespace.ip(&["link", "set", link, "up"]);
    }
    let peer = PEER.to_string();
    a.ip(&["neigh", "add", &peer, "lladdr", "02:00:00:00:00:02", "dev", "v0"]);
    a.inside(|| {
        for (name, value) in SYSCTLS {
            // Not every kernel has each of them for each namespace.
            let _ = fs::write(format!("/proc/sys/net/ipv4/{name}"), value);
        }
        body()
    })
}

/// Kernel TCP with one listener for all scripts.
pub(crate) struct Kernel {
    raw: Socket,
    copies: Socket,
    listener: TcpListener,
    stream: Option<Stream>,
    /// A call has told of a reset. The kernel tells it once, and then speaks of an end.
    was_reset: bool,
    sent: Vec<Vec<u8>>,
}

enum Stream {
    /// Only as far as we know.
    Opening(Socket),
    Open(TcpStream),
    Failed,
}

impl Kernel {
    pub(crate) fn new() -> io::Result<Self> {
        let copies = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(ALL_PROTOCOLS)))?;
        copies.set_nonblocking(true)?;
        copies.set_recv_buffer_size(1 << 22)?;
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(WHOLE_PACKETS)))?;
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        listener.bind(&SocketAddr::from(SocketAddrV4::new(HOST, PORT)).into())?;
        listener.set_out_of_band_inline(true)?;
        listener.listen(BACKLOG)?;
        listener.set_nonblocking(true)?;
        let listener = listener.into();
        Ok(Self { raw, copies, listener, stream: None, was_reset: false, sent: Vec::new() })
    }

    fn inject(&self, packet: &[u8]) {
        let to = SocketAddr::from(SocketAddrV4::new(HOST, 0));
        self.raw.send_to(packet, &to.into()).unwrap();
    }

    /// Takes the copies of what the host has sent; true: the answer to a barrier is among them.
    fn collect(&mut self) -> bool {
        let mut is_through = false;
        let mut buffer = vec![0; 1 << 16];
        while let Ok(len) = (&self.copies).read(&mut buffer) {
            let Some((from, to, _)) = Segment::read(&buffer[..len]) else { continue };
            if *from.ip() == HOST && to.port() == BARRIER_PORT {
                is_through = true;
            } else if *from.ip() == HOST {
                self.sent.push(buffer[..len].to_vec());
            }
        }
        is_through
    }

    /// Waits until the kernel has worked off what was injected: a last segment, to nobody, is
    /// answered with a reset.
    fn barrier(&mut self) {
        let (from, to) =
            (SocketAddrV4::new(PEER, BARRIER_PORT), SocketAddrV4::new(HOST, CLOSED_PORT));
        let syn = Segment { flags: Flags::SYN, ..Segment::default() };
        self.inject(&syn.packet(from, to));
        let end = Instant::now() + PATIENCE;
        loop {
            // Before the look: we may be stopped at any time, and the kernel goes on.
            let is_late = Instant::now() >= end;
            if self.collect() {
                return;
            }
            assert!(!is_late, "the kernel does not answer");
        }
    }

    /// Whether a connection that is being opened is open now, or has failed.
    fn look(&mut self) {
        if let Some(Stream::Opening(socket)) = &self.stream {
            if socket.peer_addr().is_ok() {
                if let Some(Stream::Opening(socket)) = self.stream.take() {
                    self.stream = Some(Stream::Open(socket.into()));
                }
            } else if socket.take_error().unwrap().is_some() {
                self.stream = Some(Stream::Failed);
            }
        }
    }
}

impl Host for Kernel {
    fn put(&mut self, packet: &[u8]) {
        self.inject(packet);
        self.barrier();
        self.look();
    }

    fn take(&mut self) -> Vec<Vec<u8>> {
        self.collect();
        std::mem::take(&mut self.sent)
    }

    fn accept(&mut self) {
        if self.stream.is_none()
            && let Ok((stream, _)) = self.listener.accept()
        {
            stream.set_nonblocking(true).unwrap();
            stream.set_nodelay(true).unwrap();
            self.stream = Some(Stream::Open(stream));
        }
    }

    fn connect(&mut self, to: SocketAddrV4) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.set_tcp_nodelay(true).unwrap();
        socket.set_out_of_band_inline(true).unwrap();
        let _under_way = socket.connect(&SocketAddr::from(to).into());
        self.stream = Some(Stream::Opening(socket));
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        match &mut self.stream {
            Some(Stream::Open(stream)) => {
                let is_reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
                let before = stream.peek(&mut [0]);
                let is_at_end = before.as_ref().is_ok_and(|len| *len == 0);
                let sent = stream.write(bytes);
                self.was_reset |= before.as_ref().err().is_some_and(is_reset)
                    || sent.as_ref().err().is_some_and(is_reset) && !is_at_end;
                sent.is_ok()
            }
            Some(Stream::Failed) => false,
            Some(Stream::Opening(_)) | None => true,
        }
    }

    fn recv(&mut self) -> Read {
        let mut buffer = vec![0; 1 << 16];
        match &mut self.stream {
            Some(Stream::Open(stream)) => match stream.read(&mut buffer) {
                Ok(0) if self.was_reset => Read::Reset,
                Ok(0) => Read::End,
                Ok(len) => Read::Bytes(buffer[..len].to_vec()),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => Read::Nothing,
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Read::Reset,
                    _ => Read::Other(error.to_string()),
                },
            },
            Some(Stream::Failed) => Read::Reset,
            Some(Stream::Opening(_)) | None => Read::Nothing,
        }
    }

    fn shutdown(&mut self) {
        if let Some(Stream::Open(stream)) = &self.stream {
            let _ended = stream.shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self, abort: bool) {
        self.was_reset = false;
        match self.stream.take() {
            Some(Stream::Open(stream)) if abort => {
                Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
            _ => {}
        }
    }
}
