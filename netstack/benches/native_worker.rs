//! The native worker alone: nanoseconds for a transaction, by number of connections.
//!
//! A transaction is one packet with 64 bytes in, the owner reads them and writes 64 bytes, and
//! one packet out, which also acknowledges. Bursts of 32 packets are for connections at random.
//! The device replays packets from memory and has no peer stack behind it; what it costs itself
//! is measured too, by running it with nobody behind it, and shown beside.
//!
//! ```text
//!   cargo bench -p netstack --no-default-features --bench native_worker -- [--json] [--rounds N]
//!                                                     [--connections N,N,...] [--buffer BYTES]
//!                                                     [--flood SYNS]
//! ```
//!
//! With `--flood` so many packets of each burst are SYNs from addresses that never answer. What a
//! transaction takes longer is what they cost.
//!
//! Rounds of the different numbers are interleaved, so that a busy machine treats all alike, and
//! what is counted is the thread's processor time. With many connections memory matters more than
//! code; with glibc, `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` asks for huge pages.

#![expect(clippy::unwrap_used, reason = "a benchmark ends when something fails")]

use std::cell::RefCell;
use std::io::IoSlice;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use netstack::device::{BURST_MAX, Burst, ChecksumState, DeviceInfo, Frame, PacketDevice};
use netstack::native::{IdlePolicy, NativeConfig, NativeStack, NativeWorker};
use netstack::stack::{
    ConnectedSocket, EventDriver, ListenOptions, NetworkStack, Readiness, Ready, Received,
    ServerSocket, Worker,
};
use smoltcp::wire::{
    ArpOperation, ArpPacket, EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpCidr,
    IpProtocol, Ipv4Packet, TcpPacket, TcpSeqNumber,
};

/// Bytes of a question and of an answer.
const MESSAGE: usize = 64;
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const TCP: usize = 20;
const FRAME_MAX: usize = 1514;
const PORT: u16 = 6800;
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
const SERVER_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
const GATEWAY_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 2]);
/// Clients per simulated host, one to a port.
const PORTS: usize = 60_000;
const FIRST_PORT: usize = 1024;
/// The second byte of the addresses a flood comes from.
const FLOOD_NET: u8 = 200;
/// Time the worker's clock is moved on by a turn.
const TURN: Duration = Duration::from_micros(10);
/// Handshakes under way at a time.
const DIALS: usize = 256;
const ISN: u32 = 1;

fn main() {
    let options = Options::from_args();
    let mut cases: Vec<_> = options.connections.iter().map(|n| Case::new(*n, &options)).collect();
    for _ in 0..options.rounds {
        for case in &mut cases {
            case.round(options.transactions);
        }
    }
    report(&options, &cases);
}

struct Options {
    json: bool,
    rounds: usize,
    transactions: usize,
    connections: Vec<usize>,
    buffer: usize,
    flood: usize,
}

impl Options {
    fn from_args() -> Self {
        let mut options = Self {
            json: false,
            rounds: 15,
            transactions: 200_000,
            connections: vec![1, 1000, 10_000, 100_000],
            buffer: 4096,
            flood: 0,
        };
        let mut args = std::env::args().skip(1);
        let mut bench = false;
        while let Some(arg) = args.next() {
            let mut value = || args.next().expect("the option has a value");
            match arg.as_str() {
                "--json" => options.json = true,
                "--rounds" => options.rounds = value().parse().expect("a number"),
                "--flood" => options.flood = value().parse().expect("a number"),
                "--buffer" => options.buffer = value().parse().expect("a number"),
                "--connections" => {
                    let numbers = value();
                    let numbers = numbers.split(',').map(|n| n.parse().expect("a number"));
                    options.connections = numbers.collect();
                }
                "--bench" => bench = true,
                other => panic!("unknown option {other}"),
            }
        }
        if !bench {
            // Run by `cargo test`: only show that it works.
            options.rounds = 1;
            options.transactions = 10_000;
            options.connections.retain(|n| *n <= 1000);
        }
        options
    }
}

