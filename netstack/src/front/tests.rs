//! What the front takes, what it answers and what it drops, one rule a test.

use smoltcp::wire::{EthernetAddress, IpProtocol, Ipv4Packet, TcpPacket};

use super::testing::*;
use super::*;

fn reason(inbound: Inbound<Heap>) -> DropReason {
    match inbound {
        Inbound::Dropped(reason) => reason,
        other => panic!("expected a drop, got {other:?}"),
    }
}

fn segment(inbound: Inbound<Heap>) -> (Vec<u8>, TcpView) {
    match inbound {
        Inbound::Tcp { frame, segment } => (frame.bytes, segment),
        other => panic!("expected a segment, got {other:?}"),
    }
}

/// Asserts that `frame` is dropped for `expected`, and counted.
#[track_caller]
fn drops(host: &mut Host, frame: impl Into<Heap>, expected: DropReason) {
    let before = host.front.dropped(expected);
    assert_eq!(reason(host.receive(frame)), expected);
    assert_eq!(host.front.dropped(expected), before + 1);
    assert!(host.out.sent.is_empty(), "what is dropped is not answered");
}

#[test]
fn a_segment_for_us_arrives_parsed_and_without_padding() {
    for (from, to, start) in [("10.0.0.2", "10.0.0.1", 14), ("fd00::2", "fd00::1", 14)] {
        let mut host = Host::new();
        let packet = tcp(from, to, b"hello");
        let mut frame = framed(&packet);
        frame.extend([0xee; 9]); // Ethernet padding
        let (bytes, view) = segment(host.receive(frame));
        assert_eq!(bytes.len(), 14 + packet.len());
        assert_eq!(view.key.local(), format!("{}:2000", bracketed(to)).parse().unwrap());
        assert_eq!(view.key.remote(), format!("{}:1000", bracketed(from)).parse().unwrap());
        assert_eq!((view.ip_start, view.ip_len), (start, packet.len()));
        assert_eq!(&bytes[view.payload_start..][..view.payload_len], b"hello");
        assert_eq!(view.payload_start, view.tcp_start + 20);
        assert_eq!((view.seq, view.ack, view.window), (0x0102_0304, 0x0506_0708, 4321));
        assert_eq!(view.flags, TcpFlags::PSH | TcpFlags::ACK);
    }
}

