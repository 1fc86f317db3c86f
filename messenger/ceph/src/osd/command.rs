//! Commands for daemons other than monitors: `ceph tell osd.0 ...`.

use bytes::Bytes;
use messenger_proto::denc::{DecodeError, Reader, Writer};

use crate::command::JsonCommand;
use crate::fsid::Fsid;
use crate::items;
use crate::kind;
use crate::limits::TEXT_LEN_MAX;
use crate::payload::Payload;

/// A command. The answer comes with the request's tid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MCommand {
    /// Cluster the command is for.
    pub fsid: Fsid,
    /// Its words: one JSON object.
    pub command: Vec<String>,
    /// Input of the command.
    pub input: Bytes,
}

impl MCommand {
    /// A command without input.
    pub fn new(fsid: Fsid, command: &JsonCommand) -> Self {
        Self { fsid, command: vec![command.to_string()], input: Bytes::new() }
    }
}

impl Payload for MCommand {
    const NAME: &'static str = "MCommand";
    const KIND: u16 = kind::COMMAND;

    fn decode(front: &mut Reader<'_>, data: &Bytes) -> Result<Self, DecodeError> {
        let fsid = Fsid::decode(front)?;
        Ok(Self { fsid, command: items::words(front)?, input: data.clone() })
    }

    fn encode(&self, front: &mut Writer<'_>) {
        self.fsid.encode(front);
        items::put_texts(front, &self.command);
    }

    fn data(&self) -> Bytes {
        self.input.clone()
    }
}

/// The result of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MCommandReply {
    /// 0, or a negative errno.
    pub result: i32,
    /// A line for people.
    pub status: String,
    /// Its output.
    pub output: Bytes,
}

impl Payload for MCommandReply {
    const NAME: &'static str = "MCommandReply";
    const KIND: u16 = kind::COMMAND_REPLY;

    fn decode(front: &mut Reader<'_>, data: &Bytes) -> Result<Self, DecodeError> {
        let result = front.i32()?;
        Ok(Self { result, status: items::text(front, TEXT_LEN_MAX)?, output: data.clone() })
    }

    fn encode(&self, front: &mut Writer<'_>) {
        front.i32(self.result);
        front.text(&self.status);
    }

    fn data(&self) -> Bytes {
        self.output.clone()
    }
}
