//! A peer made of bytes, on either side of a line: it says exactly what a case wants, and looks at
//! every byte of what it is told.

use std::cell::{Ref, RefCell, RefMut};
use std::rc::Rc;
use std::time::Duration;

use messenger_proto::{EntityType, Policy};

use crate::bytes::{Addr, In, Out};
use crate::cephx;
use crate::crypt::{Gcm, sign};
use crate::host::{HERE, Host, Slot, THERE};
use crate::wire::{Frame, Rev, Wire, tag};

/// How a client proves who it is, and what that makes of the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    None,
    CephxCrc,
    CephxSecure,
}

/// In how many ways the cases are to be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Manner {
    pub(crate) rev: Rev,
    pub(crate) proof: Proof,
}

impl Manner {
    pub(crate) const PLAIN: Self = Self { rev: Rev::One, proof: Proof::None };

    pub(crate) const ALL: [Self; 6] = {
        const fn both(proof: Proof) -> [Manner; 2] {
            [Manner { rev: Rev::Zero, proof }, Manner { rev: Rev::One, proof }]
        }
        let ([a, b], [c, d], [e, f]) =
            (both(Proof::None), both(Proof::CephxCrc), both(Proof::CephxSecure));
        [a, b, c, d, e, f]
    };

    pub(crate) fn is_secure(self) -> bool {
        self.proof == Proof::CephxSecure
    }

    /// Number of the connection mode.
    pub(crate) fn mode(self) -> u32 {
        if self.is_secure() { 2 } else { 1 }
    }
}

/// Which side of the line is under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Our session accepted: the probe is a client.
    Server,
    /// Our session dialled: the probe is a server.
    Client,
}

pub(crate) const FEATURES: u64 = 0x3f01_cfbd_fffd_ffff;
pub(crate) const ADDR2: u64 = 1 << 59;
pub(crate) const NONE: u32 = 1;
pub(crate) const CEPHX: u32 = 2;

const BANNER_LEN: usize = 26;
const NO_SIGNATURE: [u8; 32] = [0; 32];
const CHALLENGE: u64 = 0x1111_2222_3333_4444;

pub(crate) struct Probe {
    pub(crate) host: Rc<RefCell<Host>>,
    pub(crate) line: usize,
    pub(crate) manner: Manner,
    /// Which side is under test.
    pub(crate) role: Role,
    pub(crate) wire: Wire,
    /// What this peer calls itself in its ident.
    pub(crate) me: Addr,
    /// The type of the client, on whichever side it is.
    pub(crate) kind: u8,
    said: Vec<u8>,
    heard: Vec<u8>,
    is_greeted: bool,
}

impl Probe {
    /// Connects to an OSD that keeps nothing of its clients, or is dialled by a client of OSDs.
    pub(crate) fn new(role: Role, manner: Manner) -> Self {
        match role {
            Role::Server => {
                let host = Host::new("osd.1", manner, Policy::stateless_server());
                Self::connect(&Rc::new(RefCell::new(host)), manner)
            }
            Role::Client => {
                let mut host = Host::new("client.?", manner, Policy::lossy_client());
                host.dial(EntityType::Osd);
                Self::dialled(&Rc::new(RefCell::new(host)), manner)
            }
        }
    }

    /// Connects to a monitor.
    pub(crate) fn at_monitor(manner: Manner) -> Self {
        let host = Host::new("mon.0", manner, Policy::stateless_registered_server());
        Self::connect(&Rc::new(RefCell::new(host)), manner)
    }

    pub(crate) fn connect(host: &Rc<RefCell<Host>>, manner: Manner) -> Self {
        let line = host.borrow_mut().accept();
        Self::on(host, line, Role::Server, manner)
    }

    /// The other end of the latest line that a session of `host` dialled.
    pub(crate) fn dialled(host: &Rc<RefCell<Host>>, manner: Manner) -> Self {
        host.borrow_mut().settle();
        let line = host.borrow().lines.iter().rposition(|line| line.ours).unwrap();
        assert!(host.borrow().lines[line].open);
        Self::on(host, line, Role::Client, manner)
    }

