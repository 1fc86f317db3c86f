//! Ceph's cases of event drivers (#25 to #27, and #35 to #37 where a driver has a part in them), and
//! the contracts E-3, E-4, E-14 and E-15, over every driver.

use super::*;
use rustix::io::{fcntl_dupfd_cloexec, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Mutex;
use std::time::Duration;

mod model;

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
                    let bench = Bench::new($driver);
                    assert_eq!(bench.selector.driver().name(), stringify!($name));
                    super::$case(bench);
                }
            )+
        }
    };
}

over_every_driver! {
    case_25_pipe_1_nothing_written_is_no_event
    case_25_pipe_2_one_byte_is_one_event
    case_25_pipe_3_another_byte_is_one_event_again
    case_25_pipe_4_after_del_no_byte_is_an_event
    case_26_network_socket
    case_27_file_event_expansion
    case_35_basic
    case_36_fail
    case_37_stress
    e3_modify_always_replaces
    e14_an_end_and_an_error_are_ready_for_everything
    e14_one_wait_sleeps_to_its_deadline
    e15_what_nobody_reads_does_not_spin
    a_wake_ends_the_sleep_under_way_or_the_next_and_no_other
}

/// No test comes near it.
const NEVER: Duration = Duration::from_secs(20);

/// A driver under test.
struct Bench {
    selector: Box<dyn Selector>,
}

impl Bench {
    fn new(driver: Driver) -> Self {
        Self { selector: driver.open().unwrap() }
    }

    fn add(&mut self, fd: impl Into<OwnedFd>, id: SocketId, interest: Readiness) -> Arc<OwnedFd> {
        let fd = Arc::new(fd.into());
        self.selector.add(&fd, id, interest).unwrap();
        fd
    }

    /// What is ready within `limit`.
    fn wait(&mut self, limit: Duration) -> Vec<(SocketId, Readiness)> {
        let now = Instant::now();
        let mut fired = Vec::new();
        self.selector.wait(now, Some(now + limit), &mut fired).unwrap();
        fired.into_iter().map(|event| (event.id, event.readiness)).collect()
    }

    /// What is ready now. A microsecond, as Ceph's cases have it.
    fn poll(&mut self) -> Vec<(SocketId, Readiness)> {
        self.wait(Duration::from_micros(1))
    }
}

fn id(slot: u32, generation: u32) -> SocketId {
    SocketId { slot, generation }
}

/// A pipe whose read end is watched: the read end, the write end.
fn pipe(bench: &mut Bench, id: SocketId) -> (Arc<OwnedFd>, OwnedFd) {
    let (reader, writer) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).unwrap();
    (bench.add(reader, id, Readiness::READABLE), writer)
}

fn case_25_pipe_1_nothing_written_is_no_event(mut bench: Bench) {
    let _pipe = pipe(&mut bench, id(3, 0));
    assert_eq!(bench.poll(), []);
}

fn case_25_pipe_2_one_byte_is_one_event(mut bench: Bench) {
    let (_reader, writer) = pipe(&mut bench, id(3, 0));
    write(&writer, b"1").unwrap();
    assert_eq!(bench.wait(NEVER), [(id(3, 0), Readiness::READABLE)]);
}

fn case_25_pipe_3_another_byte_is_one_event_again(mut bench: Bench) {
    let (_reader, writer) = pipe(&mut bench, id(3, 0));
    for byte in [b"1", b"2", b"3"] {
        bench.selector.arm(id(3, 0), Readiness::READABLE); // nothing was read meanwhile
        write(&writer, byte).unwrap();
        assert_eq!(bench.wait(NEVER), [(id(3, 0), Readiness::READABLE)]);
    }
}

fn case_25_pipe_4_after_del_no_byte_is_an_event(mut bench: Bench) {
    let (_reader, writer) = pipe(&mut bench, id(3, 0));
    write(&writer, b"1").unwrap();
    bench.selector.del(id(3, 0));
    assert_eq!(bench.poll(), []);
    write(&writer, b"2").unwrap();
    assert_eq!(bench.poll(), []);
}

