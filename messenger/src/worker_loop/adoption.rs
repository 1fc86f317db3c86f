//! A peer comes back on a new TCP connection: its old session decides, and may take the new
//! transport over, across workers if need be (contracts L-4 to L-7).
//!
//! ```text
//!   newcomer's worker                home of the old session      where the old session is
//!     Ident -> registry: taken --Judge-->  (passed on)  -----------> Decision::about
//!     resolve <-------------------------------------------Resolve---- an answer, or
//!     adopt  <--------------------------------------------Adopt------ the session itself
//! ```
//!
//! Sockets cannot move, sessions can: they are values.

use super::command::{Ask, Command, Newcomer};
use super::peer::Peer;
use super::{Worker, WorkerLoop};
use crate::connection::Connection;
use messenger_proto::{Decision, Verdict};
use std::sync::Arc;
use std::time::Instant;

impl<W: Worker> WorkerLoop<W> {
    /// The session behind `existing`, if it is still there, decides about a newcomer.
    pub(super) fn judge(&mut self, now: Instant, existing: &Connection, newcomer: Newcomer) {
        let Newcomer { connection, ident } = newcomer;
        let Some(key) = existing.slot().filter(|_| !existing.is_down()) else {
            connection.tell_home(Ask::Introduce(ident));
            // Told to end is not ended: what ends it may be among the commands its home holds.
            return self.report(existing, existing.slot().is_some());
        };
        let mut decision = Decision::Replace;
        self.with_peer(key, |peer, _| {
            decision = Decision::about(&ident, Some(peer.session()));
            if decision == Decision::WaitForOurs {
                peer.send_keepalive(now);
            }
        });
        match decision {
            Decision::Answer(verdict) => connection.tell_home(Ask::Resolve(verdict)),
            Decision::WaitForOurs => connection.tell_home(Ask::Resolve(Verdict::Wait)),
            Decision::Replace => {
                tracing::debug!(older = %existing, newer = %connection, "replaced by its peer");
                existing.close();
                connection.tell_home(Ask::Introduce(ident));
            }
            Decision::Adopt if connection.is_home(&self.tools.gate) => {
                self.adopt_here(now, key, &connection);
            }
            Decision::Adopt => return self.send_off(now, key, existing, connection),
        }
        self.report(existing, true);
    }

    /// A session arrives from another worker to take the newcomer's transport over.
    pub(super) fn arrive(&mut self, now: Instant, mut peer: Peer, newcomer: &Connection) {
        let slot = self.peers.vacant_entry();
        let key = slot.key();
        peer.settle_in(key, &self.tools);
        slot.insert(peer);
        self.adopt_here(now, key, newcomer);
    }

    /// Does what was held back for a session that is here again, or gone. One of these commands may
    /// move the session off once more, so each of them looks where it is.
    pub(super) fn catch_up(&mut self, now: Instant, connection: &Connection, held: Vec<Ask>) {
        for ask in held {
            self.route(now, connection.clone(), ask);
        }
    }

    fn send_off(&mut self, now: Instant, key: usize, existing: &Connection, newcomer: Connection) {
        let mut peer = self.peers.remove(key);
        peer.move_out(now, &mut self.tools);
        let to = Arc::clone(newcomer.home());
        tracing::debug!(connection = %existing, from = self.tools.gate.index(), to = to.index(),
            "session moves to where its peer came back");
        to.post(Command::Adopt(Box::new(peer), newcomer));
        if existing.is_home(&self.tools.gate) {
            self.away.went(existing.clone(), to);
        } else {
            let home = existing.home();
            home.post(Command::Whereabouts(existing.clone(), Some(to)));
        }
    }

