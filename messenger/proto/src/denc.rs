//! Little-endian decoding that cannot run past its end, and the encoding that mirrors it.
//!
//! ```text
//!   u8 u16 u32 u64 i32 i64    fixed width, little-endian
//!   blob, text                u32 length, bytes
//!   struct(v, c)              u8 version, u8 compat, u32 body length, body
//! ```
//!
//! A [`Reader`] borrows the bytes it reads, allocates nothing and answers a short input with a
//! [`DecodeError`]. A [`Writer`] appends to a buffer of the caller.

use bytes::{BufMut, BytesMut};

/// Why bytes of a peer could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ends before the value does.
    #[error("{needed} bytes needed, {left} left")]
    Truncated {
        /// Bytes the value takes.
        needed: usize,
        /// Bytes that were left.
        left: usize,
    },
    /// A structure says that only newer decoders understand it.
    #[error("structure needs a decoder of version {compat}, this one knows {known}")]
    TooNew {
        /// Version the encoder asks for.
        compat: u8,
        /// Version this decoder implements.
        known: u8,
    },
    /// A list announces more elements than we take.
    #[error("list of {count} elements, at most {max} accepted")]
    TooMany {
        /// Elements announced.
        count: usize,
        /// Our limit.
        max: usize,
    },
    /// A field holds a value that its type does not have.
    #[error("{field} has no value {value}")]
    Invalid {
        /// Name of the field.
        field: &'static str,
        /// What it held.
        value: u64,
    },
    /// A text is not UTF-8.
    #[error("text is not UTF-8")]
    NotText,
}

/// A cursor over borrowed bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `input`.
    pub fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            return Err(DecodeError::Truncated { needed: len, left: self.rest.len() });
        };
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError::Truncated { needed: N, left: self.rest.len() });
        };
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// A boolean: one byte, zero or not.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.u8()? != 0)
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Four bytes, little-endian, signed.
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little-endian, signed.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A list's count, refused above `max` before anybody reserves room for it.
    pub fn count(&mut self, max: usize) -> Result<usize, DecodeError> {
        let count = self.u32()? as usize;
        if count > max {
            return Err(DecodeError::TooMany { count, max });
        }
        Ok(count)
    }

    /// A list of `u32`, at most `max` of them.
    pub fn u32_list(&mut self, max: usize) -> Result<Vec<u32>, DecodeError> {
        let count = self.count(max)?;
        (0..count).map(|_| self.u32()).collect()
    }

    /// Length-prefixed bytes.
    pub fn blob(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u32()? as usize;
        self.bytes(len)
    }

    /// Length-prefixed UTF-8.
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.blob()?).map_err(|_| DecodeError::NotText)
    }

    /// A `struct(v, c)` envelope: its version and a reader confined to its body. What the body
    /// holds beyond our knowledge is skipped by construction.
    pub fn envelope(&mut self, known: u8) -> Result<(u8, Self), DecodeError> {
        let version = self.u8()?;
        let compat = self.u8()?;
        let body = self.blob()?;
        if compat > known {
            return Err(DecodeError::TooNew { compat, known });
        }
        Ok((version, Reader::new(body)))
    }
}

/// Appends encoded values to a buffer.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut BytesMut,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut BytesMut) -> Self {
        Self { out }
    }

    /// Raw bytes, no length.
    pub fn bytes(&mut self, value: &[u8]) {
        self.out.put_slice(value);
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.out.put_u8(value);
    }

    /// A boolean as one byte, 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.out.put_u8(value.into());
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self, value: u16) {
        self.out.put_u16_le(value);
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, value: u32) {
        self.out.put_u32_le(value);
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) {
        self.out.put_u64_le(value);
    }

    /// Four bytes, little-endian, signed.
    pub fn i32(&mut self, value: i32) {
        self.out.put_i32_le(value);
    }

    /// Eight bytes, little-endian, signed.
    pub fn i64(&mut self, value: i64) {
        self.out.put_i64_le(value);
    }

    /// A length or count. Ours are far below 4 GiB; a longer one is a bug of the caller.
    pub fn len(&mut self, value: usize) {
        self.u32(u32::try_from(value).expect("encoded lengths fit 32 bits"));
    }

    /// A counted list of `u32`.
    pub fn u32_list(&mut self, values: &[u32]) {
        self.len(values.len());
        for value in values {
            self.u32(*value);
        }
    }

    /// Length-prefixed bytes.
    pub fn blob(&mut self, value: &[u8]) {
        self.len(value.len());
        self.bytes(value);
    }

    /// Length-prefixed UTF-8.
    pub fn text(&mut self, value: &str) {
        self.blob(value.as_bytes());
    }

    /// A `struct(version, compat)` envelope around what `body` writes.
    pub fn envelope(&mut self, version: u8, compat: u8, body: impl FnOnce(&mut Writer<'_>)) {
        self.u8(version);
        self.u8(compat);
        let len_at = self.out.len();
        self.u32(0);
        body(self);
        let len = self.out.len() - len_at - 4;
        let len = u32::try_from(len).expect("encoded lengths fit 32 bits");
        self.out[len_at..len_at + 4].copy_from_slice(&len.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_input_is_an_error_and_consumes_nothing() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u32(), Err(DecodeError::Truncated { needed: 4, left: 3 }));
        assert_eq!(reader.u16(), Ok(0x0201));
        assert_eq!(reader.remaining(), 1);
    }

    #[test]
    fn an_envelope_hides_what_we_do_not_know() {
        let mut out = BytesMut::new();
        let mut writer = Writer::new(&mut out);
        writer.envelope(3, 1, |body| {
            body.u8(7);
            body.u64(99);
        });
        writer.u8(5);

        let mut reader = Reader::new(&out);
        let (version, mut body) = reader.envelope(1).unwrap();
        assert_eq!((version, body.u8()), (3, Ok(7)));
        assert_eq!(reader.u8(), Ok(5));
    }

    #[test]
    fn an_envelope_for_newer_decoders_is_refused() {
        let mut reader = Reader::new(&[4, 4, 0, 0, 0, 0]);
        assert_eq!(reader.envelope(3).unwrap_err(), DecodeError::TooNew { compat: 4, known: 3 });
    }

    #[test]
    fn a_huge_count_reserves_nothing() {
        let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xff]);
        let refused = DecodeError::TooMany { count: 0xffff_ffff, max: 8 };
        assert_eq!(reader.u32_list(8), Err(refused));
    }

    #[test]
    fn a_blob_longer_than_the_input_is_truncated() {
        let mut reader = Reader::new(&[5, 0, 0, 0, 1, 2]);
        assert_eq!(reader.blob(), Err(DecodeError::Truncated { needed: 5, left: 2 }));
    }
}
