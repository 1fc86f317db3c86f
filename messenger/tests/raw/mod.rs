//! A client without a messenger: it says over kernel TCP what a test wants said, frame by frame.

use bytes::{Bytes, BytesMut};
use messenger::{EntityAddrVec, EntityType};
use messenger_proto::v2::control::{
    AuthBadMethod, AuthDone, AuthReplyMore, AuthRequest, AuthRequestMore, Hello, MODE_CRC,
};
use messenger_proto::v2::{Banner, Control, Decoder, Encoder, Revision, Tag, Wire};
use std::io::{Read, Write};
use std::net::TcpStream;

const CEPHX: u32 = 2;
const LIMITS: [u32; 4] = [4096; 4];

/// A transport behind HELLO, in crc mode.
pub(crate) struct Client {
    stream: TcpStream,
    encoder: Encoder,
    decoder: Decoder,
}

/// A server's word on an authentication.
#[derive(Debug)]
pub(crate) struct Answer(u8, Bytes);

impl Client {
    pub(crate) fn dial(addrs: &EntityAddrVec) -> Self {
        let server = *addrs.first().unwrap();
        let stream = TcpStream::connect(server.socket.unwrap()).unwrap();
        stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
        let wire = Wire { revision: Revision::Rev1, crc_data: true };
        let (encoder, decoder) = (Encoder::new(wire), Decoder::new(wire));
        let mut client = Self { stream, encoder, decoder };
        let banner = Banner::OURS.encode();
        client.stream.write_all(&banner).unwrap();
        client.read(banner.len());
        client.send(&Hello { kind: EntityType::Client, peer_addr: server });
        client.receive().expect(Tag::Hello);
        client
    }

    /// Asks for cephx in crc mode.
    pub(crate) fn request(&mut self, payload: &[u8]) -> Answer {
        let (modes, payload) = (vec![MODE_CRC], payload.to_vec());
        self.send(&AuthRequest { method: CEPHX, modes, payload });
        self.receive()
    }

    pub(crate) fn answer(&mut self, payload: &[u8]) -> Answer {
        self.send(&AuthRequestMore(payload.to_vec()));
        self.receive()
    }

    fn send<C: Control>(&mut self, control: &C) {
        let mut out = BytesMut::new();
        self.encoder.control(control, &mut out).unwrap();
        self.stream.write_all(&out).unwrap();
    }

    fn receive(&mut self) -> Answer {
        let head = self.read(self.decoder.head_len());
        self.decoder.begin(head).unwrap();
        while let Some(len) = self.decoder.wants() {
            let piece = self.read(len);
            self.decoder.push(piece).unwrap();
        }
        let frame = self.decoder.finish(&LIMITS).unwrap();
        let [payload, ..] = frame.segments;
        Answer(frame.tag, payload)
    }

    fn read(&mut self, len: usize) -> Bytes {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes.into()
    }
}

impl Answer {
    /// What to answer before anything else.
    pub(crate) fn challenge(self) -> Vec<u8> {
        AuthReplyMore::parse(&self.expect(Tag::AuthReplyMore)).unwrap().0
    }

    /// The errno of a refusal.
    pub(crate) fn refusal(self) -> i32 {
        AuthBadMethod::parse(&self.expect(Tag::AuthBadMethod)).unwrap().result
    }

    /// The server is convinced.
    pub(crate) fn done(self) {
        AuthDone::parse(&self.expect(Tag::AuthDone)).unwrap();
    }

    fn expect(self, tag: Tag) -> Bytes {
        assert_eq!(self.0, tag.to_wire(), "the tag of the frame");
        self.1
    }
}