fn case_26_network_socket(mut bench: Bench) {
    const ROUNDS: usize = 30;
    const MESSAGE: &[u8] = b"message";
    let (listener, client) = (id(0, 0), id(1, 0));
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    server.set_nonblocking(true).unwrap();
    let addr = server.local_addr().unwrap();
    let _listening = bench.add(server.try_clone().unwrap(), listener, Readiness::READABLE);
    assert_eq!(bench.poll(), [], "1: nobody connects");

    let thread = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(addr).unwrap();
        for _ in 0..ROUNDS {
            let mut echo = [0; MESSAGE.len()];
            stream.write_all(MESSAGE).unwrap();
            stream.read_exact(&mut echo).unwrap();
            assert_eq!(echo, MESSAGE);
        }
    });
    assert_eq!(bench.wait(NEVER), [(listener, Readiness::READABLE)], "2: a connection");
    let (mut stream, _) = server.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let _connected = bench.add(stream.try_clone().unwrap(), client, Readiness::READABLE);

    for _ in 0..ROUNDS {
        assert_eq!(bench.wait(NEVER), [(client, Readiness::READABLE)], "3: data, nothing else");
        let mut message = [0; MESSAGE.len()];
        stream.read_exact(&mut message).unwrap();
        bench.selector.modify(client, Readiness::ALL).unwrap();
        assert_eq!(bench.wait(NEVER), [(client, Readiness::WRITABLE)], "4: all was read");
        stream.write_all(&message).unwrap();
        bench.selector.modify(client, Readiness::READABLE).unwrap(); // 5: readable is left
    }
    assert_eq!(bench.wait(NEVER), [(client, Readiness::READABLE)]);
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0, "6: the peer closed");
    thread.join().unwrap();
}

fn case_27_file_event_expansion(mut bench: Bench) {
    const SOCKETS: u32 = 300;
    /// One after the other, or there are more descriptors than select can watch.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock();
    let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let ids: BTreeSet<_> = (0..SOCKETS).map(|slot| id(slot * 7, slot)).collect();
    for &id in &ids {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        sender.send_to(b"1", socket.local_addr().unwrap()).unwrap();
        bench.add(socket, id, Readiness::READABLE);
    }
    let fired: Vec<_> = bench.wait(NEVER).into_iter().map(|(id, _)| id).collect();
    assert_eq!(fired.len(), ids.len());
    assert_eq!(fired.into_iter().collect::<BTreeSet<_>>(), ids);
    for &id in &ids {
        bench.selector.arm(id, Readiness::READABLE);
        bench.selector.del(id);
    }
    assert_eq!(bench.poll(), []);
}

/// The driver's part: a slot is used again, and nothing of its former user is left.
fn case_35_basic(mut bench: Bench) {
    let (old, new) = (id(0, 0), id(0, 1));
    let (reader, writer) = pipe(&mut bench, old);
    write(&writer, b"1").unwrap();
    assert_eq!(bench.wait(NEVER), [(old, Readiness::READABLE)]);
    assert_eq!(bench.poll(), [], "once");
    assert_eq!(read(&*reader, &mut [0; 8]).unwrap(), 1);
    bench.selector.modify(old, Readiness::NONE).unwrap();
    write(&writer, b"2").unwrap();
    assert_eq!(bench.poll(), [], "nobody asks for it");
    bench.selector.modify(old, Readiness::READABLE).unwrap();
    assert_eq!(bench.wait(NEVER), [(old, Readiness::READABLE)], "kept until somebody does");
    bench.selector.del(old);
    let (_reader, writer) = pipe(&mut bench, new);
    assert_eq!(bench.poll(), []);
    write(&writer, b"3").unwrap();
    assert_eq!(bench.wait(NEVER), [(new, Readiness::READABLE)]);
}

/// Also contract E-4.
fn case_36_fail(mut bench: Bench) {
    let (stale, known, unknown) = (id(2, 0), id(2, 1), id(500, 0));
    let (_reader, writer) = pipe(&mut bench, known);
    for stranger in [stale, unknown] {
        bench.selector.arm(stranger, Readiness::ALL);
        bench.selector.modify(stranger, Readiness::ALL).unwrap();
        bench.selector.del(stranger);
    }
    assert_eq!(bench.poll(), []);
    write(&writer, b"1").unwrap();
    assert_eq!(bench.wait(NEVER), [(known, Readiness::READABLE)]);
}

fn case_37_stress(bench: Bench) {
    model::run(bench, 37);
}

