//! Why a message was not understood.

use messenger_proto::denc::DecodeError;

/// What is wrong with a message of a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is a message of another type.
    #[error("message of type {got} is no {name} ({wanted})")]
    Kind {
        /// Name of the message that was asked for.
        name: &'static str,
        /// Its type number.
        wanted: u16,
        /// Type number in the header.
        got: u16,
    },
    /// Only newer decoders understand it.
    #[error("{name} needs a decoder of version {compat}, this one knows {known}")]
    TooNew {
        /// Name of the message.
        name: &'static str,
        /// Version the sender asks for.
        compat: u16,
        /// Version this decoder implements.
        known: u16,
    },
    /// It is in a form that predates this decoder.
    #[error("{name} in version {version}, the oldest we read is {oldest}")]
    TooOld {
        /// Name of the message.
        name: &'static str,
        /// Version of the sender's form.
        version: u16,
        /// Oldest form this decoder reads.
        oldest: u16,
    },
    /// Its payload is broken.
    #[error("payload of {name}")]
    Payload {
        /// Name of the message.
        name: &'static str,
        /// What is wrong with it.
        #[source]
        error: DecodeError,
    },
}
