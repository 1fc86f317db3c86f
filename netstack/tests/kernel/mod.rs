//! Bulk transfers between a native worker and the kernel's TCP, over a tap that loses frames.
//!
//! ```text
//!   native worker -- Lossy -- net_tap == kernel, CUBIC, in a network namespace
//! ```
//!
//! The kernel opens the connections; one of the two then sends. Every byte is compared. Losses
//! begin when the connection is open: what they do to a handshake is another matter.

use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netstack::IpCidr;
use netstack::device::dpdk::{DpdkConfig, DpdkDevice, PortSource, open};
use netstack::native::{IdlePolicy, NativeConfig, NativeStack, NativeWorker};
use netstack::stack::{
    ConnectedSocket, EventDriver, ListenOptions, NetworkStack, Received, ServerSocket, Worker,
};

use super::namespace::Namespace;
use rustix::thread::{CpuSet, sched_setaffinity};

use lossy::{Faults, Handle, Lossy};

mod lossy;

/// Socket buffers of the worker.
const BUFFER: usize = (512 << 10) - 1;
/// Bytes of one call.
const CHUNK: usize = 256 << 10;
/// The stream repeats itself after this many bytes, which no length of a segment divides.
const PERIOD: usize = 65_521;
/// Between two looks of the kernel's reader; its clock adds 50 us.
const READ_PAUSE: Duration = Duration::from_micros(50);
/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
const WORKER: [u8; 4] = [10, 99, 0, 1];
const KERNEL: &str = "10.99.0.2/24";
const PORT: u16 = 6800;
const TAP: &str = "dt0";
const WORKER_CORE: usize = 0;
const KERNEL_CORE: usize = 1;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    Ours,
    Kernel,
}

/// How much.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "the test needs the one, the benchmark the other")]
pub(crate) enum Amount {
    Bytes(u64),
    /// As much as goes through in this time; then the connection is reset.
    Time(Duration),
}

/// What happens to frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) seed: u64,
    pub(crate) loss_ppm: u32,
    /// What is added to the round trip.
    pub(crate) delay: Duration,
}

/// How a transfer fared.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "tests and benchmarks look at different things")]
pub(crate) struct Flow {
    pub(crate) bytes: u64,
    pub(crate) mbit_per_s: f64,
    /// Longest time in which nothing arrived.
    pub(crate) stall: Duration,
    /// Longest time in which the worker had no turn: the machine was busy otherwise.
    pub(crate) absence: Duration,
    /// Frames lost on the way to the worker, and to the kernel.
    pub(crate) lost: [u64; 2],
    // Of the worker.
    pub(crate) resent: u64,
    pub(crate) fast_retransmits: u64,
    pub(crate) timeouts: u64,
    pub(crate) probes: u64,
}

/// The kernel's end of a transfer, and what it has received if it is the receiver.
type Kernel = JoinHandle<io::Result<Option<Tally>>>;

/// Both ends.
pub(crate) struct Lab {
    worker: NativeWorker<Lossy<DpdkDevice>>,
    listener: ServerSocket,
    faults: Handle,
    stream: Stream,
    last_turn: Instant,
    absence: Duration,
}

impl Lab {
    /// Opens the port. To be called inside of the namespace, once in a process.
    pub(crate) fn new(namespace: &Namespace) -> Self {
        // What the kernel learns of a path in one run would change the next.
        std::fs::write("/proc/sys/net/ipv4/tcp_no_metrics_save", "1").unwrap();
        let vdev = format!("net_tap0,iface={TAP}");
        let config = DpdkConfig::new(PortSource::Vdev(vdev.parse().unwrap()));
        let devices = open(&config).unwrap_or_else(|error| panic!("no tap: {error}"));
        namespace.ip(&["addr", "add", KERNEL, "dev", TAP]);
        let (devices, handles): (Vec<_>, Vec<_>) = devices.into_iter().map(Lossy::new).unzip();
        let config = NativeConfig {
            addrs: vec![IpCidr::new(std::net::Ipv4Addr::from(WORKER).into(), 24)],
            rx_buffer_bytes: BUFFER,
            tx_buffer_bytes: BUFFER,
            idle: IdlePolicy::Spin,
            ..NativeConfig::default()
        };
        let mut worker = NativeStack::new(devices, config).into_workers().unwrap().remove(0);
        worker.start().unwrap();
        divide_cores(namespace);
        let now = Instant::now();
        let addr = SocketAddr::from((WORKER, PORT));
        let listener = worker.listen(now, addr, &ListenOptions::default()).unwrap();
        let faults = handles.into_iter().next().unwrap();
        let stream = Stream::new();
        Self { worker, listener, faults, stream, last_turn: now, absence: Duration::ZERO }
    }

