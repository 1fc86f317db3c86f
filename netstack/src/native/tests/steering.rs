//! Several workers of one port, and frames that arrive at the wrong one.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::lab::{Host, Lab, patterned, server_of, v4, v6};
use super::raw::{ACK, Say};
use crate::device::sim::{SimPort, Spread};
use crate::flow::FlowKey;
use crate::guard::Offer;
use crate::stack::{
    ConnectOptions, ConnectedSocket, EventDriver, ListenOptions, Received, ServerSocket, Worker,
};

const CONNECTIONS: usize = 12;

/// A client host with one worker (0), and a server host with two (1 and 2).
fn lab(spread: Spread) -> Lab {
    let server = SimPort { queues: 2, spread, ..SimPort::new(2) };
    Lab::over(&[SimPort::new(1), server], |_, _| {})
}

/// Opens connections and finds out which worker of the server has which end.
fn open(lab: &mut Lab) -> Vec<(ConnectedSocket, usize, ConnectedSocket)> {
    let servers: [ServerSocket; 2] = [1, 2].map(|worker| lab.listen(worker, server_of(v4(1))));
    let clients: Vec<_> = (0..CONNECTIONS).map(|_| lab.connect(0, server_of(v4(1)))).collect();
    let mut accepted = Vec::new();
    lab.until(|lab| {
        for (worker, server) in [1, 2].into_iter().zip(&servers) {
            let new = lab.hosts[worker].accept(lab.now, server).unwrap();
            accepted.extend(new.map(|(socket, peer)| (peer, worker, socket)));
        }
        accepted.len() == CONNECTIONS
    });
    let pair = |client| {
        let local = lab.hosts[0].local_addr(&client).unwrap();
        let at = accepted.iter().position(|(peer, ..)| *peer == local).unwrap();
        let (_, worker, socket) = accepted.swap_remove(at);
        (client, worker, socket)
    };
    clients.into_iter().map(pair).collect()
}

fn assert_nothing_was_refused(lab: &Lab) {
    for worker in 0..3 {
        assert_eq!(lab.counter(worker, "resets_sent"), 0, "worker {worker}");
        assert_eq!(lab.counter(worker, "connections_reset"), 0, "worker {worker}");
        assert_eq!(lab.counter(worker, "handover_full_drops"), 0, "worker {worker}");
    }
}

#[test]
fn flows_survive_when_their_frames_move_to_another_queue() {
    for spread in [Spread::RoundRobin, Spread::Moving { every: 17 }] {
        let mut lab = lab(spread);
        let connections = open(&mut lab);
        for (client, worker, accepted) in &connections {
            lab.transfer((0, client), (*worker, accepted), 50_000);
            lab.transfer((*worker, accepted), (0, client), 50_000);
        }
        for (client, worker, accepted) in connections {
            lab.hosts[0].close(lab.now, client, false);
            lab.run(Duration::from_millis(2));
            lab.hosts[worker].close(lab.now, accepted, false);
        }
        lab.assert_nothing_left();
        assert_nothing_was_refused(&lab);
        let over = |name| lab.counter(1, name) + lab.counter(2, name);
        assert!(over("frames_handed_over") > 100);
        assert!(over("frames_taken_over") > 100);
    }
}

#[test]
fn a_cookie_that_a_worker_has_sent_is_good_at_its_sibling() {
    let mut lab = lab(Spread::RoundRobin);
    let servers = [1, 2].map(|worker| lab.listen(worker, server_of(v4(1))));
    lab.introduce();
    // Whatever worker the segment gets to, it has sent no cookie.
    let offer = Offer { mss: None, window_shift: Some(7), is_sack_permitted: true };
    for port in 1..5 {
        let key = FlowKey::new(server_of(v4(1)), SocketAddr::new(v4(0), port));
        let cookie = lab.hosts[1].secret.cookie(&key, 999, offer, lab.hosts[1].tick);
        let ack = Say { seq: 1000, ack: Some(cookie + 1), ..ACK };
        ack.by(&mut lab.hosts[0].wire, lab.now, &key);
    }
    lab.run(Duration::from_millis(5));
    let open = [1, 2].map(|worker| {
        let accept = || lab.hosts[worker].accept(lab.now, &servers[worker - 1]).unwrap();
        std::iter::from_fn(accept).count()
    });
    assert_eq!(open, [2, 2]);
}

#[test]
fn connections_from_either_worker_get_their_answers() {
    for spread in [Spread::RoundRobin, Spread::FlowHash { announced: true }] {
        let mut lab = lab(spread);
        for ip in [v4(0), v6(0)] {
            let server = lab.listen(0, server_of(ip));
            for worker in [1, 2] {
                let client = lab.connect(worker, server_of(ip));
                let accepted = lab.accept(0, &server);
                lab.transfer((worker, &client), (0, &accepted), 20_000);
                lab.transfer((0, &accepted), (worker, &client), 20_000);
            }
        }
        assert_nothing_was_refused(&lab);
        let handed = lab.counter(1, "frames_handed_over") + lab.counter(2, "frames_handed_over");
        // With RSS that is told to us, ports are chosen so that answers come home.
        assert_eq!(handed == 0, spread == Spread::FlowHash { announced: true }, "{handed}");
    }
}

