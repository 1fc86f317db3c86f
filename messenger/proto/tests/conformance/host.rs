//! The shell around the sessions under test: lines of bytes to them, and who is who.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use messenger_proto::auth::cephx::{
    LoginServer, MonLogin, RotatingSecret, RotatingSecrets, Services, TicketLifetimes,
};
use messenger_proto::auth::keyring::{Keyring, Principal};
use messenger_proto::auth::{Auth, AuthMethod, AuthRules, ConnectionMode, Key, Secrets};
use messenger_proto::{
    Decision, EntityType, Fault, GlobalSeq, Identity, Limits, Message, Policy, PolicySet, Session,
    SessionEvent, SessionOptions, TransportNews, UnixAnchor, Verdict,
};

use crate::bytes::Addr;
use crate::cephx;
use crate::probe::{Manner, Proof};
use crate::wire::Rev;

/// Where the sessions under test listen, if they do.
pub(crate) const HERE: Addr = Addr::v2([10, 0, 0, 2], 6800, 22);
/// Where the peer of a session that dials listens.
pub(crate) const THERE: Addr = Addr::v2([10, 0, 0, 3], 6801, 77);
/// The Unix time at which every test begins.
pub(crate) const NOW: Duration = Duration::from_secs(1_000_000);

pub(crate) struct Host {
    pub(crate) identity: Arc<Identity>,
    pub(crate) now: Instant,
    pub(crate) slots: Vec<Slot>,
    pub(crate) lines: Vec<Line>,
    /// Dials of its sessions are answered.
    pub(crate) reachable: bool,
    /// When its sessions dialled.
    pub(crate) dials: Vec<Instant>,
}

pub(crate) struct Slot {
    pub(crate) session: Session,
    /// Messages in the order of arrival.
    pub(crate) received: Vec<Message>,
    /// Events in order, one word each, messages left out.
    pub(crate) log: Vec<&'static str>,
    line: Option<usize>,
}

/// One TCP connection.
pub(crate) struct Line {
    /// What the session said, not looked at yet.
    pub(crate) heard: Vec<u8>,
    pub(crate) open: bool,
    /// A session of ours dialled.
    pub(crate) ours: bool,
    slot: usize,
}

impl Host {
    /// Somebody who is called `name`, listens at [`HERE`] and talks as `manner` wants.
    pub(crate) fn new(name: &str, manner: Manner, policy: Policy) -> Self {
        let instant = Instant::now();
        let options = SessionOptions {
            revision: match manner.rev {
                Rev::Zero => messenger_proto::v2::Revision::Rev0,
                Rev::One => messenger_proto::v2::Revision::Rev1,
            },
            auth_id: if name.starts_with("client") { "admin".into() } else { String::new() },
            ..SessionOptions::default()
        };
        let addr = match name.starts_with("client") {
            true => "any:-/11".parse().unwrap(),
            false => HERE.known(),
        };
        let identity = Identity {
            listening: Vec::new(),
            name: name.parse().unwrap(),
            addrs: addr.into(),
            policies: PolicySet::new(policy),
            limits: Limits::default(),
            options,
            auth: auth(name, manner.proof),
            anchor: UnixAnchor { instant, unix: NOW },
            global_seq: GlobalSeq::new(),
            dispatch_throttle: None,
        };
        let identity = Arc::new(identity);
        let (slots, lines, dials) = (Vec::new(), Vec::new(), Vec::new());
        Self { identity, now: instant, slots, lines, reachable: true, dials }
    }

    /// It speaks msgr1 where it listens.
    pub(crate) fn over_v1(mut self) -> Self {
        let here = Addr { kind: 1, ..HERE }.known();
        let identity = Arc::make_mut(&mut self.identity);
        if identity.name.kind != EntityType::Client {
            (identity.addrs, identity.listening) = (here.into(), vec![here]);
        }
        self
    }

    /// Somebody connects; the line.
    pub(crate) fn accept(&mut self) -> usize {
        let seed = self.seed();
        let from = "10.0.0.9:5000".parse().unwrap();
        let local = HERE.known().socket.unwrap();
        let session = Session::accept(self.now, Arc::clone(&self.identity), from, local, seed);
        self.slots.push(Slot::new(session));
        let line = self.open_line(self.slots.len() - 1, false);
        self.settle();
        line
    }

    /// A session of ours begins to dial a `kind` at [`THERE`]; its slot.
    pub(crate) fn dial(&mut self, kind: EntityType) -> usize {
        self.dial_to(kind, THERE)
    }

    pub(crate) fn dial_to(&mut self, kind: EntityType, target: Addr) -> usize {
        let (seed, target) = (self.seed(), target.known());
        let session = Session::dial(self.now, Arc::clone(&self.identity), kind, target, seed);
        self.slots.push(Slot::new(session));
        self.settle();
        self.slots.len() - 1
    }