    fn on(host: &Rc<RefCell<Host>>, line: usize, role: Role, manner: Manner) -> Self {
        let me = match role {
            Role::Server => Addr::any([10, 0, 0, 9], 99),
            Role::Client => THERE,
        };
        Self {
            host: Rc::clone(host),
            line,
            manner,
            role,
            wire: Wire::new(manner.rev),
            me,
            kind: 8,
            said: Vec::new(),
            heard: Vec::new(),
            is_greeted: false,
        }
    }

    /// Says raw bytes.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> &mut Self {
        self.said.extend_from_slice(bytes);
        self.host.borrow_mut().say(self.line, bytes);
        self
    }

    /// Says a frame.
    pub(crate) fn send(&mut self, tag: u8, payload: &[u8]) -> &mut Self {
        self.frame(&Frame::new(tag, &[payload]))
    }

    pub(crate) fn frame(&mut self, frame: &Frame<'_>) -> &mut Self {
        let bytes = self.wire.write(frame);
        self.say(&bytes)
    }

    /// Says a message: its number, its type and its sections.
    pub(crate) fn message(&mut self, seq: u64, kind: u16, sections: &[&[u8]]) -> &mut Self {
        let head = head(seq, kind);
        let segments: Vec<&[u8]> = [&[&head[..]], sections].concat();
        self.frame(&Frame::new(tag::MESSAGE, &segments))
    }

    /// The next frame it is told, if there is one.
    pub(crate) fn hear(&mut self) -> Option<(u8, Vec<Vec<u8>>)> {
        let mut host = self.host.borrow_mut();
        let heard = &mut host.lines[self.line].heard;
        let (tag, segments, len) = self.wire.read(heard)?;
        if tag != tag::AUTH_SIGNATURE {
            self.heard.extend_from_slice(&heard[..len]);
        }
        heard.drain(..len);
        Some((tag, segments))
    }

    /// The payload of the next frame it is told, which has this tag.
    #[track_caller]
    pub(crate) fn expect(&mut self, tag: u8) -> Vec<u8> {
        let Some((got, mut segments)) = self.hear() else {
            panic!("nothing said, last fault {}", self.slot().fault());
        };
        assert_eq!(got, tag);
        segments.remove(0)
    }

    /// Nothing is said, and the line is open.
    #[track_caller]
    pub(crate) fn stays_open(&mut self) {
        assert_eq!(self.hear(), None);
        assert!(self.is_open(), "closed: {}", self.slot().fault());
    }

    /// The line was closed without a word, and this is counted.
    #[track_caller]
    pub(crate) fn is_closed_for(&self, kind: &str) {
        assert_eq!(self.slot().fault(), kind, "{:?}", self.manner);
        assert!(!self.is_open());
        assert_eq!(self.host.borrow().lines[self.line].heard, [], "a close is silent");
    }

    pub(crate) fn is_open(&self) -> bool {
        self.host.borrow().lines[self.line].open
    }

    /// The session it talks to, or talked to last.
    pub(crate) fn slot(&self) -> Ref<'_, Slot> {
        Ref::map(self.host.borrow(), |host| host.slot(self.line))
    }

    pub(crate) fn host(&self) -> RefMut<'_, Host> {
        self.host.borrow_mut()
    }

    /// Numbers of the messages that arrived.
    pub(crate) fn arrived(&self) -> Vec<u64> {
        self.slot().seqs()
    }

    pub(crate) fn wait(&self, time: Duration) {
        self.host.borrow_mut().wait(time);
    }

    pub(crate) fn cut(&self) {
        self.host.borrow_mut().cut(self.line);
    }

    /// A KEEPALIVE2 is answered with its stamp, so the session reads on.
    #[track_caller]
    pub(crate) fn is_answered(&mut self) {
        let stamp = stamp();
        self.send(tag::KEEPALIVE2, &stamp);
        assert_eq!(self.expect(tag::KEEPALIVE2_ACK), stamp);
    }

    /// All that was heard, but for the signature.
    pub(crate) fn heard(&self) -> &[u8] {
        &self.heard
    }

    /// Exchanges banners.
    pub(crate) fn banner(&mut self) -> &mut Self {
        let supported = u64::from(self.manner.rev == Rev::One);
        self.say(&banner(16, supported, 0)).hear_banner()
    }

    pub(crate) fn hear_banner(&mut self) -> &mut Self {
        let expected = banner(16, u64::from(self.manner.rev == Rev::One), 0);
        let heard: Vec<u8> =
            self.host.borrow_mut().lines[self.line].heard.drain(..BANNER_LEN).collect();
        assert_eq!(heard, expected);
        self.heard.extend(heard);
        self
    }

    /// Exchanges banners and HELLOs, unless it was done.
    pub(crate) fn greet(&mut self) -> &mut Self {
        if std::mem::replace(&mut self.is_greeted, true) {
            return self;
        }
        self.banner();
        let (kind, seen) = match self.role {
            Role::Server => (self.kind, HERE),
            Role::Client => (4, Addr::v2([10, 0, 0, 2], 50_000, 0)),
        };
        let hello = Out::new().u8(kind).addr(seen).0;
        self.send(tag::HELLO, &hello);
        let heard = self.expect(tag::HELLO);
        let mut read = In(&heard);
        let (kind, seen) = (read.u8(), read.addr());
        match self.role {
            Role::Server => {
                let own = self.host.borrow().identity.name.kind.to_wire();
                assert_eq!((kind, seen), (own, Addr::v2([10, 0, 0, 9], 5000, 0)));
            }
            Role::Client => assert_eq!((kind, seen), (self.kind, self.me)),
        }
        assert!(read.0.is_empty());
        self
    }

    /// Goes on until both sides have authenticated; AUTH_SIGNATUREs are to follow. Returns the key
    /// to sign with, if there is one.
    pub(crate) fn authenticate(&mut self) -> Option<[u8; 16]> {
        self.greet();
        let secret = match (self.role, self.manner.proof) {
            (Role::Server, Proof::None) => {
                self.ask(NONE, &[1], &none_payload());
                self.take_done(1);
                Vec::new()
            }
            (Role::Server, _) => self.prove(),
            (Role::Client, Proof::None) => {
                let request = self.expect(tag::AUTH_REQUEST);
                let mut read = In(&request);
                assert_eq!((read.u32(), read.list()), (NONE, vec![1]));
                self.send(tag::AUTH_DONE, &done(1, b""));
                Vec::new()
            }
            (Role::Client, _) => self.be_convinced(),
        };
        if self.manner.is_secure() {
            let (is_server, rev) = (self.role == Role::Client, self.manner.rev);
            let [sends, opens] = [is_server, !is_server].map(|first| Gcm::new(&secret, first, rev));
            self.wire.sealed = Some((sends, opens));
        }
        (self.manner.proof != Proof::None).then_some(cephx::SESSION_KEY)
    }

    pub(crate) fn ask(&mut self, method: u32, modes: &[u32], payload: &[u8]) -> &mut Self {
        let request = Out::new().u32(method).list(modes).blob(payload).0;
        self.send(tag::AUTH_REQUEST, &request)
    }

    /// An AUTH_DONE for our number and `mode`; its blob.
    fn take_done(&mut self, mode: u32) -> Vec<u8> {
        let done = self.expect(tag::AUTH_DONE);
        let mut read = In(&done);
        assert_eq!((read.u64(), read.u32()), (cephx::GLOBAL_ID, mode));
        let blob = read.blob().to_vec();
        assert!(read.0.is_empty());
        blob
    }

    /// Proves to an OSD that it is client.admin; the connection secret.
    fn prove(&mut self) -> Vec<u8> {
        let mode = self.manner.mode();
        self.ask(CEPHX, &[mode], &cephx::authorizer(None));
        let more = self.expect(tag::AUTH_REPLY_MORE);
        let challenge = cephx::open_challenge(In(&more).blob());
        let answer = Out::new().blob(&cephx::authorizer(Some(challenge))).0;
        self.send(tag::AUTH_REQUEST_MORE, &answer);
        let blob = self.take_done(mode);
        cephx::open_done(&blob, self.manner.is_secure())
    }

    /// As an OSD, has client.admin prove itself; the connection secret.
    fn be_convinced(&mut self) -> Vec<u8> {
        let mode = self.manner.mode();
        let request = self.expect(tag::AUTH_REQUEST);
        let mut read = In(&request);
        assert_eq!((read.u32(), read.list()), (CEPHX, vec![mode]));
        let (nonce, answer) = cephx::read_authorizer(read.blob());
        assert_eq!(answer, None);
        let more = Out::new().blob(&cephx::challenge(CHALLENGE)).0;
        self.send(tag::AUTH_REPLY_MORE, &more);
        let more = self.expect(tag::AUTH_REQUEST_MORE);
        let (again, answer) = cephx::read_authorizer(In(&more).blob());
        assert_eq!((again, answer), (nonce, Some(CHALLENGE + 1)));
        let secret: Vec<u8> = match self.manner.is_secure() {
            true => (100..164).collect(),
            false => Vec::new(),
        };
        self.send(tag::AUTH_DONE, &done(mode, &cephx::done(nonce, &secret)));
        secret
    }

    /// Exchanges signatures, and so authenticates the transport.
    pub(crate) fn sign(&mut self) -> &mut Self {
        let key = self.authenticate();
        let (said, heard) = (self.said.clone(), self.heard.clone());
        let signature = |log: &[u8]| key.map_or(NO_SIGNATURE, |key| sign(&key, log));
        match self.role {
            Role::Server => {
                assert_eq!(self.expect(tag::AUTH_SIGNATURE), signature(&said));
                self.send(tag::AUTH_SIGNATURE, &signature(&heard))
            }
            Role::Client => {
                self.send(tag::AUTH_SIGNATURE, &signature(&heard));
                assert_eq!(self.expect(tag::AUTH_SIGNATURE), signature(&said));
                self
            }
        }
    }

    /// Goes all the way to a session.
    pub(crate) fn ready(&mut self) -> &mut Self {
        self.sign();
        match self.role {
            Role::Server => {
                let ident = ClientIdent::of(self).write();
                self.send(tag::CLIENT_IDENT, &ident);
                self.expect(tag::SERVER_IDENT);
            }
            Role::Client => {
                let ident = self.expect(tag::CLIENT_IDENT);
                assert_eq!(ClientIdent::read(&ident).target, THERE);
                self.send(tag::SERVER_IDENT, &ServerIdent::of(self).write());
            }
        }
        assert!(self.slot().session.is_ready(), "{}", self.slot().fault());
        self
    }
}

