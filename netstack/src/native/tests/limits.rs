//! Named limits, links that come and go, and many connections.

use std::time::Duration;

use super::lab::{Lab, config, patterned, server_of, v4};
use crate::device::sim::{SimNet, SimPort, WhenFull};
use crate::native::{Congestion, FLOWS_MAX, NativeConfig, NativeStack};
use crate::stack::{ConnectOptions, EventDriver, ListenOptions, NetworkStack, SocketError, Worker};

#[test]
fn connections_are_limited_and_the_limit_is_told() {
    let mut lab = Lab::with(|_, config| config.max_connections = 3);
    lab.introduce();
    let server = lab.listen(1, server_of(v4(1)));
    let clients: Vec<_> = (0..3).map(|_| lab.connect(0, server_of(v4(1)))).collect();
    let options = ConnectOptions::default();
    let error = lab.hosts[0].connect(lab.now, server_of(v4(1)), &options).unwrap_err();
    assert!(matches!(error, SocketError::Limit("connections")), "{error}");
    let accepted: Vec<_> = (0..3).map(|_| lab.accept(1, &server)).collect();
    // The server is full as well, so a SYN from elsewhere would not be answered.
    lab.hosts[0].close(lab.now, clients.into_iter().next().unwrap(), true);
    lab.run(Duration::from_millis(10));
    let fourth = lab.connect(0, server_of(v4(1)));
    lab.run(Duration::from_millis(100));
    assert!(!lab.hosts[0].is_connected(&fourth).unwrap());
    assert!(lab.counter(1, "syn_limit_drops") > 0);
    lab.hosts[1].close(lab.now, accepted.into_iter().next().unwrap(), true);
    lab.until(|lab| lab.hosts[0].is_connected(&fourth).unwrap());
}

#[test]
fn ephemeral_ports_run_out_and_come_back() {
    let mut lab = Lab::with(|_, config| {
        config.ephemeral_ports = 40_000..=40_003;
        config.time_wait = Duration::from_secs(1);
    });
    lab.introduce();
    let server = lab.listen(1, server_of(v4(1)));
    let mut clients: Vec<_> = (0..4).map(|_| lab.connect(0, server_of(v4(1)))).collect();
    let options = ConnectOptions::default();
    let error = lab.hosts[0].connect(lab.now, server_of(v4(1)), &options).unwrap_err();
    assert!(matches!(error, SocketError::Limit("ephemeral ports")), "{error}");
    let accepted = lab.accept(1, &server);
    lab.hosts[1].close(lab.now, accepted, false);
    lab.run(Duration::from_millis(10));
    for client in clients.drain(..) {
        lab.hosts[0].close(lab.now, client, false);
    }
    lab.run(Duration::from_secs(2));
    // Only the one whose peer closed as well is free again.
    lab.connect(0, server_of(v4(1)));
    assert!(lab.hosts[0].connect(lab.now, server_of(v4(1)), &options).is_err());
}

#[test]
fn time_wait_is_bounded_and_the_oldest_gives_way() {
    let mut lab = Lab::with(|_, config| config.max_time_wait = 5);
    let server = lab.listen(1, server_of(v4(1)));
    for _ in 0..12 {
        let client = lab.connect(0, server_of(v4(1)));
        let accepted = lab.accept(1, &server);
        lab.hosts[0].close(lab.now, client, false);
        lab.run(Duration::from_millis(5));
        lab.hosts[1].close(lab.now, accepted, false);
        lab.run(Duration::from_millis(5));
    }
    assert_eq!(lab.counter(0, "time_wait_in_use"), 5);
    assert_eq!(lab.counter(0, "flows_in_use"), 5);
    assert_eq!(lab.counter(0, "time_wait_evicted"), 7);
    lab.assert_nothing_left();
}

#[test]
fn ten_thousand_connections_leave_nothing_behind() {
    const CONNECTIONS: usize = 10_000;
    const AT_ONCE: usize = 500;
    let ports = [1, 2].map(SimPort::new);
    let mut lab = Lab::over(&ports, |_, config| {
        config.rx_buffer_bytes = 2048;
        config.tx_buffer_bytes = 2048;
    });
    lab.introduce();
    let options = ListenOptions { backlog: AT_ONCE, ..ListenOptions::default() };
    let server = lab.hosts[1].listen(lab.now, server_of(v4(1)), &options).unwrap();
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS / AT_ONCE {
        let from = open.len();
        open.extend((0..AT_ONCE).map(|_| (lab.connect(0, server_of(v4(1))), None)));
        let mut accepted = from;
        lab.until(|lab| {
            while let Some((socket, _)) = lab.hosts[1].accept(lab.now, &server).unwrap() {
                open[accepted].1 = Some(socket);
                accepted += 1;
            }
            accepted == open.len()
        });
    }
    lab.run(Duration::from_millis(10));
    assert_eq!(lab.counter(0, "connections_in_use"), CONNECTIONS as u64);
    assert_eq!(lab.counter(1, "connections_accepted"), CONNECTIONS as u64);
    for (index, (client, accepted)) in open.into_iter().enumerate() {
        // Each way to end has its turn: either side first, both at once, and by force.
        lab.hosts[0].close(lab.now, client, index % 4 == 3);
        lab.hosts[1].close(lab.now, accepted.unwrap(), false);
        if index % 100 == 0 {
            lab.turn();
        }
    }
    lab.hosts[1].close_listener(lab.now, server);
    lab.assert_nothing_left();
    assert_eq!(lab.counter(0, "connections_closed"), CONNECTIONS as u64 + 1);
}

