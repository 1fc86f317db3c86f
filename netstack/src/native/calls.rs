//! What the application calls between two turns. Nothing is sent before the turn's flush, but the
//! SYN of a new connection.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use smoltcp::socket::tcp::{RecvError, State};

use super::NativeWorker;
use crate::conn::{Phase, conn_slot};
use crate::device::PacketDevice;
use crate::flow::FlowKey;
use crate::stack::{
    ConnectOptions, ConnectedSocket, ListenOptions, Readiness, Received, ServerSocket, SocketError,
    TcpInfo, Worker,
};

impl<D: PacketDevice> Worker for NativeWorker<D> {
    fn start(&mut self) -> io::Result<()> {
        self.idle.start();
        self.wire.device_mut().start()
    }

    /// Listens on one of our addresses, or on all of a family if `addr` is unspecified: `[::]`
    /// does not take IPv4. The listener on a specific address comes first.
    fn listen(
        &mut self,
        _now: Instant,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> Result<ServerSocket, SocketError> {
        let addr = canonical(addr);
        if !addr.ip().is_unspecified() && !self.wire.front().is_local(addr.ip()) {
            return Err(SocketError::AddressNotAvailable(addr));
        }
        let at_port = |port| SocketAddr::new(addr.ip(), port);
        let port = match addr.port() {
            0 => {
                let start = self.ports.draw();
                self.ports.from(start, None).find(|port| !self.listeners.has(at_port(*port)))
            }
            port => Some(port),
        };
        let addr = at_port(port.ok_or(SocketError::Limit("ephemeral ports"))?);
        if self.listeners.has(addr) {
            return Err(SocketError::AddressInUse(addr));
        }
        let id = self.listeners.add(addr, options.backlog.max(1));
        id.map(ServerSocket).ok_or(SocketError::Limit("listening sockets"))
    }

    fn listen_addr(&self, socket: &ServerSocket) -> SocketAddr {
        self.listeners.get(socket.id().slot).expect("a handle names an open socket").addr
    }

    fn accept(
        &mut self,
        _now: Instant,
        socket: &ServerSocket,
    ) -> Result<Option<(ConnectedSocket, SocketAddr)>, SocketError> {
        let listener = self.listeners.get_mut(socket.id().slot);
        let listener = listener.expect("a handle names an open socket");
        let Some(slot) = listener.waiting.pop_front() else {
            return Ok(None);
        };
        self.counts.connections_accepted += 1;
        let conn = self.conns.at(slot);
        conn.phase = Phase::Open;
        let peer = conn.key.remote();
        let has_news = conn.socket().can_recv() || conn.has_peer_closed() || conn.fault.is_some();
        self.tell(slot, if has_news { Readiness::ALL } else { Readiness::WRITABLE });
        Ok(Some((ConnectedSocket(self.conns.id(slot)), peer)))
    }

    fn close_listener(&mut self, now: Instant, socket: ServerSocket) {
        let at = self.wire.clock.at(now);
        let listener = socket.id().slot;
        let is_its = |phase| matches!(phase, Phase::HalfOpen | Phase::Waiting);
        let its = self.conns.iter().filter(|(_, conn)| is_its(conn.phase));
        let its: Vec<_> = its
            .filter(|(_, conn)| u32::from(conn.listener) == listener)
            .map(|(slot, _)| slot)
            .collect();
        self.listeners.remove(listener);
        for slot in its {
            let conn = self.conns.at(slot);
            conn.phase = Phase::Orphan;
            if conn.detached {
                self.remove(slot);
            } else {
                self.abort(at, slot);
            }
        }
    }

    fn connect(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        options: &ConnectOptions,
    ) -> Result<ConnectedSocket, SocketError> {
        let at = self.wire.clock.at(now);
        if self.conns.is_full() {
            return Err(SocketError::Limit("connections"));
        }
        let key = self.choose_flow(peer, options)?;
        if !self.claim(&key) {
            return Err(SocketError::Limit("flow directory"));
        }
        let socket = self.sockets.socket();
        let slot = self.add_conn(key, Phase::Opening, socket, at.tick + self.limits.connect);
        self.wire.set_next_isn(self.secret.sequence_number(&key, at.micros));
        let is_connecting = self.wire.connect(self.conns.at(slot).parts().0, &key);
        if !is_connecting {
            self.remove(slot);
            return Err(SocketError::Unreachable(peer));
        }
        self.opening.insert(slot);
        // If the device takes nothing the SYN comes later; until then segments of the flow are
        // kept from the socket.
        self.send_one(at, slot);
        Ok(ConnectedSocket(self.conns.id(slot)))
    }

    fn is_connected(&mut self, socket: &ConnectedSocket) -> Result<bool, SocketError> {
        let conn = self.conns.at(conn_slot(socket.id()));
        match conn.fault {
            Some(fault) => Err(fault.to_error(conn.key.remote())),
            None => Ok(conn.phase != Phase::Opening),
        }
    }

    fn local_addr(&self, socket: &ConnectedSocket) -> Result<SocketAddr, SocketError> {
        let conn = self.conns.get(conn_slot(socket.id()));
        Ok(conn.expect("a handle names an open socket").key.local())
    }

    fn recv(
        &mut self,
        _now: Instant,
        socket: &ConnectedSocket,
        buffer: &mut [u8],
    ) -> Result<Received, SocketError> {
        let slot = conn_slot(socket.id());
        let conn = self.conns.at(slot);
        match conn.socket_mut().recv_slice(buffer) {
            Ok(0) => {
                conn.is_readable = false;
                Ok(Received::WouldBlock)
            }
            Ok(len) => {
                // The window may have opened enough to tell.
                self.touch(slot);
                Ok(Received::Bytes(len))
            }
            Err(RecvError::Finished) => Ok(Received::EndOfStream),
            Err(RecvError::InvalidState) => match conn.fault {
                Some(fault) => Err(fault.to_error(conn.key.remote())),
                None => {
                    conn.is_readable = false;
                    Ok(Received::WouldBlock)
                }
            },
        }
    }

    fn send(
        &mut self,
        _now: Instant,
        socket: &ConnectedSocket,
        gather: &[IoSlice<'_>],
        _more: bool,
    ) -> Result<usize, SocketError> {
        let slot = conn_slot(socket.id());
        let conn = self.conns.at(slot);
        if conn.shut {
            return Err(SocketError::Shutdown);
        }
        if let Some(fault) = conn.fault {
            return Err(fault.to_error(conn.key.remote()));
        }
        let mut sent = 0;
        for slice in gather {
            let taken = conn.socket_mut().send_slice(slice).unwrap_or(0);
            sent += taken;
            if taken < slice.len() {
                conn.wants_room = true;
                break;
            }
        }
        if sent > 0 {
            self.touch(slot);
        }
        Ok(sent)
    }

    fn shutdown(&mut self, _now: Instant, socket: &ConnectedSocket) -> Result<(), SocketError> {
        let slot = conn_slot(socket.id());
        let conn = self.conns.at(slot);
        if let Some(fault) = conn.fault {
            return Err(fault.to_error(conn.key.remote()));
        }
        // One that is not open yet is shut when it opens.
        if !std::mem::replace(&mut conn.shut, true) && conn.phase == Phase::Open {
            conn.socket_mut().close();
            self.touch(slot);
        }
        Ok(())
    }

    fn close(&mut self, now: Instant, socket: ConnectedSocket, abort: bool) {
        let at = self.wire.clock.at(now);
        let slot = conn_slot(socket.id());
        let linger = at.tick + self.limits.linger;
        // One given up in a simultaneous open is still here: nobody waits for it any more.
        self.opening.remove(&slot);
        let conn = self.conns.at(slot);
        conn.phase = Phase::Orphan;
        match conn.socket().state() {
            // The peer knows nothing of it, or nothing more.
            State::SynSent | State::Closed => self.remove(slot),
            _ if conn.detached => self.remove(slot),
            State::SynReceived => self.abort(at, slot),
            _ if abort => self.abort(at, slot),
            _ => {
                conn.discard();
                conn.socket_mut().close();
                self.limit(slot, linger);
                self.touch(slot);
            }
        }
    }

    fn flush(&mut self, now: Instant) -> io::Result<()> {
        let at = self.wire.clock.at(now);
        if self.send_touched(at) {
            self.idle.disturb();
        }
        self.wire.flush(now);
        Ok(())
    }

    fn tcp_info(&self, socket: &ConnectedSocket) -> Option<TcpInfo> {
        let slot = conn_slot(socket.id());
        let conn = self.conns.get(slot)?;
        Some(TcpInfo {
            round_trip: conn.recovery.round_trip(),
            congestion_window_bytes: conn.recovery.congestion_window(),
            unacked_bytes: conn.recovery.outstanding(),
            send_queue_bytes: conn.socket().send_queue(),
            recv_queue_bytes: conn.socket().recv_queue(),
            segments_resent: self.conns.resent(slot),
        })
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let wire = self.wire.counts();
        let front = self.wire.front();
        let mut counters = self.counts.named().to_vec();
        counters.extend([
            ("dpdk_send_packets", wire.tx_frames),
            ("dpdk_send_bytes", wire.tx_bytes),
            ("tx_queue_full_drops", wire.tx_full),
            ("tx_link_down_drops", wire.link_down_drops),
            ("reply_no_frame_drops", wire.no_frame_drops),
            ("own_frame_drops", wire.own_drops),
            ("connection_panics", wire.panics),
            ("resets_sent", wire.resets_sent),
            ("segments_resent", wire.segments_resent),
            ("keepalives_sent", wire.keepalives_sent),
            ("zero_windows_sent", wire.zero_windows_sent),
            ("frame_alloc_failures", wire.alloc_failures),
            ("dpdk_send_last_bunch", wire.tx_last_burst),
            ("dpdk_send_queue_length", self.wire.queue_len() as u64),
            ("dpdk_receive_bad_checksum_errors", front.bad_checksums()),
            ("connections_in_use", self.conns.len() as u64),
            ("half_open_in_use", self.listeners.half_open() as u64),
            ("flows_in_use", self.flows.len() as u64),
            ("time_wait_in_use", self.time_wait.len() as u64),
            ("timers_in_use", (self.wheel.len() + self.repairs.len()) as u64),
            ("naps", self.idle.naps()),
            ("frames_in_use", self.wire.device().frames_in_use()),
        ]);
        counters.extend(front.counters());
        counters.extend(self.wire.device().counters());
        counters
    }
}

impl<D: PacketDevice> NativeWorker<D> {
    /// The flow of a connection to be opened: the application's wishes, the route, a free port.
    fn choose_flow(
        &mut self,
        peer: SocketAddr,
        options: &ConnectOptions,
    ) -> Result<FlowKey, SocketError> {
        let peer = canonical(peer);
        let unreachable = SocketError::Unreachable(peer);
        if peer.port() == 0 || peer.ip().is_unspecified() {
            return Err(unreachable);
        }
        let Some(route) = self.wire.front().route(peer.ip()) else {
            return Err(unreachable);
        };
        let bind = options.bind.map(canonical).filter(|bind| !bind.ip().is_unspecified());
        let local = bind.map_or(route.source, |bind| bind.ip());
        if let Some(bind) = bind
            && (!self.wire.front().is_local(local) || local.is_ipv4() != peer.is_ipv4())
        {
            return Err(SocketError::AddressNotAvailable(bind));
        }
        match options.bind.map_or(0, |bind| bind.port()) {
            0 => self.choose_port(local, peer),
            port => {
                let local = SocketAddr::new(local, port);
                let key = FlowKey::new(local, peer);
                if self.is_taken(&key) { Err(SocketError::AddressInUse(local)) } else { Ok(key) }
            }
        }
    }

    fn choose_port(&mut self, local: IpAddr, peer: SocketAddr) -> Result<FlowKey, SocketError> {
        let key = |port| FlowKey::new(SocketAddr::new(local, port), peer);
        let start = self.ports.draw();
        let mut ports = self.ports.from(start, Some((local, peer)));
        let port = ports.find(|port| !self.is_taken(&key(*port)));
        port.map(key).ok_or(SocketError::Limit("ephemeral ports"))
    }

    fn is_taken(&self, key: &FlowKey) -> bool {
        let is_siblings = self.steer.as_ref().is_some_and(|steer| steer.other_owner(key).is_some());
        is_siblings || self.find(self.flows.hash(key), key).is_some()
    }
}

/// An IPv4 address in IPv6 clothes is an IPv4 address.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
