//! `msgr decode`: the msgr2 frames of a capture, ours (`--capture`) or anybody's.
//!
//! ```text
//!   capture    packets of a pcapng file
//!   tcp        TCP segments of packets; the bytes of a connection in order
//!   dialogue   what two sides say: banners and frames
//! ```

mod capture;
mod dialogue;
mod tcp;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};
use serde_json::json;

use capture::Capture;
use dialogue::{Dialogue, Said, Spoken};
use tcp::{Segment, Stream};

/// Most connections that are followed.
const CONNECTIONS_MAX: usize = 1 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct DecodeArgs {
    /// A pcapng file
    file: PathBuf,
    /// Print JSON, a line a frame
    #[arg(long)]
    json: bool,
    /// Print every byte of each frame
    #[arg(long)]
    hex: bool,
}

pub(crate) fn run(args: &DecodeArgs) -> Result<()> {
    let printed = print(args);
    // Whoever reads us may have seen enough.
    let enough = |error: &Error| {
        let error = error.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    };
    printed.or_else(|error| if enough(&error) { Ok(()) } else { Err(error) })
}

fn print(args: &DecodeArgs) -> Result<()> {
    let path = args.file.display();
    let file = File::open(&args.file).with_context(|| format!("cannot read {path}"))?;
    let mut packets = Capture::new(BufReader::new(file));
    let out = BufWriter::new(io::stdout().lock());
    let printer = Printer { out, json: args.json, hex: args.hex, start: None };
    let mut listener = Listener { connections: HashMap::new(), printer };
    let mut end = Duration::ZERO;
    while let Some(packet) = packets.next().with_context(|| format!("in {path}"))? {
        end = packet.at;
        if let Some(segment) = Segment::parse(&packet.frame) {
            listener.hear(packet.at, &segment)?;
        }
    }
    listener.finish(end)
}

/// Follows the connections whose start is in the capture.
struct Listener<W> {
    /// By both addresses, the lower one first.
    connections: HashMap<[SocketAddr; 2], Connection>,
    printer: Printer<W>,
}

#[derive(Default)]
struct Connection {
    streams: [Option<Stream>; 2],
    dialogue: Dialogue,
}

impl<W: Write> Listener<W> {
    fn hear(&mut self, at: Duration, segment: &Segment<'_>) -> Result<()> {
        let mut key = [segment.from, segment.to];
        key.sort();
        let side = usize::from(segment.from != key[0]);
        let known = self.connections.len();
        ensure!(known < CONNECTIONS_MAX, "more than {CONNECTIONS_MAX} connections");
        let connection = self.connections.entry(key).or_default();
        if segment.syn {
            // A port may be used again.
            if connection.streams[side].as_ref().is_some_and(|stream| !stream.began_with(segment)) {
                *connection = Connection::default();
            }
            connection.streams[side].get_or_insert_with(|| Stream::begin(segment));
        }
        let Some(stream) = &mut connection.streams[side] else {
            return Ok(());
        };
        if !stream.take(segment, connection.dialogue.hear(side)) {
            connection.streams[side] = None;
            self.printer.note(at, segment.from, segment.to, "too many bytes are missing")?;
        }
        while let Some((side, said)) = connection.dialogue.next() {
            self.printer.said(at, key[side], key[1 - side], &said)?;
        }
        Ok(())
    }

    /// Tells what was left of whom.
    fn finish(mut self, end: Duration) -> Result<()> {
        let mut connections: Vec<_> = self.connections.into_iter().collect();
        connections.sort_unstable_by_key(|(key, _)| *key);
        for (key, connection) in connections {
            for (side, stream) in connection.streams.iter().enumerate() {
                let (from, to) = (key[side], key[1 - side]);
                let unread = connection.dialogue.unread(side);
                if stream.as_ref().is_some_and(|stream| !stream.is_whole()) {
                    self.printer.note(end, from, to, "bytes are missing")?;
                }
                if unread > 0 {
                    self.printer.note(end, from, to, &format!("{unread} bytes were not read"))?;
                }
            }
        }
        Ok(self.printer.out.flush()?)
    }
}

struct Printer<W> {
    out: W,
    json: bool,
    hex: bool,
    /// When the first thing was said.
    start: Option<Duration>,
}

impl<W: Write> Printer<W> {
    fn said(&mut self, at: Duration, from: SocketAddr, to: SocketAddr, said: &Said) -> Result<()> {
        let note = match said {
            Said::Frame(spoken) => return self.frame(at, from, to, spoken),
            Said::Banner(banner) => {
                format!("BANNER supported {:#x}, required {:#x}", banner.supported, banner.required)
            }
            Said::Secure => "secure from here".to_owned(),
            Said::Legacy => "msgr1, which tshark dissects".to_owned(),
            Said::Broken(error) => format!("broken: {error}"),
        };
        self.note(at, from, to, &note)
    }

    fn frame(
        &mut self,
        at: Duration,
        from: SocketAddr,
        to: SocketAddr,
        spoken: &Spoken,
    ) -> Result<()> {
        let (tag, segments) = (spoken.tag(), &spoken.segments);
        let (message, detail) = (spoken.message(), spoken.detail());
        let hex = if self.hex { hex(&spoken.bytes) } else { String::new() };
        let message = message.map(|(header, ack)| {
            json!({
                "seq": header.seq, "tid": header.tid, "type": header.kind,
                "priority": header.priority, "version": header.version, "ack": ack,
            })
        });
        if self.json {
            let line = json!({
                "at": self.since_start(at), "from": from, "to": to, "tag": tag,
                "segments": segments, "message": message, "detail": detail, "hex": hex,
            });
            writeln!(self.out, "{line}")?;
            return Ok(());
        }
        let message = message.map(|message| message.to_string()).unwrap_or_default();
        let note = format!("{tag} {segments:?} {message}{detail}");
        self.note(at, from, to, note.trim_end())?;
        if self.hex {
            writeln!(self.out, "      {hex}")?;
        }
        Ok(())
    }

    fn note(&mut self, at: Duration, from: SocketAddr, to: SocketAddr, note: &str) -> Result<()> {
        let at = self.since_start(at);
        if self.json {
            writeln!(self.out, "{}", json!({ "at": at, "from": from, "to": to, "note": note }))?;
        } else {
            writeln!(self.out, "{at:10.6} {from} > {to} {note}")?;
        }
        Ok(())
    }

    fn since_start(&mut self, at: Duration) -> f64 {
        let start = *self.start.get_or_insert(at);
        at.saturating_sub(start).as_secs_f64()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
