//! Frames of one transport in whatever form its two sides agreed on: an encoder and a decoder.
//!
//! ```text
//!   segments --(compress)--> preamble and checksums, or seals --> bytes        Encoder
//!   segments <-(decompress)- checks, or tags <------------------- bytes        Decoder
//! ```
//!
//! A transport starts with [`Wire`] alone. After the signatures it may get keys
//! ([`Encoder::secure`]), after that compression; both change how later frames look and nothing in
//! how they are written and read. In crc mode without compression the encoder is [`Wire`] and the
//! decoder [`Assembly`], at their cost.

use bytes::{BufMut, Bytes, BytesMut};

use crate::denc::Writer;
use crate::error::ProtocolError;
use crate::v2::compression::{self, Compression, RATIO_MAX};
use crate::v2::frame::Epilogue;
use crate::v2::keys::{OpeningKey, SealingKey};
use crate::v2::preamble::{PREAMBLE_LEN, Preamble, SEGMENTS_MAX};
use crate::v2::sealed::{self, Opening};
use crate::v2::{Assembly, Control, Frame, Revision, Tag, Wire};

/// What follows the bytes that [`Encoder::begin`] wrote: first the sections, then the epilogue. Any
/// of them may be empty.
#[derive(Debug, Default)]
#[must_use]
pub struct Tail {
    /// Segments by reference, or what became of them.
    pub sections: [Bytes; SEGMENTS_MAX - 1],
    /// The end of the frame.
    pub epilogue: Epilogue,
}

impl Tail {
    /// Appends it to `out`, for callers that do not gather.
    pub fn copy_to(&self, out: &mut BytesMut) {
        self.sections.iter().for_each(|section| out.put_slice(section));
        out.put_slice(self.epilogue.as_bytes());
    }
}

/// Writes the frames of one transport.
#[derive(Debug)]
pub struct Encoder {
    wire: Wire,
    key: Option<Box<SealingKey>>,
    compression: Option<Compression>,
    /// The last preamble of a plain frame, and its bytes.
    last: (Preamble, [u8; PREAMBLE_LEN]),
}

impl Encoder {
    /// Writes frames in crc mode.
    pub fn new(wire: Wire) -> Self {
        let preamble = Preamble::new(Tag::Wait, [0; SEGMENTS_MAX]);
        Self { wire, key: None, compression: None, last: (preamble, preamble.encode()) }
    }

    /// Seals every later frame.
    pub fn secure(&mut self, key: SealingKey) {
        self.wire.revision = key.revision();
        self.key = Some(Box::new(key));
    }

    /// The format of its frames.
    pub fn revision(&self) -> Revision {
        self.wire.revision
    }

