//! Somebody in between changes bytes, or makes them up.
//!
//! Cephx's envelope does not find every change; the signatures over all bytes do, as nobody but the
//! two sides has the session key. So a changed exchange has to end in one of three ways: refused,
//! with different keys, or with bytes of which the two sides have different signatures.

use aws_lc_rs::hmac;
use proptest::prelude::*;

use super::super::{Authorizer, RotatingSecrets, Tickets, crypt};
use super::*;

/// One side's account of an exchange: what it sent and received, and the key it ended with.
#[derive(Default)]
struct Transcript {
    bytes: Vec<u8>,
    session_key: Option<Key>,
}

impl Transcript {
    fn signature(&self) -> Option<hmac::Tag> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.session_key.as_ref()?.secret());
        Some(hmac::sign(&key, &self.bytes))
    }
}

/// Carries blobs from one side to the other, and changes a byte of one of them.
struct Wire<'a> {
    blob: usize,
    change: &'a dyn Fn(&mut Vec<u8>),
    carried: usize,
    sender: Transcript,
    receiver: Transcript,
}

impl<'a> Wire<'a> {
    fn new(blob: usize, change: &'a dyn Fn(&mut Vec<u8>)) -> Self {
        let (sender, receiver) = Default::default();
        Self { blob, change, carried: 0, sender, receiver }
    }

    fn carry(&mut self, blob: Vec<u8>) -> Vec<u8> {
        let mut arrives = blob.clone();
        if self.carried == self.blob {
            (self.change)(&mut arrives);
        }
        self.carried += 1;
        self.sender.bytes.extend(blob);
        self.receiver.bytes.extend(&arrives);
        arrives
    }

    fn both_content(&self) -> bool {
        match (self.sender.signature(), self.receiver.signature()) {
            (Some(sender), Some(receiver)) => sender.as_ref() == receiver.as_ref(),
            _ => false,
        }
    }
}

fn login(wire: &mut Wire<'_>, mode: u32) -> Result<(), CephxError> {
    let mut random = counting();
    let server = monitor(&mut random);
    let old = logged_in(&server, &mut random).tickets;
    let login = MonLogin::new(admin(), test_key(), Services::ALL).renewing(&old, NOW);
    let (pending, challenge) = LoginServer::begin(&wire.carry(login.request()), &mut random)?;
    let answer = login.on_challenge(&wire.carry(challenge), &mut random)?;
    let admitted = pending.finish(&server, &wire.carry(answer), mode, 7, NOW, &mut random)?;
    wire.receiver.session_key = Some(admitted.session_key);
    let done = login.on_done(admitted.global_id, mode, &wire.carry(admitted.payload), NOW)?;
    wire.sender.session_key = Some(done.session_key);
    Ok(())
}

fn authorize(wire: &mut Wire<'_>, mode: u32) -> Result<(), CephxError> {
    let mut random = counting();
    let server = monitor(&mut random);
    let tickets = logged_in(&server, &mut random).tickets;
    let mut osd = Service::osd(&server, mode);
    let authorizer = tickets.authorizer(EntityType::Osd, NOW, &mut random)?;
    let Answer::Challenge(challenge) = osd.take(&wire.carry(authorizer.request()), &mut random)?
    else {
        panic!("let in without a challenge");
    };
    let answer = authorizer.on_challenge(&wire.carry(challenge))?;
    let Answer::Admitted(admitted) = osd.take(&wire.carry(answer), &mut random)? else {
        return Ok(()); // says it was not challenged: is challenged again, and gets no further
    };
    wire.receiver.session_key = Some(admitted.session_key);
    let done = authorizer.on_done(&wire.carry(admitted.payload), mode)?;
    wire.sender.session_key = Some(done.session_key);
    Ok(())
}