#[test]
fn a_burst_that_overruns_the_ring_is_repeated_by_the_sender() {
    let mut lab = lab(Spread::RoundRobin);
    let connections = open(&mut lab);
    let data = patterned(0, 60_000);
    for (client, ..) in &connections {
        assert_eq!(lab.send(0, client, &data), data.len());
    }
    let mut received = vec![Vec::new(); connections.len()];
    lab.until(|lab| {
        for ((_, worker, accepted), received) in connections.iter().zip(&mut received) {
            lab.read(*worker, accepted, received).unwrap();
        }
        received.iter().all(|received| received.len() == data.len())
    });
    assert!(received.iter().all(|received| *received == data));
}

#[test]
fn a_stranger_is_refused_once_whichever_worker_meets_it() {
    let mut lab = lab(Spread::RoundRobin);
    for _ in 0..10 {
        let client = lab.connect(0, server_of(v4(1)));
        lab.until(|lab| lab.hosts[0].is_connected(&client).is_err());
        lab.hosts[0].close(lab.now, client, false);
    }
    assert_eq!(lab.counter(1, "resets_sent") + lab.counter(2, "resets_sent"), 10);
    assert_eq!(lab.counter(1, "frames_handed_over") + lab.counter(2, "frames_handed_over"), 0);
}

/// Ends the echoes however the test ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends back what comes, until told to stop; how many bytes that was.
fn echo(host: &mut Host, stop: &AtomicBool) -> usize {
    let options = ListenOptions::default();
    let server = host.listen(Instant::now(), server_of(v4(1)), &options).unwrap();
    let (mut sockets, mut ready, mut echoed) = (BTreeMap::new(), Vec::new(), 0);
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        host.wait(now, None, &mut ready).unwrap();
        while let Some((socket, _)) = host.accept(now, &server).unwrap() {
            sockets.insert(socket.id(), socket);
        }
        for ready in ready.drain(..) {
            let Some(socket) = sockets.get(&ready.socket) else {
                continue;
            };
            while let Received::Bytes(len) = host.recv(now, socket, &mut buffer).unwrap() {
                let sent = host.send(now, socket, &[IoSlice::new(&buffer[..len])], false).unwrap();
                assert_eq!(sent, len, "the client has less under way than the buffer holds");
                echoed += len;
            }
        }
        host.flush(now).unwrap();
    }
    echoed
}

#[test]
fn workers_on_threads_of_their_own_bring_each_other_every_frame() {
    const ROUNDS: usize = 50;
    let mut lab = lab(Spread::RoundRobin);
    let stop = AtomicBool::new(false);
    let [client, workers @ ..] = &mut lab.hosts[..] else { panic!("three hosts") };
    let echoed = std::thread::scope(|scope| {
        let stop = &stop;
        let guard = Stop(stop);
        let echoes: Vec<_> =
            workers.iter_mut().map(|host| scope.spawn(move || echo(host, stop))).collect();
        let options = ConnectOptions::default();
        let mut now = Instant::now();
        // The listeners may not be there yet.
        std::thread::sleep(Duration::from_millis(50));
        let connect = |_| client.connect(now, server_of(v4(1)), &options).unwrap();
        let sockets: Vec<_> = (0..CONNECTIONS).map(connect).collect();
        let (mut sent, mut received) = ([0; CONNECTIONS], [0; CONNECTIONS]);
        let data = patterned(0, 1000);
        let end = now + Duration::from_secs(30);
        let mut buffer = [0; 2048];
        while received != [ROUNDS * data.len(); CONNECTIONS] {
            now = Instant::now();
            assert!(now < end, "{received:?}");
            client.wait(now, None, &mut Vec::new()).unwrap();
            for (index, socket) in sockets.iter().enumerate() {
                if sent[index] == received[index] && sent[index] < ROUNDS * data.len() {
                    sent[index] += client.send(now, socket, &[IoSlice::new(&data)], false).unwrap();
                }
                while let Received::Bytes(len) = client.recv(now, socket, &mut buffer).unwrap() {
                    let at = received[index] % data.len();
                    assert!(buffer[..len] == data[at..at + len]);
                    received[index] += len;
                }
            }
            client.flush(now).unwrap();
        }
        drop(guard);
        echoes.into_iter().map(|echo| echo.join().unwrap()).sum::<usize>()
    });
    assert_eq!(echoed, CONNECTIONS * ROUNDS * 1000);
    assert_nothing_was_refused(&lab);
}
