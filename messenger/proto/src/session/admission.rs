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

/// A message that waits at a gate.
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
    /// Takes a message with so many bytes of payload on the wire through the gates. The common
    /// case is that all are open: its permits then, at no other cost. Otherwise it waits.
    pub(super) fn request(
        now: Instant,
        len: u64,
        policy: &Policy,
        dispatch: Option<&Arc<Throttle>>,
        unblock: &Unblock,
    ) -> Result<MessagePermits, Box<Self>> {
        let throttles = [
            (policy.throttle_messages.as_ref(), 1),
            (policy.throttle_bytes.as_ref(), len),
            (dispatch, len),
        ]
        .map(|(throttle, amount)| throttle.filter(|_| amount > 0).map(|it| (it, amount)));
        let mut permits = MessagePermits::default();
        for (index, throttle) in throttles.iter().enumerate() {
            let Some((throttle, amount)) = *throttle else {
                continue;
            };
            match throttle.acquire_or_wait(now, amount, unblock) {
                Ok(permit) => *permits.slots()[index] = Some(permit),
                Err(waiting) => {
                    let mut gates = throttles.map(|throttle| match throttle {
                        Some((throttle, amount)) => Gate::Ahead(Arc::clone(throttle), amount),
                        None => Gate::Behind,
                    });
                    gates[..index].fill_with(|| Gate::Behind);
                    gates[index] = Gate::Closed(waiting);
                    let stamps = ReceiveStamps { recv: Some(now), ..ReceiveStamps::default() };
                    return Err(Box::new(Self { wire_len: len, stamps, permits, gates }));
                }
            }
        }
        Ok(permits)
    }

    /// Goes on as far as the gates are open. True when all are behind.
    pub(super) fn advance(&mut self, now: Instant, unblock: &Unblock) -> bool {
        for (gate, slot) in self.gates.iter_mut().zip(self.permits.slots()) {
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