pub(crate) fn banner(len: u16, supported: u64, required: u64) -> Vec<u8> {
    Out::new().raw(b"ceph v2\n").u16(len).u64(supported).u64(required).0
}

/// The payload of an AUTH_REQUEST with method none to anybody but a monitor.
pub(crate) fn none_payload() -> Vec<u8> {
    Out::new().u8(1).client("admin").u64(cephx::GLOBAL_ID).0
}

/// The payload of a login at a monitor.
pub(crate) fn login_payload() -> Vec<u8> {
    Out::new().u8(10).client("admin").u64(0).0
}

fn done(mode: u32, blob: &[u8]) -> Vec<u8> {
    Out::new().u64(cephx::GLOBAL_ID).u32(mode).blob(blob).0
}

/// The payload of a KEEPALIVE2.
pub(crate) fn stamp() -> Vec<u8> {
    Out::new().u32(1).u32(2).0
}

/// Segment 0 of a message.
pub(crate) fn head(seq: u64, kind: u16) -> Vec<u8> {
    let head = Out::new().u64(seq).u64(7).u16(kind).u16(127).u16(1).u32(0).u16(0).u64(0);
    let head = head.u8(3).u16(1).u16(0).0;
    assert_eq!(head.len(), 41);
    head
}

/// What a client says of itself.
#[derive(Debug, Clone)]
pub(crate) struct ClientIdent {
    pub(crate) addrs: Vec<Addr>,
    pub(crate) target: Addr,
    pub(crate) number: u64,
    pub(crate) global_seq: u64,
    pub(crate) supported: u64,
    pub(crate) required: u64,
    pub(crate) flags: u64,
    pub(crate) cookie: u64,
}