fn bracketed(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

#[test]
fn no_cut_of_any_frame_is_taken_for_something() {
    let frames = [
        framed(&tcp("10.0.0.2", "10.0.0.1", b"hello")),
        framed(&tcp("fd00::2", "fd00::1", b"hello")),
        framed(&with_extensions(&tcp("fd00::2", "fd00::1", b"hello"))),
        framed(&echo("10.0.0.2", "10.0.0.1", 20)),
        framed(&echo("fd00::2", "fd00::1", 20)),
        arp_request(PEER, "10.0.0.2", "10.0.0.1"),
        framed(&nd("fd00::2", "fd00::1", solicit("fd00::1", Some(PEER)))),
        framed(&icmp("10.0.0.9", "10.0.0.1", 3, 1, &quote("10.0.0.1", "10.0.0.2"))),
        tagged(&framed(&tcp("10.0.0.2", "10.0.0.1", b"hello")), 0),
    ];
    for frame in frames {
        let mut host = Host::new();
        for len in 0..frame.len() {
            reason(host.receive(frame[..len].to_vec()));
        }
        assert!(!matches!(host.receive(frame), Inbound::Dropped(_)), "whole, it is fine");
    }
}

#[test]
fn every_flipped_bit_of_an_ipv4_segment_is_noticed() {
    let mut host = Host::new();
    let frame = framed(&tcp("10.0.0.2", "10.0.0.1", b"hello"));
    for bit in 14 * 8..frame.len() * 8 {
        let mut flipped = frame.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        reason(host.receive(flipped));
    }
}

#[test]
fn every_flipped_bit_of_an_ipv6_tcp_header_is_noticed() {
    let mut host = Host::new();
    let frame = framed(&tcp("fd00::2", "fd00::1", b"hello"));
    for bit in (14 + 8) * 8..frame.len() * 8 {
        let mut flipped = frame.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        reason(host.receive(flipped));
    }
}

#[test]
fn frames_of_others_are_not_ours() {
    let mut host = Host::new();
    let packet = tcp("10.0.0.2", "10.0.0.1", b"");
    drops(&mut host, addressed(OTHER, PEER, &packet), DropReason::EthernetNotOurs);
    drops(&mut host, addressed(OURS, ALL, &packet), DropReason::EthernetSource);
    drops(&mut host, addressed(ALL, PEER, &packet), DropReason::NotUnicast);
    let group = EthernetAddress([0x33, 0x33, 0, 0, 0, 1]);
    drops(&mut host, addressed(group, PEER, &packet), DropReason::NotUnicast);
    let stranger = EthernetAddress([0x33, 0x33, 0, 0, 0, 2]);
    drops(&mut host, addressed(stranger, PEER, &packet), DropReason::EthernetNotOurs);
    let mut frame = framed(&packet);
    frame[12..14].copy_from_slice(&[0x88, 0xcc]);
    drops(&mut host, frame, DropReason::EtherType);
}

#[test]
fn only_our_vlan_and_untagged_frames_are_taken() {
    let frame = framed(&tcp("10.0.0.2", "10.0.0.1", b"hello"));
    let mut plain = Host::new();
    assert_eq!(segment(plain.receive(tagged(&frame, 0xe000))).1.ip_start, 18, "a priority tag");
    drops(&mut plain, tagged(&frame, 5), DropReason::OtherVlan);
    let mut host = Host::with(&FrontConfig { vlan: Some(5), ..config() });
    let (bytes, view) = segment(host.receive(tagged(&frame, 0x6005)));
    assert_eq!((view.ip_start, &bytes[view.payload_start..]), (18, &b"hello"[..]));
    assert_eq!(segment(host.receive(frame.clone())).1.ip_start, 14);
    drops(&mut host, tagged(&frame, 6), DropReason::OtherVlan);
    drops(&mut host, tagged(&tagged(&frame, 5), 5), DropReason::EtherType);
}

#[test]
fn sent_frames_carry_the_configured_tag() {
    let mut host = Host::with(&FrontConfig { vlan: Some(5), ..config() });
    host.receive(arp_request(PEER, "10.0.0.2", "10.0.0.1"));
    assert!(matches!(host.send("10.0.0.2"), Sent::Pushed));
    for frame in host.sent() {
        assert_eq!(frame[..16], [&PEER.0[..], &OURS.0, &[0x81, 0, 0, 5]].concat());
        assert!([[8, 6], [8, 0]].contains(&[frame[16], frame[17]]));
    }
    assert!(Front::<Heap>::new(&FrontConfig { vlan: Some(4095), ..config() }).is_err());
}

#[test]
fn ipv4_headers_that_contradict_themselves_are_dropped() {
    let mut host = Host::new();
    let good = || tcp("10.0.0.2", "10.0.0.1", b"hello");
    let mut case = |change: fn(&mut [u8]), reason| {
        drops(&mut host, addressed_v4(&with_v4(good(), change)), reason);
    };
    case(|packet| packet[0] = 0x65, DropReason::IpHeader);
    case(|packet| packet[0] = 0x44, DropReason::IpHeader);
    case(|packet| packet[2..4].copy_from_slice(&19u16.to_be_bytes()), DropReason::IpHeader);
    case(|packet| packet[2..4].copy_from_slice(&9000u16.to_be_bytes()), DropReason::IpHeader);
    case(|packet| packet[2..4].copy_from_slice(&30u16.to_be_bytes()), DropReason::TcpHeader);
    case(|packet| packet[6] = 0x20, DropReason::IpFragment);
    case(|packet| packet[7] = 1, DropReason::IpFragment);
    case(|packet| packet[9] = 17, DropReason::IpProtocol);
    case(|packet| packet[9] = 58, DropReason::IpProtocol);
    let mut bad = good();
    bad[10] ^= 1;
    drops(&mut host, framed(&bad), DropReason::IpChecksum);
}

fn addressed_v4(packet: &[u8]) -> Vec<u8> {
    let mut frame = framed(packet);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame
}

#[test]
fn ipv4_options_are_stepped_over() {
    let mut host = Host::new();
    let plain = tcp("10.0.0.2", "10.0.0.1", b"hello");
    let mut packet = plain[..20].to_vec();
    packet.extend([1; 8]); // no-operation options
    packet.extend(&plain[20..]);
    let packet = with_v4(packet, |packet| {
        packet[0] = 0x47;
        packet[3] += 8;
    });
    let (bytes, view) = segment(host.receive(framed(&packet)));
    assert_eq!(view.tcp_start, 14 + 28);
    assert_eq!(&bytes[view.payload_start..], b"hello");
}

/// Puts a hop-by-hop and a destination options header in front of the payload.
fn with_extensions(packet: &[u8]) -> Vec<u8> {
    let protocol = packet[6];
    extended(
        packet,
        0,
        &[60, 0, 1, 4, 0, 0, 0, 0, protocol, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    )
}

fn extended(packet: &[u8], first: u8, extensions: &[u8]) -> Vec<u8> {
    let mut bytes = packet[..40].to_vec();
    bytes.extend(extensions);
    bytes.extend(&packet[40..]);
    let len = u16::try_from(bytes.len() - 40).unwrap();
    bytes[4..6].copy_from_slice(&len.to_be_bytes());
    bytes[6] = first;
    bytes
}

#[test]
fn ipv6_extension_headers_are_taken_out_of_the_way() {
    let mut host = Host::new();
    let plain = tcp("fd00::2", "fd00::1", b"hello");
    let (bytes, view) = segment(host.receive(framed(&with_extensions(&plain))));
    assert_eq!(view.ip_start, 14 + 24);
    assert_eq!(&bytes[view.ip_start..][..view.ip_len], plain, "as if there had been none");
}

#[test]
fn ipv6_extension_headers_are_not_followed_for_ever() {
    let mut host = Host::new();
    let plain = tcp("fd00::2", "fd00::1", b"hello");
    let options = |count: usize| {
        let mut chain = [60, 0, 1, 4, 0, 0, 0, 0].repeat(count);
        chain[8 * (count - 1)] = 6;
        extended(&plain, 60, &chain)
    };
    segment(host.receive(framed(&options(4))));
    drops(&mut host, framed(&options(5)), DropReason::IpExtension);
    let mut long = vec![6, 32];
    long.resize(33 * 8, 0);
    drops(&mut host, framed(&extended(&plain, 60, &long)), DropReason::IpExtension);
    long[1] = 255;
    drops(&mut host, framed(&extended(&plain, 60, &long)), DropReason::IpExtension);
    let mut case = |first: u8, extension: [u8; 8], reason| {
        drops(&mut host, framed(&extended(&plain, first, &extension)), reason);
    };
    case(44, [6, 0, 0, 1, 0, 0, 0, 1], DropReason::IpFragment);
    case(43, [6, 0, 0, 0, 0, 0, 0, 0], DropReason::IpExtension);
    case(60, [0, 0, 1, 4, 0, 0, 0, 0], DropReason::IpExtension); // hop-by-hop, but not first
    case(60, [6, 0, 0x85, 4, 0, 0, 0, 0], DropReason::IpExtension); // unknown: discard
    case(60, [6, 0, 1, 9, 0, 0, 0, 0], DropReason::IpExtension); // longer than its header
    case(59, [6, 0, 1, 4, 0, 0, 0, 0], DropReason::IpProtocol);
}

#[test]
fn packets_from_addresses_no_host_has_are_dropped() {
    let mut host = Host::new();
    for from in ["0.0.0.0", "127.0.0.1", "224.0.0.5", "240.0.0.1", "255.255.255.255", "10.0.0.255"]
    {
        drops(&mut host, framed(&tcp(from, "10.0.0.1", b"")), DropReason::IpSource);
        drops(&mut host, framed(&echo(from, "10.0.0.1", 8)), DropReason::IpSource);
    }
    for from in ["::", "::1", "ff02::5", "::ffff:10.0.0.2"] {
        drops(&mut host, framed(&tcp(from, "fd00::1", b"")), DropReason::IpSource);
    }
    drops(&mut host, framed(&tcp("10.0.0.1", "10.0.0.1", b"")), DropReason::IpSourceOurs);
    drops(&mut host, framed(&tcp("fe80::ff:fe00:1", "fd00::1", b"")), DropReason::IpSourceOurs);
}

#[test]
fn packets_for_addresses_that_are_not_ours_are_dropped() {
    let mut host = Host::new();
    for to in ["10.0.0.3", "10.0.0.255", "255.255.255.255", "224.0.0.1"] {
        drops(&mut host, framed(&tcp("10.0.0.2", to, b"")), DropReason::IpNotOurs);
    }
    for to in ["fd00::3", "ff02::2", "ff02::1:ff00:9"] {
        drops(&mut host, framed(&tcp("fd00::2", to, b"")), DropReason::IpNotOurs);
    }
    drops(&mut host, framed(&tcp("fd00::2", "ff02::1", b"")), DropReason::NotUnicast);
    // It would be our IPv4 address in every table.
    drops(&mut host, framed(&tcp("fd00::2", "::ffff:10.0.0.1", b"")), DropReason::IpSource);
}

#[test]
fn tcp_headers_no_host_sends_are_dropped() {
    let mut host = Host::new();
    for (from, to) in [("10.0.0.2", "10.0.0.1"), ("fd00::2", "fd00::1")] {
        let mut case = |change: fn(&mut [u8]), reason| {
            drops(&mut host, framed(&with_tcp(tcp(from, to, b""), change)), reason);
        };
        case(|tcp| tcp[0..2].fill(0), DropReason::TcpHeader);
        case(|tcp| tcp[2..4].fill(0), DropReason::TcpHeader);
        case(|tcp| tcp[12] = 0x40, DropReason::TcpHeader);
        case(|tcp| tcp[12] = 0x60, DropReason::TcpHeader);
        case(|tcp| tcp[13] = 0, DropReason::TcpFlags);
        case(|tcp| tcp[13] = 0x03, DropReason::TcpFlags);
        case(|tcp| tcp[13] = 0x06, DropReason::TcpFlags);
        case(|tcp| tcp[13] = 0x3f, DropReason::TcpFlags);
    }
}

#[test]
fn checksums_are_tested_unless_the_device_did_or_vouches() {
    let mut bad = framed(&tcp("10.0.0.2", "10.0.0.1", b"hello"));
    bad[14 + 20 + 16] ^= 1;
    let mut host = Host::new();
    drops(&mut host, bad.clone(), DropReason::TcpChecksum);
    segment(host.receive(Heap { bytes: bad.clone(), checksum: ChecksumState::Good }));
    let good = framed(&tcp("10.0.0.2", "10.0.0.1", b"hello"));
    let marked = Heap { bytes: good, checksum: ChecksumState::Bad };
    drops(&mut host, marked, DropReason::DeviceChecksum);
    let mut trusting = Host::with(&FrontConfig { verify_checksums: false, ..config() });
    segment(trusting.receive(bad));
}

#[test]
fn the_very_first_ping_is_answered() {
    let mut host = Host::new();
    host.receive(arp_request(PEER, "10.0.0.2", "10.0.0.1"));
    host.sent();
    for len in [0, 1, 56, 1472] {
        let request = echo("10.0.0.2", "10.0.0.1", len);
        assert!(matches!(host.receive(framed(&request)), Inbound::Consumed));
        let sent = host.sent();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0][..14], [&PEER.0[..], &OURS.0, &[8, 0]].concat());
        let reply = Ipv4Packet::new_checked(&sent[0][14..]).unwrap();
        assert!(reply.verify_checksum());
        assert_eq!((reply.src_addr(), reply.dst_addr()), (v4("10.0.0.1"), v4("10.0.0.2")));
        let mut expected = icmp("10.0.0.1", "10.0.0.2", 0, 0, &request[24..]);
        assert_eq!(reply.payload(), &expected.split_off(20));
    }
    host.receive(framed(&nd("fd00::2", "fd00::1", solicit("fd00::1", Some(PEER)))));
    host.sent();
    for len in [0, 56, 1452] {
        let request = echo("fd00::2", "fd00::1", len);
        host.receive(framed(&request));
        let mut expected = icmp("fd00::1", "fd00::2", 129, 0, &request[44..]);
        expected[7] = 64;
        assert_eq!(host.sent(), [addressed(PEER, OURS, &expected)]);
    }
    assert_eq!(host.counter("echo_replies_sent"), 7);
}

