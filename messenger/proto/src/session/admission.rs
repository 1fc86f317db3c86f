//! The three gates a message passes before its body is read (contract T-1).
//!
//! ```text
//!   policy messages (1) -> policy bytes (n) -> dispatch bytes (n) -> read the body
//! ```
//! A closed gate stops the session's reading, so that TCP pushes back; the throttle calls the
//! session's unblock callback when the gate opened. Giving up in between returns exactly what the
//! gates behind gave (T-5), because that is what dropping permits does.
//!
//! A compressed message passes with its length on the wire. What it grows by when it is unpacked is
//! added without waiting: who waited with a share in its hands could wait for another one who does.

use std::sync::Arc;
use std::time::Instant;

use crate::message::{MessagePermits, ReceiveStamps};
use crate::policy::Policy;
use crate::throttle::{Permit, Throttle, Unblock, Waiting};

/// A message on its way through the gates.
#[derive(Debug)]
pub(super) struct Admission {
    /// What bytes it takes at the gates: those on the wire.
    pub(super) wire_len: u64,
    pub(super) stamps: ReceiveStamps,
    pub(super) permits: MessagePermits,
    gates: [Gate; 3],
}

#[derive(Debug)]
enum Gate {
    Ahead(Arc<Throttle>, u64),
    Closed(Waiting),
    Behind,
}

impl Gate {
    fn new(throttle: Option<&Arc<Throttle>>, amount: u64) -> Self {
        match throttle {
            Some(throttle) if amount > 0 => Self::Ahead(Arc::clone(throttle), amount),
            _ => Self::Behind,
        }
    }

    /// Tries to pass. The permit if it was got now; an error if the gate is closed.
    fn pass(&mut self, now: Instant, unblock: &Unblock) -> Result<Option<Permit>, ()> {
        let passed = match std::mem::replace(self, Self::Behind) {
            Self::Behind => return Ok(None),
            Self::Ahead(throttle, amount) => throttle.acquire_or_wait(now, amount, unblock),
            Self::Closed(waiting) => waiting.poll(now),
        };
        match passed {
            Ok(permit) => Ok(Some(permit)),
            Err(waiting) => {
                *self = Self::Closed(waiting);
                Err(())
            }
        }
    }
}

impl Admission {
    /// A message with so many bytes of payload on the wire.
    pub(super) fn new(
        now: Instant,
        len: u64,
        policy: &Policy,
        dispatch: Option<&Arc<Throttle>>,
    ) -> Self {
        Self {
            wire_len: len,
            stamps: ReceiveStamps { recv: Some(now), ..ReceiveStamps::default() },
            permits: MessagePermits::default(),
            gates: [
                Gate::new(policy.throttle_messages.as_ref(), 1),
                Gate::new(policy.throttle_bytes.as_ref(), len),
                Gate::new(dispatch, len),
            ],
        }
    }

    /// Goes on as far as the gates are open. True when all are behind.
    pub(super) fn advance(&mut self, now: Instant, unblock: &Unblock) -> bool {
        let permits = &mut self.permits;
        let slots = [&mut permits.messages, &mut permits.bytes, &mut permits.dispatch];
        for (gate, slot) in self.gates.iter_mut().zip(slots) {
            match gate.pass(now, unblock) {
                Ok(Some(permit)) => *slot = Some(permit),
                Ok(None) => {}
                Err(()) => return false,
            }
        }
        self.stamps.throttle = Some(now);
        true
    }
}