/// A worker with its connections open, and the times of its rounds.
struct Case {
    connections: usize,
    /// The worker's clock, which stands still between rounds.
    now: Instant,
    control: Arc<Control>,
    worker: NativeWorker<Replay>,
    server: ServerSocket,
    /// By slot.
    sockets: Vec<Option<ConnectedSocket>>,
    ready: Vec<Ready>,
    /// Nanoseconds per transaction, a round each.
    total: Vec<f64>,
    /// The device without a worker.
    alone: Vec<f64>,
    idle: Replay,
}

impl Case {
    fn new(connections: usize, options: &Options) -> Self {
        let config = NativeConfig {
            addrs: vec![IpCidr::new(IpAddress::from(SERVER), 24)],
            gateway_v4: Some(GATEWAY),
            rx_buffer_bytes: options.buffer,
            tx_buffer_bytes: options.buffer,
            max_connections: connections + DIALS,
            seed: Some(1),
            idle: IdlePolicy::Spin,
            ..NativeConfig::default()
        };
        let control = Arc::new(Control::default());
        let mut device = Replay::new(connections, control.clone());
        device.flood = options.flood.min(BURST_MAX - 1);
        let now = Instant::now();
        let mut worker =
            NativeStack::new(vec![device], config).into_workers().unwrap().pop().unwrap();
        worker.start().unwrap();
        let listen = ListenOptions { backlog: DIALS, ..ListenOptions::default() };
        let server = worker.listen(now, (SERVER, PORT).into(), &listen).unwrap();
        let mut idle = Replay::new(connections, Arc::new(Control::default()));
        idle.control.replays.store(true, Ordering::Relaxed);
        idle.clients.iter_mut().for_each(|client| client.ack = ISN);
        let mut case = Self {
            connections,
            now,
            control,
            worker,
            server,
            sockets: Vec::new(),
            ready: Vec::new(),
            total: Vec::new(),
            alone: Vec::new(),
            idle,
        };
        case.open();
        case
    }

    fn open(&mut self) {
        let mut open = 0;
        while open < self.connections {
            self.now += TURN;
            let now = self.now;
            self.worker.wait(now, None, &mut self.ready).unwrap();
            self.ready.clear();
            while let Some((socket, _)) = self.worker.accept(now, &self.server).unwrap() {
                let slot = socket.id().slot as usize;
                self.sockets.resize_with(self.sockets.len().max(slot + 1), || None);
                self.sockets[slot] = Some(socket);
                open += 1;
            }
            self.worker.flush(now).unwrap();
        }
        self.control.replays.store(true, Ordering::Relaxed);
    }

    fn round(&mut self, transactions: usize) {
        // The first bursts bring the caches back from the round of another case.
        self.serve(transactions / 10);
        let begin = cpu_time();
        self.serve(transactions);
        self.total.push((cpu_time() - begin) / transactions as f64);

        let mut burst = Burst::new();
        let now = self.now;
        let begin = cpu_time();
        for _ in 0..transactions / BURST_MAX {
            self.idle.rx_burst(now, &mut burst);
            self.idle.rx_burst(now, &mut Burst::new()); // as a worker asks for more
            burst.iter_mut().for_each(turn_back);
            self.idle.tx_burst(now, &mut burst);
        }
        self.alone.push((cpu_time() - begin) / transactions as f64);
    }

    fn serve(&mut self, transactions: usize) {
        let answered = self.control.answers.load(Ordering::Relaxed);
        let mut done = 0;
        while done < transactions {
            self.now += TURN;
            let now = self.now;
            self.worker.wait(now, None, &mut self.ready).unwrap();
            for Ready { socket, readiness } in self.ready.drain(..) {
                if readiness.contains(Readiness::READABLE) {
                    let socket = self.sockets[socket.slot as usize].as_ref().unwrap();
                    done += answer(&mut self.worker, now, socket);
                }
            }
            self.worker.flush(now).unwrap();
        }
        // A connection can have several questions in a burst, which get one answer; and a client
        // that is silent for long gets one twice.
        let answered = self.control.answers.load(Ordering::Relaxed) - answered;
        let most = done + done / 20;
        assert!((1..=most).contains(&answered), "{answered} answers to {done} questions");
    }
}

