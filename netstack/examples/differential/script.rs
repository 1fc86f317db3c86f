//! A random script: what the application calls and what the peer sends, the same for both hosts.

use std::fmt;

use crate::segment::Flags;

/// Most events between the handshake and the end.
const EVENTS_MAX: usize = 14;
/// Longest payload of a segment.
const PAYLOAD_MAX: usize = 1400;
/// All the peer sends lies in the first window of either host, and all a host sends in the first
/// flight.
const STREAM_MAX: u32 = 12_000;

const SYN_ACK: Flags = Flags(Flags::SYN.0 | Flags::ACK.0);
const RST_ACK: Flags = Flags(Flags::RST.0 | Flags::ACK.0);
pub(crate) const FIN_ACK: Flags = Flags(Flags::FIN.0 | Flags::ACK.0);

/// One step of a script. Numbers are relative: the peer's to its initial one, acknowledgements to
/// all that the host has sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Send(usize),
    Recv,
    Shutdown,
    Close,
    Abort,
    Say(Say),
    /// An ICMP error with this code about the oldest byte.
    Icmp(u8),
}

/// A segment of the peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Say {
    pub(crate) flags: Flags,
    pub(crate) seq: i64,
    pub(crate) len: usize,
    /// Off what has been heard.
    pub(crate) ack_off: i64,
    pub(crate) window: u16,
    pub(crate) mark: Mark,
}

/// What is special about a segment that hosts may take otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    None,
    /// A reset in the host's window, and not with its first number.
    InsideWindow,
    /// A reset with the number of the peer's FIN, which the host has had.
    OfFin,
    /// A FIN with something missing before it.
    EarlyFin,
}

/// The options of the peer's SYN, who begins, and the events.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) is_active: bool,
    pub(crate) has_sack: bool,
    pub(crate) opening: Vec<Event>,
    pub(crate) events: Vec<Event>,
    /// What the peer has sent of its stream, holes included, and whether its end.
    pub(crate) stream_len: u32,
    pub(crate) has_fin: bool,
}

/// A seeded sequence of numbers (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as u32) % end
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.below(count) == 0
    }

    /// One of some, by weight.
    fn pick<T: Copy>(&mut self, choices: &[(u32, T)]) -> T {
        let mut at = self.below(choices.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in choices {
            if at < *weight {
                return *choice;
            }
            at -= weight;
        }
        unreachable!("the dice shows less than the sum")
    }
}

/// What may happen on an open connection.
#[derive(Clone, Copy)]
enum Kind {
    Send,
    Recv,
    Shutdown,
    Close,
    Abort,
    Next,
    Ahead,
    Again,
    Ack,
    Fin,
    OldAck,
    FutureAck,
    NoAck,
    Window,
    Beyond,
    BehindFin,
    ResetExact,
    ResetInside,
    ResetOutside,
    Syn,
    Odd,
    Icmp,
}

/// Flags that no TCP puts together, or not at that time; none of them is a reset.
const ODD_FLAGS: &[u8] = &[0, 1, 2 + 1, 2 + 16, 2 + 1 + 16, 8, 16 + 32, 16 + 64 + 128, 255 - 4];

const KINDS: &[(u32, Kind)] = &[
    (40, Kind::Send),
    (20, Kind::Recv),
    (8, Kind::Shutdown),
    (8, Kind::Close),
    (2, Kind::Abort),
    (50, Kind::Next),
    (20, Kind::Ahead),
    (20, Kind::Again),
    (20, Kind::Ack),
    (12, Kind::Fin),
    (8, Kind::OldAck),
    (8, Kind::FutureAck),
    (4, Kind::NoAck),
    (10, Kind::Window),
    (6, Kind::Beyond),
    (4, Kind::BehindFin),
    (3, Kind::ResetExact),
    (3, Kind::ResetInside),
    (4, Kind::ResetOutside),
    (4, Kind::Syn),
    (6, Kind::Odd),
    (3, Kind::Icmp),
];

/// The peer's place while a script is made.
struct Maker {
    dice: Dice,
    /// The next byte that was never sent without a hole before it.
    next: u32,
    has_early_fin: bool,
    script: Script,
    window: u16,
}

