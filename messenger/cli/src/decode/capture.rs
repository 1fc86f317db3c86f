//! Packets of a pcapng file, as our recorder and Wireshark write them.

use std::io::{ErrorKind, Read};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// A section's byte order mark as we read it if the section is little-endian.
const LITTLE_ENDIAN: u32 = 0x1a2b_3c4d;
const LINK_TYPE_ETHERNET: u16 = 1;
const OPTION_TIME_RESOLUTION: u16 = 9;
/// Type and length before a block's body, and the length behind it.
const HEAD_LEN: usize = 4 + 4;
const TAIL_LEN: usize = 4;
/// Interface, time, and both lengths of an enhanced packet.
const PACKET_HEAD_LEN: usize = 4 + 8 + 4 + 4;
const INTERFACE_HEAD_LEN: usize = 2 + 2 + 4;
/// Longest block we read.
const BLOCK_LEN_MAX: u32 = 1 << 20;
/// Most interfaces of a section.
const INTERFACES_MAX: usize = 256;
/// Time stamps count 10^-6 seconds unless their interface says otherwise.
const MICROSECONDS: u8 = 6;

/// What was recorded at one moment.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Since the Unix epoch.
    pub(crate) at: Duration,
    /// An Ethernet frame, or the part of it that was kept.
    pub(crate) frame: Vec<u8>,
}

/// Reads a capture from its start.
#[derive(Debug)]
pub(crate) struct Capture<R> {
    input: R,
    /// How the time stamps of each interface count.
    interfaces: Vec<u8>,
    in_section: bool,
}

impl<R: Read> Capture<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, interfaces: Vec::new(), in_section: false }
    }

    /// The next packet; none at the end, which may be in the middle of a block if whoever recorded
    /// was killed.
    pub(crate) fn next(&mut self) -> Result<Option<Packet>> {
        while let Some((kind, body)) = self.block()? {
            match kind {
                SECTION_HEADER => self.interfaces.clear(),
                INTERFACE_DESCRIPTION => self.interface(&body)?,
                ENHANCED_PACKET => return self.packet(&body).map(Some),
                _ => {} // statistics, names: the format says to skip what one does not know
            }
        }
        Ok(None)
    }

    fn block(&mut self) -> Result<Option<(u32, Vec<u8>)>> {
        let mut head = [0; HEAD_LEN];
        if !self.fill(&mut head)? {
            return Ok(None);
        }
        let (kind, len) = (u32_at(&head, 0), u32_at(&head, 4));
        ensure!(
            self.in_section || kind == SECTION_HEADER,
            "this is no pcapng file; of a pcap file one is made with: editcap -F pcapng IN OUT"
        );
        self.in_section = true;
        // A length that is right says little about the byte order, so the mark comes first.
        let mut body = vec![0; 4];
        if !self.fill(&mut body)? {
            return Ok(None);
        }
        if kind == SECTION_HEADER && u32_at(&body, 0) != LITTLE_ENDIAN {
            bail!("a capture of a big-endian machine; convert it with: editcap -F pcapng IN OUT");
        }
        let least = (HEAD_LEN + TAIL_LEN) as u32;
        ensure!(
            (least..=BLOCK_LEN_MAX).contains(&len) && len.is_multiple_of(4),
            "a block of {len} bytes, which is not between {least} and {BLOCK_LEN_MAX}"
        );
        let body_len = len as usize - HEAD_LEN - TAIL_LEN;
        body.resize(body_len + TAIL_LEN, 0);
        if body.len() > 4 && !self.fill(&mut body[4..])? {
            return Ok(None);
        }
        body.truncate(body_len);
        Ok(Some((kind, body)))
    }

    /// Whether there were enough bytes.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool> {
        match self.input.read_exact(buffer) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error).context("cannot read the capture"),
        }
    }

    fn interface(&mut self, body: &[u8]) -> Result<()> {
        let short = "an interface without a description";
        let (head, mut options) = body.split_at_checked(INTERFACE_HEAD_LEN).context(short)?;
        let link_type = u16::from_le_bytes([head[0], head[1]]);
        ensure!(
            link_type == LINK_TYPE_ETHERNET,
            "a capture of link type {link_type}; only Ethernet's is read"
        );
        ensure!(self.interfaces.len() < INTERFACES_MAX, "more than {INTERFACES_MAX} interfaces");
        let mut resolution = MICROSECONDS;
        while let Some((head, rest)) = options.split_first_chunk::<4>() {
            let code = u16::from_le_bytes([head[0], head[1]]);
            let len = usize::from(u16::from_le_bytes([head[2], head[3]]));
            if code == OPTION_TIME_RESOLUTION && len == 1 {
                resolution = *rest.first().context(short)?;
            }
            options = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        self.interfaces.push(resolution);
        Ok(())
    }

    fn packet(&self, body: &[u8]) -> Result<Packet> {
        let short = "a packet whose block ends before it does";
        let (head, rest) = body.split_at_checked(PACKET_HEAD_LEN).context(short)?;
        let resolution = self.interfaces.get(u32_at(head, 0) as usize);
        let resolution = *resolution.context("a packet of an unknown interface")?;
        let ticks = u64::from(u32_at(head, 4)) << 32 | u64::from(u32_at(head, 8));
        let frame = rest.get(..u32_at(head, 12) as usize).context(short)?;
        Ok(Packet { at: since_epoch(ticks, resolution), frame: frame.to_vec() })
    }
}