    /// The session at `key` takes over the newcomer's transport, if that is still there.
    fn adopt_here(&mut self, now: Instant, key: usize, newcomer: &Connection) {
        let can_donate = |slot: &usize| self.peers.get(*slot).is_some_and(Peer::can_donate);
        let donor = newcomer.slot().filter(can_donate);
        let donation = donor.and_then(|slot| self.peers.remove(slot).donate(&mut self.tools));
        self.with_peer(key, |peer, tools| match donation {
            Some(donation) => peer.adopt(now, donation, tools),
            None => peer.lose_transport(now, tools),
        });
    }

    /// Tells a session's home where it is after a decision, or that it has ended.
    fn report(&self, connection: &Connection, lives: bool) {
        if !connection.is_home(&self.tools.gate) {
            let at = lives.then(|| Arc::clone(&self.tools.gate));
            let home = connection.home();
            home.post(Command::Whereabouts(connection.clone(), at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::connection::Flag;
    use crate::dispatcher::Dispatchers;
    use crate::endpoint::bench;
    use crate::worker_loop::Dial;
    use messenger_proto::{EntityAddr, EntityType};
    use netstack::posix::{PosixConfig, PosixStack, PosixWorker};
    use netstack::stack::NetworkStack;

    /// A worker nobody runs, with one session whose home is another worker, and that home.
    fn session_away_from_home() -> (WorkerLoop<PosixWorker>, Connection) {
        let endpoint = bench::endpoint(Dispatchers::default());
        let [home, here] = [0, 1].map(bench::gate);
        let mut workers = PosixStack::new(PosixConfig::default()).into_workers().unwrap();
        let mut worker = WorkerLoop::new(workers.remove(0), here, Clock::real(), 1);
        let connection = bench::connection(&endpoint, &home);
        worker.tools.gate.add_reference();
        let dial = Dial {
            connection: connection.clone(),
            endpoint,
            peer_type: EntityType::Osd,
            target: EntityAddr::v2("127.0.0.1:1".parse().unwrap(), 1),
        };
        worker.dial(Instant::now(), dial);
        (worker, connection)
    }

    fn newcomer() -> Newcomer {
        let endpoint = bench::endpoint(Dispatchers::default());
        let connection = bench::connection(&endpoint, &bench::gate(2));
        let ident = Box::new(bench::ident());
        Newcomer { connection, ident }
    }

    /// What the home of `connection` was told last.
    fn told_home(connection: &Connection) -> Command {
        let told = std::iter::from_fn(|| connection.home().inbox().take());
        told.last().expect("a decision is reported")
    }

    #[test]
    fn a_session_told_to_end_is_still_reported_where_it_is() {
        let (mut worker, existing) = session_away_from_home();
        existing.raise(Flag::Closing);
        worker.judge(Instant::now(), &existing, newcomer());
        let Command::Whereabouts(_, Some(at)) = told_home(&existing) else {
            panic!("its home would act on a slot of another worker's table");
        };
        assert!(Arc::ptr_eq(&at, &worker.tools.gate));
    }

    #[test]
    fn a_session_that_ended_is_reported_gone_and_the_newcomer_asks_again() {
        let (mut worker, existing) = session_away_from_home();
        let key = existing.slot().unwrap();
        worker.peers.remove(key).leave(Instant::now(), &mut worker.tools);
        let newcomer = newcomer();
        let connection = newcomer.connection.clone();
        worker.judge(Instant::now(), &existing, newcomer);
        assert!(matches!(told_home(&existing), Command::Whereabouts(_, None)));
        let asked = told_home(&connection);
        assert!(matches!(asked, Command::Session(_, Ask::Introduce(_))));
    }

    /// A decision among held commands may move the session off; the rest must follow it.
    #[test]
    fn what_was_held_follows_a_session_that_leaves_while_catching_up() {
        let (mut worker, connection) = session_away_from_home();
        let next = bench::gate(3);
        worker.away.went(connection.clone(), Arc::clone(&next));
        let held = vec![Ask::Keepalive, Ask::MarkDown];
        worker.catch_up(Instant::now(), &connection, held);
        let passed_on = std::iter::from_fn(|| next.inbox().take()).count();
        assert_eq!(passed_on, 2);
    }
}
