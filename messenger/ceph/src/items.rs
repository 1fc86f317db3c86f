//! Pieces that several payloads share.

use std::collections::BTreeMap;

use messenger_proto::denc::{DecodeError, Reader, Writer};

use crate::limits::{COMMAND_WORDS_MAX, NAME_LEN_MAX, TEXT_LEN_MAX};

const NO_MONITOR: [u8; 2] = (-1_i16).to_le_bytes();

/// Length-prefixed bytes, refused above `max`.
pub(crate) fn blob<'a>(reader: &mut Reader<'a>, max: usize) -> Result<&'a [u8], DecodeError> {
    let len = reader.count(max)?;
    reader.bytes(len)
}

/// Length-prefixed UTF-8, refused above `max` bytes.
pub(crate) fn text(reader: &mut Reader<'_>, max: usize) -> Result<String, DecodeError> {
    let text = std::str::from_utf8(blob(reader, max)?).map_err(|_| DecodeError::NotText)?;
    Ok(text.to_owned())
}

/// A name, refused above [`NAME_LEN_MAX`] bytes.
pub(crate) fn name(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    text(reader, NAME_LEN_MAX)
}

/// A counted list of names.
pub(crate) fn names(reader: &mut Reader<'_>, max: usize) -> Result<Vec<String>, DecodeError> {
    let count = reader.count(max)?;
    (0..count).map(|_| name(reader)).collect()
}

/// Writes a counted list of texts.
pub(crate) fn put_texts(writer: &mut Writer<'_>, texts: &[String]) {
    writer.len(texts.len());
    for text in texts {
        writer.text(text);
    }
}

/// The words of a command.
pub(crate) fn words(reader: &mut Reader<'_>) -> Result<Vec<String>, DecodeError> {
    let count = reader.count(COMMAND_WORDS_MAX)?;
    (0..count).map(|_| text(reader, TEXT_LEN_MAX)).collect()
}

/// A map from name to text.
pub(crate) fn text_map(
    reader: &mut Reader<'_>,
    max: usize,
) -> Result<BTreeMap<String, String>, DecodeError> {
    let count = reader.count(max)?;
    (0..count).map(|_| Ok((name(reader)?, text(reader, TEXT_LEN_MAX)?))).collect()
}

/// Writes a map from name to text.
pub(crate) fn put_text_map(writer: &mut Writer<'_>, map: &BTreeMap<String, String>) {
    writer.len(map.len());
    for (key, value) in map {
        writer.text(key);
        writer.text(value);
    }
}

/// Reads what monitors' services put in front of their messages: `u64` version of the state the
/// sender has seen, and two fields that nobody uses any more (`s16` -1, `u64` 0).
pub(crate) fn seen_version(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let version = reader.u64()?;
    reader.bytes(NO_MONITOR.len() + 8)?;
    Ok(version)
}

/// Writes what [`seen_version`] reads.
pub(crate) fn put_seen_version(writer: &mut Writer<'_>, version: u64) {
    writer.u64(version);
    writer.bytes(&NO_MONITOR);
    writer.u64(0);
}
