//! A packet device around a packet device that records what passes, for Wireshark and friends.
//!
//! ```text
//!    worker  <--rx_burst--  PcapDevice  <--rx_burst--  device
//!            --tx_burst-->      |       --tx_burst-->
//!                               v
//!                  pcapng: SHB, IDB, then one EPB per frame
//! ```
//!
//! The format is pcapng (draft-ietf-opsawg-pcapng) with one interface, nanosecond time stamps and
//! the direction of each frame. Received frames are recorded as they are handed out, sent ones
//! once the device has taken them. A write that fails ends the recording, with one warning and a
//! counter; it never holds up a frame. The writer is called once a burst, so it had better be
//! buffered, as a [`CaptureFile`] is; it is flushed when the device is dropped.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::{Burst, DeviceInfo, Frame, PacketDevice};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// Tells a reader our byte order, which is little-endian.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const LINK_TYPE_ETHERNET: u16 = 1;
const OPTION_END: u16 = 0;
const OPTION_INTERFACE_NAME: u16 = 2;
const OPTION_TIME_RESOLUTION: u16 = 9;
const OPTION_PACKET_FLAGS: u16 = 2;
/// Time stamps count 10^-9 seconds.
const NANOSECONDS: u8 = 9;
/// Payloads are nobody else's business.
const FILE_MODE: u32 = 0o600;

/// Which way a frame went, as the packet flags option says it.
#[derive(Clone, Copy)]
enum Direction {
    Inbound = 1,
    Outbound = 2,
}

/// A device that records, see the [module](self).
pub struct PcapDevice<D, W: Write> {
    device: D,
    /// `None` once a write has failed.
    writer: Option<W>,
    /// One moment on both clocks; the second in nanoseconds since 1970.
    anchor: (Instant, u64),
    /// Blocks of the burst under way.
    blocks: Vec<u8>,
    frames: u64,
    failures: u64,
}

impl<D: PacketDevice, W: Write> PcapDevice<D, W> {
    /// Starts to record the frames of `device`. `anchor` is the present on both clocks: time
    /// stamps are the `now` of the bursts, moved by it.
    ///
    /// # Errors
    /// If the file header cannot be written.
    pub fn new(device: D, mut writer: W, anchor: (Instant, SystemTime)) -> io::Result<Self> {
        let since_epoch = anchor.1.duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
        let mut blocks = Vec::new();
        section_header(&mut blocks);
        interface_description(&mut blocks, &device.info().name);
        writer.write_all(&blocks)?;
        let anchor = (anchor.0, nanos);
        Ok(Self { device, writer: Some(writer), anchor, blocks, frames: 0, failures: 0 })
    }

    /// Names and values of the recording's counters.
    pub fn counters(&self) -> [(&'static str, u64); 2] {
        [("pcap_frames_written", self.frames), ("pcap_write_failures", self.failures)]
    }

    /// Nanoseconds since 1970 at `now`, before or after the anchor.
    fn stamp(&self, now: Instant) -> u64 {
        let nanos = |duration: std::time::Duration| duration.as_nanos() as u64; // 584 years fit
        let (anchor, wall) = self.anchor;
        match now.checked_duration_since(anchor) {
            Some(after) => wall.saturating_add(nanos(after)),
            None => wall.saturating_sub(nanos(anchor.saturating_duration_since(now))),
        }
    }

    fn write(&mut self, len: usize, frames: u64) {
        let Some(writer) = self.writer.as_mut().filter(|_| frames > 0) else {
            return;
        };
        match writer.write_all(&self.blocks[..len]) {
            Ok(()) => self.frames += frames,
            Err(error) => {
                self.failures += 1;
                self.writer = None;
                let name = &self.device.info().name;
                tracing::warn!(%error, device = name, "packet recording ended by a failed write");
            }
        }
    }
}

impl<D: PacketDevice, W: Write + Send> PacketDevice for PcapDevice<D, W> {
    type Frame = D::Frame;

    fn info(&self) -> &DeviceInfo {
        self.device.info()
    }

    fn start(&mut self) -> io::Result<()> {
        self.device.start()
    }

