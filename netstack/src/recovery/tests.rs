//! Stories of one sender, told segment by segment, and random ones of its scoreboard.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::scoreboard::News;
use super::*;
use crate::flow::FlowKey;

const MSS: usize = 1000;
/// Close to where numbers wrap.
const ISN: u32 = u32::MAX - 1500;
const FIRST: u32 = ISN + 1;
const PEER: u32 = 77;
const MS: u64 = 1000;
const SAID: (u32, u16) = (PEER, 60_000);
/// Round trip of these networks.
const TRIP: u64 = 400;

/// A sender whose connection is open, and a clock.
struct Sender {
    recovery: Recovery,
    now: u64,
    sent: usize,
}

impl Sender {
    fn new(congestion: Congestion) -> Self {
        Self::open(congestion, &[2, 4, 0x03, 0xe8, 4, 2])
    }

    /// To a peer with these options in its SYN.
    fn open(congestion: Congestion, options: &[u8]) -> Self {
        let mss = 1460;
        let rto_min = Duration::from_millis(5);
        let mut recovery = Recovery::new(RecoveryOptions { congestion, rto_min, mss });
        recovery.on_syn_sent(MS, ISN, &[]);
        let syn = view(TcpFlags::SYN | TcpFlags::ACK, FIRST, 0);
        recovery.on_segment(MS + TRIP, &syn, options, (0, 0));
        assert_eq!(recovery.round_trip(), Some(Duration::from_micros(TRIP)));
        Self { recovery, now: 2 * MS, sent: 0 }
    }

    /// The sequence number of the `index`-th segment.
    fn seq(index: usize) -> u32 {
        FIRST.wrapping_add((index * MSS) as u32)
    }

    /// Sends segments, as many as smoltcp believes to be allowed if there is a limit.
    fn send(&mut self, segments: usize) {
        for _ in 0..segments {
            let bytes = [self.sent as u8; MSS];
            let seq = Self::seq(self.sent);
            assert_eq!(self.recovery.on_sent(self.now, seq, &bytes, false), Outgoing::Send);
            self.sent += 1;
        }
    }

    /// The peer has the first `ack` segments and those in `blocks`.
    fn ack(&mut self, ack: usize, blocks: &[(usize, usize)]) -> Received {
        let mut options = vec![1, 1, 5, 2 + 8 * blocks.len() as u8];
        for (left, right) in blocks {
            options.extend(Self::seq(*left).to_be_bytes());
            options.extend(Self::seq(*right).to_be_bytes());
        }
        let options = if blocks.is_empty() { &[][..] } else { &options };
        let ack = view(TcpFlags::ACK, Self::seq(ack), 0);
        self.recovery.on_segment(self.now, &ack, options, SAID)
    }

    /// What is sent again now: indices of segments.
    fn resend(&mut self) -> Vec<usize> {
        let mut pieces = Vec::new();
        while let Some(piece) = self.recovery.next_piece() {
            let index = piece.seq.wrapping_sub(FIRST) as usize / MSS;
            let (head, tail) = self.recovery.bytes(piece);
            assert_eq!(piece.len, MSS);
            assert_eq!([head, tail].concat(), [index as u8; MSS], "its own bytes");
            self.recovery.on_resent(self.now);
            pieces.push(index);
        }
        pieces
    }

    /// Waits for the next thing that is due.
    fn wait(&mut self) -> Alarm {
        self.now = self.recovery.poll_timeout();
        assert_ne!(self.now, NO_TIME, "something is due");
        self.recovery.on_time(self.now, SAID).0
    }

    fn window(&self) -> usize {
        self.recovery.congestion_window().unwrap()
    }
}

fn view(flags: TcpFlags, ack: u32, payload_len: usize) -> TcpView {
    let addr = SocketAddr::from(([10, 0, 0, 1], 6800));
    TcpView {
        key: FlowKey::new(addr, addr),
        ip_start: 14,
        ip_len: 40 + payload_len,
        tcp_start: 34,
        payload_start: 54,
        payload_len,
        seq: PEER,
        ack,
        flags,
        window: 60_000,
    }
}

