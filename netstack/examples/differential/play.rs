//! Plays a script on a host and says what came of it.

use std::net::SocketAddrV4;

use crate::host::{HOST, Host, PEER, PORT, Read};
use crate::script::{Event, FIN_ACK, Mark, Say, Script};
use crate::segment::{self, Flags, Options, Segment};

/// The peer's initial sequence number.
const ISN: u32 = 1_000_000;
/// Longest segment with which the peer repeats everything at the end.
const CHUNK: u32 = 1400;

/// What both hosts must agree about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The bytes the application read.
    pub(crate) read: Vec<u8>,
    /// What came instead of further bytes.
    pub(crate) end: Option<Read>,
    /// How many bytes the host sent, without a hole, and whether then a FIN.
    pub(crate) sent: usize,
    pub(crate) has_fin: bool,
    /// These were not the bytes the application gave.
    pub(crate) is_garbled: bool,
    /// A reset for a segment of this connection, not for a stray one before or after it.
    pub(crate) was_reset: bool,
    /// What it said at last to a byte of before: what it expects next, or that there is nothing.
    pub(crate) state: State,
}

/// What is left of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Silent,
    Gone,
    Expects(u32),
}

/// A host, and the peer it talks to.
pub(crate) struct Play<'a> {
    host: &'a mut dyn Host,
    local: SocketAddrV4,
    remote: SocketAddrV4,
    host_isn: Option<u32>,
    /// The next number the host will use, as far as all before it was heard.
    next: u32,
    /// Bytes the application has given, and those given before this connection began.
    given: u32,
    given_before: u32,
    pub(crate) outcome: Outcome,
    pub(crate) log: Vec<String>,
}

/// The bytes of either stream.
fn stream(start: u32, len: usize) -> Vec<u8> {
    let at = |index| start.wrapping_add(index);
    (0..len as u32).map(at).map(|at| (at ^ (at >> 8).wrapping_mul(7)) as u8).collect()
}

impl<'a> Play<'a> {
    /// A play on `host` in which the peer's port is `port`.
    pub(crate) fn new(host: &'a mut dyn Host, port: u16) -> Self {
        Self {
            host,
            local: SocketAddrV4::new(HOST, PORT),
            remote: SocketAddrV4::new(PEER, port),
            host_isn: None,
            next: 0,
            given: 0,
            given_before: 0,
            outcome: Outcome::default(),
            log: Vec::new(),
        }
    }

    pub(crate) fn run(&mut self, script: &Script) {
        if script.is_active {
            self.host.connect(self.remote);
            self.hear();
        }
        for event in script.opening.iter().chain(&script.events) {
            self.act(script, *event);
        }
        self.finish(script);
    }

    fn act(&mut self, script: &Script, event: Event) {
        match event {
            Event::Send(len) => {
                let bytes = stream(self.given, len);
                if self.host.send(&bytes) {
                    self.given += len as u32;
                }
            }
            Event::Recv => self.read(),
            Event::Shutdown => self.host.shutdown(),
            Event::Close => self.host.close(false),
            Event::Abort => self.host.close(true),
            Event::Icmp(code) => {
                let seq = self.host_isn.unwrap_or(0).wrapping_add(1);
                let packet = segment::unreachable(self.remote, self.local, code, 0, seq);
                self.host.put(&packet);
            }
            Event::Say(say) => self.say(script, say),
        }
        if !matches!(event, Event::Say(_)) {
            self.log.push(format!("    {event:?}"));
        }
        self.hear();
        self.host.accept();
    }

    fn say(&mut self, script: &Script, say: Say) {
        let mut options = Options::default();
        if say.flags.has(Flags::SYN) {
            options = Options { mss: Some(1460), sackok: script.has_sack, ..options };
        }
        let seq = say.seq as u32;
        let acked = self.next.wrapping_add(say.ack_off as u32);
        let payload = match say.len {
            0 => Vec::new(),
            len => stream(seq.wrapping_sub(1), len),
        };
        let segment = Segment {
            flags: say.flags,
            seq: ISN.wrapping_add(seq),
            ack: self.host_isn.unwrap_or(0).wrapping_add(acked),
            window: say.window,
            options,
            payload,
        };
        let text = segment.describe(ISN, self.host_isn.unwrap_or(0));
        self.log.push(format!("    < {text}"));
        self.host.put(&segment.packet(self.remote, self.local));
    }

