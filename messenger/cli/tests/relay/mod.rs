//! A relay between a real OSD and a messenger of ours that lets one frame pass at a time.
//!
//! ```text
//!   ours  --dials-->  front  --dials-->  the OSD's cluster address
//!   ours  <--dials--  back   <--dials--  the OSD
//! ```
//!
//! Each side takes the relay for the other, so addresses in frames are changed on the way; nothing
//! else is, unless a test says so. Control frames are decoded, and encoded again to the same bytes.

#![allow(dead_code, reason = "each test program uses its own part")]

pub(crate) mod scene;
pub(crate) mod scenes;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use messenger::EntityAddr;
use messenger_proto::MessageHeader;
use messenger_proto::denc::Writer;
use messenger_proto::v2::control::{Ack, Control};
use messenger_proto::v2::preamble::PREAMBLE_LEN;
use messenger_proto::v2::{Assembly, Banner, Frame, Preamble, Revision, Tag, Wire, banner, header};

use crate::lab::PATIENCE;

const WIRE: Wire = Wire { revision: Revision::Rev1, crc_data: true };
const BANNER_LEN: usize = banner::PREFIX_LEN + banner::PAYLOAD_LEN;

/// One of the two that talk through a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    Ours,
    Osd,
}

impl Party {
    fn other(self) -> Self {
        match self {
            Self::Ours => Self::Osd,
            Self::Osd => Self::Ours,
        }
    }
}

/// Where both sides dial, and what they would dial without it.
pub(crate) struct Relay {
    front: TcpListener,
    back: TcpListener,
    osd: EntityAddr,
    ours: SocketAddr,
}

impl Relay {
    /// Between the OSD at `osd` and us, who listen at `ours`.
    pub(crate) fn between(ours: SocketAddr, osd: EntityAddr) -> Self {
        let ip = osd.socket.unwrap().ip();
        let listen = || TcpListener::bind((ip, 0)).unwrap();
        Self { front: listen(), back: listen(), osd, ours }
    }

    /// What our side has to take for the OSD.
    pub(crate) fn front(&self) -> EntityAddr {
        EntityAddr::v2(self.front.local_addr().unwrap(), self.osd.nonce)
    }

    /// What the OSD has to take for us.
    pub(crate) fn back(&self) -> SocketAddr {
        self.back.local_addr().unwrap()
    }

    /// The next dial of one side, passed on to the other up to both signatures. What the dialler
    /// then wants is still to be read.
    pub(crate) fn next_dial(&self, dialler: Party) -> Link {
        let (listener, to) = match dialler {
            Party::Ours => (&self.front, self.osd.socket.unwrap()),
            Party::Osd => (&self.back, self.ours),
        };
        let from = accept(listener);
        let to = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
        for stream in [&from, &to] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_nodelay(true).unwrap();
        }
        let [ours, osd] = match dialler {
            Party::Ours => [from, to],
            Party::Osd => [to, from],
        };
        let mut link = Link { ours, osd, addrs: [self.front(), self.osd], acked: [0; 2] };
        link.shake_hands(dialler);
        link
    }
}

fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                return stream;
            }
            Err(error) => assert!(Instant::now() < deadline, "nobody dialled: {error}"),
        }
        std::thread::sleep(PATIENCE / 30_000);
    }
}

/// One transport of each side, joined by whoever moves frames.
pub(crate) struct Link {
    ours: TcpStream,
    osd: TcpStream,
    /// The OSD as our side knows it, and as it knows itself.
    addrs: [EntityAddr; 2],
    /// What each side said it has, in ACK frames and in messages.
    acked: [u64; 2],
}

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) header: MessageHeader,
    /// Front, middle, data.
    pub(crate) sections: [Bytes; 3],
    bytes: Vec<u8>,
}

impl Link {
    /// Passes the next frame of `from`, which has to be a `C`.
    pub(crate) fn pass<C: Control>(&mut self, from: Party) -> C {
        let payload = self.take(from);
        self.give(from, &payload);
        payload
    }

    /// Takes the next frame of `from`, which has to be a `C`, off the wire.
    pub(crate) fn take<C: Control>(&mut self, from: Party) -> C {
        let (frame, bytes) = self.next(from);
        assert_eq!(frame.tag, C::TAG.to_wire(), "{from:?} sent no {:?}: {frame:?}", C::TAG);
        let payload = C::parse(&frame.segments[0]).unwrap();
        assert_eq!(encoded(&payload), bytes, "{from:?} and we write {:?} alike", C::TAG);
        payload
    }