#[test]
fn what_is_acknowledged_is_forgotten_and_nothing_is_due() {
    let mut sender = Sender::new(Congestion::Cubic);
    for round in 1..100 {
        sender.send(1);
        assert!(sender.recovery.poll_timeout() <= sender.now + 5 * MS);
        sender.now += TRIP;
        let received = sender.ack(round, &[]);
        assert!(matches!(received.feed, Feed::As { .. }) && !received.is_loss);
        assert_eq!((sender.recovery.outstanding(), sender.recovery.kept()), (0, 0));
        assert_eq!(sender.recovery.poll_timeout(), NO_TIME);
        assert_eq!(sender.resend(), []);
    }
}

#[test]
fn each_hole_is_filled_once_in_a_round_trip() {
    let mut sender = Sender::new(Congestion::None);
    sender.send(10);
    sender.now += TRIP;
    // 0, 4 and 5 are lost.
    sender.ack(0, &[(1, 2)]);
    sender.ack(0, &[(1, 3)]);
    assert_eq!(sender.resend(), [], "they may have overtaken it");
    assert!(sender.ack(0, &[(1, 4)]).is_loss);
    assert_eq!(sender.resend(), [0]);
    let received = sender.ack(0, &[(6, 7), (1, 4)]);
    assert!(!received.is_loss, "the same episode");
    assert_eq!(sender.resend(), [4, 5]);
    for right in 8..11 {
        sender.ack(0, &[(6, right), (1, 4)]);
        assert_eq!(sender.resend(), [], "they are on their way");
    }
    sender.now += TRIP;
    sender.ack(4, &[(6, 10)]);
    assert_eq!(sender.resend(), []);
    sender.ack(10, &[]);
    assert_eq!(sender.recovery.outstanding(), 0);
}

#[test]
fn what_is_lost_twice_is_sent_twice() {
    let mut sender = Sender::new(Congestion::None);
    sender.send(6);
    sender.now += TRIP;
    sender.ack(0, &[(1, 6)]);
    assert_eq!(sender.resend(), [0]);
    sender.now += 10;
    sender.send(2);
    sender.now += TRIP;
    // What was sent after the repeated one has arrived.
    sender.ack(0, &[(1, 8)]);
    assert_eq!(sender.resend(), [0]);
}

#[test]
fn a_tail_without_an_answer_is_probed_before_the_timeout() {
    let mut sender = Sender::new(Congestion::Cubic);
    sender.send(3);
    let sent = sender.now;
    assert_eq!(sender.wait(), Alarm::Probe);
    assert_eq!(sender.now, sent + 2 * TRIP);
    assert_eq!(sender.resend(), [2]);
    sender.now += TRIP;
    sender.ack(0, &[(2, 3)]);
    // The answer shows that what was sent before it is lost.
    assert_eq!(sender.resend(), [0, 1]);
    sender.now += TRIP;
    sender.ack(3, &[]);
    assert_eq!(sender.recovery.poll_timeout(), NO_TIME);
}

#[test]
fn timeouts_and_probes_back_off() {
    let mut sender = Sender::new(Congestion::Cubic);
    sender.send(2);
    let (mut probes, mut timeouts) = (Vec::new(), Vec::new());
    let (begin, mut last) = (sender.now, sender.now);
    while timeouts.len() < 4 {
        match sender.wait() {
            Alarm::Probe => {
                probes.push((sender.now - begin) / TRIP);
                let resent = sender.resend();
                assert_eq!(resent, [if probes.len() == 1 { 1 } else { 0 }], "the last, the first");
            }
            Alarm::Timeout => {
                timeouts.push((sender.now - last) / MS);
                last = sender.now;
                assert_eq!(sender.resend(), [0], "one segment, until there is an answer");
            }
            alarm => panic!("{alarm:?}"),
        }
    }
    assert_eq!(timeouts, [5, 10, 20, 40]);
    assert_eq!(probes, [2, 2 + 4], "each after twice the time, until the timeout");
    sender.now += TRIP;
    sender.ack(1, &[]);
    assert_eq!(sender.resend(), [1]);
}