#[test]
fn a_ping_from_an_unknown_neighbour_waits_for_its_address() {
    let mut host = Host::new();
    assert!(matches!(host.receive(framed(&echo("10.0.0.2", "10.0.0.1", 8))), Inbound::Consumed));
    assert_eq!(parse_arp(&host.sent()[0]).3, v4("10.0.0.2"));
    host.receive(arp_reply(PEER, "10.0.0.2", "10.0.0.1"));
    assert_eq!(host.sent()[0][34], 0, "an echo reply");
    host.receive(framed(&echo("9.9.9.9", "10.0.0.1", 8)));
    assert_eq!(parse_arp(&host.sent()[0]).3, v4("10.0.0.254"), "by way of the gateway");
}

#[test]
fn a_reply_has_no_options_and_the_tag_of_our_vlan() {
    let plain = echo("10.0.0.2", "10.0.0.1", 8);
    let mut packet = plain[..20].to_vec();
    packet.extend([1; 4]);
    packet.extend(&plain[20..]);
    let with_options = with_v4(packet, |packet| {
        packet[0] = 0x46;
        packet[3] += 4;
    });
    for vlan in [None, Some(7)] {
        let mut host = Host::with(&FrontConfig { vlan, ..config() });
        host.receive(arp_request(PEER, "10.0.0.2", "10.0.0.1"));
        host.sent();
        for request in [&plain, &with_options] {
            let untagged = framed(request);
            for frame in [tagged(&untagged, vlan.unwrap_or(0)), untagged] {
                host.receive(frame);
                let sent = host.sent();
                let start = host.front.link_header_len();
                assert_eq!(sent[0].len(), start + plain.len());
                let reply = Ipv4Packet::new_checked(&sent[0][start..]).unwrap();
                assert_eq!((reply.header_len(), reply.total_len()), (20, plain.len() as u16));
                assert!(reply.verify_checksum());
                assert_eq!(sent[0][start + 28..], plain[28..]);
            }
        }
    }
}

