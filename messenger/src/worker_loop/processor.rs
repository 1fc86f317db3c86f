//! A listening socket of one messenger on one worker (Ceph's word: Processor).
//!
//! Bound early, accepting from `start` on. A failing accept does not end anything: the listener
//! pauses, longer each time, and tries again (contract M-31, the fix).

use super::{ListenerOwner, Target, Tools};
use crate::endpoint::Endpoint;
use netstack::stack::{
    ConnectedSocket, ListenOptions, Readiness, ServerSocket, SocketError, Worker,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After the first failure to accept.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// However many failures follow.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Processor {
    socket: ServerSocket,
    addr: SocketAddr,
    owner: ListenerOwner,
    /// Whom accepted connections are for; none before `start`.
    endpoint: Option<Arc<Endpoint>>,
    /// How long the next failure pauses accepting.
    pause: Duration,
}

/// A connection fresh from a listener.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: ConnectedSocket,
    pub(crate) from: SocketAddr,
    pub(crate) endpoint: Arc<Endpoint>,
}

impl Processor {
    /// Listens; nothing is accepted before [`Processor::serve`]. Also says on which address.
    pub(crate) fn listen<W: Worker>(
        now: Instant,
        key: usize,
        owner: ListenerOwner,
        addr: SocketAddr,
        options: &ListenOptions,
        tools: &mut Tools<W>,
    ) -> Result<(Self, SocketAddr), SocketError> {
        let socket = tools.worker.listen(now, addr, options)?;
        let addr = tools.worker.listen_addr(&socket);
        let target = Target::Processor(key);
        tools.center.watch(socket.id(), Readiness::NONE, target);
        let processor = Self { socket, addr, owner, endpoint: None, pause: FIRST_PAUSE };
        Ok((processor, addr))
    }

    pub(crate) fn owner(&self) -> ListenerOwner {
        self.owner
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Accepts for `endpoint` from now.
    pub(crate) fn serve<W>(&mut self, key: usize, endpoint: Arc<Endpoint>, tools: &mut Tools<W>) {
        self.endpoint = Some(endpoint);
        let (id, target) = (self.socket.id(), Target::Processor(key));
        tools.center.watch(id, Readiness::READABLE, target);
        // The driver tells when a connection comes, not when one waits already.
        tools.center.again(id, Readiness::READABLE);
    }

    /// The oldest connection that waits.
    pub(crate) fn accept<W: Worker>(
        &mut self,
        now: Instant,
        key: usize,
        tools: &mut Tools<W>,
    ) -> Option<Accepted> {
        let endpoint = Arc::clone(self.endpoint.as_ref()?);
        match tools.worker.accept(now, &self.socket) {
            Ok(waiting) => {
                self.pause = FIRST_PAUSE;
                let (socket, from) = waiting?;
                Some(Accepted { socket, from, endpoint })
            }
            Err(error) => {
                tools.counters.accept_failures += 1;
                tracing::warn!(addr = %self.addr, %error, pause = ?self.pause, "cannot accept");
                let target = Target::Processor(key);
                tools.center.add_timer(now + self.pause, target);
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                None
            }
        }
    }

    /// More connections may wait than a turn allows.
    pub(crate) fn stop_early<W>(&self, tools: &mut Tools<W>) {
        tools.center.again(self.socket.id(), Readiness::READABLE);
    }

    pub(crate) fn close<W: Worker>(self, now: Instant, tools: &mut Tools<W>) {
        tools.center.unwatch(self.socket.id());
        tools.worker.close_listener(now, self.socket);
    }
}
