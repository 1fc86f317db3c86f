//! Commands for monitors: what `ceph` sends for a line that a person types.

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
pub struct MMonCommand {
    /// Version of the monitor's state that the client has seen.
    pub seen_version: u64,
    /// Cluster the command is for; the monitors of others refuse it.
    pub fsid: Fsid,
    /// Its words: one JSON object.
    pub command: Vec<String>,
    /// Input of the command, such as a file's content.
    pub input: Bytes,
}

impl MMonCommand {
    /// A command without input.
    pub fn new(fsid: Fsid, command: &JsonCommand) -> Self {
        Self { fsid, command: vec![command.to_string()], ..Self::default() }
    }
}

impl Payload for MMonCommand {
    const NAME: &'static str = "MMonCommand";
    const KIND: u16 = kind::MON_COMMAND;

    fn decode(front: &mut Reader<'_>, data: &Bytes) -> Result<Self, DecodeError> {
        Ok(Self {
            seen_version: items::seen_version(front)?,
            fsid: Fsid::decode(front)?,
            command: items::words(front)?,
            input: data.clone(),
        })
    }

    fn encode(&self, front: &mut Writer<'_>) {
        items::put_seen_version(front, self.seen_version);
        self.fsid.encode(front);
        items::put_texts(front, &self.command);
    }

    fn data(&self) -> Bytes {
        self.input.clone()
    }
}

/// The result of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MMonCommandAck {
    /// Version of the monitor's state.
    pub seen_version: u64,
    /// 0, or a negative errno.
    pub result: i32,
    /// A line for people: `ceph` prints it to its error output.
    pub status: String,
    /// The command again.
    pub command: Vec<String>,
    /// Its output.
    pub output: Bytes,
}

impl MMonCommandAck {
    /// The answer to `command`: success, and its output.
    pub fn success(command: &MMonCommand, output: impl Into<Bytes>) -> Self {
        let command = command.command.clone();
        Self { command, output: output.into(), ..Self::default() }
    }

    /// The answer to `command`: refused with a negative errno and a line that says why.
    pub fn failure(command: &MMonCommand, result: i32, status: impl Into<String>) -> Self {
        let command = command.command.clone();
        Self { command, result, status: status.into(), ..Self::default() }
    }
}

impl Payload for MMonCommandAck {
    const NAME: &'static str = "MMonCommandAck";
    const KIND: u16 = kind::MON_COMMAND_ACK;

    fn decode(front: &mut Reader<'_>, data: &Bytes) -> Result<Self, DecodeError> {
        Ok(Self {
            seen_version: items::seen_version(front)?,
            result: front.i32()?,
            status: items::text(front, TEXT_LEN_MAX)?,
            command: items::words(front)?,
            output: data.clone(),
        })
    }

    fn encode(&self, front: &mut Writer<'_>) {
        items::put_seen_version(front, self.seen_version);
        front.i32(self.result);
        front.text(&self.status);
        items::put_texts(front, &self.command);
    }

    fn data(&self) -> Bytes {
        self.output.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_sizes_that_were_captured() {
        let ask =
            MMonCommand { command: vec![r#"{"prefix": "fsid"}"#.into()], ..Default::default() };
        let ack = MMonCommandAck::success(&ask, format!("{}\n", ask.fsid));
        let message = ack.to_message();
        assert_eq!((message.front.len(), message.data.len()), (52, 37));
        assert_eq!(message.header.kind, 0x33);
    }
}
