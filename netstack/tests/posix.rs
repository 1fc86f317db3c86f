//! What only the kernel-TCP transport promises: sharing ports, sleeping, waking, limits, lingering.

#![expect(clippy::unwrap_used, reason = "all of this is test code")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use netstack::posix::{Driver, PosixConfig, PosixStack, PosixWorker, WORKERS_MAX};
use netstack::stack::{
    ConnectedSocket, EventDriver, ListenOptions, NetworkStack, Ready, ServerSocket, SocketError,
    Worker,
};
use socket2::{Domain, Socket, Type};

/// Makes a test of every case for every driver.
macro_rules! over_every_driver {
    ($($case:ident)+) => {
        over_every_driver! { @driver epoll Driver::Epoll; $($case)+ }
        over_every_driver! { @driver poll Driver::Poll; $($case)+ }
        over_every_driver! { @driver select Driver::Select; $($case)+ }
    };
    (@driver $name:ident $driver:expr; $($case:ident)+) => {
        mod $name {
            use super::*;
            #[test]
            fn a_worker_has_the_name_of_its_driver() {
                let worker = worker(PosixConfig { driver: $driver, ..PosixConfig::default() });
                assert_eq!(worker.name(), stringify!($name));
            }
            $(
                #[test]
                fn $case() {
                    super::$case($driver);
                }
            )+
        }
    };
}

over_every_driver! {
    one_wait_sleeps_to_its_deadline_and_not_shorter
    a_wake_ends_the_sleep_under_way_and_the_next_one
    connections_beyond_the_limit_wait_until_one_closes
    a_peer_that_never_closes_is_cut_off_when_the_linger_time_is_over
    a_peer_that_floods_a_closed_connection_is_reset
}

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// No test comes near it; a wait that reaches it has failed.
const NEVER: Duration = Duration::from_secs(20);

fn workers(count: usize) -> Vec<PosixWorker> {
    let workers = NonZeroUsize::new(count).unwrap();
    PosixStack::new(PosixConfig { workers, ..PosixConfig::default() }).into_workers().unwrap()
}

fn worker(config: PosixConfig) -> PosixWorker {
    PosixStack::new(config).into_workers().unwrap().remove(0)
}

fn listen(worker: &mut PosixWorker, addr: SocketAddr) -> Result<ServerSocket, SocketError> {
    worker.listen(Instant::now(), addr, &ListenOptions::default())
}

/// Waits until something is ready; fails at [`NEVER`].
fn wait(worker: &mut PosixWorker) -> Vec<Ready> {
    let mut ready = Vec::new();
    let end = Instant::now() + NEVER;
    while ready.is_empty() {
        let now = Instant::now();
        assert!(now < end, "nothing became ready");
        worker.wait(now, Some(end), &mut ready).unwrap();
    }
    ready
}

fn accept(worker: &mut PosixWorker, listener: &ServerSocket) -> ConnectedSocket {
    loop {
        if let Some((socket, _)) = worker.accept(Instant::now(), listener).unwrap() {
            return socket;
        }
        wait(worker);
    }
}

fn gauge(worker: &PosixWorker, wanted: &str) -> u64 {
    worker.counters().into_iter().find(|&(name, _)| name == wanted).unwrap().1
}

fn kernel_listener(addr: SocketAddr, reuse_port: bool) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.bind(&addr.into())?;
    socket.listen(8)?;
    Ok(socket.into())
}

#[test]
fn a_strangers_listener_is_never_joined_whatever_it_allows() {
    for reuse_port in [false, true] {
        let stranger = kernel_listener(ANY_PORT, reuse_port).unwrap();
        let addr = stranger.local_addr().unwrap();
        for mut worker in workers(2) {
            let outcome = listen(&mut worker, addr);
            assert!(matches!(outcome, Err(SocketError::AddressInUse(at)) if at == addr));
        }
        drop(stranger);
        listen(&mut workers(1)[0], addr).unwrap();
    }
}

#[test]
fn another_stack_of_this_process_is_a_stranger_too() {
    let (mut ours, mut theirs) = (workers(2), workers(2));
    let socket = listen(&mut ours[0], ANY_PORT).unwrap();
    let addr = ours[0].listen_addr(&socket);
    assert!(matches!(listen(&mut theirs[0], addr), Err(SocketError::AddressInUse(_))));
    let second = listen(&mut ours[1], addr).unwrap();
    assert!(matches!(listen(&mut theirs[1], addr), Err(SocketError::AddressInUse(_))));
    ours[0].close_listener(Instant::now(), socket);
    assert!(matches!(listen(&mut theirs[0], addr), Err(SocketError::AddressInUse(_))));
    ours[1].close_listener(Instant::now(), second);
    listen(&mut theirs[0], addr).unwrap();
}

#[test]
fn a_stack_of_one_worker_lets_nobody_join() {
    let mut ours = workers(1);
    let socket = listen(&mut ours[0], ANY_PORT).unwrap();
    let stranger = kernel_listener(ours[0].listen_addr(&socket), true);
    assert_eq!(stranger.unwrap_err().kind(), ErrorKind::AddrInUse);
}

#[test]
fn an_address_inside_a_wildcard_is_in_use() {
    let mut ours = workers(2);
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let socket = listen(&mut ours[0], any).unwrap();
    let inside = SocketAddr::new(ANY_PORT.ip(), ours[0].listen_addr(&socket).port());
    assert!(matches!(listen(&mut ours[1], inside), Err(SocketError::AddressInUse(_))));
}

