//! Times that are not moments.

use std::time::Duration;

use messenger_proto::denc::{DecodeError, Reader, Writer};

const NANOS_PER_SECOND: i64 = 1_000_000_000;
const NANOS_MAX: i64 = i32::MAX as i64 * NANOS_PER_SECOND + (NANOS_PER_SECOND - 1);

/// A signed duration in nanoseconds; heartbeats carry readings of monotonic clocks in it.
///
/// On the wire it is two signed words, `s32` seconds and `s32` nanoseconds, which both carry the
/// sign; it reaches about 68 years either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(i64);

impl Span {
    /// So many nanoseconds; beyond what the wire holds, the nearest that it does.
    pub fn from_nanos(nanos: i64) -> Self {
        Self(nanos.clamp(-NANOS_MAX, NANOS_MAX))
    }

    /// Nanoseconds.
    pub fn nanos(self) -> i64 {
        self.0
    }

    /// Reads the two words; more than a second of nanoseconds counts as seconds.
    ///
    /// # Errors
    /// If there are fewer than eight bytes.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let seconds = i64::from(reader.i32()?);
        Ok(Self::from_nanos(seconds * NANOS_PER_SECOND + i64::from(reader.i32()?)))
    }

    /// Writes the two words.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        let word = |value: i64| i32::try_from(value).expect("a span fits its words");
        writer.i32(word(self.0 / NANOS_PER_SECOND));
        writer.i32(word(self.0 % NANOS_PER_SECOND));
    }
}

impl From<Duration> for Span {
    /// Beyond what the wire holds, the longest that it does.
    fn from(duration: Duration) -> Self {
        Self::from_nanos(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn wire(span: Span) -> Vec<u8> {
        let mut out = BytesMut::new();
        span.encode(&mut Writer::new(&mut out));
        out.to_vec()
    }

    #[test]
    fn both_words_carry_the_sign() {
        assert_eq!(
            wire(Span::from_nanos(-1_500_000_000)),
            [(-1_i32).to_le_bytes(), (-500_000_000_i32).to_le_bytes()].concat()
        );
    }

    #[test]
    fn what_the_wire_cannot_hold_is_clamped() {
        for (span, back) in [
            (Span::from(Duration::MAX), NANOS_MAX),
            (Span::from_nanos(i64::MIN), -NANOS_MAX),
            (Span::from(Duration::from_nanos(7)), 7),
        ] {
            assert_eq!(Span::decode(&mut Reader::new(&wire(span))).unwrap().nanos(), back);
        }
        let most = [i32::MAX.to_le_bytes(), i32::MAX.to_le_bytes()].concat();
        assert_eq!(Span::decode(&mut Reader::new(&most)).unwrap().nanos(), NANOS_MAX);
    }
}