#[test]
fn pings_that_would_be_amplified_are_not_answered() {
    let mut host = Host::new();
    host.receive(arp_request(PEER, "10.0.0.2", "10.0.0.1"));
    host.sent();
    let packet = echo("10.0.0.2", "10.0.0.1", 8);
    drops(&mut host, addressed(ALL, PEER, &packet), DropReason::NotUnicast);
    drops(&mut host, framed(&echo("fd00::2", "ff02::1", 8)), DropReason::NotUnicast);
    drops(&mut host, framed(&echo("::", "fd00::1", 8)), DropReason::NotUnicast);
}

#[test]
fn a_flood_of_pings_is_answered_at_a_bounded_rate() {
    let mut host = Host::new();
    host.receive(arp_request(PEER, "10.0.0.2", "10.0.0.1"));
    let ping = framed(&echo("10.0.0.2", "10.0.0.1", 8));
    for _ in 0..200 {
        host.receive(ping.clone());
    }
    assert_eq!(host.counter("echo_replies_sent"), u64::from(ECHO_BURST));
    assert_eq!(host.front.dropped(DropReason::EchoLimit), 200 - u64::from(ECHO_BURST));
    host.wait(std::time::Duration::from_millis(1));
    for _ in 0..200 {
        host.receive(ping.clone());
    }
    assert_eq!(host.counter("echo_replies_sent"), u64::from(ECHO_BURST) + 10);
}