impl Script {
    pub(crate) fn random(seed: u64) -> Self {
        let seed = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut dice = Dice(seed | 1);
        let script = Self {
            is_active: dice.one_in(4),
            has_sack: dice.one_in(2),
            opening: Vec::new(),
            events: Vec::new(),
            stream_len: 0,
            has_fin: false,
        };
        let mut maker = Maker { dice, next: 0, has_early_fin: false, script, window: u16::MAX };
        maker.opening();
        for _ in 0..3 + maker.dice.below(EVENTS_MAX as u32 - 3) {
            maker.event();
        }
        maker.script
    }
}

impl Maker {
    /// A segment without payload.
    fn bare(&self, flags: Flags, seq: i64) -> Say {
        Say { flags, seq, len: 0, ack_off: 0, window: self.window, mark: Mark::None }
    }

    /// Bytes of the stream, from the one with number `from`.
    fn bytes(&mut self, from: u32, len: u32) -> Say {
        let end = from + len;
        self.script.stream_len = self.script.stream_len.max(end);
        Say { len: len as usize, ..self.bare(Flags::ACK, i64::from(from) + 1) }
    }

    fn opening(&mut self) {
        let mut opening = Vec::new();
        let syn = self.bare(Flags::SYN, 0);
        if self.script.is_active {
            let answer = Say { flags: SYN_ACK, ..syn };
            let reset = Say { flags: RST_ACK, ..syn };
            if self.dice.one_in(8) {
                self.script.opening = vec![Event::Say(syn), Event::Say(self.bare(Flags::ACK, 1))];
                return;
            }
            match self.dice.below(8) {
                0 => opening.push(Say { ack_off: 300, ..answer }),
                1 => opening.push(Say { ack_off: 300, ..reset }),
                2 => opening.push(Say { flags: Flags::RST, ..reset }),
                3 => opening.push(reset),
                _ => {}
            }
            opening.push(answer);
        } else {
            match self.dice.below(8) {
                0 => opening.push(Say { ack_off: 300, ..self.bare(Flags::ACK, 1) }),
                1 => opening.push(self.bare(Flags::RST, 0)),
                2 => opening.push(self.bare(Flags(0), 0)),
                _ => {}
            }
            opening.push(syn);
            match self.dice.below(10) {
                0 => opening.push(syn),
                1 => opening.push(Say { ack_off: 300, ..self.bare(Flags::ACK, 1) }),
                2 => opening.push(Say { ack_off: -1, ..self.bare(Flags::ACK, 1) }),
                3 => opening.push(self.bare(Flags::RST, 1)),
                4 => opening.push(self.bare(Flags::RST, 200_000)),
                _ => {}
            }
            opening.push(match self.dice.below(6) {
                0 => {
                    self.next = 100;
                    self.bytes(0, 100)
                }
                1 => {
                    self.script.has_fin = true;
                    self.bare(FIN_ACK, 1)
                }
                _ => self.bare(Flags::ACK, 1),
            });
        }
        self.script.opening = opening.into_iter().map(Event::Say).collect();
    }

    /// Where the peer's sequence numbers end.
    fn end(&self) -> i64 {
        i64::from(self.script.stream_len) + 1 + i64::from(self.script.has_fin)
    }

