//! What is done to a world, and how it is undone.

use super::World;
use crate::HostId;
use crate::history::Event;
use crate::host::host_of;
use crate::plan::Action;
use messenger::Connection;
use netstack::device::sim::Faults;

impl World {
    /// Does one thing of a plan.
    pub fn apply(&mut self, action: Action) {
        if !matches!(action, Action::Send { .. }) {
            self.note(Event::Fault(action));
        }
        match action {
            Action::Send { from, to, count, parcel } => {
                for _ in 0..count {
                    self.send(from, to, parcel);
                }
            }
            Action::Faults { host, faults } => self.setting.net.set_faults(host, faults),
            Action::Link { host, up } => self.setting.net.set_link(host, up),
            Action::Blocked { from, to, blocked } => {
                self.setting.net.set_blocked(from, to, blocked);
            }
            Action::Break { host, worker, pick } => {
                if let Some(process) = &self.hosts[host].process {
                    process.driven.break_transport(worker % self.hosts[host].frozen.len(), pick);
                }
            }
            Action::Freeze { host, worker, time } => {
                let until = self.now() + time;
                let frozen = &mut self.hosts[host].frozen;
                let worker = worker % frozen.len();
                frozen[worker] = Some(until);
            }
            Action::Stall { host, stalled } => self.hosts[host].stall(stalled),
            Action::Hoard { host, hoards } => self.hosts[host].hoard(hoards),
            Action::Keepalive { host, pick } => {
                if let Some(connection) = self.pick(host, pick) {
                    connection.send_keepalive();
                }
            }
            Action::MarkDown { host, pick, with_reset } => self.mark_down(host, pick, with_reset),
            Action::Stop { host } => self.hosts[host].stop(&self.setting.history),
            Action::Start { host } => {
                if self.hosts[host].process.is_none() {
                    self.start(host);
                }
            }
            Action::Tell { host, of } => self.tell(host, of),
        }
    }

    /// Ends all trouble: links carry, workers work, everybody runs and knows where the others are.
    pub fn heal(&mut self) {
        let hosts = 0..self.hosts.len();
        for host in hosts.clone() {
            let faults = Faults { delay: super::DELAY, ..Faults::default() };
            self.setting.net.set_faults(host, faults);
            self.setting.net.set_link(host, true);
            for to in hosts.clone() {
                self.setting.net.set_blocked(host, to, false);
            }
            self.hosts[host].frozen.fill(None);
            self.hosts[host].stall(false);
            self.hosts[host].hoard(false);
            self.apply(Action::Start { host });
        }
        hosts.for_each(|host| self.tell_all(host));
        self.note(Event::Healed);
    }

    /// Everybody learns where a host is now.
    pub(super) fn tell_all(&mut self, of: HostId) {
        (0..self.hosts.len()).for_each(|host| self.tell(host, of));
    }

    /// A host learns where another is now; with the process that was there before it has nothing
    /// to do any more.
    fn tell(&mut self, host: HostId, of: HostId) {
        if host == of {
            return;
        }
        let Some(addrs) = self.hosts[of].process.as_ref().map(|process| process.addrs()) else {
            return;
        };
        if let Some(process) = &self.hosts[host].process {
            let nonce = |addrs: &messenger::EntityAddrVec| addrs.first().map(|addr| addr.nonce);
            let is_old = |c: &&Connection| {
                let theirs = c.peer_addrs();
                let is_it = host_of(c) == Some(of)
                    || c.peer_name().is_none() && Some(&theirs) == self.beliefs[host][of].as_ref();
                is_it && nonce(&theirs) != nonce(&addrs)
            };
            process.app.connections().iter().filter(is_old).for_each(|c| process.app.mark_down(c));
        }
        self.beliefs[host][of] = Some(addrs);
    }

    fn mark_down(&self, host: HostId, pick: u64, with_reset: bool) {
        let Some(process) = &self.hosts[host].process else {
            return;
        };
        match self.pick(host, pick) {
            Some(connection) if with_reset => {
                process.app.forget(&connection);
                process.messenger.mark_down(&connection.peer_addrs());
            }
            Some(connection) => process.app.mark_down(&connection),
            None => {}
        }
    }

    /// One of the host's live connections, the `pick`-th modulo their number.
    fn pick(&self, host: HostId, pick: u64) -> Option<Connection> {
        let mut live = self.hosts[host].process.as_ref()?.app.connections();
        live.retain(|connection| !connection.is_down());
        let index = pick.checked_rem(live.len() as u64)?;
        Some(live.swap_remove(index as usize))
    }
}