#[test]
fn icmp_that_is_wrong_or_means_nothing_is_dropped() {
    let mut host = Host::new();
    let mut bad = echo("10.0.0.2", "10.0.0.1", 8);
    bad[30] ^= 1;
    drops(&mut host, framed(&bad), DropReason::IcmpChecksum);
    let mut bad = echo("fd00::2", "fd00::1", 8);
    bad[50] ^= 1;
    drops(&mut host, framed(&bad), DropReason::IcmpChecksum);
    drops(&mut host, framed(&icmp("10.0.0.2", "10.0.0.1", 0, 0, &[0; 8])), DropReason::IcmpType);
    drops(&mut host, framed(&icmp("10.0.0.2", "10.0.0.1", 5, 1, &[0; 8])), DropReason::IcmpType);
    drops(&mut host, framed(&icmp("fd00::2", "fd00::1", 134, 0, &[0; 12])), DropReason::IcmpType);
    drops(&mut host, framed(&icmp("10.0.0.2", "10.0.0.1", 8, 0, &[0; 2])), DropReason::IcmpHeader);
}

/// Four bytes of no meaning, then the start of a segment from `from` to `to`.
fn quote(from: &str, to: &str) -> Vec<u8> {
    let packet = tcp(from, to, b"what was sent");
    let header = if from.contains(':') { 40 } else { 20 };
    let mut quote = vec![0, 0, 0x05, 0x78];
    quote.extend(&packet[..header + 8]);
    quote
}

