//! Addresses of a messenger: bound, bound anew, or none at all.
//!
//! All workers listen at every address, or none does (contract M-9). A running messenger can move
//! to another port, or become another client, without a restart: that is a new identity, so every
//! session of the old one ends.

use super::{Life, Messenger, Phase};
use crate::connection::Connection;
use crate::error::Error;
use messenger_proto::{AddrType, EntityAddr, EntityAddrVec};
use netstack::stack::{ListenOptions, SocketError};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a new identity adds to the nonce (contract M-4).
const NONCE_STEP: u32 = 1_000_000;

/// An address we listen at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    /// Which protocol is spoken there; two of them share a socket if both are.
    pub(super) kind: AddrType,
    /// Where the workers listen.
    pub(super) local: SocketAddr,
    /// Where peers are told to come.
    pub(super) public: SocketAddr,
}

impl Messenger {
    /// Binds one more address on every worker; peers are accepted from `start` on. Port 0 stands
    /// for the first free one of `ms_bind_port_min` to `ms_bind_port_max`. Waits for the workers,
    /// and between tries for an explicit port that is in use. Returns all addresses of the
    /// messenger (M-7 to M-9). All workers bind or none.
    ///
    /// # Errors
    /// [`Error::Started`], [`Error::Bind`], [`Error::NoFreePort`], [`Error::OwnThread`] on a
    /// worker thread.
    pub fn bind(&self, addr: SocketAddr) -> Result<EntityAddrVec, Error> {
        self.bindv(&EntityAddr::v2(addr, 0).into(), None)
    }

    /// Binds several addresses, all or none (M-8). A blank one stands for any address of the family
    /// that `ms_bind_ipv6` chooses. The type of an address says which protocol is spoken there: two
    /// of one IP address and port make a listener that speaks either, as the peer's banner has it.
    /// Peers are told to come to `public` if that is given: the ports
    /// bound go to those of its addresses that have none, in their order; nonces are ours.
    ///
    /// # Errors
    /// As [`Messenger::bind`]; [`Error::AddrType`] for an address that is neither msgr2's nor msgr1's;
    /// [`Error::PublicAddrs`] if there are not as many public addresses as local ones.
    pub fn bindv(
        &self,
        addrs: &EntityAddrVec,
        public: Option<&EntityAddrVec>,
    ) -> Result<EntityAddrVec, Error> {
        self.in_setup(|_| ())?;
        if self.shell.runs_current_thread() {
            return Err(Error::OwnThread("bind"));
        }
        if let Some(addr) = addrs.iter().find(|addr| !AddrType::SPOKEN.contains(&addr.kind)) {
            return Err(Error::AddrType(*addr));
        }
        if public.is_some_and(|public| public.iter().count() != addrs.iter().count()) {
            return Err(Error::PublicAddrs);
        }
        let wanted = addrs.iter().map(|addr| addr.socket.unwrap_or_else(|| self.blank()));
        let locals = self.bind_all(&wanted.collect::<Vec<_>>(), None)?;
        let bound = locals.into_iter().zip(addrs.iter());
        let mut bound: Vec<Bound> =
            bound.map(|(local, addr)| Bound { kind: addr.kind, local, public: local }).collect();
        for (bound, public) in bound.iter_mut().zip(public.into_iter().flat_map(|p| p.iter())) {
            if let Some(socket) = public.socket {
                let port = if socket.port() == 0 { bound.local.port() } else { socket.port() };
                bound.public = SocketAddr::new(socket.ip(), port);
            }
        }
        self.in_setup(|life| life.bound.extend(bound))?;
        Ok(self.addrs())
    }

    /// Moves a running messenger to a new port: stops accepting, ends every connection with a
    /// reset, and binds each of its addresses to a free port that is neither in `avoid` nor one it
    /// had (M-10). Its nonce changes, so peers see a new incarnation. Returns the new addresses. If
    /// no port is free the messenger goes on without any.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::NoFreePort`], [`Error::Bind`], [`Error::OwnThread`] on a
    /// worker thread.
    pub fn rebind(&self, avoid: &[u16]) -> Result<EntityAddrVec, Error> {
        if self.shell.runs_current_thread() {
            return Err(Error::OwnThread("rebind"));
        }
        let endpoint = self.endpoint()?;
        let old = std::mem::take(&mut self.lock().bound);
        self.unlisten_and_wait(None);
        endpoint.registry.all().iter().for_each(Connection::close);
        let left: Vec<SocketAddr> = old.iter().map(|bound| bound.local).collect();
        let ports = left.iter().map(SocketAddr::port);
        let avoid: Vec<u16> = avoid.iter().copied().chain(ports).collect();
        let outcome = self.bind_all(&left, Some(&avoid));
        let bound = outcome.as_ref().map_or_else(
            |_| Vec::new(),
            |locals| {
                let moved = locals.iter().zip(&old).map(|(local, old)| Bound {
                    kind: old.kind,
                    local: *local,
                    public: SocketAddr::new(old.public.ip(), local.port()),
                });
                moved.collect()
            },
        );
        let addrs = self.renew(|life| life.bound = bound)?;
        self.shell.serve(&endpoint)?;
        outcome.map(|_| addrs)
    }

