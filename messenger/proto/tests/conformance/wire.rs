//! Frames of msgr2, written and read by hand, right or wrong.

use crate::bytes::{In, Out, crc32c};
use crate::crypt::Gcm;

/// A revision of the frames' format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rev {
    Zero,
    One,
}

/// Numbers of tags.
pub(crate) mod tag {
    pub(crate) const HELLO: u8 = 1;
    pub(crate) const AUTH_REQUEST: u8 = 2;
    pub(crate) const AUTH_BAD_METHOD: u8 = 3;
    pub(crate) const AUTH_REPLY_MORE: u8 = 4;
    pub(crate) const AUTH_REQUEST_MORE: u8 = 5;
    pub(crate) const AUTH_DONE: u8 = 6;
    pub(crate) const AUTH_SIGNATURE: u8 = 7;
    pub(crate) const CLIENT_IDENT: u8 = 8;
    pub(crate) const SERVER_IDENT: u8 = 9;
    pub(crate) const IDENT_MISSING_FEATURES: u8 = 10;
    pub(crate) const SESSION_RECONNECT: u8 = 11;
    pub(crate) const SESSION_RESET: u8 = 12;
    pub(crate) const SESSION_RETRY: u8 = 13;
    pub(crate) const SESSION_RETRY_GLOBAL: u8 = 14;
    pub(crate) const SESSION_RECONNECT_OK: u8 = 15;
    pub(crate) const WAIT: u8 = 16;
    pub(crate) const MESSAGE: u8 = 17;
    pub(crate) const KEEPALIVE2: u8 = 18;
    pub(crate) const KEEPALIVE2_ACK: u8 = 19;
    pub(crate) const ACK: u8 = 20;
    pub(crate) const COMPRESSION_REQUEST: u8 = 21;
}

const INLINE: usize = 48;
const TAG_LEN: usize = 16;

/// What is wrong about a frame, on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    PreambleCrc,
    /// The preamble's checksum begins with -1 instead of 0.
    PreambleSeed,
    /// The checksum behind the first segment; sealed, the tag of the frame's first part.
    FirstCrc,
    /// The last checksum; sealed, the last tag.
    LastCrc,
    /// No checksums of segments, as from a sender that has them switched off.
    NoCrcs,
}

/// A frame to be written.
pub(crate) struct Frame<'a> {
    pub(crate) tag: u8,
    pub(crate) segments: Vec<Vec<u8>>,
    /// The status behind the segments, if it is not the one of a complete frame.
    pub(crate) late: Option<u8>,
    pub(crate) flaw: Option<Flaw>,
    /// Changes the preamble before its checksum is made.
    pub(crate) edit: &'a dyn Fn(&mut [u8]),
}

impl Frame<'_> {
    pub(crate) fn new(tag: u8, segments: &[&[u8]]) -> Self {
        let segments = segments.iter().map(|segment| segment.to_vec()).collect();
        Frame { tag, segments, late: None, flaw: None, edit: &|_| () }
    }

    fn preamble(&self) -> Vec<u8> {
        let mut out = Out::new().u8(self.tag).u8(self.segments.len() as u8);
        for at in 0..4 {
            let len = self.segments.get(at).map(Vec::len);
            let align = [8, 8, 8, 4096][at];
            out = out.u32(len.unwrap_or(0) as u32).u16(len.map_or(0, |_| align));
        }
        out = out.zeros(2);
        (self.edit)(&mut out.0);
        let seed = if self.flaw == Some(Flaw::PreambleSeed) { u32::MAX } else { 0 };
        let wrong = u32::from(self.flaw == Some(Flaw::PreambleCrc));
        let crc = crc32c(seed, &out.0) ^ wrong;
        out.u32(crc).0
    }
}

/// How both directions of a transport are written.
pub(crate) struct Wire {
    pub(crate) rev: Rev,
    /// Looks at the checksums of segments.
    pub(crate) crc_data: bool,
    /// Sealing what goes out, and opening what comes in.
    pub(crate) sealed: Option<(Gcm, Gcm)>,
}

impl Wire {
    pub(crate) fn new(rev: Rev) -> Self {
        Self { rev, crc_data: true, sealed: None }
    }

    pub(crate) fn write(&mut self, frame: &Frame<'_>) -> Vec<u8> {
        let preamble = frame.preamble();
        match (&mut self.sealed, self.rev) {
            (None, rev) => plain(rev, frame, preamble),
            (Some((gcm, _)), rev) => {
                let parts = plain_parts(rev, frame, preamble);
                let mut sealed: Vec<_> = parts.into_iter().map(|part| gcm.seal(part)).collect();
                match frame.flaw {
                    Some(Flaw::FirstCrc) => *sealed[0].last_mut().unwrap() ^= 1,
                    Some(Flaw::LastCrc) => *sealed.last_mut().unwrap().last_mut().unwrap() ^= 1,
                    _ => {}
                }
                sealed.concat()
            }
        }
    }