#[test]
fn icmp_errors_name_the_flow_they_are_about() {
    let mut host = Host::new();
    let cases = [
        ("10.0.0.1", "10.9.9.9", "10.0.0.254", 3, 1, IcmpErrorKind::Unreachable),
        ("10.0.0.1", "10.0.0.2", "10.0.0.2", 3, 3, IcmpErrorKind::PortUnreachable),
        ("10.0.0.1", "10.9.9.9", "10.0.0.254", 3, 4, IcmpErrorKind::TooBig { mtu: 1400 }),
        ("fd00::1", "fd00::2", "fd00::2", 1, 3, IcmpErrorKind::Unreachable),
        ("fd00::1", "fd00::2", "fd00::2", 1, 4, IcmpErrorKind::PortUnreachable),
        ("fd00::1", "fd01::2", "fe80::9", 2, 0, IcmpErrorKind::TooBig { mtu: 1400 }),
    ];
    for (ours, theirs, router, kind, code, expected) in cases {
        let packet = icmp(router, ours, kind, code, &quote(ours, theirs));
        let Inbound::IcmpError(error) = host.receive(framed(&packet)) else { panic!("no error") };
        assert_eq!(error.key.local(), format!("{}:1000", bracketed(ours)).parse().unwrap());
        assert_eq!(error.key.remote(), format!("{}:2000", bracketed(theirs)).parse().unwrap());
        assert_eq!((error.seq, error.kind), (0x0102_0304, expected));
    }
    assert_eq!(host.counter("icmp_errors"), 6);
}

#[test]
fn icmp_errors_about_what_we_cannot_have_sent_are_dropped() {
    let mut host = Host::new();
    let mut case = |rest: &[u8]| {
        let packet = icmp("10.0.0.9", "10.0.0.1", 3, 1, rest);
        drops(&mut host, framed(&packet), DropReason::IcmpQuote);
    };
    let good = quote("10.0.0.1", "10.0.0.2");
    case(&quote("10.0.0.7", "10.0.0.2"));
    case(&good[..good.len() - 1]);
    case(&good[..10]);
    let change = |at: usize, value: u8| {
        let mut quote = good.clone();
        quote[4 + at] = value;
        quote
    };
    case(&change(0, 0x65));
    case(&change(0, 0x4f));
    case(&change(0, 0x41));
    case(&change(9, 17));
    case(&change(7, 1));
    let mut six = quote("fd00::1", "fd00::2");
    six[4 + 6] = 17;
    drops(&mut host, framed(&icmp("fd00::9", "fd00::1", 1, 1, &six)), DropReason::IcmpQuote);
}

