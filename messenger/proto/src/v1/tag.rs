//! One number space, two uses: what a reply to a connect says, and what an item of an open session
//! is.

/// What the server says to a connect (msgr1: connect_reply).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReplyTag {
    /// The session is open.
    Ready = 1,
    /// There is no session to continue.
    ResetSession = 2,
    /// The server's own dial wins.
    Wait = 3,
    /// Again, with the reply's connect_seq.
    RetrySession = 4,
    /// Again, with a global_seq above the reply's.
    RetryGlobal = 5,
    /// The protocol number is not the server's.
    BadProtocolVersion = 10,
    /// The authorizer does not convince.
    BadAuthorizer = 11,
    /// Features are missing.
    Features = 12,
    /// The session is open; how far it got follows, and the client answers in kind.
    Seq = 13,
    /// Again, with the answer to the challenge that follows.
    ChallengeAuthorizer = 16,
}

impl ReplyTag {
    /// Every tag, in the order of their wire numbers.
    pub const ALL: [Self; 10] = [
        Self::Ready,
        Self::ResetSession,
        Self::Wait,
        Self::RetrySession,
        Self::RetryGlobal,
        Self::BadProtocolVersion,
        Self::BadAuthorizer,
        Self::Features,
        Self::Seq,
        Self::ChallengeAuthorizer,
    ];

    /// The tag with this wire number.
    pub fn from_wire(value: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|tag| tag.to_wire() == value)
    }

    /// The wire number.
    pub const fn to_wire(self) -> u8 {
        self as u8
    }
}

/// First byte of an item of an open session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Tag {
    /// The peer closes the session.
    Close = 6,
    /// A message.
    Message = 7,
    /// Everything up to a message arrived.
    Ack = 8,
    /// A sign of life that nobody answers.
    Keepalive = 9,
    /// Are you there?
    Keepalive2 = 14,
    /// I am.
    Keepalive2Ack = 15,
}

impl Tag {
    /// Every tag, in the order of their wire numbers.
    pub const ALL: [Self; 6] = [
        Self::Close,
        Self::Message,
        Self::Ack,
        Self::Keepalive,
        Self::Keepalive2,
        Self::Keepalive2Ack,
    ];

    /// The tag with this wire number.
    pub fn from_wire(value: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|tag| tag.to_wire() == value)
    }

    /// The wire number.
    pub const fn to_wire(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_up_to_16_means_one_thing_and_no_other_means_any() {
        for value in 0..=u8::MAX {
            let (reply, item) = (ReplyTag::from_wire(value), Tag::from_wire(value));
            assert_eq!(reply.is_some() ^ item.is_some(), (1..=16).contains(&value), "{value}");
            assert!(reply.is_none_or(|tag| tag.to_wire() == value));
            assert!(item.is_none_or(|tag| tag.to_wire() == value));
        }
    }
}