    /// Whether frames are neither sealed nor compressed: then [`Encoder::begin_plain`] may be used.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.key.is_none() && self.compression.is_none()
    }

    /// What [`Wire::begin`] does, with less work for messages of one shape that follow each other:
    /// they have the same preamble.
    #[inline]
    pub(crate) fn begin_plain(
        &mut self,
        tag: Tag,
        first: impl FnOnce(&mut Writer<'_>),
        rest: [&[u8]; SEGMENTS_MAX - 1],
        out: &mut BytesMut,
    ) -> Epilogue {
        let at = out.len();
        out.put_slice(&self.last.1);
        first(&mut Writer::new(out));
        let preamble = Preamble::of(tag, out.len() - at - PREAMBLE_LEN, rest);
        if preamble != self.last.0 {
            self.last = (preamble, preamble.encode());
            out[at..at + PREAMBLE_LEN].copy_from_slice(&self.last.1);
        }
        self.wire.add_checksums(&preamble, at, rest, out)
    }

    /// Whether later frames are sealed.
    pub fn is_secure(&self) -> bool {
        self.key.is_some()
    }

    /// Gives up the buffers that are kept for sealing.
    pub fn release(&mut self) {
        if let Some(key) = &mut self.key {
            key.release();
        }
    }

    /// Compresses later frames as agreed.
    pub fn compress(&mut self, compression: Option<Compression>) {
        self.compression = compression;
    }

    /// Writes the start of a frame to `out`. The caller sends the tail behind it. The only error
    /// is a key that is used up; `out` is then as it was.
    pub fn begin(
        &mut self,
        tag: Tag,
        first: impl FnOnce(&mut Writer<'_>),
        rest: [&Bytes; SEGMENTS_MAX - 1],
        out: &mut BytesMut,
    ) -> Result<Tail, ProtocolError> {
        if self.is_plain() {
            let [front, middle, data] = rest;
            let epilogue = self.begin_plain(tag, first, [front, middle, data], out);
            return Ok(Tail { sections: [front.clone(), middle.clone(), data.clone()], epilogue });
        }
        let at = out.len();
        out.put_bytes(0, PREAMBLE_LEN);
        first(&mut Writer::new(out));
        let packed = self.pack(at + PREAMBLE_LEN, rest, out);
        let compressed = packed.is_some();
        let sections = packed.unwrap_or_else(|| rest.map(Bytes::clone));
        let rest = sections.each_ref().map(|section| &section[..]);
        let first_len = out.len() - at - PREAMBLE_LEN;
        let mut preamble = Preamble::of(tag, first_len, rest);
        preamble.compressed = compressed;
        let Some(key) = &mut self.key else {
            let epilogue = self.wire.begin_written(&preamble, at, rest, out);
            return Ok(Tail { sections, epilogue });
        };
        match sealed::seal(key, &preamble, at, rest, out) {
            Ok(body) => {
                Ok(Tail { sections: [body, Bytes::new(), Bytes::new()], ..Tail::default() })
            }
            Err(error) => {
                out.truncate(at);
                Err(error)
            }
        }
    }

    /// Writes a whole control frame to `out`. Errors are as for [`Encoder::begin`].
    pub fn control<C: Control>(
        &mut self,
        payload: &C,
        out: &mut BytesMut,
    ) -> Result<(), ProtocolError> {
        let none = Bytes::new();
        let tail = self.begin(C::TAG, |writer| payload.encode(writer), [&none; 3], out)?;
        tail.copy_to(out);
        Ok(())
    }

    /// Packs a frame whose first segment is in `out` from `first_at` on; nothing if it is to be
    /// sent plain: it is short, would not get shorter, or would look like a bomb.
    fn pack(
        &self,
        first_at: usize,
        rest: [&Bytes; SEGMENTS_MAX - 1],
        out: &mut BytesMut,
    ) -> Option<[Bytes; SEGMENTS_MAX - 1]> {
        let Compression { method, min_size } = self.compression?;
        let plain_len = out.len() - first_at + rest.iter().map(|part| part.len()).sum::<usize>();
        if plain_len < min_size as usize {
            return None;
        }
        let pack = |plain: &[u8]| match plain.len() {
            0 => Some(Vec::new()),
            len => {
                let packed = compression::compress(method, plain);
                (packed.len() * RATIO_MAX >= len).then_some(packed)
            }
        };
        let first = pack(&out[first_at..])?;
        let [front, middle, data] = rest;
        let sections = [pack(front)?, pack(middle)?, pack(data)?];
        let packed_len = first.len() + sections.iter().map(Vec::len).sum::<usize>();
        if packed_len >= plain_len {
            return None;
        }
        out.truncate(first_at);
        out.put_slice(&first);
        Some(sections.map(Bytes::from))
    }
}

/// Reads the frames of one transport.
///
/// For each of them: [`Decoder::head_len`] bytes go to [`Decoder::begin`], whose preamble the
/// caller checks against its limits, then pieces to [`Decoder::push`] as long as
/// [`Decoder::wants`] asks for one, then comes [`Decoder::finish`].
#[derive(Debug)]
pub struct Decoder {
    wire: Wire,
    key: Option<Box<OpeningKey>>,
    compression: Option<Compression>,
    /// The frame being read, unless it is sealed.
    plain: Assembly,
    /// The bytes that its preamble was read from.
    last_head: [u8; PREAMBLE_LEN],
    sealed: Option<Opening>,
}

impl Decoder {
    /// Reads frames in crc mode.
    pub fn new(wire: Wire) -> Self {
        let plain = Assembly::idle(wire);
        let last_head = plain.preamble().encode();
        Self { wire, key: None, compression: None, plain, last_head, sealed: None }
    }

    /// Opens every later frame.
    pub fn secure(&mut self, key: OpeningKey) {
        self.wire.revision = key.revision();
        self.key = Some(Box::new(key));
    }

    /// Takes compressed frames as agreed.
    pub fn decompress(&mut self, compression: Option<Compression>) {
        self.compression = compression;
    }

    /// Whether frames are sealed.
    #[inline]
    pub(crate) fn is_secure(&self) -> bool {
        self.key.is_some()
    }

    /// Bytes the next frame starts with.
    #[inline]
    pub fn head_len(&self) -> usize {
        match self.key {
            Some(_) => sealed::head_len(self.wire.revision),
            None => PREAMBLE_LEN,
        }
    }

    /// Reads a frame's first [`Decoder::head_len`] bytes.
    ///
    /// # Panics
    ///
    /// If there are more or fewer.
    pub fn begin(&mut self, head: Bytes) -> Result<Preamble, ProtocolError> {
        assert_eq!(head.len(), self.head_len(), "bytes of a head");
        let preamble = match &mut self.key {
            None => return self.begin_plain(head[..].try_into().expect("as long as asked for")),
            Some(key) => {
                let opening = Opening::new(key, head)?;
                let preamble = *opening.preamble();
                self.sealed = Some(opening);
                preamble
            }
        };
        self.accept(preamble)
    }

    /// The same for a frame that is not sealed: of its head nothing is kept.
    #[inline]
    pub(crate) fn begin_plain(
        &mut self,
        head: &[u8; PREAMBLE_LEN],
    ) -> Result<Preamble, ProtocolError> {
        // Messages of one shape follow each other: what was right before is right again.
        if *head != self.last_head {
            let preamble = Preamble::decode_compressed(head)?;
            self.plain.restart(self.wire, preamble);
            self.last_head = *head;
        } else {
            self.plain.restart(self.wire, *self.plain.preamble());
        }
        self.accept(*self.plain.preamble())
    }

    #[inline]
    fn accept(&self, preamble: Preamble) -> Result<Preamble, ProtocolError> {
        match preamble.compressed && self.compression.is_none() {
            true => Err(ProtocolError::Compressed { tag: preamble.tag }),
            false => Ok(preamble),
        }
    }

    /// The frame that has begun, for a caller who has all its bytes; none if its segments are not
    /// the bytes on the wire.
    #[inline]
    pub(crate) fn in_place(&mut self) -> Option<&mut Assembly> {
        self.reads_in_place().then_some(&mut self.plain)
    }

    /// Bytes of the next piece, never zero; none when the frame is complete.
    #[inline]
    pub fn wants(&self) -> Option<usize> {
        match &self.sealed {
            None => self.plain.wants(),
            Some(opening) => opening.wants(self.wire.revision),
        }
    }

    /// Whether the segments of the frame being read are the bytes on the wire, so that one may
    /// arrive where it is to stay.
    #[inline]
    pub fn reads_in_place(&self) -> bool {
        self.sealed.is_none() && !self.plain.preamble().compressed
    }

    /// The first segment of a frame that is read in place, while the given other one is the next
    /// piece.
    #[inline]
    pub fn head_before(&self, segment: usize) -> Option<&[u8]> {
        if self.reads_in_place() { self.plain.head_before(segment) } else { None }
    }

    /// Takes the next piece, of exactly the length that [`Decoder::wants`] tells.
    #[inline]
    pub fn push(&mut self, piece: Bytes) -> Result<(), ProtocolError> {
        match (&mut self.sealed, &mut self.key) {
            (Some(opening), Some(key)) => opening.push(key, piece),
            _ => self.plain.push(piece),
        }
    }

    /// The frame, once nothing more is wanted. A compressed segment may have as many bytes as its
    /// limit says once it is plain, and no more than [`RATIO_MAX`] for each packed one.
    pub fn finish(&mut self, limits: &[u32; SEGMENTS_MAX]) -> Result<Frame, ProtocolError> {
        if self.reads_in_place() {
            return Ok(self.plain.finish());
        }
        let (compressed, mut frame) = match &mut self.sealed {
            Some(opening) => (opening.preamble().compressed, opening.finish()),
            None => (true, self.plain.finish()),
        };
        if !compressed {
            return Ok(frame);
        }
        let Some(Compression { method, .. }) = self.compression else {
            return Err(ProtocolError::Compressed { tag: frame.tag }); // `begin` said so
        };
        if frame.aborted {
            return Ok(frame); // nobody looks at it
        }
        for (index, (segment, limit)) in frame.segments.iter_mut().zip(limits).enumerate() {
            if segment.is_empty() {
                continue;
            }
            let limit = segment.len().saturating_mul(RATIO_MAX).min(*limit as usize);
            let plain = compression::decompress(method, segment, limit);
            *segment = plain.ok_or(ProtocolError::Decompression {
                tag: frame.tag,
                segment: index,
                method: method.as_str(),
                limit,
            })?;
        }
        Ok(frame)
    }
}