fn e3_modify_always_replaces(mut bench: Bench) {
    let (near, far) = UnixDatagram::pair().unwrap();
    let name = id(0, 0);
    let _near = bench.add(near, name, Readiness::WRITABLE);
    for _ in 0..2 {
        bench.selector.modify(name, Readiness::WRITABLE).unwrap(); // the same is not nothing
        assert_eq!(bench.wait(NEVER), [(name, Readiness::WRITABLE)]);
    }
    far.send(b"1").unwrap();
    assert_eq!(bench.poll(), [], "only writable is asked for");
    bench.selector.modify(name, Readiness::ALL).unwrap();
    assert_eq!(bench.wait(NEVER), [(name, Readiness::ALL)]);
    bench.selector.modify(name, Readiness::NONE).unwrap();
    bench.selector.arm(name, Readiness::ALL);
    far.send(b"2").unwrap();
    assert_eq!(bench.poll(), [], "nothing is asked for");
}

fn e14_an_end_and_an_error_are_ready_for_everything(mut bench: Bench) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.set_nonblocking(true).unwrap();
    let name = id(0, 0);
    let _accepted = bench.add(accepted.try_clone().unwrap(), name, Readiness::ALL);
    assert_eq!(bench.wait(NEVER), [(name, Readiness::WRITABLE)]);
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream); // a reset
    bench.selector.arm(name, Readiness::ALL);
    assert_eq!(bench.wait(NEVER), [(name, Readiness::ALL)]);
    let error = accepted.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

fn e14_one_wait_sleeps_to_its_deadline(mut bench: Bench) {
    let _pipe = pipe(&mut bench, id(0, 0));
    for micros in [0, 1, 40, 300, 999, 1500, 33_000] {
        let (limit, start) = (Duration::from_micros(micros), Instant::now());
        assert_eq!(bench.wait(limit), []);
        assert!(start.elapsed() >= limit, "{micros} us");
    }
}

fn e15_what_nobody_reads_does_not_spin(mut bench: Bench) {
    let (near, mut far) = UnixStream::pair().unwrap();
    let name = id(0, 0);
    let _near = bench.add(near, name, Readiness::ALL);
    far.write_all(b"1").unwrap();
    assert_eq!(bench.wait(NEVER), [(name, Readiness::ALL)]);
    for _ in 0..3 {
        let (limit, start) = (Duration::from_millis(5), Instant::now());
        assert_eq!(bench.wait(limit), [], "it was told");
        assert!(start.elapsed() >= limit);
    }
    drop(far); // and the end does not make it spin either
    bench.selector.arm(name, Readiness::READABLE);
    assert!(!bench.wait(NEVER).is_empty());
    bench.poll();
    let (limit, start) = (Duration::from_millis(5), Instant::now());
    assert_eq!(bench.wait(limit), []);
    assert!(start.elapsed() >= limit);
}

fn a_wake_ends_the_sleep_under_way_or_the_next_and_no_other(mut bench: Bench) {
    let waker = bench.selector.waker();
    let mut fired = Vec::new();
    for _ in 0..3 {
        waker.wake();
        waker.wake();
        bench.selector.wait(Instant::now(), None, &mut fired).unwrap();
        let (limit, start) = (Duration::from_millis(2), Instant::now());
        bench.wait(limit);
        assert!(start.elapsed() >= limit, "both wakes were heard");
    }
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        waker.wake();
    });
    bench.selector.wait(Instant::now(), None, &mut fired).unwrap();
    thread.join().unwrap();
    assert_eq!(fired, []);
}

#[test]
fn select_refuses_a_descriptor_beyond_its_sets() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let low = UnixDatagram::unbound().unwrap();
    let high = Arc::new(fcntl_dupfd_cloexec(&low, 1024).unwrap());
    let mut select = Driver::Select.open().unwrap();
    let refused = select.add(&high, id(0, 0), Readiness::ALL);
    assert!(matches!(refused, Err(SocketError::Limit(_))), "{refused:?}");
    let mut poll = Driver::Poll.open().unwrap();
    poll.add(&high, id(0, 0), Readiness::ALL).unwrap();
}

#[test]
fn a_driver_this_system_does_not_have_is_refused_and_named() {
    let error = Driver::Kqueue.open().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert_eq!(error.to_string(), "this system has no kqueue; it has epoll");
}

#[test]
fn a_driver_is_found_by_its_name() {
    for driver in Driver::ALL {
        assert_eq!(driver.to_string().parse(), Ok(driver));
    }
    assert_eq!("kqueue".parse(), Ok(Driver::Kqueue));
    let error = "EPOLL".parse::<Driver>().unwrap_err();
    assert_eq!(error.to_string(), "\"EPOLL\" is not a driver: epoll, kqueue, poll or select");
}
