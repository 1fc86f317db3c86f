//! What two sides say on one connection: banners, then frames. No session is asked, so that what is
//! read is what was on the wire, right or wrong.

use std::fmt;

use bytes::{Bytes, BytesMut};
use messenger_proto::v2::compression::{Compression, Method};
use messenger_proto::v2::control::{
    Ack, AuthDone, ClientIdent, CompressionDone, Control, MODE_SECURE, ServerIdent,
    SessionReconnect, SessionReconnectOk, SessionReset, SessionRetry, SessionRetryGlobal,
};
use messenger_proto::v2::{Banner, Decoder, Frame, Tag, Wire, banner, header};
use messenger_proto::{MessageHeader, ProtocolError, v1};

/// Longest segments of a frame that is read.
const SEGMENT_LENS_MAX: [u32; 4] = [16 << 20, 16 << 20, 16 << 20, 128 << 20];
/// Longest payload of a banner.
const BANNER_LEN_MAX: u16 = 4096;

/// One thing that was said.
#[derive(Debug)]
pub(crate) enum Said {
    Banner(Banner),
    Frame(Spoken),
    /// What follows is for those who have the keys.
    Secure,
    /// What follows is msgr1's.
    Legacy,
    /// What follows is not msgr2's. Nothing is read behind it.
    Broken(ProtocolError),
}

/// A frame.
#[derive(Debug)]
pub(crate) struct Spoken {
    frame: Frame,
    /// Lengths of the counted segments, on the wire.
    pub(crate) segments: Vec<u32>,
    /// All of it as it was on the wire.
    pub(crate) bytes: Bytes,
}

impl Spoken {
    pub(crate) fn tag(&self) -> String {
        let tag = Tag::from_wire(self.frame.tag);
        tag.map_or_else(|| format!("tag {}", self.frame.tag), |tag| tag.to_string())
    }

    /// Of a message: its header, and the last one it acknowledges.
    pub(crate) fn message(&self) -> Option<(MessageHeader, u64)> {
        let is_message = self.frame.tag == Tag::Message.to_wire() && !self.frame.aborted;
        is_message.then(|| header::decode(&self.frame.segments[0]).ok()).flatten()
    }

    /// What a frame of the session's says, for people. Nothing of what authentication says.
    pub(crate) fn detail(&self) -> String {
        let first = &self.frame.segments[0];
        let told = match Tag::from_wire(self.frame.tag) {
            Some(Tag::ClientIdent) => told::<ClientIdent>(first),
            Some(Tag::ServerIdent) => told::<ServerIdent>(first),
            Some(Tag::SessionReconnect) => told::<SessionReconnect>(first),
            Some(Tag::SessionReconnectOk) => told::<SessionReconnectOk>(first),
            Some(Tag::SessionReset) => told::<SessionReset>(first),
            Some(Tag::SessionRetry) => told::<SessionRetry>(first),
            Some(Tag::SessionRetryGlobal) => told::<SessionRetryGlobal>(first),
            Some(Tag::Ack) => told::<Ack>(first),
            _ => Ok(String::new()),
        };
        let told = told.unwrap_or_else(|error| error.to_string());
        if self.frame.aborted { format!("aborted {told}") } else { told }
    }
}

fn told<C: Control + fmt::Debug>(segment: &[u8]) -> Result<String, ProtocolError> {
    C::parse(segment).map(|payload| format!("{payload:?}"))
}

/// One connection.
#[derive(Debug, Default)]
pub(crate) struct Dialogue {
    sides: [Side; 2],
}

#[derive(Debug, Default)]
struct Side {
    /// Not read yet.
    heard: BytesMut,
    banner: Option<Banner>,
    decoder: Option<Decoder>,
    /// The frame being read: its segments, and its bytes so far.
    frame: Option<(Vec<u32>, BytesMut)>,
    fate: Fate,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    Read,
    /// To be told, and then no more.
    Secure,
    Ignored,
}

impl Dialogue {
    /// Where more of what one side says goes.
    pub(crate) fn hear(&mut self, side: usize) -> &mut impl Extend<u8> {
        &mut self.sides[side].heard
    }