/// Answers all questions that have come; their number.
fn answer(worker: &mut NativeWorker<Replay>, now: Instant, socket: &ConnectedSocket) -> usize {
    let mut questions = 0;
    let mut buffer = [0; MESSAGE];
    while let Received::Bytes(len) = worker.recv(now, socket, &mut buffer).unwrap() {
        assert_eq!(len, MESSAGE);
        assert_eq!(worker.send(now, socket, &[IoSlice::new(&buffer)], false).unwrap(), MESSAGE);
        questions += 1;
    }
    questions
}

/// Nanoseconds of processor time this thread has had: a worker that polls has all the time of its
/// core, but a benchmark may have to share one.
fn cpu_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn report(options: &Options, cases: &[Case]) {
    let machine = machine();
    if options.json {
        let rows: Vec<_> = cases.iter().map(|case| case.json()).collect();
        println!("{{\"bench\":\"native_worker\",\"machine\":\"{machine}\",");
        println!("\"buffer_bytes\":{},\"rounds\":{},", options.buffer, options.rounds);
        println!("\"rows\":[{}]}}", rows.join(","));
        return;
    }
    println!("native worker, {MESSAGE} B transactions, {} B buffers, {machine}", options.buffer);
    println!(
        "{:>11} {:>9} {:>17} {:>13}",
        "connections", "median ns", "10 % .. 90 %", "device alone"
    );
    for case in cases {
        let [low, median, high] = spread(&case.total);
        let [_, alone, _] = spread(&case.alone);
        println!("{:>11} {median:>9.0} {low:>8.0} ..{high:>6.0} {alone:>13.0}", case.connections);
    }
    let of = |n| cases.iter().find(|case| case.connections == n).map(|case| spread(&case.total)[1]);
    if let (Some(few), Some(many)) = (of(1000), of(100_000)) {
        println!("100000 connections cost {:.2} times what 1000 do", many / few);
    }
}

impl Case {
    fn json(&self) -> String {
        let [low, median, high] = spread(&self.total);
        let [_, alone, _] = spread(&self.alone);
        let n = self.connections;
        format!(
            "{{\"connections\":{n},\"median_ns\":{median:.1},\"p10_ns\":{low:.1},\
             \"p90_ns\":{high:.1},\"device_alone_ns\":{alone:.1}}}"
        )
    }
}

/// The lowest tenth, the median and the highest tenth.
fn spread(times: &[f64]) -> [f64; 3] {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    [0.1, 0.5, 0.9].map(|part| sorted[((sorted.len() - 1) as f64 * part).round() as usize])
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{model}, {cores} cores, {} MB in huge pages", huge_page_kilobytes() / 1024)
}

