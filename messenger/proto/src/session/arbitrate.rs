//! Who wins when a peer's new transport meets an old session: a pure verdict.
//!
//! Two peers may dial each other at once, a peer may have restarted, or a late attempt may arrive
//! after a newer one. The rows below are msgr2's tables for SESSION_RECONNECT and CLIENT_IDENT, and
//! msgr1's for connect; the first row that matches decides, and both sides come to the same result.

use std::cmp::Ordering;

use crate::addr::AddrType;
use crate::session::{IdentRequest, PeerIdent, Session, Verdict};

/// What the shell does with an accepted session that waits for a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Give it this verdict.
    Answer(Verdict),
    /// Let the existing session [`adopt`](Session::adopt) it.
    Adopt,
    /// [`close`](Session::close) the existing session, then accept it.
    Replace,
    /// Answer [`Verdict::Wait`] and [`send_keepalive`](Session::send_keepalive) on the existing
    /// session, so that its own dial proceeds.
    WaitForOurs,
}

impl Decision {
    /// Decides about `ident`, given the session registered under its addresses, if any. A shell
    /// that is moving that session elsewhere answers by itself: [`Verdict::Wait`] to a new ident,
    /// [`Verdict::RetryGlobal`] to a reconnect.
    pub fn about(ident: &PeerIdent, existing: Option<&Session>) -> Self {
        let existing = existing.filter(|existing| !existing.is_closed());
        match (ident.request, existing) {
            // A twin of ours, or we ourselves by way of the wire: neither dial can win.
            (_, Some(existing)) if existing.compare_addrs(ident) == Ordering::Equal => {
                Self::Answer(Verdict::Refuse)
            }
            // Whoever else it is, the addresses and even the cookie could be had by listening.
            (_, Some(existing)) if existing.is_of_another(ident) => Self::Answer(Verdict::Refuse),
            (IdentRequest::New { .. }, None) => Self::Answer(Verdict::Accept),
            (IdentRequest::New { .. }, Some(existing)) => existing.decide_new(ident),
            (IdentRequest::Connect { connect_seq: 0, .. }, None) => Self::Answer(Verdict::Accept),
            (IdentRequest::Connect { .. }, None) => Self::Answer(Verdict::Reset { full: true }),
            (IdentRequest::Connect { connect_seq, .. }, Some(existing)) => {
                existing.decide_connect(ident, connect_seq)
            }
            (IdentRequest::Reconnect { .. }, None) => Self::Answer(Verdict::Reset { full: true }),
            (IdentRequest::Reconnect { connect_seq, .. }, Some(existing)) => {
                existing.decide_reconnect(ident, connect_seq)
            }
        }
    }
}

impl Session {
    /// Whether both authenticated, under different names.
    fn is_of_another(&self, ident: &PeerIdent) -> bool {
        let names = self.peer.auth.as_ref().zip(ident.auth.as_ref());
        names.is_some_and(|(ours, theirs)| ours.name != theirs.name)
    }

    fn decide_reconnect(&self, ident: &PeerIdent, connect_seq: u64) -> Decision {
        let numbers = &self.numbers;
        Decision::Answer(if numbers.client_cookie != ident.client_cookie {
            Verdict::Reset { full: self.policy.resetcheck }
        } else if numbers.server_cookie == 0 {
            Verdict::Reset { full: false } // we dialled and never saw the SERVER_IDENT
        } else if numbers.peer_global_seq > ident.global_seq {
            Verdict::RetryGlobal { global_seq: numbers.peer_global_seq }
        } else if numbers.connect_seq > connect_seq {
            Verdict::Retry { connect_seq: numbers.connect_seq }
        } else if numbers.connect_seq == connect_seq
            && !self.policy.server
            && self.compare_addrs(ident) == Ordering::Greater
        {
            Verdict::Wait // both dial, and ours wins
        } else {
            return Decision::Adopt;
        })
    }

    fn decide_new(&self, ident: &PeerIdent) -> Decision {
        let numbers = &self.numbers;
        if numbers.peer_global_seq > ident.global_seq {
            return Decision::Answer(Verdict::Refuse); // a late attempt
        }
        if self.policy.lossy {
            return Decision::Replace;
        }
        let known = numbers.client_cookie != 0 && numbers.server_cookie != 0;
        let same_client = numbers.client_cookie == ident.client_cookie;
        // The peer restarted, or our SERVER_IDENT got lost, or nothing of ours is under way.
        if known || same_client || !self.is_dialling() {
            return Decision::Adopt;
        }
        self.decide_race(ident)
    }

    /// Both dial: the lower address wins, and a server never.
    fn decide_race(&self, ident: &PeerIdent) -> Decision {
        match self.compare_addrs(ident) {
            Ordering::Less => Decision::Adopt,
            _ if self.policy.server => Decision::Adopt,
            _ => Decision::WaitForOurs,
        }
    }

    /// Without cookies, how often the session was open has to tell whether it is the same one.
    fn decide_connect(&self, ident: &PeerIdent, connect_seq: u64) -> Decision {
        let numbers = &self.numbers;
        if numbers.peer_global_seq > ident.global_seq {
            let global_seq = numbers.peer_global_seq;
            return Decision::Answer(Verdict::RetryGlobal { global_seq });
        }
        if self.policy.lossy {
            return Decision::Replace;
        }
        let retry = Decision::Answer(Verdict::Retry { connect_seq: numbers.connect_seq });
        match connect_seq.cmp(&numbers.connect_seq) {
            Ordering::Less if connect_seq == 0 => Decision::Adopt, // it restarted
            Ordering::Less => retry,
            // It goes on with what we, who restarted, know nothing of.
            Ordering::Greater if numbers.connect_seq == 0 && self.policy.resetcheck => {
                Decision::Answer(Verdict::Reset { full: true })
            }
            Ordering::Greater => Decision::Adopt,
            // It does not know yet that the session is open.
            Ordering::Equal if !self.is_dialling() => retry,
            Ordering::Equal => self.decide_race(ident),
        }
    }

    /// The peer's address against ours, as races compare them (contract L-7).
    fn compare_addrs(&self, ident: &PeerIdent) -> Ordering {
        let kind = match ident.request {
            IdentRequest::Connect { .. } => AddrType::Legacy,
            IdentRequest::New { .. } | IdentRequest::Reconnect { .. } => AddrType::Msgr2,
        };
        ident.addrs.of(kind).cmp(&self.own_addrs().of(kind))
    }
}
