//! What the neighbour table believes, how long, and how little a stranger can do to it. The
//! stories run through a front, so that packets tell them.

use std::time::Duration;

use smoltcp::wire::{ArpOperation, EthernetAddress, NdiscNeighborFlags, NdiscRepr};

use crate::front::testing::*;
use crate::front::{
    DropReason, Heard, Inbound, NEIGHBORS_MAX, NeighborTimers, Sent, UNRESOLVED_MAX, WAITING_MAX,
    WAITING_PER_NEIGHBOR_MAX,
};

const SECOND: Duration = Duration::from_secs(1);

fn learned(inbound: Inbound<Heap>) -> Heard {
    match inbound {
        Inbound::Learned(heard) => heard,
        other => panic!("nothing learnt: {other:?}"),
    }
}

#[track_caller]
fn drops(inbound: Inbound<Heap>, expected: DropReason) {
    match inbound {
        Inbound::Dropped(reason) => assert_eq!(reason, expected),
        other => panic!("expected a drop, got {other:?}"),
    }
}

/// Where a sent frame goes.
fn to(frame: &[u8]) -> EthernetAddress {
    EthernetAddress::from_bytes(&frame[..6])
}

/// The `index`-th host of 10.0.0.0/16, none of them the ones used by name.
fn stranger(index: usize) -> String {
    format!("10.0.{}.{}", 1 + index / 250, 1 + index % 250)
}

/// A host on a link with room for many strangers.
fn crowded() -> Host {
    let addrs = ["10.0.0.1/16", "fd00::1/64"].map(|addr| addr.parse().unwrap());
    Host::with(&crate::front::FrontConfig { addrs: addrs.to_vec(), ..config() })
}

#[test]
fn a_request_for_us_is_answered_and_its_sender_remembered() {
    let mut host = Host::new();
    let heard = learned(host.receive(arp_request(PEER, "10.0.0.2", "10.0.0.1")));
    assert_eq!((heard.ip, heard.mac), ("10.0.0.2".parse().unwrap(), PEER));
    let sent = host.sent();
    assert_eq!(to(&sent[0]), PEER);
    let reply = (ArpOperation::Reply, OURS, v4("10.0.0.1"), v4("10.0.0.2"));
    assert_eq!(parse_arp(&sent[0]), reply);
    assert!(matches!(host.send("10.0.0.2"), Sent::Pushed));
    assert_eq!(to(&host.sent()[0]), PEER);
    drops(host.receive(arp_request(PEER, "10.0.0.2", "10.0.0.3")), DropReason::ArpNotOurs);
}

