//! A host as a script sees it, and our own stack as one.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use netstack::IpCidr;
use netstack::device::sim::{SimDevice, SimNet, SimPort};
use netstack::device::{Burst, Frame, PacketDevice};
use netstack::native::{NativeConfig, NativeStack, NativeWorker};
use netstack::stack::{
    ConnectOptions, ConnectedSocket, EventDriver, ListenOptions, NetworkStack, Received,
    ServerSocket, SocketError, Worker,
};

use crate::segment;

/// The host under test.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);
/// The peer, which is nobody but the script.
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 2);
/// Where hosts listen.
pub(crate) const PORT: u16 = 6800;

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Bytes(Vec<u8>),
    Nothing,
    End,
    Reset,
    Other(String),
}

/// A TCP with one listener and one connection.
pub(crate) trait Host {
    /// A packet arrives.
    fn put(&mut self, packet: &[u8]);
    /// The packets that were sent since the last call.
    fn take(&mut self) -> Vec<Vec<u8>>;
    /// Takes a connection that waits, if there is none yet.
    fn accept(&mut self);
    fn connect(&mut self, to: SocketAddrV4);
    /// Sends, if there is a connection; false: the connection has failed.
    fn send(&mut self, bytes: &[u8]) -> bool;
    fn recv(&mut self) -> Read;
    fn shutdown(&mut self);
    fn close(&mut self, abort: bool);
}

/// Our stack, at one moment of simulated time.
pub(crate) struct Native {
    now: Instant,
    worker: NativeWorker<SimDevice>,
    wire: SimDevice,
    server: ServerSocket,
    socket: Option<ConnectedSocket>,
    sent: Vec<Vec<u8>>,
}

/// Turns without time passing after which a stack is at rest.
const TURNS: usize = 4;

impl Native {
    pub(crate) fn new(seed: u64) -> Self {
        let (_, devices) = SimNet::new(1, &[1, 2].map(SimPort::new));
        let mut devices = devices.into_iter().flatten();
        let (device, wire) = (devices.next().unwrap(), devices.next().unwrap());
        let config = NativeConfig {
            addrs: vec![IpCidr::new(HOST.into(), 24)],
            seed: Some(seed),
            max_connections: 16,
            max_time_wait: 16,
            ..NativeConfig::default()
        };
        let mut worker = NativeStack::new(vec![device], config).into_workers().unwrap().remove(0);
        let now = Instant::now();
        let at = SocketAddrV4::new(HOST, PORT).into();
        let server = worker.listen(now, at, &ListenOptions::default()).unwrap();
        Self { now, worker, wire, server, socket: None, sent: Vec::new() }
    }

    fn turn(&mut self) {
        let mut quiet = 0;
        while quiet < TURNS {
            self.worker.wait(self.now, Some(self.now), &mut Vec::new()).unwrap();
            self.worker.flush(self.now).unwrap();
            let mut burst = Burst::new();
            self.wire.rx_burst(self.now, &mut burst);
            quiet = if burst.is_empty() { quiet + 1 } else { 0 };
            for frame in burst {
                let bytes = frame.bytes();
                let mac = self.wire.info().mac;
                if let Some(answer) = segment::answer_arp(bytes, mac, PEER.octets()) {
                    self.put_frame(&answer);
                } else if let Some(packet) = segment::packet_of(bytes) {
                    assert!(segment::is_intact(packet), "our checksums are right");
                    self.sent.push(packet.to_vec());
                }
            }
        }
        self.now += Duration::from_nanos(1);
    }

    fn put_frame(&mut self, bytes: &[u8]) {
        let mut frame = self.wire.alloc(bytes.len()).expect("a frame for the peer");
        frame.bytes_mut().copy_from_slice(bytes);
        let mut burst = Burst::new();
        burst.push(frame);
        self.wire.tx_burst(self.now, &mut burst);
    }
}

impl Host for Native {
    fn put(&mut self, packet: &[u8]) {
        let frame = segment::frame(self.wire.info().mac, SimPort::new(1).mac, packet);
        self.put_frame(&frame);
        self.turn();
    }

    fn take(&mut self) -> Vec<Vec<u8>> {
        self.turn();
        std::mem::take(&mut self.sent)
    }

    fn accept(&mut self) {
        if self.socket.is_none() {
            let accepted = self.worker.accept(self.now, &self.server).unwrap();
            self.socket = accepted.map(|(socket, _)| socket);
        }
    }

    fn connect(&mut self, to: SocketAddrV4) {
        let socket = self.worker.connect(self.now, to.into(), &ConnectOptions::default());
        self.socket = Some(socket.unwrap());
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        let Some(socket) = &self.socket else { return true };
        let sent = self.worker.send(self.now, socket, &[IoSlice::new(bytes)], false);
        sent.is_ok()
    }

    fn recv(&mut self) -> Read {
        let Some(socket) = &self.socket else { return Read::Nothing };
        let mut buffer = vec![0; 1 << 16];
        match self.worker.recv(self.now, socket, &mut buffer) {
            Ok(Received::Bytes(len)) => Read::Bytes(buffer[..len].to_vec()),
            Ok(Received::WouldBlock) => Read::Nothing,
            Ok(Received::EndOfStream) => Read::End,
            Err(SocketError::Reset | SocketError::Refused) => Read::Reset,
            Err(error) => Read::Other(error.to_string()),
        }
    }

    fn shutdown(&mut self) {
        if let Some(socket) = &self.socket {
            let _ended = self.worker.shutdown(self.now, socket);
        }
    }

    fn close(&mut self, abort: bool) {
        if let Some(socket) = self.socket.take() {
            self.worker.close(self.now, socket, abort);
        }
    }
}
