//! Cases 37 to 49: sessions that outlive their lines, between an OSD under test and another one.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use messenger_proto::{Message, Policy};

use crate::bytes::{Addr, In, Out};
use crate::host::{Host, THERE};
use crate::probe::{ClientIdent, Manner, Probe, ServerIdent};
use crate::wire::{Rev, tag};

const CLIENT_COOKIE: u64 = 0x1122_3344_5566_7788;
/// The other OSD, if it cannot be dialled.
const ANY: Addr = Addr::any([10, 0, 0, 9], 99);

const PLAIN: [Manner; 2] = [Manner { rev: Rev::Zero, ..Manner::PLAIN }, Manner::PLAIN];

/// The other OSD, across all of its lines.
struct Osd {
    host: Rc<RefCell<Host>>,
    manner: Manner,
    me: Addr,
    server_cookie: u64,
}

impl Osd {
    /// It has a session with the OSD under test, on the line returned.
    fn with_session(me: Addr, manner: Manner) -> (Self, Probe) {
        let mut osd = Self::new(me, manner);
        let mut probe = osd.authenticated();
        osd.server_cookie = osd.open(&mut probe, 1, CLIENT_COOKIE);
        assert_ne!(osd.server_cookie, 0);
        (osd, probe)
    }

    fn new(me: Addr, manner: Manner) -> Self {
        let host = Host::new("osd.1", manner, Policy::lossless_peer());
        Self { host: Rc::new(RefCell::new(host)), manner, me, server_cookie: 0 }
    }

    /// A line on which an ident is due.
    fn authenticated(&self) -> Probe {
        let mut probe = Probe::connect(&self.host, self.manner);
        (probe.kind, probe.me) = (4, self.me);
        probe.sign();
        probe
    }

    /// Makes a new session; the server's cookie.
    fn open(&self, probe: &mut Probe, global_seq: u64, cookie: u64) -> u64 {
        let ident =
            ClientIdent { global_seq, flags: 0, cookie, number: 7, ..ClientIdent::of(probe) };
        probe.send(tag::CLIENT_IDENT, &ident.write());
        let answer = ServerIdent::read(&probe.expect(tag::SERVER_IDENT));
        assert_eq!(answer.flags, 0);
        answer.cookie
    }

    /// A new line on which the session is asked for.
    fn reconnect(&self, global_seq: u64, connect_seq: u64, msg_seq: u64) -> Probe {
        let mut probe = self.authenticated();
        self.ask(&mut probe, global_seq, connect_seq, msg_seq);
        probe
    }

    fn ask(&self, probe: &mut Probe, global_seq: u64, connect_seq: u64, msg_seq: u64) {
        self.ask_as(CLIENT_COOKIE, probe, global_seq, connect_seq, msg_seq);
    }

    fn ask_as(
        &self,
        client_cookie: u64,
        probe: &mut Probe,
        global_seq: u64,
        connect_seq: u64,
        msg_seq: u64,
    ) {
        let request = Out::new()
            .addrs(&[self.me])
            .u64(client_cookie)
            .u64(self.server_cookie)
            .u64(global_seq)
            .u64(connect_seq)
            .u64(msg_seq);
        probe.send(tag::SESSION_RECONNECT, &request.0);
    }

    fn wait(&self, time: Duration) {
        self.host.borrow_mut().wait(time);
    }
}

/// The number in an answer, which has this tag.
#[track_caller]
fn number(probe: &mut Probe, tag: u8) -> u64 {
    In(&probe.expect(tag)).u64()
}

/// Says messages, and is told that they arrived.
#[track_caller]
fn says(probe: &mut Probe, seqs: std::ops::RangeInclusive<u64>) {
    let last = *seqs.end();
    for seq in seqs {
        probe.message(seq, 2, &[b"front"]);
    }
    let mut acked = 0;
    while acked < last {
        acked = number(probe, tag::ACK);
    }
    assert_eq!(acked, last);
    probe.stays_open();
}

/// The other OSD in every manner, with a session and its line; it cannot be dialled.
fn in_every_manner(case: impl Fn(Osd, Probe)) {
    for manner in Manner::ALL {
        let (osd, probe) = Osd::with_session(ANY, manner);
        case(osd, probe);
    }
}

#[test]
fn c37_what_arrives_is_acknowledged() {
    in_every_manner(|_, mut probe| {
        says(&mut probe, 1..=3);
        assert_eq!(probe.arrived(), [1, 2, 3]);
    });
}

#[test]
fn c38_a_session_goes_on_where_it_was() {
    in_every_manner(|osd, mut probe| {
        says(&mut probe, 1..=3);
        probe.cut();
        let mut probe = osd.reconnect(2, 1, 0);
        assert_eq!(number(&mut probe, tag::SESSION_RECONNECT_OK), 3);
        says(&mut probe, 4..=4);
        assert_eq!(probe.arrived(), [1, 2, 3, 4]);
    });
}