impl ClientIdent {
    pub(crate) fn of(probe: &Probe) -> Self {
        Self {
            addrs: vec![probe.me],
            target: HERE,
            number: 4242,
            global_seq: 1,
            supported: FEATURES,
            required: ADDR2,
            flags: 1,
            cookie: 0,
        }
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        Out::new()
            .addrs(&self.addrs)
            .addr(self.target)
            .u64(self.number)
            .u64(self.global_seq)
            .u64(self.supported)
            .u64(self.required)
            .u64(self.flags)
            .u64(self.cookie)
            .0
    }

    pub(crate) fn read(payload: &[u8]) -> Self {
        let mut read = In(payload);
        let ident = Self {
            addrs: read.addrs(),
            target: read.addr(),
            number: read.u64(),
            global_seq: read.u64(),
            supported: read.u64(),
            required: read.u64(),
            flags: read.u64(),
            cookie: read.u64(),
        };
        assert!(read.0.is_empty());
        ident
    }
}

/// What a server says of itself.
#[derive(Debug, Clone)]
pub(crate) struct ServerIdent {
    pub(crate) addrs: Vec<Addr>,
    pub(crate) number: u64,
    pub(crate) global_seq: u64,
    pub(crate) supported: u64,
    pub(crate) required: u64,
    pub(crate) flags: u64,
    pub(crate) cookie: u64,
}