    /// The next thing that a side said, and which.
    pub(crate) fn next(&mut self) -> Option<(usize, Said)> {
        (0..2).find_map(|side| {
            let theirs = self.sides[1 - side].banner;
            let said = match self.sides[side].next(theirs) {
                Ok(Some(Said::Frame(spoken))) => {
                    let followed = self.follow(&spoken.frame);
                    followed.map_or_else(Said::Broken, |()| Said::Frame(spoken))
                }
                Ok(said) => said?,
                Err(error) => Said::Broken(error),
            };
            if matches!(said, Said::Broken(_)) {
                self.sides[side].fate = Fate::Ignored;
            }
            Some((side, said))
        })
    }

    /// Bytes that one side said and that were not read: the start of a frame, or what nobody reads.
    pub(crate) fn unread(&self, side: usize) -> usize {
        let side = &self.sides[side];
        side.heard.len() + side.frame.as_ref().map_or(0, |(_, bytes)| bytes.len())
    }

    /// Some frames change how later ones look, of either side.
    fn follow(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
        let first = &frame.segments[0];
        match Tag::from_wire(frame.tag) {
            Some(Tag::AuthDone) if AuthDone::parse(first)?.mode == MODE_SECURE => {
                let read = self.sides.iter_mut().filter(|side| side.fate == Fate::Read);
                read.for_each(|side| side.fate = Fate::Secure);
            }
            Some(Tag::CompressionDone) => {
                let CompressionDone { on: true, method } = CompressionDone::parse(first)? else {
                    return Ok(());
                };
                let method =
                    Method::from_wire(method).ok_or(ProtocolError::CompressionMethod { method })?;
                for decoder in self.sides.iter_mut().filter_map(|side| side.decoder.as_mut()) {
                    decoder.decompress(Some(Compression { method, min_size: 0 }));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Side {
    fn next(&mut self, theirs: Option<Banner>) -> Result<Option<Said>, ProtocolError> {
        match self.fate {
            Fate::Read => {}
            Fate::Secure => {
                self.fate = Fate::Ignored;
                return Ok(Some(Said::Secure));
            }
            Fate::Ignored => return Ok(None),
        }
        let Some(ours) = self.banner else {
            return self.banner();
        };
        if self.decoder.is_none() {
            // Which frames these are takes both to say.
            let Some(theirs) = theirs else {
                return Ok(None);
            };
            let wire = Wire { revision: ours.negotiate(&theirs)?, crc_data: true };
            self.decoder = Some(Decoder::new(wire));
        }
        Ok(self.frame()?.map(Said::Frame))
    }

    fn banner(&mut self) -> Result<Option<Said>, ProtocolError> {
        if self.heard.starts_with(&v1::banner::MAGIC) {
            self.fate = Fate::Ignored;
            return Ok(Some(Said::Legacy));
        }
        let Some(prefix) = self.heard.first_chunk() else {
            return Ok(None);
        };
        let len = banner::PREFIX_LEN + Banner::decode_prefix(prefix, BANNER_LEN_MAX)?;
        if self.heard.len() < len {
            return Ok(None);
        }
        let bytes = self.heard.split_to(len);
        let banner = Banner::decode_payload(&bytes[banner::PREFIX_LEN..])?;
        self.banner = Some(banner);
        Ok(Some(Said::Banner(banner)))
    }

    fn frame(&mut self) -> Result<Option<Spoken>, ProtocolError> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(None);
        };
        let (segments, bytes) = match &mut self.frame {
            Some(frame) => frame,
            None => {
                if self.heard.len() < decoder.head_len() {
                    return Ok(None);
                }
                let head = self.heard.split_to(decoder.head_len());
                let preamble = decoder.begin(Bytes::copy_from_slice(&head))?;
                preamble.check_lens(&SEGMENT_LENS_MAX)?;
                self.frame.insert((preamble.lens().to_vec(), head))
            }
        };
        while let Some(len) = decoder.wants() {
            if self.heard.len() < len {
                return Ok(None);
            }
            let piece = self.heard.split_to(len).freeze();
            bytes.extend_from_slice(&piece);
            decoder.push(piece)?;
        }
        let frame = decoder.finish(&SEGMENT_LENS_MAX)?;
        let (segments, bytes) = (std::mem::take(segments), std::mem::take(bytes).freeze());
        self.frame = None;
        Ok(Some(Spoken { frame, segments, bytes }))
    }
}

#[cfg(test)]
mod tests {
    use messenger_proto::v2::control::{AuthSignature, SIGNATURE_LEN};
    use messenger_proto::v2::{Revision, banner::FEATURE_REVISION_1};

    use super::*;

    fn heard(dialogue: &mut Dialogue) -> Vec<(usize, String)> {
        let next = || dialogue.next();
        let said = std::iter::from_fn(next).map(|(side, said)| match said {
            Said::Frame(spoken) => (side, spoken.tag()),
            said => (side, format!("{said:?}")),
        });
        said.collect()
    }

    fn written<C: Control>(revision: Revision, payload: &C) -> BytesMut {
        let mut out = BytesMut::new();
        Wire { revision, crc_data: true }.control(payload, &mut out);
        out
    }

    #[test]
    fn frames_are_read_once_both_banners_are_known() {
        for (supported, revision) in [(FEATURE_REVISION_1, Revision::Rev1), (0, Revision::Rev0)] {
            let mut dialogue = Dialogue::default();
            let ack = written(revision, &Ack(7));
            dialogue.hear(0).extend(Banner::OURS.encode());
            dialogue.hear(0).extend(ack.iter().copied());
            assert_eq!(heard(&mut dialogue).len(), 1, "the banner");
            let theirs = Banner { supported, required: 0 };
            for byte in theirs.encode() {
                assert_eq!(heard(&mut dialogue), []);
                dialogue.hear(1).extend([byte]);
            }
            let said = heard(&mut dialogue);
            assert_eq!(said[0], (1, format!("{:?}", Said::Banner(theirs))));
            assert_eq!(said[1], (0, "ACK".to_owned()));
            dialogue.hear(1).extend(ack.iter().copied().take(40));
            assert_eq!(heard(&mut dialogue), []);
            assert_eq!((dialogue.unread(0), dialogue.unread(1)), (0, 40));
        }
    }

    #[test]
    fn what_is_sealed_or_broken_or_old_is_told_once() {
        let mut dialogue = Dialogue::default();
        (0..2).for_each(|side| dialogue.hear(side).extend(Banner::OURS.encode()));
        heard(&mut dialogue);
        let done = AuthDone { global_id: 1, mode: MODE_SECURE, payload: Vec::new() };
        dialogue.hear(1).extend(written(Revision::Rev1, &done));
        let said = heard(&mut dialogue);
        let secure = |side| (side, "Secure".to_owned());
        assert_eq!(said, [(1, "AUTH_DONE".to_owned()), secure(0), secure(1)]);
        (0..2).for_each(|side| dialogue.hear(side).extend([0x5a; 96]));
        assert_eq!(heard(&mut dialogue), []);
        assert_eq!(dialogue.unread(0), 96);

        let mut dialogue = Dialogue::default();
        (0..2).for_each(|side| dialogue.hear(side).extend(Banner::OURS.encode()));
        heard(&mut dialogue);
        let signature = AuthSignature([0; SIGNATURE_LEN]);
        let mut bytes = written(Revision::Rev1, &signature);
        bytes[40] ^= 1;
        dialogue.hear(0).extend(bytes);
        assert!(heard(&mut dialogue)[0].1.starts_with("Broken(SegmentCrc"));
        assert_eq!(heard(&mut dialogue), []);

        let mut dialogue = Dialogue::default();
        dialogue.hear(0).extend(*b"ceph v027 and more");
        dialogue.hear(1).extend(*b"HTTP/1.1 400 Bad");
        let said = heard(&mut dialogue);
        assert_eq!(said[0], (0, "Legacy".to_owned()));
        assert!(said[1].1.starts_with("Broken(BadBanner"));
    }
}
