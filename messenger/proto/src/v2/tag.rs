//! What a frame is.

use std::fmt;

/// A frame's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the protocol's own")]
pub enum Tag {
    Hello = 1,
    AuthRequest = 2,
    AuthBadMethod = 3,
    AuthReplyMore = 4,
    AuthRequestMore = 5,
    AuthDone = 6,
    AuthSignature = 7,
    ClientIdent = 8,
    ServerIdent = 9,
    IdentMissingFeatures = 10,
    SessionReconnect = 11,
    SessionReset = 12,
    SessionRetry = 13,
    SessionRetryGlobal = 14,
    SessionReconnectOk = 15,
    Wait = 16,
    Message = 17,
    Keepalive2 = 18,
    Keepalive2Ack = 19,
    Ack = 20,
    CompressionRequest = 21,
    CompressionDone = 22,
}

impl Tag {
    /// Every tag, in the order of their wire numbers.
    pub const ALL: [Self; 22] = [
        Self::Hello,
        Self::AuthRequest,
        Self::AuthBadMethod,
        Self::AuthReplyMore,
        Self::AuthRequestMore,
        Self::AuthDone,
        Self::AuthSignature,
        Self::ClientIdent,
        Self::ServerIdent,
        Self::IdentMissingFeatures,
        Self::SessionReconnect,
        Self::SessionReset,
        Self::SessionRetry,
        Self::SessionRetryGlobal,
        Self::SessionReconnectOk,
        Self::Wait,
        Self::Message,
        Self::Keepalive2,
        Self::Keepalive2Ack,
        Self::Ack,
        Self::CompressionRequest,
        Self::CompressionDone,
    ];

    /// The tag with this wire number.
    pub fn from_wire(value: u8) -> Option<Self> {
        let tag = Self::ALL.get(usize::from(value).checked_sub(1)?);
        tag.copied()
    }

    /// The wire number.
    pub const fn to_wire(self) -> u8 {
        self as u8
    }

    /// The protocol's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hello => "HELLO",
            Self::AuthRequest => "AUTH_REQUEST",
            Self::AuthBadMethod => "AUTH_BAD_METHOD",
            Self::AuthReplyMore => "AUTH_REPLY_MORE",
            Self::AuthRequestMore => "AUTH_REQUEST_MORE",
            Self::AuthDone => "AUTH_DONE",
            Self::AuthSignature => "AUTH_SIGNATURE",
            Self::ClientIdent => "CLIENT_IDENT",
            Self::ServerIdent => "SERVER_IDENT",
            Self::IdentMissingFeatures => "IDENT_MISSING_FEATURES",
            Self::SessionReconnect => "SESSION_RECONNECT",
            Self::SessionReset => "SESSION_RESET",
            Self::SessionRetry => "SESSION_RETRY",
            Self::SessionRetryGlobal => "SESSION_RETRY_GLOBAL",
            Self::SessionReconnectOk => "SESSION_RECONNECT_OK",
            Self::Wait => "WAIT",
            Self::Message => "MESSAGE",
            Self::Keepalive2 => "KEEPALIVE2",
            Self::Keepalive2Ack => "KEEPALIVE2_ACK",
            Self::Ack => "ACK",
            Self::CompressionRequest => "COMPRESSION_REQUEST",
            Self::CompressionDone => "COMPRESSION_DONE",
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_numbers_and_the_table_agree() {
        for value in 0..=u8::MAX {
            match Tag::from_wire(value) {
                Some(tag) => assert_eq!(tag.to_wire(), value),
                None => assert!(value == 0 || value > 22),
            }
        }
    }
}