/// How much of our memory is in transparent huge pages, which decides about TLB misses.
fn huge_page_kilobytes() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("AnonHugePages:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}

/// What the device and the case tell each other.
#[derive(Default)]
struct Control {
    /// All connections are open: questions are asked.
    replays: AtomicBool,
    answers: AtomicUsize,
}

/// A client: what it would say next.
#[derive(Clone, Copy, Default)]
struct Client {
    seq: u32,
    ack: u32,
}

/// A device whose peers are a table.
struct Replay {
    info: DeviceInfo,
    control: Arc<Control>,
    clients: Vec<Client>,
    random: u64,
    /// Frames for the worker that are no questions.
    waiting: Vec<PlainFrame>,
    /// Clients that have dialled, and those whose call was answered.
    dialled: usize,
    answered: usize,
    /// SYNs in each burst of questions, and those sent.
    flood: usize,
    flooded: u32,
    /// A burst was given in this turn.
    is_given: bool,
    template: [u8; ETHERNET + IPV4 + TCP + MESSAGE],
}

impl Replay {
    fn new(connections: usize, control: Arc<Control>) -> Self {
        let info = DeviceInfo {
            name: "replay".into(),
            mac: SERVER_MAC,
            mtu: FRAME_MAX - ETHERNET,
            queue: 0,
            queues: 1,
            rss: None,
            lossless_memory: true,
        };
        Self {
            info,
            control,
            clients: vec![Client { seq: ISN, ack: 0 }; connections],
            random: 0x9e37_79b9_7f4a_7c15,
            waiting: Vec::new(),
            dialled: 0,
            answered: 0,
            flood: 0,
            flooded: 0,
            is_given: false,
            template: template(),
        }
    }

    /// A frame from a client: its template with the client's numbers.
    fn frame(&self, index: usize, flags: u8, payload: usize) -> PlainFrame {
        let len = ETHERNET + IPV4 + TCP + payload;
        let mut frame = PlainFrame::take(len);
        let bytes = frame.bytes_mut();
        bytes.copy_from_slice(&self.template[..len]);
        let Client { seq, ack } = self.clients[index];
        let ip = &mut bytes[ETHERNET..];
        ip[2..4].copy_from_slice(&((len - ETHERNET) as u16).to_be_bytes());
        ip[14] = (index / PORTS) as u8;
        let tcp = &mut ip[IPV4..];
        tcp[..2].copy_from_slice(&((FIRST_PORT + index % PORTS) as u16).to_be_bytes());
        tcp[4..8].copy_from_slice(&seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&ack.to_be_bytes());
        tcp[13] = flags;
        frame
    }

    fn next_random(&mut self) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) as usize % self.clients.len()
    }

    /// A SYN from one of a million addresses.
    fn spoofed(&mut self) -> PlainFrame {
        self.flooded = self.flooded.wrapping_add(1);
        let mut frame = self.frame(0, 0x02, 0);
        let ip = &mut frame.bytes_mut()[ETHERNET..];
        ip[13] = FLOOD_NET;
        ip[14..16].copy_from_slice(&(self.flooded as u16).to_be_bytes());
        ip[IPV4..IPV4 + 2].copy_from_slice(&((self.flooded >> 16) as u16 | 1024).to_be_bytes());
        frame
    }

    fn ask(&mut self, burst: &mut Burst<PlainFrame>) {
        for _ in 0..self.flood {
            let syn = self.spoofed();
            burst.push(syn);
        }
        while !burst.is_full() {
            let index = self.next_random();
            burst.push(self.frame(index, 0x18, MESSAGE));
            self.clients[index].seq = self.clients[index].seq.wrapping_add(MESSAGE as u32);
        }
    }

    fn dial(&mut self, burst: &mut Burst<PlainFrame>) {
        while self.dialled < self.clients.len() && self.dialled - self.answered < DIALS / 2 {
            self.waiting.push(self.frame(self.dialled, 0x02, 0));
            self.dialled += 1;
        }
        let take = self.waiting.len().min(BURST_MAX);
        burst.extend(self.waiting.drain(..take));
    }

    fn sent(&mut self, frame: &PlainFrame) {
        let bytes = frame.bytes();
        let ethernet = EthernetFrame::new_unchecked(bytes);
        if ethernet.ethertype() == EthernetProtocol::Arp {
            self.waiting.extend(arp_reply(ethernet.payload()));
            return;
        }
        let ip = Ipv4Packet::new_unchecked(&bytes[ETHERNET..]);
        if ip.dst_addr().octets()[1] == FLOOD_NET {
            return;
        }
        let tcp = TcpPacket::new_unchecked(ip.payload());
        let host = usize::from(ip.dst_addr().octets()[2]);
        let index = host * PORTS + usize::from(tcp.dst_port()) - FIRST_PORT;
        let TcpSeqNumber(seq) = tcp.seq_number();
        let payload = tcp.payload().len();
        self.clients[index].ack = (seq as u32).wrapping_add(payload as u32 + u32::from(tcp.syn()));
        if tcp.syn() {
            self.answered += 1;
            self.clients[index].seq = ISN + 1;
            self.waiting.push(self.frame(index, 0x10, 0));
        } else if payload > 0 {
            self.control.answers.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl PacketDevice for Replay {
    type Frame = PlainFrame;

    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn rx_burst(&mut self, _now: Instant, burst: &mut Burst<PlainFrame>) {
        if std::mem::take(&mut self.is_given) {
            return;
        }
        if self.control.replays.load(Ordering::Relaxed) {
            self.ask(burst);
        } else {
            self.dial(burst);
        }
        self.is_given = burst.is_full();
    }

    fn alloc(&mut self, len: usize) -> Option<PlainFrame> {
        (len <= FRAME_MAX).then(|| PlainFrame::take(len))
    }

    fn tx_burst(&mut self, _now: Instant, burst: &mut Burst<PlainFrame>) {
        for frame in burst.drain(..) {
            self.sent(&frame);
        }
    }
}

/// A question with all that is the same for every client.
fn template() -> [u8; ETHERNET + IPV4 + TCP + MESSAGE] {
    let mut bytes = [0; ETHERNET + IPV4 + TCP + MESSAGE];
    let mut ethernet = EthernetFrame::new_unchecked(&mut bytes[..]);
    ethernet.set_src_addr(GATEWAY_MAC);
    ethernet.set_dst_addr(SERVER_MAC);
    ethernet.set_ethertype(EthernetProtocol::Ipv4);
    let mut ip = Ipv4Packet::new_unchecked(ethernet.payload_mut());
    ip.set_version(4);
    ip.set_header_len(IPV4 as u8);
    ip.set_total_len((IPV4 + TCP + MESSAGE) as u16);
    ip.set_hop_limit(64);
    ip.set_next_header(IpProtocol::Tcp);
    ip.set_src_addr(Ipv4Addr::new(10, 9, 0, 1));
    ip.set_dst_addr(SERVER);
    let mut tcp = TcpPacket::new_unchecked(ip.payload_mut());
    tcp.set_dst_port(PORT);
    tcp.set_header_len(TCP as u8);
    tcp.set_window_len(60_000);
    bytes
}

/// Makes a question look like an answer.
fn turn_back(frame: &mut PlainFrame) {
    let ip = &mut frame.bytes_mut()[ETHERNET..];
    ip.copy_within(12..16, 16);
    ip.copy_within(IPV4..IPV4 + 2, IPV4 + 2);
}

/// The gateway's answer to a request for its Ethernet address.
fn arp_reply(request: &[u8]) -> Option<PlainFrame> {
    const ARP: usize = 28;
    let request = ArpPacket::new_checked(request).ok()?;
    if request.operation() != ArpOperation::Request
        || request.target_protocol_addr() != GATEWAY.octets()
    {
        return None;
    }
    let mut frame = PlainFrame::take(ETHERNET + ARP);
    let mut ethernet = EthernetFrame::new_unchecked(frame.bytes_mut());
    ethernet.set_src_addr(GATEWAY_MAC);
    ethernet.set_dst_addr(SERVER_MAC);
    ethernet.set_ethertype(EthernetProtocol::Arp);
    ethernet.payload_mut().copy_from_slice(&request.as_ref()[..ARP]);
    let mut reply = ArpPacket::new_unchecked(ethernet.payload_mut());
    reply.set_operation(ArpOperation::Reply);
    reply.set_source_hardware_addr(&GATEWAY_MAC.0);
    reply.set_source_protocol_addr(&GATEWAY.octets());
    reply.set_target_hardware_addr(&SERVER_MAC.0);
    reply.set_target_protocol_addr(&SERVER.octets());
    Some(frame)
}

thread_local! {
    /// Buffers to be used again, the last one used first, as a mempool's cache does.
    #[expect(clippy::vec_box, reason = "a frame takes its buffer along")]
    static FREE: RefCell<Vec<Box<[u8; FRAME_MAX]>>> = const { RefCell::new(Vec::new()) };
}

/// A frame in a buffer that is used again.
#[derive(Debug)]
struct PlainFrame {
    /// `None` only while it is dropped.
    buffer: Option<Box<[u8; FRAME_MAX]>>,
    len: usize,
}

impl PlainFrame {
    fn take(len: usize) -> Self {
        let buffer = FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Box::new([0; FRAME_MAX]));
        Self { buffer: Some(buffer), len }
    }
}

impl Drop for PlainFrame {
    fn drop(&mut self) {
        FREE.with_borrow_mut(|free| free.extend(self.buffer.take()));
    }
}

impl Frame for PlainFrame {
    fn bytes(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[..self.len])
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.as_mut().map_or(&mut [], |buffer| &mut buffer[..self.len])
    }

    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    fn checksum(&self) -> ChecksumState {
        ChecksumState::Good
    }
}
