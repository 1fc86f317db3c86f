//! What a message costs two sessions with nothing between them but memory: crc mode, lossless, in
//! batches as a busy connection has them. Nanoseconds and heap allocations a message, each side
//! for itself; acknowledgements and the copies that a transport makes are in it.
//!
//! `cargo bench -p messenger-proto --bench sessions [-- BATCHES [FRONT_LEN]]`. For instructions
//! instead, run the binary with few batches of one length under `valgrind --tool=callgrind` and see
//! what `send_batch` and `receive_batch` include.

use std::sync::Arc;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use bytes::Bytes;
use messenger_proto::{
    Decision, EntityAddr, GlobalSeq, Identity, Limits, Message, Policy, PolicySet, ProtocolError,
    Session, SessionEvent, SessionOptions, Throttle, TransportNews, UnixAnchor,
};

const BATCHES: usize = 20_000;
const BATCH: usize = 32;
const FRONT_LENS: [usize; 2] = [64, 4 << 10];

const CLIENT: &str = "v2:10.0.0.1:6800/11";
const SERVER: &str = "v2:10.0.0.2:6800/22";

fn main() -> Result<(), ProtocolError> {
    let mut numbers = std::env::args().filter_map(|word| word.parse::<usize>().ok());
    let (batches, only) = (numbers.next().unwrap_or(BATCHES), numbers.next());
    println!("{:>6} {:<9} {:>11} {:>16}", "front", "side", "ns/message", "allocs/message");
    for front_len in only.map_or_else(|| FRONT_LENS.to_vec(), |len| vec![len]) {
        let mut pair = Pair::connected()?;
        let front = Bytes::from(vec![7; front_len]);
        let (mut sending, mut receiving) = (Cost::default(), Cost::default());
        for _ in 0..batches {
            let mut batch: Vec<_> = (0..BATCH)
                .map(|tid| Message::new(42).with_tid(tid as u64).with_front(front.clone()))
                .collect();
            sending.add(|| pair.send_batch(&mut batch))?;
            receiving.add(|| pair.receive_batch())?;
        }
        sending.print(front_len, "sender");
        receiving.print(front_len, "receiver");
    }
    Ok(())
}

/// What one side's turns cost.
#[derive(Default)]
struct Cost {
    turns: Vec<Duration>,
    allocations: u64,
}

impl Cost {
    fn add<T>(&mut self, turn: impl FnOnce() -> T) -> T {
        let mut result = None;
        let begin = Instant::now();
        let counted = measure(|| result = Some(turn()));
        self.turns.push(begin.elapsed());
        self.allocations += counted.count_total;
        result.expect("the turn was taken")
    }

    /// The median turn: others use the machine, too.
    fn print(mut self, front_len: usize, side: &str) {
        let messages = (self.turns.len() * BATCH) as f64;
        let middle = self.turns.len() / 2;
        let (_, median, _) = self.turns.select_nth_unstable(middle);
        let nanos = median.as_nanos() as f64 / BATCH as f64;
        let allocations = self.allocations as f64 / messages;
        println!("{front_len:>6} {side:<9} {nanos:>11.0} {allocations:>16.3}");
    }
}

/// Two sessions and the bytes on their way, each direction for itself.
struct Pair {
    now: Instant,
    client: Session,
    server: Session,
    forth: Vec<u8>,
    back: Vec<u8>,
}

impl Pair {
    /// Both are ready.
    fn connected() -> Result<Self, ProtocolError> {
        let now = Instant::now();
        let (client, server) = (addr(CLIENT), addr(SERVER));
        let sockets = [client, server].map(|addr| addr.socket.expect("it has one"));
        let dialler = identity(now, "osd.0", client);
        let acceptor = identity(now, "osd.1", server);
        let mut pair = Self {
            now,
            client: Session::dial(now, dialler, acceptor.name.kind, server, 1),
            server: Session::accept(now, acceptor, sockets[0], sockets[1], 2),
            forth: Vec::new(),
            back: Vec::new(),
        };
        pair.client.handle_transport(now, TransportNews::Opened { local: sockets[0] });
        while !pair.client.is_ready() || !pair.server.is_ready() {
            transmit(&mut pair.client, now, &mut pair.forth);
            take(&mut pair.server, now, &mut pair.forth)?;
            transmit(&mut pair.server, now, &mut pair.back);
            take(&mut pair.client, now, &mut pair.back)?;
        }
        Ok(pair)
    }

    /// The client learns what was acknowledged, then sends.
    #[inline(never)] // a name of its own in profiles
    fn send_batch(&mut self, batch: &mut Vec<Message>) -> Result<(), ProtocolError> {
        take(&mut self.client, self.now, &mut self.back)?;
        for message in batch.drain(..) {
            self.client.send(self.now, message).expect("the queue has room");
        }
        transmit(&mut self.client, self.now, &mut self.forth);
        Ok(())
    }

    /// The server drops what it receives and acknowledges it.
    #[inline(never)]
    fn receive_batch(&mut self) -> Result<(), ProtocolError> {
        let received = take(&mut self.server, self.now, &mut self.forth)?;
        assert_eq!(received, BATCH, "messages received");
        transmit(&mut self.server, self.now, &mut self.back);
        Ok(())
    }
}

fn addr(text: &str) -> EntityAddr {
    text.parse().expect("an address")
}

fn identity(now: Instant, name: &str, addr: EntityAddr) -> Arc<Identity> {
    Arc::new(Identity {
        name: name.parse().expect("a name"),
        addrs: addr.into(),
        listening: vec![addr],
        policies: PolicySet::new(Policy::lossless_peer()),
        limits: Limits::default(),
        options: SessionOptions::default(),
        auth: Arc::default(),
        anchor: UnixAnchor { instant: now, unix: Duration::from_secs(1) },
        global_seq: GlobalSeq::new(),
        dispatch_throttle: Some(Throttle::new("dispatch", 100 << 20)),
    })
}

/// What a session has to say goes to `wire`.
fn transmit(session: &mut Session, now: Instant, wire: &mut Vec<u8>) {
    while let Some(gather) = session.poll_transmit(now) {
        let len = gather.len();
        gather.slices().iter().for_each(|slice| wire.extend_from_slice(slice));
        session.transmitted(len);
    }
}

/// The session takes what is on the wire. Returns how many messages were there.
fn take(session: &mut Session, now: Instant, wire: &mut Vec<u8>) -> Result<usize, ProtocolError> {
    let (mut rest, mut messages) = (&wire[..], 0);
    while !rest.is_empty() {
        let space = session.rx_space();
        let (head, tail) = rest.split_at(space.len().min(rest.len()));
        space[..head.len()].copy_from_slice(head);
        session.handle_received(now, head.len())?;
        rest = tail;
        while let Some(event) = session.poll_event() {
            match event {
                SessionEvent::Message(_) => messages += 1,
                SessionEvent::Ident(ident) => match Decision::about(&ident, None) {
                    Decision::Answer(verdict) => session.resolve(now, verdict)?,
                    decision => unreachable!("{decision:?} about a stranger"),
                },
                _ => {}
            }
        }
    }
    wire.clear();
    Ok(messages)
}