impl ServerIdent {
    pub(crate) fn of(probe: &Probe) -> Self {
        Self {
            addrs: vec![probe.me],
            number: 1,
            global_seq: 1,
            supported: FEATURES,
            required: ADDR2,
            flags: 1,
            cookie: 0,
        }
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        Out::new()
            .addrs(&self.addrs)
            .u64(self.number)
            .u64(self.global_seq)
            .u64(self.supported)
            .u64(self.required)
            .u64(self.flags)
            .u64(self.cookie)
            .0
    }

    pub(crate) fn read(payload: &[u8]) -> Self {
        let mut read = In(payload);
        let ident = Self {
            addrs: read.addrs(),
            number: read.u64(),
            global_seq: read.u64(),
            supported: read.u64(),
            required: read.u64(),
            flags: read.u64(),
            cookie: read.u64(),
        };
        assert!(read.0.is_empty());
        ident
    }
}

/// A case in both roles and every manner, with a probe that has said nothing yet.
pub(crate) fn everywhere(case: impl Fn(&mut Probe)) {
    for role in [Role::Server, Role::Client] {
        for manner in Manner::ALL {
            case(&mut Probe::new(role, manner));
        }
    }
}

/// A case for our server in every manner.
pub(crate) fn at_a_server(case: impl Fn(&mut Probe)) {
    Manner::ALL.iter().for_each(|manner| case(&mut Probe::new(Role::Server, *manner)));
}

/// A case before authentication, which knows no manners but the revision's, in both roles.
pub(crate) fn before_authentication(case: impl Fn(&mut Probe)) {
    for role in [Role::Server, Role::Client] {
        for rev in [Rev::Zero, Rev::One] {
            case(&mut Probe::new(role, Manner { rev, ..Manner::PLAIN }));
        }
    }
}

/// A frame with flaws: what `change` makes of a right one.
pub(crate) fn flawed<'a>(
    tag: u8,
    segments: &[&[u8]],
    change: impl FnOnce(&mut Frame<'a>),
) -> Frame<'a> {
    let mut frame = Frame::new(tag, segments);
    change(&mut frame);
    frame
}