    /// The first frame in `heard`, whole and right in every detail, and how long it is.
    pub(crate) fn read(&mut self, heard: &[u8]) -> Option<(u8, Vec<Vec<u8>>, usize)> {
        match (&mut self.sealed, self.rev) {
            (None, rev) => read_plain(rev, self.crc_data, heard),
            (Some((_, gcm)), Rev::Zero) => read_sealed_whole(gcm, heard),
            (Some((_, gcm)), Rev::One) => read_sealed_parts(gcm, heard),
        }
    }
}

fn segment_crc(segment: &[u8], frame: &Frame<'_>) -> u32 {
    if frame.flaw == Some(Flaw::NoCrcs) { 0 } else { crc32c(u32::MAX, segment) }
}

fn plain(rev: Rev, frame: &Frame<'_>, preamble: Vec<u8>) -> Vec<u8> {
    let segments = &frame.segments;
    let mut crcs: Vec<u32> = segments.iter().map(|segment| segment_crc(segment, frame)).collect();
    if frame.flaw == Some(Flaw::FirstCrc) {
        crcs[0] ^= 1;
    }
    if frame.flaw == Some(Flaw::LastCrc) {
        *crcs.last_mut().unwrap() ^= 1;
    }
    let mut out = Out(preamble);
    match rev {
        Rev::Zero => {
            crcs.resize(4, 0);
            out = out.raw(&segments.concat()).u8(frame.late.unwrap_or(0));
            crcs.iter().fold(out, |out, crc| out.u32(*crc)).0
        }
        Rev::One => {
            out = out.raw(&segments[0]);
            if !segments[0].is_empty() {
                out = out.u32(crcs[0]);
            }
            if segments.len() == 1 {
                return out.0;
            }
            crcs.resize(4, 0);
            out = out.raw(&segments[1..].concat()).u8(frame.late.unwrap_or(0x0e));
            crcs[1..].iter().fold(out, |out, crc| out.u32(*crc)).0
        }
    }
}

/// The texts that are sealed one by one.
fn plain_parts(rev: Rev, frame: &Frame<'_>, preamble: Vec<u8>) -> Vec<Vec<u8>> {
    let mut padded = frame.segments.clone();
    padded.iter_mut().for_each(|segment| segment.resize(segment.len().next_multiple_of(16), 0));
    let tail = |complete: u8| Out::new().u8(frame.late.unwrap_or(complete)).zeros(15).0;
    if rev == Rev::Zero {
        return vec![[preamble, padded.concat(), tail(0)].concat()];
    }
    let inline = padded[0].len().min(INLINE);
    let rest = padded[0].split_off(inline);
    padded[0].resize(INLINE, 0);
    let mut parts = vec![[&preamble[..], &padded[0]].concat()];
    if !rest.is_empty() {
        parts.push(rest);
    }
    if padded.len() > 1 {
        parts.push([padded[1..].concat(), tail(0x0e)].concat());
    }
    parts
}

/// Tag and lengths, of a preamble that is right.
fn read_preamble(preamble: &[u8]) -> (u8, Vec<usize>) {
    let mut read = In(preamble);
    let (tag, count) = (read.u8(), read.u8());
    let slots: Vec<_> = (0..4).map(|_| (read.u32() as usize, read.u16())).collect();
    let (counted, unused) = slots.split_at(count.into());
    assert!(unused.iter().all(|slot| *slot == (0, 0)), "unused descriptors are zero");
    assert_eq!([read.u8(), read.u8()], [0, 0], "flags and reserved byte");
    assert_eq!(read.u32(), crc32c(0, &preamble[..28]));
    let lens: Vec<_> = counted.iter().map(|(len, _)| *len).collect();
    assert!(lens.len() == 1 || lens.last() != Some(&0), "the last of several is not empty");
    (tag, lens)
}

fn split(read: &mut In<'_>, lens: &[usize]) -> Vec<Vec<u8>> {
    lens.iter().map(|len| read.raw(*len).to_vec()).collect()
}

/// As [`split`], and the padding of each is zeros.
fn split_padded(read: &mut In<'_>, lens: &[usize]) -> Vec<Vec<u8>> {
    let padded = |len: &usize| {
        let segment = read.raw(*len).to_vec();
        assert!(read.raw(len.next_multiple_of(16) - len).iter().all(|byte| *byte == 0));
        segment
    };
    lens.iter().map(padded).collect()
}

fn padded_len(lens: &[usize]) -> usize {
    lens.iter().map(|len| len.next_multiple_of(16)).sum()
}