#[test]
fn what_is_lost_twice_with_a_full_window_does_not_wait_for_the_timeout() {
    let mut sender = Sender::new(Congestion::Reno);
    sender.send(10);
    sender.now += TRIP;
    sender.ack(0, &[(1, 10)]);
    assert_eq!(sender.resend(), [0]);
    let resent = sender.now;
    // Nothing follows it, so no acknowledgement will tell.
    assert_eq!(sender.wait(), Alarm::Probe);
    assert!(sender.now <= resent + 3 * TRIP);
    assert_eq!(sender.resend(), [0]);
}

#[test]
fn a_probe_is_sent_whatever_the_window() {
    let mut sender = Sender::new(Congestion::Reno);
    sender.send(10);
    sender.now += TRIP;
    // One of ten is lost, and the window reduced to less than what is on its way.
    sender.ack(0, &[(1, 4)]);
    assert_eq!(sender.resend(), [0]);
    assert!(sender.window() < 7 * MSS);
    assert_eq!(sender.wait(), Alarm::Probe);
    assert_eq!(sender.resend(), [9]);
}

#[test]
fn a_peer_may_take_back_what_it_has_reported() {
    let mut sender = Sender::new(Congestion::None);
    sender.send(4);
    sender.now += TRIP;
    sender.ack(0, &[(1, 4)]);
    assert_eq!(sender.resend(), [0]);
    // It acknowledges the first without those that it had.
    sender.now += TRIP;
    sender.ack(1, &[]);
    assert_eq!(sender.resend(), [1, 2, 3]);

    // Or it says nothing any more.
    let mut sender = Sender::new(Congestion::None);
    sender.send(4);
    sender.now += TRIP;
    sender.ack(0, &[(1, 4)]);
    let mut resent = sender.resend();
    while sender.now < 200 * MS {
        sender.wait();
        resent.extend(sender.resend());
    }
    assert!([1, 2, 3].iter().all(|index| resent.contains(index)), "{resent:?}");
}

#[test]
fn a_false_alarm_leaves_the_window_as_it_was_and_teaches_patience() {
    let mut sender = Sender::new(Congestion::Reno);
    let late_by = 150; // more than a quarter of a round trip, less than half
    let mut alarms = 0;
    for round in 0..4 {
        let first = sender.sent;
        let window = sender.window();
        sender.send(8);
        sender.now += TRIP;
        alarms += usize::from(sender.ack(first, &[(first + 1, first + 8)]).is_loss);
        sender.resend();
        if sender.recovery.poll_timeout() < sender.now + late_by {
            sender.wait();
            alarms += usize::from(!sender.resend().is_empty());
        }
        sender.now = (2 + 10 * round) * MS + TRIP + late_by;
        sender.ack(first + 8, &[]);
        assert!(sender.window() >= window, "{} {window}", sender.window());
        sender.now = (12 + 10 * round) * MS;
    }
    assert!((1..=2).contains(&alarms), "{alarms}");
}

#[test]
fn a_peer_without_sack_is_served_by_duplicates() {
    let mut sender = Sender::open(Congestion::Reno, &[2, 4, 0x03, 0xe8]);
    sender.send(8);
    sender.now += TRIP;
    let mut is_loss = Vec::new();
    for _ in 0..4 {
        let received = sender.ack(0, &[]);
        assert!(received.is_duplicate);
        is_loss.push(received.is_loss);
    }
    assert_eq!(is_loss, [false, false, true, false]);
    assert_eq!(sender.resend(), [0]);
    // A partial acknowledgement shows the next hole (RFC 6582).
    sender.now += TRIP;
    sender.ack(5, &[]);
    assert_eq!(sender.resend(), [5]);
    sender.now += TRIP;
    sender.ack(8, &[]);
    assert_eq!(sender.recovery.poll_timeout(), NO_TIME);
}