#[test]
fn c39_a_session_goes_on_though_its_old_line_is_open() {
    in_every_manner(|osd, mut old| {
        says(&mut old, 1..=2);
        let mut probe = osd.reconnect(2, 1, 0);
        assert_eq!(number(&mut probe, tag::SESSION_RECONNECT_OK), 2);
        assert!(!old.is_open());
        says(&mut probe, 3..=3);
    });
}

/// A message that nobody acknowledged, and the other OSD out of reach for a while.
fn unacknowledged(me: Addr, manner: Manner) -> Osd {
    let (osd, mut probe) = Osd::with_session(me, manner);
    probe.host().send(probe.line, Message::new(98).with_front("reply"));
    let (got, segments) = probe.hear().unwrap();
    assert_eq!((got, In(&segments[0]).u64()), (tag::MESSAGE, 1));
    osd.host.borrow_mut().reachable = false;
    probe.cut();
    osd
}

/// The message comes again under its old number.
#[track_caller]
fn hears_it_again(probe: &mut Probe) {
    let (got, segments) = probe.hear().unwrap();
    assert_eq!((got, In(&segments[0]).u64()), (tag::MESSAGE, 1));
    assert_eq!(segments[1], b"reply");
}

#[test]
fn c40_who_dials_meanwhile_asks_for_a_higher_number_and_replays_what_was_not_acknowledged() {
    for manner in PLAIN {
        let osd = unacknowledged(THERE, manner);
        osd.wait(Duration::from_millis(300));
        let mut probe = osd.reconnect(2, 1, 0);
        let theirs = number(&mut probe, tag::SESSION_RETRY);
        assert!(theirs > 1, "{theirs}");
        osd.ask(&mut probe, 2, theirs + 1, 0);
        assert_eq!(number(&mut probe, tag::SESSION_RECONNECT_OK), 0);
        hears_it_again(&mut probe);
        probe.stays_open();
    }
}

#[test]
fn c40_what_the_peer_has_is_not_replayed() {
    for manner in PLAIN {
        let osd = unacknowledged(ANY, manner);
        let mut probe = osd.reconnect(2, 1, 1);
        assert_eq!(number(&mut probe, tag::SESSION_RECONNECT_OK), 0);
        probe.stays_open();
    }
}

#[test]
fn c41_who_wants_an_unknown_session_starts_over_on_the_same_line() {
    for manner in Manner::ALL {
        let mut osd = Osd::new(ANY, manner);
        osd.server_cookie = 0x2222;
        let mut probe = osd.reconnect(1, 1, 0);
        assert_eq!(probe.expect(tag::SESSION_RESET), [1]);
        probe.stays_open();
        osd.open(&mut probe, 1, CLIENT_COOKIE);
        says(&mut probe, 1..=1);
    }
}

#[test]
fn c42_a_global_seq_of_the_past_is_told_the_present_one() {
    in_every_manner(|osd, mut old| {
        says(&mut old, 1..=1);
        let mut probe = osd.reconnect(0, 1, 0);
        assert_eq!(number(&mut probe, tag::SESSION_RETRY_GLOBAL), 1);
        probe.stays_open();
        osd.ask(&mut probe, 5, 1, 0);
        assert_eq!(number(&mut probe, tag::SESSION_RECONNECT_OK), 1);
    });
}

#[test]
fn c43_a_connect_seq_of_the_past_is_told_the_present_one() {
    in_every_manner(|osd, _| {
        let mut probe = osd.reconnect(2, 4, 0);
        assert_eq!(number(&mut probe, tag::SESSION_RECONNECT_OK), 0);
        let mut late = osd.reconnect(3, 2, 0);
        assert_eq!(number(&mut late, tag::SESSION_RETRY), 4);
        late.stays_open();
        probe.stays_open();
    });
}

/// Two that dial each other are told apart by their v2 addresses; who has none has the lower one.
#[test]
fn c44_an_equal_connect_seq_goes_to_the_lower_address() {
    in_every_manner(|osd, _| {
        let mut probe = osd.reconnect(2, 0, 0);
        assert_eq!(number(&mut probe, tag::SESSION_RECONNECT_OK), 0);
    });
    for (me, wins) in [
        (Addr { nonce: 21, ..THERE }, true),
        (Addr { nonce: 23, ..THERE }, false),
        (Addr { nonce: 0x0100, ..THERE }, true), // bytes decide, and the low one comes first
    ] {
        let (osd, _) = Osd::with_session(me, Manner::PLAIN);
        let mut probe = osd.reconnect(2, 0, 0);
        match wins {
            true => assert_eq!(number(&mut probe, tag::SESSION_RECONNECT_OK), 0),
            false => assert_eq!(probe.expect(tag::WAIT), []),
        }
        assert!(probe.is_open());
    }
}