    /// Sends a frame in the name of `from`.
    pub(crate) fn give<C: Control>(&mut self, from: Party, payload: &C) {
        let mut bytes = encoded(payload);
        let [known, own] = self.addrs.map(|addr| {
            let mut out = BytesMut::new();
            addr.encode(&mut Writer::new(&mut out));
            out
        });
        let (old, new) = match from {
            Party::Ours => (known, own),
            Party::Osd => (own, known),
        };
        let found = bytes.windows(old.len()).position(|window| window == old);
        if let Some(at) = found {
            let mut first = bytes[PREAMBLE_LEN..bytes.len() - 4].to_vec(); // without its checksum
            first[at - PREAMBLE_LEN..][..new.len()].copy_from_slice(&new);
            let mut out = BytesMut::new();
            let end = WIRE.begin(C::TAG, |writer| writer.bytes(&first), [&[]; 3], &mut out);
            assert!(end.as_bytes().is_empty(), "one segment has no end");
            bytes = out.to_vec();
        }
        self.send(from, &bytes);
    }

    /// Passes the next message of `from`.
    pub(crate) fn pass_message(&mut self, from: Party) -> Letter {
        let letter = self.take_message(from);
        self.give_message(from, &letter);
        letter
    }

    /// Takes the next message of `from` off the wire.
    pub(crate) fn take_message(&mut self, from: Party) -> Letter {
        let (frame, bytes) = self.next(from);
        assert_eq!(frame.tag, Tag::Message.to_wire(), "{from:?} sent no message: {frame:?}");
        let [first, sections @ ..] = frame.segments;
        let (header, ack) = header::decode(&first).unwrap();
        self.note_ack(from, ack);
        Letter { header, sections, bytes }
    }

    /// Sends what was taken.
    pub(crate) fn give_message(&mut self, from: Party, letter: &Letter) {
        self.send(from, &letter.bytes);
    }

    /// Tells us what the OSD acknowledged, if only in a message that we did not get; then breaks
    /// both transports.
    pub(crate) fn cut_after_ack(mut self, seq: u64) {
        let acked = self.acked[Party::Osd as usize];
        assert_eq!(acked, seq, "the OSD has all of ours");
        self.give(Party::Osd, &Ack(acked));
        self.cut();
    }

    /// Breaks both transports. Each side reads what it was sent before it sees the end; what was
    /// not taken from it is lost.
    pub(crate) fn cut(self) {
        for stream in [&self.ours, &self.osd] {
            // One side may have hung up already.
            let _ = stream.shutdown(Shutdown::Write);
        }
        for mut stream in [self.ours, self.osd] {
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    }

    /// The next frame of `from` that is no acknowledgement; those are noted, not passed on.
    fn next(&mut self, from: Party) -> (Frame, Vec<u8>) {
        loop {
            let (frame, bytes) = read(self.stream(from));
            if frame.tag != Tag::Ack.to_wire() {
                return (frame, bytes);
            }
            let Ack(ack) = Ack::parse(&frame.segments[0]).unwrap();
            self.note_ack(from, ack);
        }
    }

    fn note_ack(&mut self, from: Party, ack: u64) {
        let acked = &mut self.acked[from as usize];
        *acked = ack.max(*acked);
    }

    fn shake_hands(&mut self, dialler: Party) {
        let acceptor = dialler.other();
        for party in [dialler, acceptor] {
            let mut banner = [0; BANNER_LEN];
            self.stream(party).read_exact(&mut banner).unwrap();
            assert_eq!(banner, Banner::OURS.encode(), "{party:?}");
            self.send(party, &banner);
        }
        for party in [dialler, acceptor] {
            assert_eq!(self.forward(party), Tag::Hello.to_wire());
        }
        // With cephx there is a challenge.
        loop {
            self.forward(dialler);
            if self.forward(acceptor) == Tag::AuthDone.to_wire() {
                break;
            }
        }
        for party in [acceptor, dialler] {
            assert_eq!(self.forward(party), Tag::AuthSignature.to_wire());
        }
    }

    /// Passes a frame as it is, and tells its tag.
    fn forward(&mut self, from: Party) -> u8 {
        let (frame, bytes) = self.next(from);
        self.send(from, &bytes);
        frame.tag
    }

    fn send(&mut self, from: Party, bytes: &[u8]) {
        self.stream(from.other()).write_all(bytes).unwrap();
    }

    fn stream(&mut self, party: Party) -> &mut TcpStream {
        match party {
            Party::Ours => &mut self.ours,
            Party::Osd => &mut self.osd,
        }
    }
}

fn encoded<C: Control>(payload: &C) -> Vec<u8> {
    let mut out = BytesMut::new();
    WIRE.control(payload, &mut out);
    out.to_vec()
}

/// The next frame and its bytes. Both sides keep their checksums right.
fn read(stream: &mut TcpStream) -> (Frame, Vec<u8>) {
    let mut bytes = vec![0; PREAMBLE_LEN];
    stream.read_exact(&mut bytes).expect("a frame");
    let preamble = Preamble::decode(bytes[..].try_into().unwrap()).unwrap();
    let mut assembly = Assembly::new(WIRE, preamble);
    while let Some(len) = assembly.wants() {
        let at = bytes.len();
        bytes.resize(at + len, 0);
        stream.read_exact(&mut bytes[at..]).expect("the rest of a frame");
        assembly.push(Bytes::copy_from_slice(&bytes[at..])).unwrap();
    }
    (assembly.finish(), bytes)
}