    /// Sends on a new connection.
    pub(crate) fn run(&mut self, sender: Sender, amount: Amount, link: Link) -> Flow {
        self.faults.replace(Faults::new(0, 0, link.delay));
        let (socket, kernel) = self.open(sender, amount);
        let before = self.counts();
        self.faults.replace(Faults::new(link.seed, link.loss_ppm, link.delay));
        let begin = Instant::now();
        (self.last_turn, self.absence) = (begin, Duration::ZERO);
        let ours = match sender {
            Sender::Ours => {
                self.send(&socket, amount, &kernel);
                None
            }
            Sender::Kernel => Some(self.receive(&socket, amount, begin)),
        };
        let Faults { lost, .. } = self.faults.replace(Faults::new(0, 0, link.delay));
        let [resent, fast_retransmits, timeouts, probes] = self.counts();
        let absence = self.absence;
        self.worker.close(Instant::now(), socket, matches!(amount, Amount::Time(_)));
        self.until("the kernel has ended", |_, _| kernel.is_finished().then_some(()));
        let theirs = kernel.join().unwrap().unwrap();
        let tally = ours.or(theirs).expect("one of both has received");
        let took = tally.end - tally.begin;
        Flow {
            bytes: tally.bytes,
            mbit_per_s: tally.bytes as f64 * 8.0 / took.as_secs_f64() / 1e6,
            stall: tally.stall,
            absence,
            lost,
            resent: resent - before[0],
            fast_retransmits: fast_retransmits - before[1],
            timeouts: timeouts - before[2],
            probes: probes - before[3],
        }
    }

    fn counts(&self) -> [u64; 4] {
        let counters = self.worker.counters();
        ["segments_resent", "fast_retransmits", "retransmission_timeouts", "tail_probes_sent"]
            .map(|name| counters.iter().find(|(other, _)| *other == name).expect(name).1)
    }

    fn open(&mut self, sender: Sender, amount: Amount) -> (ConnectedSocket, Kernel) {
        let kernel = std::thread::spawn(move || {
            pin(KERNEL_CORE);
            let stream = TcpStream::connect_timeout(&(WORKER, PORT).into(), PATIENCE)?;
            rustix::net::sockopt::set_tcp_congestion(&stream, "cubic")?;
            stream.set_write_timeout(Some(PATIENCE))?;
            match sender {
                Sender::Ours => kernel_reads(stream, amount).map(Some),
                Sender::Kernel => kernel_writes(stream, amount).map(|()| None),
            }
        });
        let socket = self.until("connection of the kernel", |worker, listener| {
            worker.accept(Instant::now(), listener).unwrap().map(|(socket, _)| socket)
        });
        (socket, kernel)
    }

    fn send(&mut self, socket: &ConnectedSocket, amount: Amount, kernel: &Kernel) {
        let begin = Instant::now();
        let mut sent = 0;
        let mut is_shut = false;
        loop {
            let now = self.turn();
            match amount {
                Amount::Time(time) if now >= begin + time => break,
                Amount::Bytes(_) if kernel.is_finished() => break,
                _ => assert!(now < begin + PATIENCE, "no end after {sent} bytes"),
            }
            let left = match amount {
                Amount::Bytes(all) => all - sent,
                Amount::Time(_) => u64::MAX,
            };
            if left > 0 {
                let gather = [IoSlice::new(self.stream.part(sent, left))];
                sent += self.worker.send(now, socket, &gather, false).unwrap() as u64;
            } else if !std::mem::replace(&mut is_shut, true) {
                self.worker.shutdown(now, socket).unwrap();
            }
        }
    }

    fn receive(&mut self, socket: &ConnectedSocket, amount: Amount, begin: Instant) -> Tally {
        let end = match amount {
            Amount::Time(time) => Some(begin + time),
            Amount::Bytes(_) => None,
        };
        let mut tally = Tally::new(begin, end);
        let mut buffer = vec![0; CHUNK];
        loop {
            let now = self.turn();
            if end.is_some_and(|end| now >= end) {
                break;
            }
            assert!(now < begin + PATIENCE, "no end after {} bytes", tally.bytes);
            match self.worker.recv(now, socket, &mut buffer).unwrap() {
                Received::Bytes(len) => tally.note(now, &self.stream, &buffer[..len]),
                Received::WouldBlock => {}
                Received::EndOfStream => break,
            }
        }
        tally.finish(Instant::now());
        tally
    }