#[test]
fn workers_share_a_port_and_the_connections_that_come() {
    let mut ours = workers(2);
    let first = listen(&mut ours[0], ANY_PORT).unwrap();
    let addr = ours[0].listen_addr(&first);
    let second = listen(&mut ours[1], addr).unwrap();
    // A hash spreads them: that all 128 land on one worker has a chance of 2^-127.
    let clients: Vec<_> = (0..128).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let mut taken = [0; 2];
    for (index, listener) in [first, second].iter().enumerate() {
        while ours[index].accept(Instant::now(), listener).unwrap().is_some() {
            taken[index] += 1;
        }
    }
    assert_eq!(taken[0] + taken[1], clients.len());
    assert!(taken[0] > 0 && taken[1] > 0, "{taken:?}");
}

fn one_wait_sleeps_to_its_deadline_and_not_shorter(driver: Driver) {
    let mut worker = worker(PosixConfig { driver, ..PosixConfig::default() });
    let mut ready = Vec::new();
    for micros in [1, 40, 300, 999, 1500, 33_000] {
        let now = Instant::now();
        let deadline = now + Duration::from_micros(micros);
        worker.wait(now, Some(deadline), &mut ready).unwrap();
        assert!(Instant::now() >= deadline, "{micros} us");
        assert!(ready.is_empty());
    }
    assert_eq!(gauge(&worker, "wait_calls"), 6);
}

fn a_wake_ends_the_sleep_under_way_and_the_next_one(driver: Driver) {
    let mut worker = worker(PosixConfig { driver, ..PosixConfig::default() });
    let mut ready = Vec::new();
    let waker = worker.waker();
    for _ in 0..5 {
        waker.wake();
    }
    worker.wait(Instant::now(), None, &mut ready).unwrap();

    let (asleep, sleeps) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        for () in sleeps {
            waker.wake();
        }
    });
    for _ in 0..1000 {
        asleep.send(()).unwrap();
        worker.wait(Instant::now(), None, &mut ready).unwrap();
    }
    drop(asleep);
    thread.join().unwrap();
    assert!(ready.is_empty());
}

fn connections_beyond_the_limit_wait_until_one_closes(driver: Driver) {
    let mut worker = worker(PosixConfig { driver, max_connections: 1, ..PosixConfig::default() });
    let listener = listen(&mut worker, ANY_PORT).unwrap();
    let addr = worker.listen_addr(&listener);
    let mut clients = [TcpStream::connect(addr).unwrap(), TcpStream::connect(addr).unwrap()];
    let first = accept(&mut worker, &listener);
    let full = worker.accept(Instant::now(), &listener);
    assert!(matches!(full, Err(SocketError::Limit(_))));
    let mut ready = Vec::new();
    worker.wait(Instant::now(), Some(Instant::now()), &mut ready).unwrap(); // old news
    ready.clear();
    let start = Instant::now();
    let deadline = start + Duration::from_millis(5);
    worker.wait(start, Some(deadline), &mut ready).unwrap();
    assert!(ready.is_empty() && Instant::now() >= deadline, "what waits wakes nobody");
    worker.close(Instant::now(), first, true);
    assert_eq!(wait(&mut worker)[0].socket, listener.id());
    let second = accept(&mut worker, &listener);
    worker.close(Instant::now(), second, false);
    assert_eq!(clients[1].read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(clients[0].read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

fn a_peer_that_never_closes_is_cut_off_when_the_linger_time_is_over(driver: Driver) {
    let linger = Duration::from_secs(3600);
    let mut worker = worker(PosixConfig { driver, linger, ..PosixConfig::default() });
    let listener = listen(&mut worker, ANY_PORT).unwrap();
    let mut client = TcpStream::connect(worker.listen_addr(&listener)).unwrap();
    let socket = accept(&mut worker, &listener);
    let now = Instant::now();
    worker.close(now, socket, false);
    client.write_all(b"thrown away").unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    let mut ready = Vec::new();
    worker.wait(now, Some(now), &mut ready).unwrap();
    assert_eq!(gauge(&worker, "connections_lingering_in_use"), 1);
    worker.wait(now + linger, Some(now), &mut ready).unwrap();
    assert_eq!(gauge(&worker, "connections_lingering_in_use"), 0);
    assert!(ready.is_empty());
}

fn a_peer_that_floods_a_closed_connection_is_reset(driver: Driver) {
    let mut worker = worker(PosixConfig { driver, ..PosixConfig::default() });
    let listener = listen(&mut worker, ANY_PORT).unwrap();
    let mut client = TcpStream::connect(worker.listen_addr(&listener)).unwrap();
    let socket = accept(&mut worker, &listener);
    worker.close(Instant::now(), socket, false);
    let flood = std::thread::spawn(move || {
        loop {
            if let Err(error) = client.write_all(&[0; 1 << 20]) {
                return error;
            }
        }
    });
    let end = Instant::now() + NEVER;
    while gauge(&worker, "connections_lingering_in_use") > 0 {
        let now = Instant::now();
        assert!(now < end, "the flood goes on");
        std::thread::sleep(Duration::from_millis(5)); // lets the flood rise
        worker.wait(now, Some(now), &mut Vec::new()).unwrap();
    }
    let error = flood.join().unwrap();
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe));
}

#[test]
fn more_workers_than_possible_are_refused() {
    let workers = NonZeroUsize::new(WORKERS_MAX + 1).unwrap();
    let stack = PosixStack::new(PosixConfig { workers, ..PosixConfig::default() });
    assert_eq!(stack.into_workers().unwrap_err().kind(), ErrorKind::InvalidInput);
}