#[test]
fn packets_that_cannot_be_sent_are_counted() {
    let mut host = Host::new();
    let sent = |host: &mut Host, packet: &[u8]| match host.send_packet(packet) {
        Sent::Dropped(reason) => reason,
        other => panic!("expected a drop, got {other:?}"),
    };
    assert_eq!(sent(&mut host, &[]), DropReason::SendPacket);
    assert_eq!(sent(&mut host, &[0x45; 19]), DropReason::SendPacket);
    assert_eq!(sent(&mut host, &[0x60; 39]), DropReason::SendPacket);
    assert_eq!(sent(&mut host, &[0x75; 60]), DropReason::SendPacket);
    let long = tcp("10.0.0.1", "10.0.0.2", &[0; 1461]);
    assert_eq!(sent(&mut host, &long), DropReason::SendPacket);
    let nowhere = tcp("fd00::1", "2001:db8::1", b"");
    assert_eq!(sent(&mut host, &nowhere), DropReason::SendNoRoute);
    host.receive(arp_request(PEER, "10.0.0.2", "10.0.0.1"));
    host.out.full = true;
    assert!(matches!(host.send("10.0.0.2"), Sent::Dropped(DropReason::SendQueueFull)));
    assert_eq!(host.front.dropped(DropReason::SendPacket), 5);
    assert_eq!(host.front.dropped(DropReason::SendQueueFull), 1);
    let short = Front::send(&mut host.front, host.now, vec![0; 3].into(), &mut host.out);
    assert!(matches!(short, Sent::Dropped(DropReason::SendPacket)));
}

#[test]
fn what_we_send_to_ourselves_comes_back_without_touching_the_wire() {
    for own in ["10.0.0.1", "fd00::1"] {
        let mut host = Host::new();
        let Sent::Own(mut frame) = host.send(own) else { panic!("left the host") };
        let tcp_start = if own.contains(':') { 54 } else { 34 };
        TcpPacket::new_unchecked(&mut frame.bytes[tcp_start..]).set_checksum(0);
        let (bytes, view) = segment(host.front.receive_own(frame));
        assert_eq!(view.key.remote().ip(), own.parse::<IpAddr>().unwrap());
        assert_eq!(&bytes[view.payload_start..], b"hello");
        assert!(host.sent().is_empty());
    }
    let mut host = Host::new();
    assert_eq!(reason(host.front.receive_own(vec![0; 14].into())), DropReason::IpHeader);
    let udp = framed(&ip("10.0.0.1", "10.0.0.1", IpProtocol::Udp, &[0; 8]));
    assert_eq!(reason(host.front.receive_own(udp.into())), DropReason::IpProtocol);
}

#[test]
fn routes_are_told_as_addresses() {
    let host = Host::new();
    let route = |to: &str| host.front.route(to.parse().unwrap());
    let expected = |next_hop: &str, source: &str| {
        Some(Route { next_hop: next_hop.parse().unwrap(), source: source.parse().unwrap() })
    };
    assert_eq!(route("10.0.0.9"), expected("10.0.0.9", "10.0.0.1"));
    assert_eq!(route("9.9.9.9"), expected("10.0.0.254", "10.0.0.1"));
    assert_eq!(route("fd00::9"), expected("fd00::9", "fd00::1"));
    assert_eq!(route("2001:db8::1"), None);
    assert!(host.front.is_local("fe80::ff:fe00:1".parse().unwrap()));
    assert!(!host.front.is_local("10.0.0.2".parse().unwrap()));
}
