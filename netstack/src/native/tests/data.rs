//! Bytes on their way, over good links and bad ones.

use std::io::IoSlice;
use std::time::Duration;

use super::lab::{Lab, patterned, server_of, v4, v6};
use crate::device::sim::{Faults, SimPort};
use crate::native::Congestion;
use crate::stack::{Readiness, Received, SocketError, Worker};

#[test]
fn bytes_arrive_in_order_both_ways() {
    for ip in [v4(1), v6(1)] {
        let mut lab = Lab::pair();
        let (client, accepted) = lab.connected(ip);
        lab.transfer((0, &client), (1, &accepted), 2_000_000);
        lab.transfer((1, &accepted), (0, &client), 2_000_000);
    }
}

#[test]
fn bytes_arrive_over_links_that_lose_reorder_repeat_and_corrupt() {
    let faults = Faults {
        delay: Duration::from_micros(50),
        jitter: Duration::from_micros(200),
        jitter_ppm: 50_000,
        loss_ppm: 20_000,
        duplicate_ppm: 20_000,
        corrupt_ppm: 20_000,
        ..Faults::default()
    };
    for congestion in [Congestion::None, Congestion::Reno] {
        let mut lab = Lab::with(|_, config| {
            config.congestion = congestion;
            config.clock_multiplier = 100;
        });
        let (client, accepted) = lab.connected(v4(1));
        lab.net.set_faults(0, faults);
        lab.net.set_faults(1, faults);
        lab.transfer((0, &client), (1, &accepted), 300_000);
        lab.transfer((1, &accepted), (0, &client), 300_000);
        assert!(lab.counter(0, "segments_resent") > 0);
        assert!(lab.counter(1, "drop_tcp_checksum") + lab.counter(1, "drop_ip_checksum") > 0);
    }
}

#[test]
fn turns_are_needed_only_when_something_is_due() {
    let faults = Faults {
        delay: Duration::from_millis(3),
        loss_ppm: 50_000,
        corrupt_ppm: 20_000,
        ..Faults::default()
    };
    let ports = [1, 2].map(|index| SimPort { faults, queues: 2, ..SimPort::new(index) });
    let mut lab = Lab::over(&ports, |_, config| config.clock_multiplier = 100);
    lab.jumps = true;
    let server = lab.listen(2, server_of(v4(1)));
    let client = lab.connect(0, server_of(v4(1)));
    let accepted = lab.accept(2, &server);
    lab.transfer((0, &client), (2, &accepted), 300_000);
    lab.hosts[0].close(lab.now, client, false);
    lab.hosts[2].close(lab.now, accepted, false);
    lab.hosts[2].close_listener(lab.now, server);
    lab.assert_nothing_left();
}

#[test]
fn a_link_that_vouches_needs_no_checksums() {
    let ports = [1, 2].map(|index| SimPort { vouches: true, ..SimPort::new(index) });
    let mut lab = Lab::over(&ports, |_, _| {});
    let (client, accepted) = lab.connected(v4(1));
    lab.transfer((0, &client), (1, &accepted), 100_000);
    assert!(ports[0].vouches);
}

#[test]
fn jumbo_frames_are_used_where_both_ends_have_them() {
    let ports = [1, 2].map(|index| SimPort { mtu: 9000, ..SimPort::new(index) });
    let mut lab = Lab::over(&ports, |_, _| {});
    let (client, accepted) = lab.connected(v4(1));
    let frames = lab.counter(1, "rx_frames");
    lab.transfer((0, &client), (1, &accepted), 1_000_000);
    let frames = lab.counter(1, "rx_frames") - frames;
    assert!(frames < 1_000_000 / 6000, "{frames}");
}

#[test]
fn an_answer_and_the_acknowledgement_of_the_question_share_a_frame() {
    let mut lab = Lab::pair();
    let (client, accepted) = lab.connected(v4(1));
    lab.run(Duration::from_millis(10));
    let frames = lab.counter(1, "tx_frames");
    for _ in 0..10 {
        let (mut question, mut answer) = (Vec::new(), Vec::new());
        lab.send(0, &client, &[1; 64]);
        lab.hosts[0].flush(lab.now).unwrap();
        // The worker's owner answers within the turn in which the question came.
        while question.len() < 64 {
            let ready = &mut Vec::new();
            crate::stack::EventDriver::wait(&mut lab.hosts[1], lab.now, None, ready).unwrap();
            lab.read(1, &accepted, &mut question).unwrap();
        }
        lab.send(1, &accepted, &[2; 64]);
        lab.hosts[1].flush(lab.now).unwrap();
        lab.until(|lab| {
            lab.read(0, &client, &mut answer).unwrap();
            answer.len() == 64
        });
    }
    assert_eq!(lab.counter(1, "tx_frames") - frames, 10);
}

#[test]
fn a_gather_list_is_taken_as_a_prefix() {
    let mut lab = Lab::with(|_, config| config.tx_buffer_bytes = 4096);
    let (client, accepted) = lab.connected(v4(1));
    let data = patterned(0, 6000);
    let gather = [IoSlice::new(&data[..10]), IoSlice::new(&[]), IoSlice::new(&data[10..])];
    let sent = lab.hosts[0].send(lab.now, &client, &gather, false).unwrap();
    assert_eq!(sent, 4096);
    let mut received = Vec::new();
    lab.until(|lab| {
        lab.read(1, &accepted, &mut received).unwrap();
        received.len() == sent
    });
    assert!(received == data[..sent]);
}