    fn rx_burst(&mut self, now: Instant, burst: &mut Burst<D::Frame>) {
        let before = burst.len();
        self.device.rx_burst(now, burst);
        if self.writer.is_none() || burst.len() == before {
            return;
        }
        let stamp = self.stamp(now);
        self.blocks.clear();
        for frame in &burst[before..] {
            enhanced_packet(&mut self.blocks, stamp, frame.bytes(), Direction::Inbound);
        }
        self.write(self.blocks.len(), (burst.len() - before) as u64);
    }

    fn alloc(&mut self, len: usize) -> Option<D::Frame> {
        self.device.alloc(len)
    }

    /// How many frames the device takes is known only afterwards, when they are gone. So all are
    /// prepared, and as many are written as were taken.
    fn tx_burst(&mut self, now: Instant, burst: &mut Burst<D::Frame>) {
        if self.writer.is_none() || burst.is_empty() {
            return self.device.tx_burst(now, burst);
        }
        let stamp = self.stamp(now);
        self.blocks.clear();
        let mut ends: Burst<usize> = Burst::new();
        for frame in burst.iter() {
            enhanced_packet(&mut self.blocks, stamp, frame.bytes(), Direction::Outbound);
            ends.push(self.blocks.len());
        }
        self.device.tx_burst(now, burst);
        let taken = ends.len() - burst.len();
        let len = taken.checked_sub(1).map_or(0, |last| ends[last]);
        self.write(len, taken as u64);
    }

    fn arrivals(&self) -> Option<OwnedFd> {
        self.device.arrivals()
    }

    fn link_is_up(&mut self) -> bool {
        self.device.link_is_up()
    }

    fn frames_in_use(&self) -> u64 {
        self.device.frames_in_use()
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut counters = self.device.counters();
        counters.extend(self.counters());
        counters
    }
}

impl<D, W: Write> Drop for PcapDevice<D, W> {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.writer.as_mut().map(Write::flush) {
            tracing::warn!(%error, "the end of a packet recording was lost");
        }
    }
}

impl<D: fmt::Debug, W: Write> fmt::Debug for PcapDevice<D, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PcapDevice")
            .field("device", &self.device)
            .field("recording", &self.writer.is_some())
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

/// A file to record to, with a limit of bytes. What would pass it is refused whole, so a recording
/// that gets there ends with its last whole burst.
#[derive(Debug)]
pub struct CaptureFile {
    file: BufWriter<File>,
    left: u64,
    limit: u64,
}

impl CaptureFile {
    /// Makes the file, which only its owner can read, or empties the one that is there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(path: &Path, limit_bytes: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(FILE_MODE);
        let file = BufWriter::new(options.open(path)?);
        Ok(Self { file, left: limit_bytes, limit: limit_bytes })
    }
}

impl Write for CaptureFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            let reason = format!("the limit of {} bytes is reached", self.limit);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
        };
        self.left = left;
        self.file.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn section_header(out: &mut Vec<u8>) {
    block(out, SECTION_HEADER, |out| {
        out.extend(BYTE_ORDER.to_le_bytes());
        out.extend(1u16.to_le_bytes()); // version 1.0
        out.extend(0u16.to_le_bytes());
        out.extend(u64::MAX.to_le_bytes()); // length of the section: not known
    });
}

fn interface_description(out: &mut Vec<u8>, name: &str) {
    block(out, INTERFACE_DESCRIPTION, |out| {
        out.extend(LINK_TYPE_ETHERNET.to_le_bytes());
        out.extend([0; 2]); // reserved
        out.extend([0; 4]); // no frame is cut short
        option(out, OPTION_INTERFACE_NAME, name.as_bytes());
        option(out, OPTION_TIME_RESOLUTION, &[NANOSECONDS]);
        option(out, OPTION_END, &[]);
    });
}

fn enhanced_packet(out: &mut Vec<u8>, stamp: u64, frame: &[u8], direction: Direction) {
    block(out, ENHANCED_PACKET, |out| {
        let len = (frame.len() as u32).to_le_bytes();
        out.extend([0; 4]); // the first and only interface
        out.extend(((stamp >> 32) as u32).to_le_bytes());
        out.extend((stamp as u32).to_le_bytes());
        out.extend(len); // captured
        out.extend(len); // on the wire
        out.extend(frame);
        pad(out);
        option(out, OPTION_PACKET_FLAGS, &(direction as u32).to_le_bytes());
        option(out, OPTION_END, &[]);
    });
}