/// What so many ticks are, of which `resolution` tells the length: 10^-n seconds, or with the
/// highest bit set 2^-n.
fn since_epoch(ticks: u64, resolution: u8) -> Duration {
    const NANOS: u128 = 1_000_000_000;
    let exponent = u32::from(resolution & 0x7f);
    let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
    let Some(per_second) = base.checked_pow(exponent) else {
        return Duration::ZERO; // no clock ticks that fast
    };
    let nanos = u128::from(ticks) % per_second * NANOS.min(u128::MAX / per_second) / per_second;
    let seconds = (u128::from(ticks) / per_second) as u64; // not more than ticks
    Duration::new(seconds, nanos as u32) // less than a second
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let len = ((HEAD_LEN + body.len() + TAIL_LEN) as u32).to_le_bytes();
        [&kind.to_le_bytes(), &len, body, &len].concat()
    }

    fn section() -> Vec<u8> {
        let mut body = LITTLE_ENDIAN.to_le_bytes().to_vec();
        body.resize(16, 0);
        block(SECTION_HEADER, &body)
    }

    fn interface(resolution: u8) -> Vec<u8> {
        let option = [9, 0, 1, 0, resolution, 0, 0, 0, 0, 0, 0, 0];
        block(INTERFACE_DESCRIPTION, &[&[1, 0, 0, 0, 0, 0, 0, 0], &option[..]].concat())
    }

    fn packet(ticks: u32, frame: &[u8]) -> Vec<u8> {
        let len = (frame.len() as u32).to_le_bytes();
        let mut body = [&[0; 8], &ticks.to_le_bytes()[..], &len, &len, frame].concat();
        body.resize(body.len().next_multiple_of(4), 0);
        block(ENHANCED_PACKET, &body)
    }

    fn all(bytes: &[u8]) -> Result<Vec<Packet>> {
        let mut capture = Capture::new(bytes);
        std::iter::from_fn(|| capture.next().transpose()).collect()
    }

    #[test]
    fn packets_have_their_bytes_and_times() {
        for (resolution, at) in [(6, 1_500_000_000), (9, 1_500_000), (0x80, u64::MAX)] {
            let ticks = 1_500_000;
            let file = [section(), block(5, &[0; 4]), interface(resolution), packet(ticks, b"hi!")];
            let packets = all(&file.concat()).unwrap();
            assert_eq!(packets[0].frame, b"hi!");
            let expected = match at {
                u64::MAX => Duration::from_secs(ticks.into()),
                nanos => Duration::from_nanos(nanos),
            };
            assert_eq!(packets[0].at, expected);
        }
    }

    #[test]
    fn a_recording_that_was_killed_is_read_to_its_last_whole_packet() {
        let file = [section(), interface(9), packet(1, b"one"), packet(2, b"two")].concat();
        let last = packet(2, b"two").len();
        for cut in 1..last {
            assert_eq!(all(&file[..file.len() - cut]).unwrap().len(), 1);
        }
        assert_eq!(all(&file).unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_capture_is_refused_with_a_reason() {
        let refused = |bytes: &[u8], why: &str| {
            let error = format!("{:#}", all(bytes).unwrap_err());
            assert!(error.contains(why), "{error}");
        };
        refused(&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0], "no pcapng file");
        let mut big = section();
        big[8..12].reverse();
        refused(&big, "big-endian");
        refused(&[section(), packet(1, b"x")].concat(), "unknown interface");
        refused(
            &[section(), block(INTERFACE_DESCRIPTION, &[113, 0, 0, 0, 0, 0, 0, 0])].concat(),
            "113",
        );
        let mut long = [section(), interface(9), packet(1, b"x")].concat();
        let at = long.len() - packet(1, b"x").len();
        long[at + 20..at + 24].copy_from_slice(&[0xff; 4]);
        refused(&long, "ends before");
        long[at + 4..at + 8].copy_from_slice(&u32::MAX.to_le_bytes());
        refused(&long, "a block of 4294967295 bytes");
    }

    #[test]
    fn no_byte_of_a_file_makes_it_panic() {
        let file = [section(), interface(9), packet(1, b"one"), packet(2, b"two")].concat();
        for at in 0..file.len() {
            for value in 0..=u8::MAX {
                let mut file = file.clone();
                file[at] = value;
                if let Ok(packets) = all(&file) {
                    assert!(packets.len() <= 2);
                }
            }
        }
    }
}