    /// Bytes arrive.
    pub(crate) fn say(&mut self, line: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.lines[line].open {
            let slot = self.lines[line].slot;
            let session = &mut self.slots[slot].session;
            let space = session.rx_space();
            let len = space.len().min(bytes.len());
            if len == 0 {
                return;
            }
            space[..len].copy_from_slice(&bytes[..len]);
            bytes = &bytes[len..];
            // An error is told by the session's last fault, too.
            let _ = session.handle_received(self.now, len);
            self.settle();
        }
    }

    /// The line breaks, noticed by the session that has it.
    pub(crate) fn cut(&mut self, line: usize) {
        let Line { open, slot, .. } = &mut self.lines[line];
        assert!(std::mem::take(open));
        let slot = &mut self.slots[*slot];
        slot.line = None;
        slot.session.handle_transport(self.now, TransportNews::Reset);
        self.settle();
    }

    /// The session of a line is given a message to send.
    pub(crate) fn send(&mut self, line: usize, message: Message) {
        let slot = self.lines[line].slot;
        self.slots[slot].session.send(self.now, message).unwrap();
        self.settle();
    }

    /// From now on, a peer that has not authenticated may have a session hold so many bytes.
    pub(crate) fn hold_of_strangers(&mut self, bytes: usize) {
        Arc::make_mut(&mut self.identity).limits.unauthenticated_bytes = bytes;
    }

    /// From now on, sessions require these features of their peers.
    pub(crate) fn require(&mut self, features_required: u64) {
        let policies = &mut Arc::make_mut(&mut self.identity).policies;
        let policy = policies.get(EntityType::Client).clone();
        policies.set_default(Policy { features_required, ..policy });
    }

    /// From now on, sessions neither make nor check the checksums of segments.
    pub(crate) fn check_no_data(&mut self) {
        Arc::make_mut(&mut self.identity).options.crc_data = false;
    }

    /// Time passes, with a stop at every deadline.
    pub(crate) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            self.settle();
            let next = self.slots.iter().filter_map(|slot| slot.session.poll_timeout()).min();
            let Some(next) = next.filter(|next| *next <= until) else {
                break;
            };
            self.now = self.now.max(next);
            let now = self.now;
            self.slots.iter_mut().for_each(|slot| slot.session.handle_timeout(now));
        }
        self.now = until;
    }

    /// How many bytes may arrive next.
    pub(crate) fn room(&mut self, line: usize) -> usize {
        self.slots[self.lines[line].slot].session.rx_space().len()
    }

    pub(crate) fn slot(&self, line: usize) -> &Slot {
        &self.slots[self.lines[line].slot]
    }

    /// Events and output of all sessions, until they have nothing more to say.
    pub(crate) fn settle(&mut self) {
        let mut busy = true;
        while std::mem::take(&mut busy) {
            for at in 0..self.slots.len() {
                while let Some(event) = self.slots[at].session.poll_event() {
                    self.on_event(at, event);
                    busy = true; // an older session may have something to say, too
                }
                self.hear(at);
            }
        }
    }

    fn hear(&mut self, at: usize) {
        let Slot { session, line, .. } = &mut self.slots[at];
        while let (Some(line), Some(gather)) = (*line, session.poll_transmit(self.now)) {
            let heard = &mut self.lines[line].heard;
            gather.slices().iter().for_each(|slice| heard.extend_from_slice(slice));
            let len = gather.len();
            session.transmitted(len);
        }
    }

    fn on_event(&mut self, at: usize, event: SessionEvent) {
        let slot = &mut self.slots[at];
        match event {
            SessionEvent::Dial { .. } => {
                self.dials.push(self.now);
                let local = "10.0.0.2:50000".parse().unwrap();
                let news = match self.reachable {
                    true => TransportNews::Opened { local },
                    false => TransportNews::Refused,
                };
                if self.reachable {
                    self.open_line(at, true);
                }
                self.slots[at].session.handle_transport(self.now, news);
            }
            SessionEvent::Hangup => {
                slot.log.push("hangup");
                if let Some(line) = slot.line.take() {
                    self.lines[line].open = false;
                }
            }
            SessionEvent::Ident(ident) => {
                let policy = slot.session.policy();
                let stateless = policy.lossy && policy.server && !policy.register_lossy_clients;
                let known = |slot: &Slot| slot.session.peer().addrs == ident.addrs;
                if stateless {
                    return self.decide(at, None, Decision::Answer(Verdict::Accept));
                }
                let existing = self.slots.iter().rposition(known);
                let session = existing.map(|index| &self.slots[index].session);
                self.decide(at, existing, Decision::about(&ident, session));
            }
            SessionEvent::Message(message) => slot.received.push(message),
            SessionEvent::Ready { reconnected: false, .. } => slot.log.push("ready"),
            SessionEvent::Ready { reconnected: true, .. } => slot.log.push("resumed"),
            SessionEvent::RemoteReset => slot.log.push("remote reset"),
            SessionEvent::Standby => slot.log.push("standby"),
            SessionEvent::Reset(_) => slot.log.push("reset"),
            _ => {}
        }
    }

    fn decide(&mut self, at: usize, existing: Option<usize>, decision: Decision) {
        let now = self.now;
        // Bytes read ahead may be wrong; the session's last fault says so.
        let _ = match (decision, existing) {
            (Decision::Adopt, Some(existing)) => {
                if let Some(line) = self.slots[existing].line.take() {
                    self.lines[line].open = false;
                }
                let line = self.slots[at].line.take().unwrap();
                self.lines[line].slot = existing;
                self.slots[existing].line = Some(line);
                let identity = Arc::clone(&self.identity);
                let nobody = messenger_proto::EntityAddr::NONE;
                let spent = Session::dial(now, identity, EntityType::Mon, nobody, 0);
                let accepted = std::mem::replace(&mut self.slots[at].session, spent);
                self.slots[existing].session.adopt(now, accepted)
            }
            (Decision::Replace, Some(existing)) => {
                self.slots[existing].session.close();
                self.slots[at].session.resolve(now, Verdict::Accept)
            }
            (Decision::WaitForOurs, Some(existing)) => {
                self.slots[existing].session.send_keepalive(now);
                self.slots[at].session.resolve(now, Verdict::Wait)
            }
            (Decision::Answer(verdict), _) => self.slots[at].session.resolve(now, verdict),
            (decision, None) => panic!("{decision:?} without an existing session"),
        };
    }

    fn open_line(&mut self, slot: usize, ours: bool) -> usize {
        self.lines.push(Line { heard: Vec::new(), open: true, ours, slot });
        self.slots[slot].line = Some(self.lines.len() - 1);
        self.lines.len() - 1
    }

    fn seed(&self) -> u64 {
        (self.slots.len() as u64 + 1) * 1_000_003
    }
}