#[test]
fn smoltcp_sees_no_duplicate_but_all_that_is_new() {
    let mut sender = Sender::new(Congestion::Cubic);
    sender.send(4);
    sender.now += TRIP;
    assert!(matches!(sender.ack(1, &[]).feed, Feed::As { .. }));
    for _ in 0..5 {
        assert_eq!(sender.ack(1, &[]).feed, Feed::Hide);
    }
    let mut update = view(TcpFlags::ACK, Sender::seq(1), 0);
    update.window = 900;
    let received = sender.recovery.on_segment(sender.now, &update, &[], SAID);
    assert!(matches!(received.feed, Feed::As { window: 900, .. }));
    let data = view(TcpFlags::ACK, Sender::seq(1), 10);
    let received = sender.recovery.on_segment(sender.now, &data, &[], SAID);
    assert!(matches!(received.feed, Feed::As { seq: PEER, .. }));
    // With nothing on its way an acknowledgement answers a keep-alive or a window probe.
    sender.ack(4, &[]);
    for _ in 0..5 {
        assert!(matches!(sender.ack(4, &[]).feed, Feed::As { .. }));
    }
    assert_eq!(sender.ack(3, &[]).feed, Feed::Hide, "an older one");
    let older = view(TcpFlags::ACK, Sender::seq(3), 10);
    let received = sender.recovery.on_segment(sender.now, &older, &[], SAID);
    let newest = Sender::seq(4);
    assert!(matches!(received.feed, Feed::As { ack, .. } if ack == newest), "data is data");
}

#[test]
fn the_window_smoltcp_sees_is_ours_and_never_more_than_the_peers() {
    let mut sender = Sender::new(Congestion::Reno);
    let allowed = |sender: &mut Sender, ack| match sender.ack(ack, &[]).feed {
        Feed::As { window, .. } => usize::from(window),
        Feed::Hide => panic!("hidden"),
    };
    sender.send(10);
    sender.now += TRIP;
    assert_eq!(allowed(&mut sender, 5), 15 * MSS, "ten to begin with, and five for five");
    sender.send(10);
    sender.now += TRIP;
    assert_eq!(allowed(&mut sender, 20), 30 * MSS);
    sender.send(30);
    sender.now += TRIP;
    assert_eq!(allowed(&mut sender, 50), 60_000);
}

#[test]
fn coarse_windows_have_room_for_whole_segments() {
    // A shift of 10.
    let mut sender = Sender::open(Congestion::Reno, &[2, 4, 0x03, 0xe8, 4, 2, 3, 3, 10]);
    assert!(!sender.recovery.is_short_of_window(1), "it knows that of the SYN only");
    sender.send(10);
    sender.now += TRIP;
    let Feed::As { window, .. } = sender.ack(5, &[]).feed else { panic!("hidden") };
    assert_eq!(window, 15, "fifteen segments need so many kilobytes");
    assert!(sender.recovery.is_short_of_window(16 * MSS));
    assert!(!sender.recovery.is_short_of_window(15 * MSS));
}

#[test]
fn strangers_and_old_segments_teach_nothing() {
    let mut sender = Sender::new(Congestion::Cubic);
    sender.send(5);
    sender.now += TRIP;
    let before = format!("{:?}", sender.recovery);
    let guess = TcpView { seq: PEER + 70_000, ..view(TcpFlags::ACK, Sender::seq(3), 0) };
    let old = TcpView { seq: PEER - 1, ..guess };
    let syn = view(TcpFlags::SYN, 0, 0);
    let reset = view(TcpFlags::RST | TcpFlags::ACK, Sender::seq(3), 0);
    for segment in [guess, old, syn, reset] {
        let received = sender.recovery.on_segment(sender.now, &segment, &[], SAID);
        let TcpView { seq, ack, window, .. } = segment;
        assert_eq!(received.feed, Feed::As { seq, ack, window }, "smoltcp judges");
    }
    let unsent = view(TcpFlags::ACK, Sender::seq(7), 0);
    let received = sender.recovery.on_segment(sender.now, &unsent, &[], SAID);
    assert_eq!(received.feed, Feed::Hide);
    assert_eq!(format!("{:?}", sender.recovery), before);
}

#[test]
fn what_smoltcp_repeats_is_not_let_through() {
    let mut sender = Sender::new(Congestion::Cubic);
    sender.send(3);
    let recovery = &mut sender.recovery;
    assert_eq!(recovery.on_sent(9, FIRST, &[0; 2 * MSS], false), Outgoing::Repeated);
    assert_eq!(recovery.on_sent(9, FIRST, &[0; 3 * MSS], false), Outgoing::Repeated);
    assert_eq!(recovery.on_sent(9, FIRST.wrapping_sub(1), &[0], false), Outgoing::Send);
    // Old bytes, new ones and a FIN behind them.
    assert_eq!(recovery.on_sent(9, Sender::seq(2), &[8; MSS + 7], true), Outgoing::Send);
    assert_eq!(recovery.outstanding() as usize, 3 * MSS + 7 + 1);
    assert_eq!(recovery.kept(), 3 * MSS + 7);
    assert_eq!(recovery.on_sent(9, Sender::seq(3), &[8; 7], true), Outgoing::Repeated);
}