fn read_plain(rev: Rev, crc_data: bool, heard: &[u8]) -> Option<(u8, Vec<Vec<u8>>, usize)> {
    let (tag, lens) = read_preamble(heard.get(..32)?);
    let total: usize = lens.iter().sum();
    let (first_crc, epilogue) = match rev {
        Rev::Zero => (0, 17),
        Rev::One => (4 * usize::from(lens[0] > 0), if lens.len() > 1 { 13 } else { 0 }),
    };
    let len = 32 + first_crc + total + epilogue;
    let mut read = In(heard.get(32..len)?);
    let mut segments = split(&mut read, &lens[..1]);
    let check = |crc: u32, expected: u32| assert!(crc == expected || !crc_data);
    if first_crc > 0 {
        check(read.u32(), crc32c(u32::MAX, &segments[0]));
    }
    segments.extend(split(&mut read, &lens[1..]));
    if epilogue > 0 {
        assert_eq!(read.u8(), if rev == Rev::One { 0x0e } else { 0 });
        let checked = segments.iter().skip(usize::from(rev == Rev::One));
        let crcs: Vec<_> = checked.map(|segment| crc32c(u32::MAX, segment)).collect();
        for at in 0..epilogue / 4 {
            check(read.u32(), crcs.get(at).copied().unwrap_or(0));
        }
    }
    Some((tag, segments, len))
}

fn read_sealed_whole(gcm: &mut Gcm, heard: &[u8]) -> Option<(u8, Vec<Vec<u8>>, usize)> {
    let (tag, lens) = read_preamble(&gcm.peek(heard.get(..32)?));
    let len = 32 + padded_len(&lens) + 16 + TAG_LEN;
    let text = gcm.open(heard.get(..len)?);
    let mut read = In(&text[32..]);
    let segments = split_padded(&mut read, &lens);
    assert_eq!(read.raw(16), [0; 16]);
    Some((tag, segments, len))
}

fn read_sealed_parts(gcm: &mut Gcm, heard: &[u8]) -> Option<(u8, Vec<Vec<u8>>, usize)> {
    let head_len = 32 + INLINE + TAG_LEN;
    let (tag, lens) = read_preamble(&gcm.peek(heard.get(..head_len)?)[..32]);
    let first = lens[0].next_multiple_of(16);
    let rest_len = if first > INLINE { first - INLINE + TAG_LEN } else { 0 };
    let tail_len = if lens.len() > 1 { padded_len(&lens[1..]) + 16 + TAG_LEN } else { 0 };
    let len = head_len + rest_len + tail_len;
    let mut read = In(heard.get(..len)?);
    let mut text = gcm.open(read.raw(head_len)).split_off(32);
    if rest_len > 0 {
        text.extend(gcm.open(read.raw(rest_len)));
    }
    assert!(text[lens[0]..].iter().all(|byte| *byte == 0));
    text.truncate(lens[0]);
    let mut segments = vec![text];
    if tail_len > 0 {
        let text = gcm.open(read.raw(tail_len));
        let mut read = In(&text);
        segments.extend(split_padded(&mut read, &lens[1..]));
        assert_eq!(read.raw(16), Out::new().u8(0x0e).zeros(15).0);
    }
    Some((tag, segments, len))
}

#[test]
fn frames_are_the_reference_s() {
    let preamble = format!("120108000000{}d8d5f599", "0800".to_owned() + &"00".repeat(20));
    let sealed = "d62f0baf0f4fbeef17dd5df5c727eb3e3abc748736f46bbf85cb2911bfd0e434d3d9213f83a6fb1c\
                  e3a0d5c8dad0511b89b8f12bf9c3bbe86b152db6879046985";
    let vectors = [
        (
            Rev::One,
            "0100000002000000d3138c85",
            "e5812a422977d9bce807a40ada1ac2155e0fecef307eebf2f8b7c603ac2dfd2",
        ),
        (
            Rev::Zero,
            "010000000200000000d3138c85000000000000000000000000",
            "5cdf9095b620b3055e95e828a26583",
        ),
    ];
    let key: Vec<u8> = (0..64).collect();
    let stamp = Out::new().u32(1).u32(2).0;
    let keepalive = Frame::new(tag::KEEPALIVE2, &[&stamp]);
    let digits = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for (rev, plain_end, sealed_end) in vectors {
        let mut wire = Wire::new(rev);
        assert_eq!(digits(&wire.write(&keepalive)), format!("{preamble}{plain_end}"));
        wire.sealed = Some((Gcm::new(&key, true, rev), Gcm::new(&key, true, rev)));
        let frame = wire.write(&keepalive);
        let got = digits(&frame);
        let common = if rev == Rev::One { sealed } else { &sealed[..sealed.len() - 1] };
        assert!(got.starts_with(common) && got.ends_with(sealed_end), "{got}");
        let (tag, segments, len) = wire.read(&frame).unwrap();
        assert_eq!((tag, &segments[0], len), (tag::KEEPALIVE2, &stamp, frame.len()));
    }
}
