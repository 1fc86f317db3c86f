//! How a run ends well: everything arrives, everything works, nothing is left.

use super::World;
use crate::HostId;
use crate::application::Parcel;
use crate::history::Event;
use crate::label::Lane;
use std::time::Duration;

/// Time after healing within which everything that was not excused has arrived.
pub const DRAINED_WITHIN: Duration = Duration::from_secs(10);
/// The same once everything works: less than sessions may be idle, so what was sent has to be
/// acknowledged where it is, and does not leave by way of another reconnect.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(1);
/// Time in which inboxes that were full have room again.
const BREATH: Duration = Duration::from_millis(20);
/// Time after which sessions that lost their transport unawares have noticed.
const QUIET: Duration = Duration::from_secs(4);
/// Time after the last messenger within which TCP lets go of everything.
const CLOSED_WITHIN: Duration = Duration::from_secs(4);

const PROBE: Parcel =
    Parcel { lane: Lane { priority: 127, fast: false }, len: 100, wants_reply: true };

impl World {
    /// Waits until everything has arrived that has to, and no budget or queue is in use. Whoever
    /// can dial sends something first: a server waits for its client, who may have forgotten it.
    ///
    /// # Errors
    /// What is still missing after [`DRAINED_WITHIN`], or what happened that was not allowed.
    pub fn drain(&mut self) -> Result<(), String> {
        self.drain_within(DRAINED_WITHIN)
    }

    fn drain_within(&mut self, time: Duration) -> Result<(), String> {
        self.run(BREATH)?;
        for (from, to) in self.dialling_pairs() {
            self.send(from, to, PROBE);
        }
        let outcome = self.until(time, |world| world.first_undrained().is_none());
        outcome.map_err(|error| match self.first_undrained() {
            Some(what) => format!("not drained within {time:?}: {what}"),
            None => error,
        })?;
        self.note(Event::Drained);
        Ok(())
    }

    /// Everybody who can sends to everybody else; all of it has to arrive, replies too.
    ///
    /// # Errors
    /// As [`World::drain`].
    pub fn probe(&mut self) -> Result<(), String> {
        self.run(QUIET)?;
        for (from, to) in self.dialling_pairs() {
            let Some(label) = self.send(from, to, PROBE) else {
                return Err(format!("host {from} cannot send to host {to} after healing"));
            };
            let arrived = self.until(DRAINED_WITHIN, |world| world.history().has_arrived(&label));
            arrived.map_err(|error| format!("{error}: {label:?} has not arrived"))?;
        }
        self.drain_within(ACKNOWLEDGED_WITHIN)
    }

    /// Ends every messenger and looks for what is left.
    ///
    /// # Errors
    /// What is left.
    pub fn close(&mut self) -> Result<(), String> {
        for process in self.hosts.iter().filter_map(|host| host.process.as_ref()) {
            process.app.end();
            process.messenger.shutdown();
            process.messenger.wait().map_err(|error| error.to_string())?;
        }
        self.run(CLOSED_WITHIN)?;
        for (index, host) in self.hosts.iter().enumerate() {
            let left = host.process.as_ref().map(|process| process.left_over());
            if let Some(left) = left.filter(|left| !left.is_empty()) {
                return Err(format!("host {index} has left: {left:?}"));
            }
        }
        Ok(())
    }

    fn dialling_pairs(&self) -> Vec<(HostId, HostId)> {
        let cast = self.cast();
        let mut pairs = cast.pairs();
        pairs.retain(|(from, to)| !cast.policy_between(*from, *to).server);
        pairs
    }

    fn first_undrained(&self) -> Option<String> {
        let pending = self.history().pending();
        if pending > 0 {
            return Some(format!("{pending} messages have not arrived"));
        }
        let hosts = self.hosts.iter().enumerate();
        let mut processes = hosts.filter_map(|(index, host)| Some((index, host.process.as_ref()?)));
        processes.find_map(|(index, process)| {
            let in_use = process.in_use().into_iter().find(|(_, value)| *value > 0)?;
            Some(format!("host {index}: {} is {}", in_use.0, in_use.1))
        })
    }
}