#[test]
fn c45_a_wrong_client_cookie_is_told_to_begin_a_session_with_what_it_has() {
    in_every_manner(|osd, old| {
        let mut probe = osd.authenticated();
        osd.ask_as(0xbad, &mut probe, 2, 1, 0);
        assert_eq!(probe.expect(tag::SESSION_RESET), [0]);
        probe.stays_open();
        assert!(old.is_open());
    });
}

#[test]
fn c46_who_comes_again_with_a_new_cookie_was_restarted() {
    in_every_manner(|osd, mut old| {
        says(&mut old, 1..=2);
        let mut probe = osd.authenticated();
        let cookie = osd.open(&mut probe, 9, CLIENT_COOKIE + 1);
        assert!(cookie != 0 && cookie != osd.server_cookie);
        assert!(!old.is_open());
        says(&mut probe, 1..=1);
        assert_eq!(probe.arrived(), [1, 2, 1]);
    });
}

/// Rows 4 and 7 of the rules for idents.
#[test]
fn c46_a_late_ident_is_closed_and_a_repeated_one_is_answered() {
    in_every_manner(|osd, old| {
        let mut late = osd.authenticated();
        let ident = ClientIdent { global_seq: 0, flags: 0, cookie: 5, ..ClientIdent::of(&late) };
        late.send(tag::CLIENT_IDENT, &ident.write());
        assert!(late.hear().is_none() && !late.is_open() && old.is_open());

        let mut again = osd.authenticated();
        osd.open(&mut again, 2, CLIENT_COOKIE);
        assert!(!old.is_open());
        says(&mut again, 1..=1);
    });
}

#[test]
fn c47_acknowledging_what_was_never_sent_does_no_harm() {
    in_every_manner(|_, mut probe| {
        probe.send(tag::ACK, &Out::new().u64(1_000_000).0);
        says(&mut probe, 1..=1);
        probe.host().send(probe.line, Message::new(98));
        let (got, segments) = probe.hear().unwrap();
        assert_eq!((got, In(&segments[0]).u64()), (tag::MESSAGE, 1));
    });
}

/// What a session says when it asks for itself: global_seq, connect_seq, msg_seq.
#[track_caller]
fn request(osd: &Osd, probe: &mut Probe) -> [u64; 3] {
    let request = probe.expect(tag::SESSION_RECONNECT);
    let mut read = In(&request);
    assert_eq!(read.addrs(), [crate::host::HERE]);
    assert_eq!([read.u64(), read.u64()], [CLIENT_COOKIE, osd.server_cookie], "roles are kept");
    let numbers = [read.u64(), read.u64(), read.u64()];
    assert!(read.0.is_empty());
    numbers
}

/// The OSD under test dials back, because a message was not acknowledged.
fn dialled_back(manner: Manner) -> (Osd, Probe, [u64; 3]) {
    let osd = unacknowledged(THERE, manner);
    osd.host.borrow_mut().reachable = true;
    osd.wait(Duration::from_millis(200));
    let mut probe = dialled(&osd);
    let numbers = request(&osd, &mut probe);
    (osd, probe, numbers)
}

/// The latest line that was dialled, authenticated.
fn dialled(osd: &Osd) -> Probe {
    let mut probe = Probe::dialled(&osd.host, osd.manner);
    (probe.kind, probe.me) = (4, osd.me);
    probe.sign();
    probe
}

#[test]
fn c48_it_dials_at_once_and_then_after_a_doubling_pause() {
    let osd = unacknowledged(THERE, Manner::PLAIN);
    let start = osd.host.borrow().now;
    osd.wait(Duration::from_secs(10));
    let host = osd.host.borrow();
    let dials: Vec<_> = host.dials.iter().map(|at| (*at - start).as_millis()).collect();
    assert_eq!(dials, [0, 200, 600, 1400, 3000, 6200]);
}

#[test]
fn c48_ok_is_followed_by_what_the_peer_has_not() {
    for manner in PLAIN {
        let (_, mut probe, [_, connect_seq, msg_seq]) = dialled_back(manner);
        assert_eq!((connect_seq, msg_seq), (2, 0), "one for the session's end, one for a refusal");
        probe.send(tag::SESSION_RECONNECT_OK, &Out::new().u64(0).0);
        hears_it_again(&mut probe);
        probe.is_answered();

        let (_, mut probe, _) = dialled_back(manner);
        probe.send(tag::SESSION_RECONNECT_OK, &Out::new().u64(1).0);
        probe.is_answered();
    }
}