    /// Looks at what the host has sent; the last segment.
    fn hear(&mut self) -> Option<Segment> {
        let mut last = None;
        for packet in self.host.take() {
            let Some((from, to, segment)) = Segment::read(&packet) else { continue };
            if to != self.remote {
                continue;
            }
            self.local = from;
            self.note(&segment);
            last = Some(segment);
        }
        last
    }

    fn note(&mut self, segment: &Segment) {
        let is_syn = segment.flags.has(Flags::SYN);
        if is_syn && !segment.flags.has(Flags::RST) && self.host_isn != Some(segment.seq) {
            self.host_isn = Some(segment.seq);
            self.next = 1;
            self.given_before = self.given;
        }
        let isn = self.host_isn.unwrap_or(0);
        self.log.push(format!("    > {}", segment.describe(isn, ISN)));
        if segment.flags.has(Flags::RST) {
            self.outcome.was_reset = true;
            return;
        }
        let start = segment.seq.wrapping_sub(isn);
        let len = segment.payload.len();
        if len > 0 && (1..=self.next).contains(&start) && start + len as u32 > self.next {
            let bytes = stream(self.given_before + start - 1, len);
            self.outcome.is_garbled |= segment.payload != bytes;
            self.next = start + len as u32;
            self.outcome.sent = self.next as usize - 1;
        }
        if segment.flags.has(Flags::FIN) && start + len as u32 == self.next {
            self.next += 1;
            self.outcome.has_fin = true;
        }
    }

    fn read(&mut self) {
        while self.outcome.end.is_none() {
            match self.host.recv() {
                Read::Bytes(bytes) => self.outcome.read.extend(bytes),
                Read::Nothing => return,
                end => self.outcome.end = Some(end),
            }
        }
    }

    /// The peer repeats everything and opens its window, and the application reads what there is.
    fn finish(&mut self, script: &Script) {
        let all = Say {
            flags: Flags::ACK,
            seq: 1,
            len: 0,
            ack_off: 0,
            window: u16::MAX,
            mark: Mark::None,
        };
        for from in (0..script.stream_len).step_by(CHUNK as usize) {
            let len = CHUNK.min(script.stream_len - from) as usize;
            self.act(script, Event::Say(Say { seq: i64::from(from) + 1, len, ..all }));
        }
        let end = i64::from(script.stream_len) + 1;
        if script.has_fin {
            self.act(script, Event::Say(Say { flags: FIN_ACK, seq: end, ..all }));
        }
        for _ in 0..3 {
            self.act(script, Event::Say(Say { seq: end + i64::from(script.has_fin), ..all }));
        }
        self.act(script, Event::Recv);
        let was_reset = self.outcome.was_reset;
        self.say(script, Say { seq: 0, len: 1, ..all });
        self.outcome.state = match self.hear() {
            None => State::Silent,
            Some(last) if last.flags.has(Flags::RST) => State::Gone,
            Some(last) => State::Expects(last.ack.wrapping_sub(ISN)),
        };
        self.outcome.was_reset = was_reset;
        self.clear(script);
    }

    /// Leaves nothing in the kernel that the next script could meet.
    fn clear(&mut self, script: &Script) {
        self.host.close(true);
        if let State::Expects(next) = self.outcome.state {
            let seq = i64::from(next);
            let window = u16::MAX;
            let mark = Mark::None;
            self.say(script, Say { flags: Flags::RST, seq, len: 0, ack_off: 0, window, mark });
        }
        self.host.accept();
        self.host.close(true);
        self.host.take();
    }
}