#[test]
fn a_sender_is_told_when_a_slow_reader_makes_room() {
    let mut lab = Lab::with(|_, config| {
        config.rx_buffer_bytes = 16_384;
        config.tx_buffer_bytes = 16_384;
    });
    let (client, accepted) = lab.connected(v4(1));
    let data = patterned(0, 200_000);
    let mut sent = 0;
    // Both buffers fill, the window closes, and then nothing moves for a while.
    for _ in 0..20 {
        sent += lab.send(0, &client, &data[sent..]);
        lab.run(Duration::from_secs(1));
    }
    assert_eq!(sent, 2 * 16_384);
    assert_eq!(lab.send(0, &client, &data[sent..]), 0);
    lab.run(Duration::from_secs(5));
    lab.news(0, client.id());

    // Reading opens the window, and that is told at once: the next probe would be seconds away.
    let begin = lab.now;
    let mut received = Vec::new();
    lab.until(|lab| {
        lab.read(1, &accepted, &mut received).unwrap();
        if lab.news(0, client.id()).is_writable() {
            sent += lab.send(0, &client, &data[sent..]);
        }
        received.len() == data.len()
    });
    assert!(received == data);
    assert!(lab.now - begin < Duration::from_millis(500), "{:?}", lab.now - begin);
}

#[test]
fn a_send_before_the_connection_is_open_waits_for_it() {
    let mut lab = Lab::pair();
    let server = lab.listen(1, server_of(v4(1)));
    let client = lab.connect(0, server_of(v4(1)));
    assert_eq!(lab.send(0, &client, b"too early"), 0);
    assert_eq!(lab.hosts[0].recv(lab.now, &client, &mut [0; 9]).unwrap(), Received::WouldBlock);
    lab.until(|lab| lab.news(0, client.id()) == Readiness::WRITABLE);
    assert_eq!(lab.send(0, &client, b"in time"), 7);
    let accepted = lab.accept(1, &server);
    let mut received = Vec::new();
    lab.until(|lab| {
        lab.read(1, &accepted, &mut received).unwrap();
        received.len() == 7
    });
}

#[test]
fn a_device_that_takes_nothing_holds_senders_back_and_loses_nothing() {
    use crate::device::sim::WhenFull;
    let ports = [1, 2].map(|index| SimPort {
        ring_frames: 8,
        when_full: WhenFull::Wait,
        ..SimPort::new(index)
    });
    let mut lab = Lab::over(&ports, |_, config| config.congestion = Congestion::None);
    let (client, accepted) = lab.connected(v4(1));
    lab.transfer((0, &client), (1, &accepted), 1_000_000);
    assert_eq!(lab.net.stats(0).overflowed, 0);
    assert_eq!(lab.counter(0, "segments_resent"), 0);
}

#[test]
fn an_exhausted_frame_pool_holds_senders_back() {
    let ports = [1, 2].map(|index| SimPort {
        pool_frames: 4,
        faults: Faults { delay: Duration::from_micros(100), ..Faults::default() },
        ..SimPort::new(index)
    });
    let mut lab = Lab::over(&ports, |_, config| config.congestion = Congestion::None);
    let (client, accepted) = lab.connected(v4(1));
    lab.transfer((0, &client), (1, &accepted), 200_000);
    assert_eq!(lab.counter(0, "segments_resent"), 0);
}

#[test]
fn keep_alive_holds_an_idle_connection_and_finds_a_dead_peer() {
    let mut lab = Lab::with(|_, config| config.user_timeout = Some(Duration::from_secs(3)));
    let (client, accepted) = lab.connected(v4(1));
    lab.run(Duration::from_secs(30));
    lab.transfer((0, &client), (1, &accepted), 1000);
    lab.net.set_blocked(1, 0, true);
    lab.run(Duration::from_millis(3500));
    let error = lab.hosts[0].recv(lab.now, &client, &mut [0; 9]).unwrap_err();
    assert!(matches!(error, SocketError::TimedOut), "{error}");
    assert!(lab.news(0, client.id()).contains(Readiness::ALL));
    assert!(lab.hosts[0].send(lab.now, &client, &[IoSlice::new(b"x")], false).is_err());
}

#[test]
fn ends_that_both_lost_the_acknowledgements_come_to_terms() {
    let mut lab = Lab::pair();
    let (client, accepted) = lab.connected(v4(1));
    let slow = Faults { delay: Duration::from_millis(1), ..Faults::default() };
    for port in [0, 1] {
        lab.net.set_faults(port, slow);
    }
    // Both send several segments, all of which arrive; all acknowledgements are lost.
    let data = patterned(0, 4000);
    lab.send(0, &client, &data);
    lab.send(1, &accepted, &data);
    for host in &mut lab.hosts {
        host.flush(lab.now).unwrap();
    }
    for (from, to) in [(0, 1), (1, 0)] {
        lab.net.set_blocked(from, to, true);
    }
    lab.run(Duration::from_millis(20));
    for (from, to) in [(0, 1), (1, 0)] {
        lab.net.set_blocked(from, to, false);
    }
    // Now each resends what the other has, and acknowledges what the other resends.
    let begin = lab.now;
    let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
    lab.until(|lab| {
        lab.read(0, &client, &mut to_client).unwrap();
        lab.read(1, &accepted, &mut to_server).unwrap();
        let unsent = lab.hosts.iter().flat_map(|host| host.conns.iter());
        let unsent = unsent.map(|(_, conn)| conn.socket().send_queue());
        unsent.sum::<usize>() == 0
    });
    assert!(to_client == data && to_server == data);
    assert!(lab.now - begin < Duration::from_secs(1));
}