    fn event(&mut self) {
        let kind = self.dice.pick(KINDS);
        let len = 1 + self.dice.below(PAYLOAD_MAX as u32);
        let has_room = self.script.stream_len + 4000 < STREAM_MAX && !self.script.has_fin;
        let end = self.end();
        let is_whole = self.next == self.script.stream_len;
        let exact = i64::from(self.next) + 1 + i64::from(self.script.has_fin);
        let event = match kind {
            Kind::Send => Event::Send(len as usize),
            Kind::Recv => Event::Recv,
            Kind::Shutdown => Event::Shutdown,
            Kind::Close => Event::Close,
            Kind::Abort => Event::Abort,
            Kind::Icmp => Event::Icmp(self.dice.pick(&[(1, 0), (1, 1), (1, 3)])),
            Kind::Next if has_room && is_whole => {
                let from = self.next;
                self.next += len;
                Event::Say(self.bytes(from, len))
            }
            Kind::Ahead if has_room => {
                let from = self.script.stream_len + 1 + self.dice.below(1000);
                self.has_early_fin = self.dice.one_in(8);
                self.script.has_fin = self.has_early_fin;
                let bytes = self.bytes(from, len);
                Event::Say(match self.has_early_fin {
                    true => Say { flags: FIN_ACK, mark: Mark::EarlyFin, ..bytes },
                    false => bytes,
                })
            }
            Kind::Fin if has_room && is_whole && self.dice.one_in(2) => {
                let from = self.next;
                self.next += len;
                self.script.has_fin = true;
                Event::Say(Say { flags: FIN_ACK, ..self.bytes(from, len) })
            }
            Kind::Again | Kind::Next | Kind::Ahead if self.script.stream_len > 0 => {
                let from = self.dice.below(self.script.stream_len);
                let len = len.min(self.script.stream_len - from);
                if from <= self.next {
                    self.next = self.next.max(from + len);
                }
                Event::Say(self.bytes(from, len))
            }
            Kind::Fin if is_whole => {
                self.script.has_fin = true;
                Event::Say(self.bare(FIN_ACK, i64::from(self.next) + 1))
            }
            Kind::OldAck => Event::Say(Say { ack_off: -1, ..self.bare(Flags::ACK, end) }),
            Kind::FutureAck => {
                let ack_off = 1000 + i64::from(self.dice.below(100_000));
                let bytes = Say { len: len as usize, ..self.bare(Flags::ACK, end) };
                Event::Say(Say { ack_off, ..bytes })
            }
            Kind::NoAck => Event::Say(Say { len: len as usize, ..self.bare(Flags(0), end) }),
            Kind::Window => {
                self.window = self.dice.pick(&[(2, 0), (1, 700), (3, u16::MAX)]);
                Event::Say(self.bare(Flags::ACK, end))
            }
            Kind::Beyond => {
                Event::Say(Say { len: len as usize, ..self.bare(Flags::ACK, end + 200_000) })
            }
            Kind::BehindFin if self.script.has_fin => {
                Event::Say(Say { len: len as usize, ..self.bare(Flags::ACK, end) })
            }
            // Behind a hole nobody knows which number is exact.
            Kind::ResetExact if is_whole => {
                // Who has forgotten an early FIN expects it again.
                let mark = if self.has_early_fin { Mark::InsideWindow } else { Mark::None };
                Event::Say(Say { mark, ..self.bare(Flags::RST, exact) })
            }
            Kind::ResetInside if is_whole => {
                Event::Say(Say { mark: Mark::InsideWindow, ..self.bare(Flags::RST, exact + 500) })
            }
            Kind::ResetOutside => {
                let off = self.dice.pick(&[(1, 200_000), (1, -1), (1, -200_000)]);
                let is_of_fin = off == -1 && self.script.has_fin;
                let mark = if is_of_fin { Mark::OfFin } else { Mark::None };
                Event::Say(Say { mark, ..self.bare(Flags::RST, exact + off) })
            }
            Kind::Syn => {
                let off = self.dice.pick(&[(1, 0), (1, 5000), (1, 200_000), (1, -200_000)]);
                Event::Say(self.bare(Flags::SYN, exact + off))
            }
            Kind::Odd => {
                let flags = ODD_FLAGS[self.dice.below(ODD_FLAGS.len() as u32) as usize];
                let off = self.dice.pick(&[(1, 0), (1, -1), (1, 5000), (1, -200_000)]);
                Event::Say(self.bare(Flags(flags), end + off))
            }
            _ => Event::Say(self.bare(Flags::ACK, end)),
        };
        self.script.events.push(event);
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.is_active { "the host connects" } else { "the host listens" };
        writeln!(f, "  {who}, SACK: {}", self.has_sack)?;
        for event in self.opening.iter().chain(&self.events) {
            match event {
                Event::Say(say) => writeln!(
                    f,
                    "  < {} {}+{} ack {:+} win {}",
                    say.flags, say.seq, say.len, say.ack_off, say.window
                )?,
                other => writeln!(f, "  {other:?}")?,
            }
        }
        Ok(())
    }
}