#[test]
fn a_closed_window_is_asked_for_once() {
    let mut sender = Sender::new(Congestion::Cubic);
    sender.send(1);
    sender.now += TRIP;
    let closed = TcpView { window: 0, ..view(TcpFlags::ACK, Sender::seq(1), 0) };
    sender.recovery.on_segment(sender.now, &closed, &[], SAID);
    assert_eq!(sender.wait(), Alarm::AskWindow);
    assert_eq!(sender.recovery.poll_timeout(), NO_TIME);
}

#[derive(Clone, Debug)]
enum Step {
    Send(usize, bool),
    /// A part of what is outstanding, in thousandths.
    Ack(u64),
    Sack(u64, u64),
    Detect(bool),
    Resend(usize),
    Probe(bool),
    Timeout(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..60_usize, proptest::bool::weighted(0.1)).prop_map(|(len, fin)| Step::Send(len, fin)),
        2 => (0..1001_u64).prop_map(Step::Ack),
        4 => (0..1001_u64, 0..1001_u64).prop_map(|(left, right)| Step::Sack(left, right)),
        2 => any::<bool>().prop_map(Step::Detect),
        3 => (0..4_usize).prop_map(Step::Resend),
        1 => any::<bool>().prop_map(Step::Probe),
        1 => any::<bool>().prop_map(Step::Timeout),
    ]
}

proptest! {
    #[test]
    fn the_scoreboard_never_loses_count_or_mixes_bytes(
        steps in proptest::collection::vec(step(), 1..200)
    ) {
        let first = u32::MAX - 300;
        let mut board = Scoreboard::new(first);
        let (mut now, mut last) = (u64::from(u32::MAX) - 2000, 0);
        let mut stream: Vec<Option<u8>> = Vec::new(); // `None` is a FIN
        for step in steps {
            now += 37;
            let outstanding = u64::from(board.outstanding());
            let at = |share: u64| board.una().wrapping_add((outstanding * share / 1000) as u32);
            let mut news = News::default();
            match step {
                Step::Send(len, is_fin) => {
                    let bytes: Vec<u8> = (0..len).map(|_| { last += 1; last as u8 }).collect();
                    stream.extend(bytes.iter().copied().map(Some));
                    stream.extend(is_fin.then_some(None));
                    // A FIN is the last thing a stream has.
                    board.push(now, &bytes, is_fin);
                    if is_fin {
                        let nxt = board.nxt();
                        board.acknowledge(now, nxt, 100, &mut news);
                    }
                }
                Step::Ack(share) => { let ack = at(share); board.acknowledge(now, ack, 100, &mut news); }
                Step::Sack(left, right) => { let block = (at(left), at(right)); board.mark(now, block, 100, &mut news); }
                Step::Detect(is_recovering) => { board.detect(now, is_recovering, (100, 120), &mut news); }
                Step::Resend(count) => for _ in 0..count {
                    let Some(piece) = board.next_piece() else { break };
                    let from = piece.seq.wrapping_sub(first) as usize;
                    let (head, tail) = board.bytes(piece);
                    let bytes: Vec<_> = head.iter().chain(tail).copied().map(Some).collect();
                    prop_assert_eq!(&bytes, &stream[from..from + piece.len]);
                    if piece.is_fin {
                        prop_assert_eq!(stream[from + piece.len], None);
                    }
                    board.on_resent(now);
                },
                Step::Probe(last) => board.probe(last),
                Step::Timeout(forgets) => board.lose_all(forgets),
            }
            board.check();
        }
        let nxt = board.nxt();
        board.acknowledge(now, nxt, 100, &mut News::default());
        board.check();
        prop_assert_eq!((board.outstanding(), board.kept()), (0, 0));
    }
}