impl Slot {
    fn new(session: Session) -> Self {
        Self { session, received: Vec::new(), log: Vec::new(), line: None }
    }

    pub(crate) fn seqs(&self) -> Vec<u64> {
        self.received.iter().map(|message| message.header.seq).collect()
    }

    /// The counter name of what ended the last transport.
    pub(crate) fn fault(&self) -> &'static str {
        self.session.last_fault().map_or("none", Fault::kind)
    }
}

/// What somebody called `name` has: as a service or a monitor the secrets that open the tickets of
/// [`cephx`], as a client these tickets.
fn auth(name: &str, proof: Proof) -> Arc<Auth> {
    let mode = match proof {
        Proof::None => return Arc::default(),
        Proof::CephxCrc => ConnectionMode::Crc,
        Proof::CephxSecure => ConnectionMode::Secure,
    };
    let rules = AuthRules::uniform(&[AuthMethod::Cephx], &[mode]);
    let state = Mutex::new(1_u8);
    let random = move |bytes: &mut [u8]| {
        let mut state = state.lock().unwrap();
        bytes.iter_mut().for_each(|byte| {
            *state = state.wrapping_mul(73).wrapping_add(11);
            *byte = *state;
        });
    };
    let admin = || "client.admin".parse().unwrap();
    let principal_key = || Key::new(cephx::PRINCIPAL_KEY, NOW);
    let secrets = Secrets::new(random).with_key(principal_key(), Services::ALL);
    if name.starts_with("client") {
        let login = MonLogin::new(admin(), principal_key(), Services::ALL);
        let reply = cephx::login_reply();
        secrets.set_tickets(login.on_done(cephx::GLOBAL_ID, 1, &reply, NOW).unwrap().tickets);
        return Auth::with_secrets(rules, secrets);
    }
    let key = Key::new(cephx::SERVICE_SECRET, NOW);
    let mut rotating = RotatingSecrets::default();
    let expires = NOW + Duration::from_secs(3600);
    rotating.insert(cephx::SECRET_ID, RotatingSecret { key, expires });
    secrets.set_rotating(rotating);
    if !name.starts_with("mon") {
        return Auth::with_secrets(rules, secrets);
    }
    let mut keyring = Keyring::default();
    keyring.insert(admin(), Principal { key: principal_key(), caps: [].into() });
    let random = &mut |bytes: &mut [u8]| bytes.fill(5);
    let server = LoginServer::new(keyring, TicketLifetimes::default(), NOW, random);
    Auth::with_secrets(rules, secrets.with_monitor(server))
}