    fn until<T>(
        &mut self,
        what: &str,
        mut done: impl FnMut(&mut NativeWorker<Lossy<DpdkDevice>>, &ServerSocket) -> Option<T>,
    ) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            let now = self.turn();
            if let Some(outcome) = done(&mut self.worker, &self.listener) {
                return outcome;
            }
            assert!(now < end, "waited in vain: {what}");
        }
    }

    fn turn(&mut self) -> Instant {
        self.worker.flush(Instant::now()).unwrap();
        let now = Instant::now();
        self.absence = self.absence.max(now - self.last_turn);
        self.last_turn = now;
        self.worker.wait(now, Some(now), &mut Vec::new()).unwrap();
        now
    }
}

/// Gives each end a core of its own, as they have on two machines. Else the kernel receives what is
/// written to a tap in the thread that writes it.
fn divide_cores(namespace: &Namespace) {
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > KERNEL_CORE) {
        pin(WORKER_CORE);
        let file = format!("/sys/class/net/{TAP}/queues/rx-0/rps_cpus");
        namespace.run(&["sh", "-c", &format!("echo {:x} > {file}", 1 << KERNEL_CORE)]);
    }
}

fn pin(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    // Where there is no such core both share.
    let _ = sched_setaffinity(None, &cores);
}

/// What goes through a connection.
struct Stream(Vec<u8>);

impl Stream {
    fn new() -> Self {
        let byte = |index: usize| ((index % PERIOD).wrapping_mul(0x9e37_79b9) >> 13) as u8;
        Self((0..PERIOD + CHUNK).map(byte).collect())
    }

    /// Bytes from number `at` on: a chunk, or `left` if that is less.
    fn part(&self, at: u64, left: u64) -> &[u8] {
        let start = (at % PERIOD as u64) as usize;
        &self.0[start..start + left.min(CHUNK as u64) as usize]
    }
}

/// What has arrived, and when.
struct Tally {
    begin: Instant,
    last: Instant,
    /// The last moment that counts.
    limit: Option<Instant>,
    end: Instant,
    bytes: u64,
    stall: Duration,
}

impl Tally {
    fn new(begin: Instant, limit: Option<Instant>) -> Self {
        Self { begin, last: begin, limit, end: begin, bytes: 0, stall: Duration::ZERO }
    }

    fn note(&mut self, now: Instant, stream: &Stream, bytes: &[u8]) {
        let expected = stream.part(self.bytes, bytes.len() as u64);
        assert!(bytes == expected, "other bytes arrive, from {} on", self.bytes);
        self.bytes += bytes.len() as u64;
        self.stall = self.stall.max(now - self.last);
        self.last = now;
    }

    fn finish(&mut self, now: Instant) {
        self.end = self.limit.map_or(now, |limit| limit.min(now));
        self.stall = self.stall.max(self.end.saturating_duration_since(self.last));
    }
}

/// A reader that slept on its socket would be woken for each frame, by whoever brings it: that is
/// the worker, as it writes to the tap. So this one looks again and again.
fn kernel_reads(mut stream: TcpStream, amount: Amount) -> io::Result<Tally> {
    stream.set_nonblocking(true)?;
    let expected = Stream::new();
    let mut buffer = vec![0; CHUNK];
    let begin = Instant::now();
    let limit = match amount {
        Amount::Time(time) => Some(begin + time),
        Amount::Bytes(_) => None,
    };
    let mut tally = Tally::new(begin, limit);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => {
                let now = Instant::now();
                if limit.is_some_and(|limit| now > limit) {
                    continue; // what is on its way still
                }
                tally.note(now, &expected, &buffer[..len]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(READ_PAUSE);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(error),
        }
    }
    tally.finish(Instant::now());
    Ok(tally)
}

fn kernel_writes(mut stream: TcpStream, amount: Amount) -> io::Result<()> {
    let bytes = Stream::new();
    let mut sent = 0;
    loop {
        let left = match amount {
            Amount::Bytes(all) => all - sent,
            Amount::Time(_) => u64::MAX,
        };
        if left == 0 {
            stream.shutdown(std::net::Shutdown::Write)?;
            return match stream.read(&mut [0])? {
                0 => Ok(()),
                _ => Err(io::Error::other("bytes nobody asked for")),
            };
        }
        match stream.write(bytes.part(sent, left)) {
            Ok(len) => sent += len as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if matches!(amount, Amount::Time(_)) => return Ok(()), // it was reset
            Err(error) => return Err(error),
        }
    }
}
