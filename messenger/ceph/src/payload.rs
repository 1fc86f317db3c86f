//! What all messages have in common.

use bytes::{Bytes, BytesMut};
use messenger_proto::Message;
use messenger_proto::denc::{DecodeError, Reader, Writer};

use crate::error::Error;

/// The payload of one type of message.
///
/// Header fields other than type and version are the caller's: see
/// [`Message::with_tid`] and [`Message::with_priority`].
pub trait Payload: Sized {
    /// Ceph's name of the message, for errors.
    const NAME: &'static str;
    /// Its type number.
    const KIND: u16;
    /// Version of the encoding that we write, and the newest that we know.
    const VERSION: u16 = 1;
    /// Oldest decoder version that understands what we write.
    const COMPAT: u16 = 1;
    /// Oldest encoding that we read. Some of Ceph's senders count from 0.
    const OLDEST: u16 = 0;

    /// Reads the first section; `data` is the third one, which some messages keep.
    ///
    /// # Errors
    /// If the section is too short or holds what no sender writes.
    fn decode(front: &mut Reader<'_>, data: &Bytes) -> Result<Self, DecodeError>;

    /// Writes the first section.
    fn encode(&self, front: &mut Writer<'_>);

    /// The third section.
    fn data(&self) -> Bytes {
        Bytes::new()
    }

    /// Reads a received message. Bytes behind what we know are ignored, as a newer sender's may be.
    ///
    /// # Errors
    /// If it is of another type, of a version that we do not read, or broken.
    fn from_message(message: &Message) -> Result<Self, Error> {
        let name = Self::NAME;
        let header = &message.header;
        if header.kind != Self::KIND {
            return Err(Error::Kind { name, wanted: Self::KIND, got: header.kind });
        }
        if header.compat_version > Self::VERSION {
            let compat = header.compat_version;
            return Err(Error::TooNew { name, compat, known: Self::VERSION });
        }
        if header.version < Self::OLDEST {
            let version = header.version;
            return Err(Error::TooOld { name, version, oldest: Self::OLDEST });
        }
        Self::decode(&mut Reader::new(&message.front), &message.data)
            .map_err(|error| Error::Payload { name, error })
    }

    /// A message with this payload.
    fn to_message(&self) -> Message {
        let mut front = BytesMut::new();
        self.encode(&mut Writer::new(&mut front));
        Message::new(Self::KIND)
            .with_version(Self::VERSION, Self::COMPAT)
            .with_front(front.freeze())
            .with_data(self.data())
    }
}