#[test]
fn a_link_that_comes_back_is_counted_and_announced() {
    let mut lab = Lab::pair();
    lab.run(Duration::from_millis(300));
    assert_eq!((lab.counter(0, "link_ups"), lab.counter(0, "link_downs")), (1, 0));
    let heard = lab.counter(1, "dpdk_receive_packets");
    lab.net.set_link(0, false);
    lab.run(Duration::from_millis(300));
    assert_eq!((lab.counter(0, "link_ups"), lab.counter(0, "link_downs")), (1, 1));
    lab.net.set_link(0, true);
    lab.run(Duration::from_millis(300));
    assert_eq!((lab.counter(0, "link_ups"), lab.counter(0, "link_downs")), (2, 1));
    assert!(lab.counter(1, "dpdk_receive_packets") > heard, "the peer heard an announcement");
}

#[test]
fn a_link_that_is_down_keeps_no_frames() {
    const RING: usize = 4;
    let peer = SimPort { ring_frames: RING, when_full: WhenFull::Wait, ..SimPort::new(2) };
    let mut lab = Lab::over(&[SimPort::new(1), peer], |_, config| {
        config.congestion = Congestion::None; // fills a window at once
    });
    let (client, accepted) = lab.connected(v4(1));
    lab.run(Duration::from_millis(10));
    let data = patterned(0, 60_000);
    let mut sent = lab.send(0, &client, &data);
    // The peer stands still, so its ring fills and then the worker's queue.
    lab.hosts[0].flush(lab.now).unwrap();
    assert!(lab.counter(0, "frames_in_use") > RING as u64);
    let turns = |lab: &mut Lab, count: u32| {
        for _ in 0..count {
            lab.now += Duration::from_millis(1);
            lab.hosts[0].wait(lab.now, None, &mut Vec::new()).unwrap();
            lab.hosts[0].flush(lab.now).unwrap();
        }
    };
    turns(&mut lab, 300);
    assert!(lab.counter(0, "frames_in_use") > RING as u64, "a peer that is only slow gets them");
    assert_eq!(lab.counter(0, "tx_link_down_drops"), 0);
    lab.net.set_link(0, false);
    turns(&mut lab, 300);
    assert_eq!(lab.counter(0, "frames_in_use"), RING as u64, "those are the ring's");
    assert!(lab.counter(0, "tx_link_down_drops") > 0);
    lab.net.set_link(0, true);
    let mut received = Vec::new();
    lab.until(|lab| {
        sent += lab.send(0, &client, &data[sent..]);
        lab.read(1, &accepted, &mut received).unwrap();
        received.len() == data.len()
    });
    assert!(received == data);
    assert_eq!(lab.counter(0, "connections_reset"), 0);
}

#[test]
fn a_configuration_nobody_could_live_with_is_refused() {
    let refusal = |port: SimPort, change: fn(&mut NativeConfig)| {
        let mut config = config(0);
        change(&mut config);
        let (_, devices) = SimNet::new(1, &[port, SimPort::new(2)]);
        let devices = devices.into_iter().next().unwrap();
        NativeStack::new(devices, config).into_workers().unwrap_err().to_string()
    };
    let ports = refusal(SimPort::new(1), |config| {
        config.ephemeral_ports = std::ops::RangeInclusive::new(2, 1);
    });
    assert!(ports.contains("ephemeral"), "{ports}");
    let flows = refusal(SimPort::new(1), |config| {
        config.max_connections = FLOWS_MAX + 1;
    });
    assert!(flows.contains("more than"), "{flows}");
    let mtu = refusal(SimPort { mtu: 100, ..SimPort::new(1) }, |_| {});
    assert!(mtu.contains("MTU of 100"), "{mtu}");
    let gateway = refusal(SimPort::new(1), |config| {
        config.gateway_v4 = Some([192, 0, 2, 1].into());
    });
    assert!(gateway.contains("192.0.2.1"), "{gateway}");
}
