//! Commands of monitors and other daemons: one JSON object, with the words in `prefix`.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::limits::TEXT_LEN_MAX;

const PREFIX: &str = "prefix";
const FORMAT: &str = "format";

/// A command: what a person types after `ceph`, and its arguments by name.
///
/// ```
/// use messenger_ceph::JsonCommand;
///
/// let command = JsonCommand::new("osd map").with("pool", "rbd").with("object", "x").json();
/// assert_eq!(
///     command.to_string(),
///     r#"{"format":"json","object":"x","pool":"rbd","prefix":"osd map"}"#
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonCommand(Map<String, Value>);

impl JsonCommand {
    /// A command without arguments.
    pub fn new(prefix: &str) -> Self {
        Self(Map::new()).with(PREFIX, prefix)
    }

    /// Adds an argument, or replaces it.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// Asks for the answer in JSON.
    #[must_use]
    pub fn json(self) -> Self {
        self.with(FORMAT, "json")
    }

    /// The words.
    pub fn prefix(&self) -> &str {
        self.text(PREFIX).unwrap_or_default()
    }

    /// Whether the answer is to be in JSON, in whichever of its layouts.
    pub fn wants_json(&self) -> bool {
        self.text(FORMAT).is_some_and(|format| format.starts_with("json"))
    }

    /// An argument.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// An argument, if it is a text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }
}

impl fmt::Display for JsonCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_string(&self.0).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

/// What is wrong with the text of a command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonCommandError {
    /// It is too long.
    #[error("a command of {len} bytes, at most {TEXT_LEN_MAX} accepted")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It is not a JSON object.
    #[error("a command that is not a JSON object")]
    Json(#[source] serde_json::Error),
    /// It names no command.
    #[error("a command without a prefix")]
    NoPrefix,
}

impl FromStr for JsonCommand {
    type Err = JsonCommandError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > TEXT_LEN_MAX {
            return Err(JsonCommandError::TooLong { len: text.len() });
        }
        let command = Self(serde_json::from_str(text).map_err(JsonCommandError::Json)?);
        if command.prefix().is_empty() {
            return Err(JsonCommandError::NoPrefix);
        }
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ceph_sends_is_read() {
        let command: JsonCommand =
            r#"{"prefix": "fsid", "format": "json-pretty"}"#.parse().unwrap();
        assert_eq!(command.prefix(), "fsid");
        assert!(command.wants_json());
        assert!(!JsonCommand::new("fsid").wants_json());
    }

    #[test]
    fn what_is_no_command_is_refused() {
        for text in ["", "fsid", "[]", "{}", r#"{"prefix":7}"#, r#"{"prefix":""}"#] {
            assert!(text.parse::<JsonCommand>().is_err(), "{text}");
        }
        let deep = format!(r#"{{"prefix":{}"#, "[".repeat(100_000));
        assert!(matches!(deep.parse::<JsonCommand>(), Err(JsonCommandError::Json(_))));
        let long = "x".repeat(TEXT_LEN_MAX + 1);
        assert!(matches!(long.parse::<JsonCommand>(), Err(JsonCommandError::TooLong { .. })));
    }
}
