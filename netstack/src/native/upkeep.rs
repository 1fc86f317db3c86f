//! What time brings: timers, the link, silent neighbours.

use std::net::IpAddr;
use std::time::Instant;

use smoltcp::socket::tcp::State;

use super::{LINK_CHECK_TICKS, NativeWorker, TIMERS_PER_TICK};
use crate::clock::Moment;
use crate::conn::{Fault, Phase};
use crate::device::PacketDevice;
use crate::wheel::NEVER;

impl<D: PacketDevice> NativeWorker<D> {
    /// What is due, looked at once a tick.
    pub(super) fn on_tick(&mut self, at: Moment) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.expire(at.tick, TIMERS_PER_TICK, &mut due);
        for slot in due.drain(..) {
            self.on_timer(at, slot);
        }
        self.due = due;
        while let Some(record) = self.time_wait.expired(at.tick) {
            self.end_time_wait(record);
        }
        if self.next_link_check <= at.tick {
            self.next_link_check = at.tick + LINK_CHECK_TICKS;
            self.watch_link(at);
        }
        let (front, mut queue) = self.wire.front_and_output(at.wall);
        if front.poll_timeout().is_some_and(|time| time <= at.wall) {
            front.handle_timeout(at.wall, &mut queue);
        }
        while let Some(neighbor) = self.wire.front_and_output(at.wall).0.unreachable() {
            self.on_unreachable(neighbor);
        }
    }

    /// When a turn is due though no frame arrives and nobody calls.
    pub(super) fn next_turn(&self, now: Instant) -> Option<Instant> {
        let has_parcels = self.steer.as_ref().is_some_and(|steer| !steer.is_empty());
        let is_new = self.tick == NEVER;
        if is_new || has_parcels || !self.news.is_empty() || self.wire.own_len() > 0 {
            return Some(now);
        }
        let clock = &self.wire.clock;
        let next_tick = clock.time_of(self.tick + 1)?;
        // The device or the share of a turn was too small; the first takes its time.
        let is_held_up = !self.touched.is_empty() || self.wire.has_unsent();
        let ticks = [
            self.wheel.next_deadline(),
            self.time_wait.next_expiry(),
            Some(self.next_link_check),
            is_held_up.then_some(self.tick + 1),
        ];
        let ticks = ticks.into_iter().flatten().min().and_then(|tick| clock.time_of(tick));
        let times = ticks.into_iter().chain(self.wire.front().poll_timeout());
        // Timers are looked at once a tick, those for losses once a fine one.
        let time = times.min().map(|time| time.max(next_tick));
        let repair = self.repairs.next_deadline().map(|tick| tick.max(self.fine_tick + 1));
        time.into_iter().chain(repair.and_then(|tick| clock.time_of_fine(tick))).min()
    }

    fn on_timer(&mut self, at: Moment, slot: u32) {
        let conn = self.conns.at(slot);
        conn.armed = NEVER;
        if conn.due > at.tick {
            return self.arm(slot);
        }
        if conn.deadline > at.tick {
            self.send_one(at, slot);
            return;
        }
        conn.deadline = NEVER;
        match conn.phase {
            Phase::Opening => self.fail(slot, Fault::TimedOut),
            Phase::HalfOpen => {
                self.counts.half_open_reaped += 1;
                self.remove(slot);
            }
            Phase::Orphan if conn.socket().state() == State::Closed => self.remove(slot),
            Phase::Orphan => {
                self.counts.linger_resets += 1;
                self.abort(at, slot);
            }
            Phase::Waiting | Phase::Open => {}
        }
    }

    /// On a rise of the link one worker announces our addresses: the switch may have forgotten
    /// which port we are on, and neighbours that we have another Ethernet address. While it is
    /// down, frames are dropped rather than kept for a peer that may be gone for ever.
    fn watch_link(&mut self, at: Moment) {
        let is_up = self.wire.device_mut().link_is_up();
        self.wire.set_link(is_up);
        match (std::mem::replace(&mut self.link_is_up, is_up), is_up) {
            (false, true) => {
                self.counts.link_ups += 1;
                if self.wire.device().info().queue == 0 {
                    let (front, mut queue) = self.wire.front_and_output(at.wall);
                    front.link_up(at.wall, &mut queue);
                }
            }
            (true, false) => self.counts.link_downs += 1,
            _ => {}
        }
    }

    /// Connections to be opened by way of a neighbour that does not answer have failed.
    fn on_unreachable(&mut self, neighbor: IpAddr) {
        let is_behind = |slot: &u32| {
            let peer = self.conns.get(*slot).map(|conn| conn.key.remote().ip());
            let route = peer.and_then(|peer| self.wire.front().route(peer));
            route.is_some_and(|route| route.next_hop == neighbor)
        };
        let failed: Vec<_> = self.opening.iter().copied().filter(is_behind).collect();
        for slot in failed {
            self.fail(slot, Fault::Unreachable);
        }
    }
}