    /// Dials from this address from `start` on (M-11). Without effect unless
    /// `ms_bind_before_connect` is set, or if the messenger is bound already.
    ///
    /// # Errors
    /// [`Error::Started`] after `start`.
    pub fn client_bind(&self, addr: SocketAddr) -> Result<(), Error> {
        let wanted = self.config.ms_bind_before_connect;
        self.in_setup(|life| {
            if wanted && life.bound.is_empty() {
                life.connect_from = Some(addr);
            }
        })
    }

    /// Becomes a new incarnation: ends every connection with a reset and changes the nonce (M-12).
    /// Listeners stay.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn client_reset(&self) -> Result<(), Error> {
        self.endpoint()?.registry.all().iter().for_each(Connection::close);
        self.renew(|_| ()).map(|_| ())
    }

    /// Takes a new nonce, and tells the endpoint and the loopback connection about the addresses.
    fn renew(&self, change: impl FnOnce(&mut Life)) -> Result<EntityAddrVec, Error> {
        let endpoint = self.endpoint()?;
        let mut life = self.lock();
        if !matches!(life.phase, Phase::Running(_)) {
            return Err(Error::NotRunning);
        }
        change(&mut life);
        life.nonce = life.nonce.wrapping_add(NONCE_STEP).max(1);
        let addrs = life.addrs();
        endpoint.set_addrs(addrs.clone(), life.listening());
        drop(life); // the callback may call us
        endpoint.tell_loopback();
        Ok(addrs)
    }

    /// The blank address (M-7).
    fn blank(&self) -> SocketAddr {
        let any = match self.config.ms_bind_ipv6 {
            true => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            false => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        SocketAddr::new(any, 0)
    }

    /// Listens at each of the addresses, or at none, and says where. Told which ports to avoid it
    /// moves: to the same IP addresses, but other ports. What is wanted twice is bound once.
    fn bind_all(
        &self,
        wanted: &[SocketAddr],
        avoid: Option<&[u16]>,
    ) -> Result<Vec<SocketAddr>, Error> {
        let mut bound: Vec<SocketAddr> = Vec::new();
        for addr in wanted {
            let is_shared = |before: &SocketAddr| before == addr && addr.port() != 0;
            let outcome = match wanted[..bound.len()].iter().position(is_shared) {
                Some(at) => Ok(bound[at]),
                None if avoid.is_some() || addr.port() == 0 => {
                    self.bind_some_port(*addr, avoid.unwrap_or_default())
                }
                None => self.bind_port(*addr),
            };
            match outcome {
                Ok(local) => bound.push(local),
                Err(error) => {
                    bound.iter().for_each(|local| self.unlisten_and_wait(Some(*local)));
                    return Err(error);
                }
            }
        }
        Ok(bound)
    }

    fn bind_port(&self, addr: SocketAddr) -> Result<SocketAddr, Error> {
        let mut tries_left = self.config.ms_bind_retry_count;
        loop {
            match self.listen(addr) {
                Err(SocketError::AddressInUse(_)) if tries_left > 0 => {
                    tries_left -= 1;
                    self.shell.clock().sleep(self.config.ms_bind_retry_delay);
                }
                Ok(()) => return Ok(addr),
                Err(source) => return Err(Error::Bind { addr, source }),
            }
        }
    }

    fn bind_some_port(&self, mut addr: SocketAddr, avoid: &[u16]) -> Result<SocketAddr, Error> {
        let (min, max) = (self.config.ms_bind_port_min, self.config.ms_bind_port_max);
        for port in (min..=max).filter(|port| !avoid.contains(port)) {
            addr.set_port(port);
            match self.listen(addr) {
                Err(SocketError::AddressInUse(_)) => {}
                Ok(()) => return Ok(addr),
                Err(source) => return Err(Error::Bind { addr, source }),
            }
        }
        Err(Error::NoFreePort { ip: addr.ip(), min, max })
    }

    fn listen(&self, addr: SocketAddr) -> Result<(), SocketError> {
        let priority = self.lock().socket_priority;
        let options = ListenOptions { backlog: self.config.ms_tcp_listen_backlog, priority };
        self.shell.listen(addr, options)
    }

    fn unlisten_and_wait(&self, addr: Option<SocketAddr>) {
        for done in self.shell.unlisten(addr) {
            // No answer, no listener.
            let _ = self.shell.answer(&done);
        }
    }
}