#[test]
fn c48_retries_are_asked_again_with_a_higher_number_on_the_same_line() {
    for manner in PLAIN {
        let (osd, mut probe, [global_seq, ..]) = dialled_back(manner);
        probe.send(tag::SESSION_RETRY, &Out::new().u64(7).0);
        assert_eq!(request(&osd, &mut probe), [global_seq, 8, 0]);
        probe.send(tag::SESSION_RETRY_GLOBAL, &Out::new().u64(global_seq + 7).0);
        assert_eq!(request(&osd, &mut probe), [global_seq + 8, 8, 0]);
        probe.send(tag::SESSION_RECONNECT_OK, &Out::new().u64(0).0);
        hears_it_again(&mut probe);
    }
}

#[test]
fn c48_a_full_reset_drops_everything_and_begins_anew() {
    for manner in PLAIN {
        let (_, mut probe, _) = dialled_back(manner);
        probe.send(tag::SESSION_RESET, &[1]);
        let ident = ClientIdent::read(&probe.expect(tag::CLIENT_IDENT));
        assert!(![0, CLIENT_COOKIE].contains(&ident.cookie));
        assert_eq!((ident.target, ident.flags), (THERE, 0));
        let answer = ServerIdent { flags: 0, cookie: 0x5555, ..ServerIdent::of(&probe) };
        probe.send(tag::SERVER_IDENT, &answer.write()).is_answered();
        assert!(probe.slot().log.contains(&"remote reset"));
    }
}

#[test]
fn c48_a_soft_reset_keeps_the_queue_and_the_cookie() {
    for manner in PLAIN {
        let (_, mut probe, _) = dialled_back(manner);
        probe.send(tag::SESSION_RESET, &[0]);
        let ident = ClientIdent::read(&probe.expect(tag::CLIENT_IDENT));
        assert_eq!(ident.cookie, CLIENT_COOKIE);
        let answer = ServerIdent { flags: 0, cookie: 0x5555, ..ServerIdent::of(&probe) };
        probe.send(tag::SERVER_IDENT, &answer.write());
        hears_it_again(&mut probe);
        assert!(!probe.slot().log.contains(&"remote reset"));
    }
}

#[test]
fn c48_a_close_is_followed_by_another_dial() {
    for manner in PLAIN {
        let (osd, probe, [global_seq, connect_seq, _]) = dialled_back(manner);
        probe.cut();
        osd.wait(Duration::from_millis(400));
        let mut probe = dialled(&osd);
        assert_eq!(request(&osd, &mut probe), [global_seq + 1, connect_seq + 1, 0]);
        probe.send(tag::SESSION_RECONNECT_OK, &Out::new().u64(0).0);
        hears_it_again(&mut probe);
    }
}

#[test]
fn c48_after_a_wait_it_closes_and_dials_again_after_fifteen_seconds() {
    for manner in PLAIN {
        let (osd, mut probe, [global_seq, connect_seq, _]) = dialled_back(manner);
        probe.send(tag::WAIT, b"").is_closed_for("wait");
        let dials = osd.host.borrow().dials.len();
        osd.wait(Duration::from_secs(15) - Duration::from_millis(1));
        assert_eq!(osd.host.borrow().dials.len(), dials);
        osd.wait(Duration::from_millis(1));
        let mut probe = dialled(&osd);
        assert_eq!(request(&osd, &mut probe), [global_seq + 1, connect_seq + 1, 0]);
        probe.send(tag::SESSION_RECONNECT_OK, &Out::new().u64(0).0);
        hears_it_again(&mut probe);
    }
}

/// The race that was captured: both lost their line, both are at 6, and the one with the higher
/// address dials first. It is told to wait, the other one dials, is told to retry, and gets through.
#[test]
fn c49_of_two_that_dial_each_other_the_lower_address_gets_through() {
    let lower = Addr { nonce: 21, ..THERE };
    let (osd, probe) = Osd::with_session(lower, Manner::PLAIN);
    drop(probe);
    let mut probe = osd.reconnect(2, 5, 0);
    assert_eq!(number(&mut probe, tag::SESSION_RECONNECT_OK), 0);
    probe.host().send(probe.line, Message::new(98).with_front("reply"));
    assert_eq!(probe.hear().unwrap().0, tag::MESSAGE);
    probe.cut();
    // The OSD under test dials at 6, is told to wait, and is at 7.
    let mut theirs = dialled(&osd);
    let [_, connect_seq, _] = request(&osd, &mut theirs);
    assert_eq!(connect_seq, 6);
    theirs.send(tag::WAIT, b"").is_closed_for("wait");
    let mut ours = osd.reconnect(3, 6, 0);
    assert_eq!(number(&mut ours, tag::SESSION_RETRY), 7);
    osd.ask(&mut ours, 3, 8, 0);
    assert_eq!(number(&mut ours, tag::SESSION_RECONNECT_OK), 0);
    hears_it_again(&mut ours);
}