type Exchange = fn(&mut Wire<'_>, u32) -> Result<(), CephxError>;
const EXCHANGES: [Exchange; 2] = [login, authorize];

#[test]
fn no_changed_or_cut_blob_leaves_both_sides_content() {
    for (exchange, mode) in EXCHANGES.into_iter().flat_map(|e| MODES.map(|mode| (e, mode))) {
        let mut untouched = Wire::new(usize::MAX, &|_| ());
        exchange(&mut untouched, mode).unwrap();
        assert!(untouched.both_content());
        assert_eq!(untouched.carried, 4);
        for blob in 0..4 {
            let mut len = 0;
            let mut at = 0;
            while at == 0 || at < len {
                let reached = std::cell::Cell::new(0);
                for flip in [0x01, 0x80, 0xff] {
                    let change = |bytes: &mut Vec<u8>| {
                        reached.set(bytes.len());
                        bytes[at] ^= flip;
                    };
                    let mut wire = Wire::new(blob, &change);
                    let _ = exchange(&mut wire, mode);
                    assert!(!wire.both_content(), "blob {blob}, byte {at}, {flip:#x}");
                }
                let cut = |bytes: &mut Vec<u8>| bytes.truncate(at);
                let mut wire = Wire::new(blob, &cut);
                let _ = exchange(&mut wire, mode);
                assert!(!wire.both_content(), "blob {blob} cut at {at}");
                len = reached.get();
                at += 1;
            }
            assert!(len > 8);
        }
    }
}

/// What a peer sends to make its way in is checked without the help of signatures.
#[test]
fn a_server_finds_changes_of_the_proofs_itself() {
    let refused = |exchange: Exchange, blob: usize, range: std::ops::Range<usize>| {
        for at in range {
            let change = |bytes: &mut Vec<u8>| bytes[at] ^= 1;
            let mut wire = Wire::new(blob, &change);
            assert!(exchange(&mut wire, MODE_SECURE).is_err(), "blob {blob}, byte {at}");
            assert!(wire.receiver.session_key.is_none(), "blob {blob}, byte {at}");
        }
    };
    refused(login, 0, 1..22); // name and number
    refused(login, 1, 0..9); // challenge
    refused(login, 2, 0..2); // operation
    refused(login, 2, 3..19); // challenge and proof
    for blob in [0, 2] {
        refused(authorize, blob, 0..42); // head, and the first blocks of the ticket
        refused(authorize, blob, 142..158); // the first block of the proof
    }
}

#[test]
fn plain_replies_are_cut_without_a_panic() {
    let mut random = counting();
    let server = monitor(&mut random);
    let mut tickets = logged_in(&server, &mut random).tickets;
    let request = tickets.request(Services::ALL, NOW, &mut random).unwrap();
    let reply = server.grant_tickets(&request, NOW, &mut random).unwrap();
    for len in 0..request.len() {
        assert!(server.grant_tickets(&request[..len], NOW, &mut random).is_err());
    }
    for len in 0..reply.len() {
        assert!(tickets.clone().on_reply(&reply[..len], NOW).is_err());
    }
    for at in 0..reply.len() {
        let mut changed = reply.clone();
        changed[at] ^= 0xff;
        let _ = tickets.clone().on_reply(&changed, NOW);
    }
    tickets.on_reply(&reply, NOW).unwrap();
    let reply = server.rotating_secrets(&name("osd.0")).unwrap();
    let key = server.keyring.get(&name("osd.0")).unwrap().key.clone();
    for len in 0..reply.len() {
        assert!(RotatingSecrets::from_reply(&reply[..len], &key).is_err());
    }
}

/// Everything that decodes bytes of a peer, fed with the same bytes.
fn feed(server: &LoginServer, tickets: &Tickets, bytes: &[u8]) {
    let random = &mut counting();
    let client = || MonLogin::new(admin(), test_key(), Services::ALL).renewing(tickets, NOW);
    let authorizer =
        || -> Authorizer { tickets.authorizer(EntityType::Osd, NOW, &mut counting()).unwrap() };
    let _ = LoginServer::begin(bytes, random);
    let (pending, _) = LoginServer::begin(&client().request(), random).unwrap();
    let _ = pending.finish(server, bytes, MODE_SECURE, 7, NOW, random);
    let _ = server.grant_tickets(bytes, NOW, random);
    let _ = client().on_challenge(bytes, random);
    let _ = client().on_done(7, MODE_SECURE, bytes, NOW);
    let _ = tickets.clone().on_reply(bytes, NOW);
    let _ = RotatingSecrets::from_reply(bytes, &test_key());
    let _ = authorizer().on_challenge(bytes);
    let _ = authorizer().on_done(bytes, MODE_SECURE);
    let _ = Service::osd(server, MODE_SECURE).take(bytes, random);
}

/// Bytes that get past the first checks now and then: small numbers, the operations.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0_u8), Just(1), Just(2), Just(4), Just(32), any::<u8>()];
    let op =
        prop_oneof![Just(vec![]), Just(vec![0, 1, 0, 0, 0, 0]), Just(vec![0, 2]), Just(vec![0, 4])];
    (op, proptest::collection::vec(byte, 0..300)).prop_map(|(op, rest)| [op, rest].concat())
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in bytes()) {
        let mut random = counting();
        let server = monitor(&mut random);
        let tickets = logged_in(&server, &mut random).tickets;
        feed(&server, &tickets, &bytes);
    }

    /// A peer that has the keys can seal whatever it likes.
    #[test]
    fn arbitrary_bytes_in_good_envelopes_never_panic(body in bytes()) {
        let mut random = counting();
        let server = monitor(&mut random);
        let tickets = logged_in(&server, &mut random).tickets;
        let osd = server.secrets(EntityType::Osd).unwrap().current().unwrap();
        let session_key = |service| tickets.session_key(service).unwrap();
        let sealed = |key: &Key| crypt::seal(key, |writer| writer.bytes(&body)).to_vec();
        let blob = |sealed: &[u8]| [&(sealed.len() as u32).to_le_bytes()[..], sealed].concat();
        let list = |key: &Key| {
            let head = [1, 1, 0, 0, 0, 32, 0, 0, 0, 1].to_vec();
            [head, blob(&sealed(key)), vec![1], blob(&sealed(session_key(EntityType::Auth)))].concat()
        };
        let ticket = |key: &Key| {
            [&[1][..], &osd.0.to_le_bytes(), &blob(&sealed(key))].concat()
        };
        let head = [&[1][..], &4242_u64.to_le_bytes(), &[4, 0, 0, 0]].concat();
        let good = tickets.authorizer(EntityType::Osd, NOW, &mut random).unwrap().request();
        let with_good_ticket = good[..good.len() - 36].to_vec();
        let osd_session = session_key(EntityType::Osd);
        for bytes in [
            sealed(osd_session),
            blob(&sealed(osd_session)),
            [vec![0, 1, 0, 0, 0, 0], list(&test_key())].concat(),
            [vec![0, 2, 0, 0, 0, 0], list(session_key(EntityType::Auth))].concat(),
            [vec![0, 4, 0, 0, 0, 0], blob(&sealed(&test_key()))].concat(),
            [head, ticket(&osd.1.key), blob(&sealed(osd_session))].concat(),
            [with_good_ticket, blob(&sealed(osd_session))].concat(),
        ] {
            feed(&server, &tickets, &bytes);
        }
    }
}
