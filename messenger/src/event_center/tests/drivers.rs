//! Centres over the kernel's drivers: Ceph's DispatchTest (#28), timers and files, for each driver.

use super::*;
use netstack::posix::{Driver, PosixConfig, PosixStack, PosixWorker};
use netstack::stack::{ConnectOptions, ListenOptions, NetworkStack, Received, Worker};
use std::thread;

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
            $(
                #[test]
                fn $case() {
                    super::$case(|| {
                        let worker = worker($driver);
                        assert_eq!(worker.name(), stringify!($name));
                        worker
                    });
                }
            )+
        }
    };
}

over_every_driver! {
    case_28_dispatch
    e7_a_centre_sleeps_to_its_timer_in_one_wait
    e9_no_wake_up_is_lost
    e15_a_socket_that_stopped_early_comes_up_again
}

fn worker(driver: Driver) -> PosixWorker {
    let config = PosixConfig { driver, ..PosixConfig::default() };
    PosixStack::new(config).into_workers().unwrap().remove(0)
}

/// Ten thousand rounds of one external event to each of two centres: each event runs exactly once,
/// and who waits for a round is always told.
fn case_28_dispatch(worker: impl Fn() -> PosixWorker) {
    const ROUNDS: u32 = 10_000;
    let done = Arc::new((Mutex::new([0; 2]), Condvar::new()));
    let mut inboxes = Vec::new();
    let mut threads = Vec::new();
    for me in 0..2 {
        let mut driver = worker();
        let inbox = Arc::new(Inbox::<u32>::new(16, driver.waker()));
        inboxes.push(Arc::clone(&inbox));
        let done = Arc::clone(&done);
        threads.push(thread::spawn(move || {
            let mut center = EventCenter::<(), u32>::new(inbox);
            let mut next = 0;
            while next < ROUNDS {
                center.collect(Instant::now(), None, &mut driver).unwrap();
                while let Some(event) = center.next_event(Instant::now()) {
                    assert_eq!(event, Event::External(next), "once, and in order");
                    next += 1;
                    done.0.lock().unwrap()[me] = next;
                    done.1.notify_one();
                }
            }
        }));
    }
    for round in 0..ROUNDS {
        for inbox in &inboxes {
            inbox.send(round).unwrap();
        }
        let rounds = done.0.lock().unwrap();
        drop(done.1.wait_while(rounds, |rounds| *rounds != [round + 1; 2]).unwrap());
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn e7_a_centre_sleeps_to_its_timer_in_one_wait(worker: impl Fn() -> PosixWorker) {
    let mut driver = worker();
    let inbox = Arc::new(Inbox::new(16, driver.waker()));
    let mut center = EventCenter::<u32, u32>::new(inbox);
    for micros in [1, 300, 900, 5000] {
        let deadline = Instant::now() + Duration::from_micros(micros);
        let id = center.add_timer(deadline, 7);
        center.collect(Instant::now(), None, &mut driver).unwrap();
        assert!(Instant::now() >= deadline, "{micros} us");
        assert_eq!(center.next_event(Instant::now()), Some(Event::Time { id, key: 7 }));
    }
}

/// A count goes to and fro between two centres; a lost wake-up hangs it.
fn e9_no_wake_up_is_lost(worker: impl Fn() -> PosixWorker) {
    const ROUNDS: u32 = 2_000;
    let drivers = [worker(), worker()];
    let inboxes = drivers.each_ref().map(|driver| Arc::new(Inbox::new(16, driver.waker())));
    let threads: Vec<_> = drivers
        .into_iter()
        .enumerate()
        .map(|(me, mut driver)| {
            let mut center = EventCenter::<(), u32>::new(Arc::clone(&inboxes[me]));
            let other = Arc::clone(&inboxes[1 - me]);
            thread::spawn(move || {
                let mut got = 0;
                while got < ROUNDS {
                    center.collect(Instant::now(), None, &mut driver).unwrap();
                    while let Some(event) = center.next_event(Instant::now()) {
                        let expected = 2 * got + me as u32;
                        assert_eq!(event, Event::External(expected));
                        got += 1;
                        if expected + 1 < 2 * ROUNDS {
                            other.send(expected + 1).unwrap();
                        }
                    }
                }
            })
        })
        .collect();
    inboxes[0].send(0).unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// An owner that reads a little in each turn gets its turns without the kernel's help.
fn e15_a_socket_that_stopped_early_comes_up_again(worker: impl Fn() -> PosixWorker) {
    let mut driver = worker();
    let inbox = Arc::new(Inbox::new(16, driver.waker()));
    let mut center = EventCenter::<u32, u32>::new(inbox);
    let now = Instant::now();
    let loopback = "127.0.0.1:0".parse().unwrap();
    let listener = driver.listen(now, loopback, &ListenOptions::default()).unwrap();
    let addr = driver.listen_addr(&listener);
    let client = driver.connect(now, addr, &ConnectOptions::default()).unwrap();
    center.watch(listener.id(), Readiness::READABLE, 0);
    let mut server = None;
    let (mut sent, mut read) = (0, 0);
    while read < 10 {
        center.collect(Instant::now(), None, &mut driver).unwrap();
        while let Some(event) = center.next_event(Instant::now()) {
            let Event::File { key, socket, .. } = event else {
                panic!("only files here: {event:?}");
            };
            if key == 0 {
                let (accepted, _) = driver.accept(now, &listener).unwrap().unwrap();
                center.watch(accepted.id(), Readiness::READABLE, 1);
                server = Some(accepted);
                let ten = [io::IoSlice::new(b"0123456789")];
                sent += driver.send(now, &client, &ten, false).unwrap();
            } else if let Some(server) = &server {
                match driver.recv(now, server, &mut [0]).unwrap() {
                    Received::Bytes(len) => read += len,
                    other => panic!("more has come: {other:?}"),
                }
                center.again(socket, Readiness::READABLE);
            }
        }
    }
    assert_eq!(sent, read);
}