#[test]
fn parallel_sends_to_one_unknown_neighbour_ask_once_and_leave_in_order() {
    let mut host = Host::new();
    for byte in 0..5 {
        let packet = tcp("10.0.0.1", "10.0.0.2", &[byte]);
        assert!(matches!(host.send_packet(&packet), Sent::Waiting));
    }
    let sent = host.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(to(&sent[0]), ALL);
    let request = (ArpOperation::Request, OURS, v4("10.0.0.1"), v4("10.0.0.2"));
    assert_eq!(parse_arp(&sent[0]), request);
    assert_eq!(host.counter("neighbor_waiting_frames_in_use"), 5);
    learned(host.receive(arp_reply(PEER, "10.0.0.2", "10.0.0.1")));
    let sent = host.sent();
    assert_eq!(sent.iter().map(|frame| frame[54]).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(sent.iter().all(|frame| to(frame) == PEER));
    assert_eq!(host.counter("neighbor_waiting_frames_in_use"), 0);
}

#[test]
fn the_queue_of_one_neighbour_drops_its_oldest_frame() {
    let mut host = Host::new();
    for byte in 0..=WAITING_PER_NEIGHBOR_MAX as u8 {
        host.send_packet(&tcp("10.0.0.1", "10.0.0.2", &[byte]));
    }
    assert_eq!(host.front.dropped(DropReason::WaitOverflow), 1);
    host.sent();
    host.receive(arp_reply(PEER, "10.0.0.2", "10.0.0.1"));
    let sent = host.sent();
    assert_eq!((sent.len(), sent[0][54]), (WAITING_PER_NEIGHBOR_MAX, 1));
}

#[test]
fn all_waiting_frames_together_are_bounded_too() {
    let mut host = crowded();
    let neighbors = WAITING_MAX / WAITING_PER_NEIGHBOR_MAX + 4;
    for _ in 0..WAITING_PER_NEIGHBOR_MAX {
        for index in 0..neighbors {
            host.send(&stranger(index));
        }
    }
    let overflow = (4 * WAITING_PER_NEIGHBOR_MAX) as u64;
    assert_eq!(host.counter("neighbor_waiting_frames_in_use"), WAITING_MAX as u64);
    assert_eq!(host.front.dropped(DropReason::WaitOverflow), overflow);
    host.wait(10 * SECOND);
    assert_eq!(host.front.dropped(DropReason::WaitUnreachable), WAITING_MAX as u64);
    assert_eq!(host.counter("neighbor_waiting_frames_in_use"), 0);
}

#[test]
fn a_neighbour_that_does_not_answer_is_asked_three_times_and_told_once() {
    for ip in ["10.0.0.2", "fd00::2"] {
        let mut host = Host::new();
        host.send(ip);
        host.wait(SECOND * 5 / 2);
        assert_eq!(host.sent().len(), 3, "at 0, 1 and 2 seconds");
        assert_eq!(host.front.unreachable(), None);
        host.wait(SECOND);
        assert_eq!(host.front.unreachable(), Some(ip.parse().unwrap()));
        assert_eq!(host.front.unreachable(), None);
        assert_eq!(host.front.dropped(DropReason::WaitUnreachable), 1);
        assert_eq!(host.front.poll_timeout(), None);
        assert!(matches!(host.send(ip), Sent::Waiting), "it may be back");
        assert_eq!(host.sent().len(), 1);
    }
}

#[test]
fn what_nobody_asked_for_makes_no_entry() {
    let mut host = Host::new();
    learned(host.receive(arp_reply(PEER, "10.0.0.2", "10.0.0.1")));
    learned(host.receive(arp_request(PEER, "10.0.0.2", "10.0.0.2"))); // gratuitous
    let flags = NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
    learned(host.receive(framed(&nd("fd00::2", "fd00::1", advert("fd00::2", PEER, flags)))));
    assert_eq!(host.counter("neighbors"), 0);
    assert_eq!(host.counter("neighbors_unasked"), 3);
    assert!(matches!(host.send("10.0.0.2"), Sent::Waiting));
}

#[test]
fn an_announcement_moves_a_neighbour_we_know() {
    let mut host = Host::new();
    host.receive(arp_request(PEER, "10.0.0.2", "10.0.0.1"));
    host.receive(arp_request(OTHER, "10.0.0.2", "10.0.0.2"));
    host.sent();
    host.send("10.0.0.2");
    assert_eq!(to(&host.sent()[0]), OTHER);
    assert_eq!(host.counter("neighbors_moved"), 1);
}

#[test]
fn senders_no_host_of_the_link_has_are_not_believed() {
    let mut host = Host::new();
    for ip in ["10.9.9.9", "224.0.0.1", "127.0.0.1", "10.0.0.255", "255.255.255.255"] {
        drops(host.receive(arp_request(PEER, ip, "10.0.0.1")), DropReason::ArpSender);
    }
    let multicast = arp(ArpOperation::Request, ALL, "10.0.0.2", "10.0.0.1");
    drops(host.receive(addressed(ALL, PEER, &multicast)), DropReason::ArpSender);
    let mut malformed = arp_request(PEER, "10.0.0.2", "10.0.0.1");
    malformed[14 + 4] = 8;
    drops(host.receive(malformed), DropReason::ArpHeader);
    assert_eq!((host.counter("neighbors"), host.sent().len()), (0, 0));
}

#[test]
fn somebody_with_our_address_is_counted_as_a_conflict() {
    let mut host = Host::new();
    drops(host.receive(arp_request(PEER, "10.0.0.1", "10.0.0.1")), DropReason::ArpSender);
    drops(host.receive(arp_request(OURS, "10.0.0.1", "10.0.0.1")), DropReason::ArpSender);
    assert_eq!(host.counter("address_conflicts"), 1, "our own echo is none");
    let claim = advert("fd00::1", PEER, NdiscNeighborFlags::OVERRIDE);
    drops(host.receive(framed(&nd("fd00::2", "ff02::1", claim))), DropReason::NdNotOurs);
    assert_eq!(host.counter("address_conflicts"), 2);
}

#[test]
fn a_host_that_looks_for_its_own_address_is_answered_but_not_learnt() {
    let mut host = Host::new();
    assert!(matches!(host.receive(arp_request(PEER, "0.0.0.0", "10.0.0.1")), Inbound::Consumed));
    assert_eq!(parse_arp(&host.sent()[0]).0, ArpOperation::Reply);
    let probe = nd("::", "ff02::1:ff00:1", solicit("fd00::1", None));
    assert!(matches!(host.receive(framed(&probe)), Inbound::Consumed));
    let sent = host.sent();
    let (from, to, message) = parse_nd(&sent[0]);
    assert_eq!((from, to), (v6("fd00::1"), v6("ff02::1")));
    assert_eq!(message, advert("fd00::1", OURS, NdiscNeighborFlags::OVERRIDE));
    assert_eq!(host.counter("neighbors"), 0);
}

#[test]
fn a_solicitation_for_any_of_our_addresses_is_answered() {
    let mut host = Host::new();
    let flags = NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
    for (from, group, target) in [
        ("fd00::2", "ff02::1:ff00:1", "fd00::1"),
        ("fe80::2", "ff02::1:ff00:1", "fd00::1"),
        ("fe80::2", "fe80::ff:fe00:1", "fe80::ff:fe00:1"),
    ] {
        let packet = nd(from, group, solicit(target, Some(PEER)));
        learned(host.receive(framed(&packet)));
        let sent = host.sent();
        assert_eq!(to(&sent[0]), PEER);
        assert_eq!(parse_nd(&sent[0]), (v6(target), v6(from), advert(target, OURS, flags)));
    }
    assert!(matches!(host.send("fd00::2"), Sent::Pushed));
    assert!(matches!(host.send("fe80::2"), Sent::Pushed));
    let foreign = nd("fd77::2", "fd00::1", solicit("fd00::1", None));
    assert!(matches!(host.receive(framed(&foreign)), Inbound::Consumed));
    assert_eq!(to(&host.sent()[2]), PEER, "answered to where it came from");
}

#[test]
fn neighbour_discovery_that_crossed_a_router_or_lies_is_dropped() {
    let mut host = Host::new();
    let mut far = nd("fd00::2", "fd00::1", solicit("fd00::1", Some(PEER)));
    far[7] = 254;
    drops(host.receive(framed(&far)), DropReason::NdHeader);
    let mut case = |from, to, message| {
        drops(host.receive(framed(&nd(from, to, message))), DropReason::NdHeader);
    };
    let solicited = NdiscNeighborFlags::SOLICITED;
    case("fd00::2", "fd00::1", solicit("ff02::1", Some(PEER)));
    case("fd00::2", "fd00::1", solicit("fd00::1", Some(ALL)));
    case("::", "ff02::1:ff00:1", solicit("fd00::1", Some(PEER)));
    case("::", "fd00::1", solicit("fd00::1", None));
    case("::", "fd00::1", advert("fd00::2", PEER, solicited));
    case("fd00::2", "ff02::1", advert("fd00::2", PEER, solicited));
    case("fd00::2", "fd00::1", advert("ff02::1", PEER, solicited));
    let other = nd("fd00::2", "ff02::1:ff00:1", solicit("fd00::aa00:1", Some(PEER)));
    drops(host.receive(framed(&other)), DropReason::NdNotOurs);
    let far = nd("fd00::2", "fd00::1", advert("2001:db8::2", PEER, solicited));
    drops(host.receive(framed(&far)), DropReason::NdNotOurs);
    assert_eq!((host.counter("neighbors"), host.sent().len()), (0, 0));
}

#[test]
fn an_advertisement_without_override_changes_no_address() {
    let mut host = Host::new();
    host.send("fd00::2");
    let sent = host.sent();
    assert_eq!(to(&sent[0]), EthernetAddress([0x33, 0x33, 0xff, 0, 0, 2]));
    let asked = (v6("fd00::1"), v6("ff02::1:ff00:2"), solicit("fd00::2", Some(OURS)));
    assert_eq!(parse_nd(&sent[0]), asked);
    let solicited = NdiscNeighborFlags::SOLICITED;
    let answers = [
        (advert("fd00::2", PEER, solicited), PEER),
        (advert("fd00::2", OTHER, solicited), PEER),
        (advert("fd00::2", OTHER, solicited | NdiscNeighborFlags::OVERRIDE), OTHER),
    ];
    for (answer, expected) in answers {
        host.receive(framed(&nd("fd00::2", "fd00::1", answer)));
        host.sent();
        host.send("fd00::2");
        assert_eq!(to(&host.sent()[0]), expected);
    }
}

#[test]
fn a_flood_of_spoofed_requests_neither_grows_the_table_nor_hurts_who_is_in_use() {
    let mut host = crowded();
    host.receive(arp_request(PEER, "10.0.0.2", "10.0.0.1"));
    host.send("10.0.0.2");
    let memory = host.front.reserved();
    for index in 0..3 * NEIGHBORS_MAX {
        host.receive(arp_request(OTHER, &stranger(index), "10.0.0.1"));
        host.out.sent.clear();
    }
    assert_eq!(host.counter("neighbors"), NEIGHBORS_MAX as u64);
    assert_eq!(host.counter("neighbors_evicted"), 2 * NEIGHBORS_MAX as u64 + 1);
    assert_eq!(host.front.reserved(), memory);
    assert!(matches!(host.send("10.0.0.2"), Sent::Pushed), "still known");
}

#[test]
fn when_all_are_in_use_strangers_are_refused_and_the_needed_replace_the_oldest() {
    let mut host = crowded();
    for index in 0..NEIGHBORS_MAX {
        host.receive(arp_request(PEER, &stranger(index), "10.0.0.1"));
        host.wait(Duration::from_millis(1));
        host.send(&stranger(index));
    }
    learned(host.receive(arp_request(OTHER, "10.0.0.9", "10.0.0.1")));
    assert_eq!(host.counter("neighbors_refused"), 1);
    assert_eq!(host.counter("neighbors_evicted"), 0);
    host.send(&stranger(0));
    assert!(matches!(host.send("10.0.0.9"), Sent::Waiting));
    assert_eq!(host.counter("neighbors_evicted"), 1);
    assert!(matches!(host.send(&stranger(0)), Sent::Pushed), "used a moment ago");
    assert!(matches!(host.send(&stranger(1)), Sent::Waiting), "the longest unused");
}

#[test]
fn sends_to_many_that_do_not_exist_are_asked_for_in_bounded_numbers() {
    let mut host = crowded();
    host.receive(arp_request(PEER, "10.0.0.2", "10.0.0.1"));
    for index in 0..2 * UNRESOLVED_MAX {
        host.send(&stranger(index));
    }
    assert_eq!(host.counter("neighbors"), UNRESOLVED_MAX as u64 + 1);
    assert_eq!(host.front.dropped(DropReason::WaitUnreachable), UNRESOLVED_MAX as u64);
    assert!(matches!(host.send("10.0.0.2"), Sent::Pushed), "resolved ones are not touched");
    host.wait(10 * SECOND);
    assert_eq!(host.counter("neighbors"), 1);
    assert_eq!(std::iter::from_fn(|| host.front.unreachable()).count(), UNRESOLVED_MAX);
}

#[test]
fn a_neighbour_in_use_is_asked_alone_before_it_expires_and_stays_if_it_answers() {
    let mut host = Host::new();
    host.receive(arp_request(PEER, "10.0.0.2", "10.0.0.1"));
    host.send("10.0.0.2");
    host.sent();
    host.wait(SECOND * 44);
    assert_eq!(host.sent().len(), 0);
    host.wait(SECOND * 5 / 2);
    let sent = host.sent();
    assert_eq!((sent.len(), to(&sent[0])), (1, PEER));
    assert_eq!(parse_arp(&sent[0]).0, ArpOperation::Request);
    host.receive(arp_reply(PEER, "10.0.0.2", "10.0.0.1"));
    host.wait(SECOND * 40);
    assert_eq!(host.sent().len(), 0);
    assert!(matches!(host.send("10.0.0.2"), Sent::Pushed));
}

#[test]
fn a_neighbour_in_use_that_went_away_is_forgotten_and_looked_for_again() {
    let mut host = Host::new();
    host.receive(arp_request(PEER, "10.0.0.2", "10.0.0.1"));
    host.send("10.0.0.2");
    host.sent();
    host.wait(SECOND * 55);
    assert_eq!(host.sent().len(), 3, "probes");
    assert_eq!(host.counter("neighbors"), 0);
    assert_eq!(host.front.unreachable(), None, "nothing waits for it");
    assert!(matches!(host.send("10.0.0.2"), Sent::Waiting));
    assert_eq!(to(&host.sent()[0]), ALL);
}

#[test]
fn its_own_traffic_keeps_a_neighbour_and_nobody_elses_does() {
    for (mac, probes) in [(PEER, 0), (OTHER, 1)] {
        let mut host = Host::new();
        host.receive(arp_request(PEER, "10.0.0.2", "10.0.0.1"));
        host.send("10.0.0.2");
        host.sent();
        host.wait(SECOND * 91 / 2);
        host.receive(addressed(OURS, mac, &tcp("10.0.0.2", "10.0.0.1", b"data")));
        host.wait(SECOND);
        assert_eq!(host.sent().len(), probes);
        host.send("10.0.0.2");
        assert_eq!(to(&host.sent()[0]), PEER, "traffic never changes an address");
    }
}

#[test]
fn an_idle_neighbour_is_forgotten_without_a_word() {
    let mut host = Host::new();
    host.receive(arp_request(PEER, "10.0.0.2", "10.0.0.1"));
    host.sent();
    host.wait(SECOND * 59);
    assert_eq!(host.counter("neighbors"), 1);
    host.wait(SECOND * 2);
    assert_eq!((host.counter("neighbors"), host.sent().len()), (0, 0));
    assert_eq!(host.front.poll_timeout(), None);
}

#[test]
fn a_link_that_came_up_hears_all_our_addresses() {
    let mut host = Host::new();
    host.front.link_up(host.now, &mut host.out);
    let sent = host.sent();
    assert_eq!(sent.len(), 3);
    let gratuitous = (ArpOperation::Request, OURS, v4("10.0.0.1"), v4("10.0.0.1"));
    assert_eq!((to(&sent[0]), parse_arp(&sent[0])), (ALL, gratuitous));
    for (frame, own) in sent[1..].iter().zip(["fd00::1", "fe80::ff:fe00:1"]) {
        let flags = NdiscNeighborFlags::OVERRIDE;
        assert_eq!(parse_nd(frame), (v6(own), v6("ff02::1"), advert(own, OURS, flags)));
    }
}

#[test]
fn a_sibling_worker_profits_from_what_one_has_heard() {
    let (mut one, mut two) = (Host::new(), Host::new());
    two.send("10.0.0.2");
    two.sent();
    let heard = learned(one.receive(arp_reply(PEER, "10.0.0.2", "10.0.0.1")));
    assert_eq!(one.counter("neighbors"), 0, "one never asked");
    two.front.learn(two.now, heard, &mut two.out);
    assert_eq!(to(&two.sent()[0]), PEER, "two did, and its frame is on its way");
    let heard = learned(one.receive(arp_request(OTHER, "10.0.0.3", "10.0.0.1")));
    two.front.learn(two.now, heard, &mut two.out);
    assert!(matches!(two.send("10.0.0.3"), Sent::Pushed));
}

#[test]
fn full_queues_and_empty_pools_cost_frames_but_nothing_else() {
    let mut host = Host::new();
    host.out.no_memory = true;
    host.send("10.0.0.2");
    host.receive(arp_request(PEER, "10.0.0.3", "10.0.0.1"));
    assert_eq!(host.front.dropped(DropReason::SendNoFrame), 2);
    host.out.no_memory = false;
    host.out.full = true;
    host.wait(SECOND);
    host.receive(arp_reply(PEER, "10.0.0.2", "10.0.0.1"));
    assert_eq!(host.front.dropped(DropReason::SendQueueFull), 2);
    assert_eq!(host.counter("arp_requests_sent"), 0);
    host.out.full = false;
    assert!(matches!(host.send("10.0.0.2"), Sent::Pushed));
}

#[test]
fn timers_are_configurable() {
    let neighbor = NeighborTimers { lifetime: 8 * SECOND, retry: SECOND / 2, attempts: 1 };
    let mut host = Host::with(&crate::front::FrontConfig { neighbor, ..config() });
    host.send("10.0.0.2");
    host.wait(SECOND / 2);
    assert_eq!(host.sent().len(), 1);
    assert!(host.front.unreachable().is_some());
}

#[test]
fn solicitations_before_expiry_go_to_the_neighbour_alone() {
    let mut host = Host::new();
    host.receive(framed(&nd("fd00::2", "fd00::1", solicit("fd00::1", Some(PEER)))));
    host.send("fd00::2");
    host.sent();
    host.wait(SECOND * 93 / 2);
    let sent = host.sent();
    assert_eq!(to(&sent[0]), PEER);
    let (_, destination, message) = parse_nd(&sent[0]);
    assert_eq!(destination, v6("fd00::2"));
    assert!(matches!(message, NdiscRepr::NeighborSolicit { .. }));
}
