//! One direction of a transport: an encoder, a decoder, and frames of four segments between them.

use bytes::{Bytes, BytesMut};
use messenger_proto::ProtocolError;
use messenger_proto::v2::preamble::{Preamble, SEGMENTS_MAX};
use messenger_proto::v2::{
    Compression, ConnectionSecret, Decoder, Encoder, Frame, Revision, Role, Tag, Wire,
};

/// Longer than any segment of a test.
pub(crate) const LIMITS: [u32; SEGMENTS_MAX] = [8 << 20; SEGMENTS_MAX];

/// How frames look on a link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    pub(crate) revision: Revision,
    pub(crate) secure: bool,
    pub(crate) compression: Option<Compression>,
}

impl Form {
    /// Both revisions in both modes.
    pub(crate) fn all(compression: Option<Compression>) -> [Self; 4] {
        [
            (Revision::Rev0, false),
            (Revision::Rev0, true),
            (Revision::Rev1, false),
            (Revision::Rev1, true),
        ]
        .map(|(revision, secure)| Self { revision, secure, compression })
    }

    pub(crate) fn link(self) -> Link {
        let wire = Wire { revision: self.revision, crc_data: true };
        let (mut encoder, mut decoder) = (Encoder::new(wire), Decoder::new(wire));
        if self.secure {
            let secret: Vec<u8> = (0..64).collect();
            let secret = ConnectionSecret::new(&secret).unwrap();
            encoder.secure(secret.keys(Role::Client, self.revision).unwrap().0);
            decoder.secure(secret.keys(Role::Server, self.revision).unwrap().1);
        }
        encoder.compress(self.compression);
        decoder.decompress(self.compression);
        Link { encoder, decoder }
    }
}

pub(crate) struct Link {
    pub(crate) encoder: Encoder,
    pub(crate) decoder: Decoder,
}

impl Link {
    /// A MESSAGE frame's bytes.
    pub(crate) fn write(&mut self, segments: &[Bytes; SEGMENTS_MAX]) -> Bytes {
        let [first, front, middle, data] = segments;
        let mut out = BytesMut::from(&b"what was written before"[..]);
        let before = out.len();
        let write = |writer: &mut messenger_proto::denc::Writer<'_>| writer.bytes(first);
        let tail = self.encoder.begin(Tag::Message, write, [front, middle, data], &mut out);
        tail.unwrap().copy_to(&mut out);
        out.split_off(before).freeze()
    }

    /// The frame that is all of `bytes`, and its preamble.
    pub(crate) fn read(&mut self, mut bytes: Bytes) -> Result<(Preamble, Frame), ProtocolError> {
        let preamble = self.decoder.begin(bytes.split_to(self.decoder.head_len()))?;
        preamble.check_lens(&LIMITS)?;
        while let Some(len) = self.decoder.wants() {
            assert!(len > 0 && len <= bytes.len(), "{len} bytes wanted, {} left", bytes.len());
            self.decoder.push(bytes.split_to(len))?;
        }
        assert!(bytes.is_empty(), "{} bytes too many", bytes.len());
        Ok((preamble, self.decoder.finish(&LIMITS)?))
    }
}

/// A segment that compresses about three to one.
pub(crate) fn segment(len: usize, seed: usize) -> Bytes {
    (0..len).map(|at| ((at * at + seed) / 7 % 13 + at / 509) as u8).collect()
}

/// Four segments of these lengths.
pub(crate) fn segments(lens: [usize; SEGMENTS_MAX]) -> [Bytes; SEGMENTS_MAX] {
    std::array::from_fn(|index| segment(lens[index], index))
}

/// The 32 shapes of Ceph's test frame.
pub(crate) fn shapes() -> impl Iterator<Item = [usize; SEGMENTS_MAX]> {
    (0..32).map(|shape| {
        let pick = |bit: usize, len: usize| len * (shape >> bit & 1);
        [[0, 1, 48, 49][shape & 3], pick(2, 101), pick(3, 202), pick(4, 303)]
    })
}

/// Segments counted: up to the last that is not empty, and at least one.
pub(crate) fn count(lens: &[usize]) -> usize {
    lens.iter().rposition(|len| *len > 0).unwrap_or(0) + 1
}

/// Bytes of a frame on the wire, by the table of case 40.
pub(crate) fn wire_len(form: Form, lens: &[usize]) -> usize {
    let (first, rest) = lens.split_first().unwrap();
    let padded = |len: usize| len.next_multiple_of(16);
    let plain: usize = rest.iter().sum();
    let blocks: usize = rest.iter().map(|len| padded(*len)).sum();
    let several = count(lens) > 1;
    match (form.revision, form.secure) {
        (Revision::Rev0, false) => 32 + first + plain + 17,
        (Revision::Rev0, true) => 32 + padded(*first) + blocks + 32,
        (Revision::Rev1, false) => {
            let crc = if *first > 0 { 4 } else { 0 };
            32 + first + crc + plain + if several { 13 } else { 0 }
        }
        (Revision::Rev1, true) => {
            let beyond = if *first > 48 { padded(*first) - 48 + 16 } else { 0 };
            96 + beyond + if several { blocks + 32 } else { 0 }
        }
    }
}
