//! What counts as a difference, and which ones are explained.
//!
//! A difference is explained by an event if there is none without it: the script is played again
//! with all such events left out, or with something before them, and then both hosts must agree.

use crate::play::Outcome;
use crate::script::{Event, Mark, Say, Script};
use crate::segment::Flags;

/// Something in a script that makes hosts differ and is meant to, or is a known gap.
pub(crate) struct Cause {
    pub(crate) why: &'static str,
    /// What there is in place of an event; `None`: it is no cause.
    instead: fn(Event) -> Option<Vec<Event>>,
}

/// See `docs/tcp-conformance.md`. Each is tried alone, and together with those before it.
pub(crate) const CAUSES: &[Cause] = &[
    Cause { why: "a reset in the window, with another number than the next one", instead: inexact },
    Cause { why: "a reset with the number of the peer's FIN", instead: of_fin },
    Cause { why: "a close with bytes unread", instead: unread },
    Cause { why: "a FIN that has to wait for a closed window", instead: closed_window },
    Cause {
        why: "a segment that a stranger may have sent to a closed connection",
        instead: stranger,
    },
    Cause { why: "a FIN that came before its time", instead: early_fin },
    Cause { why: "a send that fails, after which the kernel tells of no reset", instead: send },
];

fn inexact(event: Event) -> Option<Vec<Event>> {
    matches!(event, Event::Say(Say { mark: Mark::InsideWindow, .. })).then(Vec::new)
}

fn of_fin(event: Event) -> Option<Vec<Event>> {
    matches!(event, Event::Say(Say { mark: Mark::OfFin, .. })).then(Vec::new)
}

fn unread(event: Event) -> Option<Vec<Event>> {
    matches!(event, Event::Close).then(|| vec![Event::Recv, Event::Close])
}

fn closed_window(event: Event) -> Option<Vec<Event>> {
    match event {
        Event::Say(say) if say.window == 0 => {
            Some(vec![Event::Say(Say { window: u16::MAX, ..say })])
        }
        _ => None,
    }
}

fn early_fin(event: Event) -> Option<Vec<Event>> {
    match event {
        Event::Say(say) if say.mark == Mark::EarlyFin => {
            Some(vec![Event::Say(Say { flags: Flags::ACK, mark: Mark::None, ..say })])
        }
        _ => None,
    }
}

fn send(event: Event) -> Option<Vec<Event>> {
    matches!(event, Event::Send(_)).then(Vec::new)
}

fn stranger(event: Event) -> Option<Vec<Event>> {
    match event {
        Event::Say(say) if say.ack_off > 0 || say.flags.has(Flags::SYN) => Some(Vec::new()),
        _ => None,
    }
}

impl Cause {
    /// The script without it; `None`: it is not in there.
    pub(crate) fn take_out(&self, script: &Script) -> Option<Script> {
        let has_it = script.events.iter().any(|event| (self.instead)(*event).is_some());
        let without = |event: &Event| match (self.instead)(*event) {
            Some(instead) => instead,
            None => vec![*event],
        };
        let events = script.events.iter().flat_map(without).collect();
        has_it.then(|| Script { events, ..script.clone() })
    }
}

/// In what two outcomes differ.
pub(crate) fn difference(ours: &Outcome, kernels: &Outcome) -> Option<&'static str> {
    let differences = [
        (ours.is_garbled, "stream that was sent, by us"),
        (kernels.is_garbled, "stream that was sent, by the kernel"),
        (ours.read != kernels.read, "stream that was read"),
        (ours.end != kernels.end, "end of the stream"),
        (ours.sent != kernels.sent, "number of bytes sent"),
        (ours.has_fin != kernels.has_fin, "FIN"),
        (ours.was_reset != kernels.was_reset, "reset"),
        (ours.state != kernels.state, "state at the end"),
    ];
    differences.into_iter().find(|(differs, _)| *differs).map(|(_, what)| what)
}