/// A block: type and length, what `body` writes, and the length again.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(kind.to_le_bytes());
    out.extend([0; 4]);
    body(out);
    let len = ((out.len() + 4 - start) as u32).to_le_bytes();
    out[start + 4..start + 8].copy_from_slice(&len);
    out.extend(len);
}

/// An option, its value cut to what its length field can say.
fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.extend(code.to_le_bytes());
    out.extend(len.to_le_bytes());
    out.extend(&value[..usize::from(len)]);
    pad(out);
}

/// Everything in a block starts at a multiple of 4; blocks are multiples themselves.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::device::page;
    use crate::device::sim::{SimDevice, SimFrame, SimNet, SimPort, WhenFull};

    /// Memory that can be read while it is written, and that breaks when it is full.
    #[derive(Clone, Default)]
    struct Memory {
        bytes: Arc<Mutex<Vec<u8>>>,
        room: Option<usize>,
    }

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut file = self.bytes.lock().unwrap();
            if self.room.is_some_and(|room| file.len() + bytes.len() > room) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            file.extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[derive(Debug, PartialEq)]
    struct Record {
        stamp: u64,
        frame: Vec<u8>,
        direction: u32,
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Code and value of each option up to the end mark, which must be the last thing.
    fn options(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let mut options = Vec::new();
        loop {
            let head = u32_at(bytes, 0);
            let (code, len) = (head as u16, (head >> 16) as usize);
            bytes = &bytes[4..];
            if code == OPTION_END {
                assert!(len == 0 && bytes.is_empty());
                return options;
            }
            options.push((code, bytes[..len].to_vec()));
            bytes = &bytes[len.next_multiple_of(4)..];
        }
    }

    /// Reads a whole recording, strictly.
    fn read(file: &Memory) -> (String, Vec<Record>) {
        let bytes = file.bytes.lock().unwrap();
        read_bytes(&bytes)
    }

    fn read_bytes(bytes: &[u8]) -> (String, Vec<Record>) {
        let (mut name, mut records, mut at) = (String::new(), Vec::new(), 0);
        while at < bytes.len() {
            let (kind, len) = (u32_at(bytes, at), u32_at(bytes, at + 4) as usize);
            assert_eq!(len % 4, 0);
            assert_eq!(u32_at(bytes, at + len - 4) as usize, len, "both lengths agree");
            let body = &bytes[at + 8..at + len - 4];
            match kind {
                SECTION_HEADER => {
                    assert_eq!((at, u32_at(body, 0), u32_at(body, 4)), (0, BYTE_ORDER, 1));
                }
                INTERFACE_DESCRIPTION => {
                    assert_eq!((u32_at(body, 0), u32_at(body, 4)), (1, 0));
                    let options = options(&body[8..]);
                    assert_eq!(options[1], (OPTION_TIME_RESOLUTION, vec![9]));
                    name = String::from_utf8(options[0].1.clone()).unwrap();
                }
                ENHANCED_PACKET => {
                    let len = u32_at(body, 12) as usize;
                    assert_eq!((u32_at(body, 0), u32_at(body, 16) as usize), (0, len));
                    let options = options(&body[20 + len.next_multiple_of(4)..]);
                    assert_eq!(options[0].0, OPTION_PACKET_FLAGS);
                    records.push(Record {
                        stamp: u64::from(u32_at(body, 4)) << 32 | u64::from(u32_at(body, 8)),
                        frame: body[20..20 + len].to_vec(),
                        direction: u32_at(&options[0].1, 0),
                    });
                }
                other => panic!("block type {other}"),
            }
            at += len;
        }
        (name, records)
    }

    /// A cable whose first end is recorded to `file` and whose second takes three frames.
    fn recorded(file: &Memory, start: Instant) -> (PcapDevice<SimDevice, Memory>, SimDevice) {
        let narrow = SimPort { ring_frames: 3, when_full: WhenFull::Wait, ..SimPort::new(2) };
        let (_, mut devices) = SimNet::new(0, &[SimPort::new(1), narrow]);
        let (b, a) = (devices.pop().unwrap().remove(0), devices.pop().unwrap().remove(0));
        let wall = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        (PcapDevice::new(a, file.clone(), (start, wall)).unwrap(), b)
    }

    fn burst(device: &mut impl PacketDevice<Frame = SimFrame>, bytes: &[u8]) -> Burst<SimFrame> {
        let frame = |byte: &u8| {
            let mut frame = device.alloc(usize::from(*byte)).unwrap();
            frame.bytes_mut().fill(*byte);
            frame
        };
        bytes.iter().map(frame).collect()
    }

    #[test]
    fn what_passes_is_recorded_once_with_time_and_direction() {
        let (file, start) = (Memory::default(), Instant::now());
        let (mut a, mut b) = recorded(&file, start);
        let (first, second) = (start + Duration::from_nanos(5), start + Duration::from_secs(2));
        let mut out = burst(&mut a, &[60, 61, 62, 63]);
        a.tx_burst(first, &mut out);
        assert_eq!(out.len(), 1, "the ring holds three");
        a.tx_burst(first, &mut out);
        b.rx_burst(first, &mut Burst::new());
        a.tx_burst(second, &mut out);
        let mut answer = burst(&mut b, &[64]);
        b.tx_burst(second, &mut answer);
        let mut received = burst(&mut a, &[1]);
        a.rx_burst(second, &mut received);
        assert_eq!(received.len(), 2);
        assert_eq!(a.counters()[0], ("pcap_frames_written", 5));
        page::assert_tells("transport-N: recording", &a.counters().map(|(name, _)| name));
        drop(a);
        let record = |at: u64, len: u8, direction| Record {
            stamp: 1_700_000_000_000_000_000 + at,
            frame: vec![len; len.into()],
            direction,
        };
        let (name, records) = read(&file);
        assert_eq!(name, "sim1");
        let expected = [
            record(5, 60, 2),
            record(5, 61, 2),
            record(5, 62, 2),
            record(2_000_000_000, 63, 2),
            record(2_000_000_000, 64, 1),
        ];
        assert_eq!(records, expected);
    }

    #[test]
    fn a_failed_write_ends_the_recording_and_not_the_traffic() {
        let (mut file, start) = (Memory::default(), Instant::now());
        file.room = Some(300);
        let (mut a, mut b) = recorded(&file, start);
        for _ in 0..6 {
            let mut out = burst(&mut a, &[60]);
            a.tx_burst(start, &mut out);
            let mut received = Burst::new();
            b.rx_burst(start, &mut received);
            assert_eq!(received.len(), 1);
        }
        let counters = a.counters();
        assert_eq!(counters[1], ("pcap_write_failures", 1));
        let (_, records) = read(&file);
        assert_eq!(records.len() as u64, counters[0].1, "whole blocks only");
        assert!((1..6).contains(&records.len()));
        file.room = Some(10);
        let (_, mut devices) = SimNet::new(0, &[SimPort::new(1)]);
        let device = devices.remove(0).remove(0);
        file.bytes.lock().unwrap().clear();
        assert!(PcapDevice::new(device, file, (start, UNIX_EPOCH)).is_err());
    }

    #[test]
    fn a_file_ends_before_its_limit_with_a_whole_frame() {
        const LIMIT: u64 = 500;
        let dir = std::env::temp_dir().join(format!("netstack-pcap-{}", std::process::id()));
        let start = Instant::now();
        let (_, mut devices) = SimNet::new(0, &[SimPort::new(1), SimPort::new(2)]);
        let file = CaptureFile::create(&dir, LIMIT).unwrap();
        let device = devices.remove(0).remove(0);
        let mut device = PcapDevice::new(device, file, (start, UNIX_EPOCH)).unwrap();
        for _ in 0..9 {
            let mut out = burst(&mut device, &[60]);
            device.tx_burst(start, &mut out);
        }
        let counters = device.counters();
        assert_eq!(counters[1], ("pcap_write_failures", 1));
        drop(device);
        let bytes = std::fs::read(&dir).unwrap();
        std::fs::remove_file(&dir).unwrap();
        assert!(bytes.len() as u64 <= LIMIT, "{}", bytes.len());
        let (_, records) = read_bytes(&bytes);
        assert_eq!(records.len() as u64, counters[0].1);
        assert!((1..9).contains(&records.len()));
    }

    #[test]
    fn a_moment_before_the_anchor_has_a_stamp_too() {
        let (file, start) = (Memory::default(), Instant::now());
        let (a, _b) = recorded(&file, start + Duration::from_secs(1));
        assert_eq!(a.stamp(start), 1_699_999_999_000_000_000);
    }
}
