//! One connection of either end: bytes in, frames out, and the other way round.

use std::io::{self, IoSlice, Read, Write};

use mio::net::TcpStream;

use super::frame::{self, HEAD_LEN, Header, PAYLOAD_MAX, TAIL_LEN, Wrapping};

/// Bytes a connection reads at a time.
const READ_BYTES: usize = 256 << 10;
/// From this length on a payload goes to the kernel from where it lies; shorter ones are gathered.
const DIRECT_FROM: usize = 16 << 10;
/// Gathered bytes from which a connection writes in the middle of a turn.
const WRITE_FROM: usize = 64 << 10;
const _: () = assert!(READ_BYTES > HEAD_LEN + TAIL_LEN + DIRECT_FROM);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Link {
    socket: TcpStream,
    incoming: Incoming,
    outgoing: Outgoing,
}

/// Received bytes: `consumed <= filled <= bytes.len()`.
#[derive(Debug)]
struct Incoming {
    bytes: Vec<u8>,
    consumed: usize,
    filled: usize,
}

/// Bytes that the kernel has not taken: those from `sent` on.
#[derive(Debug, Default)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

impl Link {
    /// # Errors
    /// If the socket's options cannot be set.
    pub(super) fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        let incoming = Incoming { bytes: vec![0; READ_BYTES], consumed: 0, filled: 0 };
        Ok(Self { socket, incoming, outgoing: Outgoing::default() })
    }

    /// Reads once. False: nothing was there.
    ///
    /// # Errors
    /// If the peer or the machine ended the connection.
    pub(super) fn read(&mut self) -> io::Result<bool> {
        match self.socket.read(self.incoming.space()) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                self.incoming.filled += len;
                Ok(true)
            }
            Err(error) if is_transient(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Hands each whole frame to `take`, with a pen for its answer.
    ///
    /// # Errors
    /// If a frame is damaged, `take` fails, or the connection does.
    pub(super) fn take_frames(
        &mut self,
        mut take: impl FnMut(Header, &[u8], &mut Pen<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let Self { socket, incoming, outgoing } = self;
        let mut pen = Pen { socket, outgoing };
        loop {
            let bytes = &incoming.bytes[incoming.consumed..incoming.filled];
            let Some(frame) = frame::parse(bytes).map_err(io::Error::other)? else {
                return Ok(());
            };
            take(frame.header, frame.payload, &mut pen)?;
            incoming.consumed += frame.len;
        }
    }

    pub(super) fn pen(&mut self) -> Pen<'_> {
        Pen { socket: &mut self.socket, outgoing: &mut self.outgoing }
    }

    /// Writes what is gathered, as far as the kernel takes it.
    ///
    /// # Errors
    /// If the connection ended.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.pen().flush()
    }

    /// Whether the kernel has taken everything.
    pub(super) fn is_flushed(&self) -> bool {
        self.outgoing.sent == self.outgoing.bytes.len()
    }
}

impl Incoming {
    /// Room for more, at the end; what was consumed makes it.
    fn space(&mut self) -> &mut [u8] {
        if self.consumed == self.filled {
            (self.consumed, self.filled) = (0, 0);
        }
        if self.bytes.len() - self.filled < READ_BYTES / 2 {
            self.bytes.copy_within(self.consumed..self.filled, 0);
            self.filled -= self.consumed;
            self.consumed = 0;
            let longest = HEAD_LEN + PAYLOAD_MAX + TAIL_LEN;
            if self.bytes.len() - self.filled < READ_BYTES / 2 && self.bytes.len() < longest {
                self.bytes.resize(self.bytes.len() * 2, 0);
            }
        }
        &mut self.bytes[self.filled..]
    }
}

/// Writes frames on a connection.
#[derive(Debug)]
pub(super) struct Pen<'a> {
    socket: &'a mut TcpStream,
    outgoing: &'a mut Outgoing,
}

impl Pen<'_> {
    /// Sends a frame, now or with the next flush.
    ///
    /// # Errors
    /// If the connection ended.
    pub(super) fn write(&mut self, header: Header, payload: &[u8]) -> io::Result<()> {
        let wrapping = Wrapping::new(header, payload);
        let parts = [&wrapping.head[..], payload, wrapping.tail()];
        if payload.len() >= DIRECT_FROM {
            return self.write_directly(parts);
        }
        parts.iter().for_each(|part| self.outgoing.bytes.extend_from_slice(part));
        if self.outgoing.bytes.len() - self.outgoing.sent >= WRITE_FROM {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes the gathered bytes and these together; keeps what the kernel does not take.
    fn write_directly(&mut self, parts: [&[u8]; 3]) -> io::Result<()> {
        let gathered = &self.outgoing.bytes[self.outgoing.sent..];
        let slices = [gathered, parts[0], parts[1], parts[2]].map(IoSlice::new);
        let mut taken = match self.socket.write_vectored(&slices) {
            Ok(taken) => taken,
            Err(error) if is_transient(&error) => 0,
            Err(error) => return Err(error),
        };
        let from_gathered = taken.min(gathered.len());
        taken -= from_gathered;
        self.outgoing.advance(from_gathered);
        for part in parts {
            let skip = taken.min(part.len());
            taken -= skip;
            self.outgoing.bytes.extend_from_slice(&part[skip..]);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.outgoing.sent < self.outgoing.bytes.len() {
            match self.socket.write(&self.outgoing.bytes[self.outgoing.sent..]) {
                Ok(taken) => self.outgoing.advance(taken),
                Err(error) if is_transient(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Outgoing {
    fn advance(&mut self, taken: usize) {
        self.sent += taken;
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
