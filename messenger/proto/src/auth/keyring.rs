//! Ceph's keyring files: principals, their keys and what they may do.
//!
//! ```text
//!   [client.admin]
//!           key = AQAA8VNlAAAAABAAAAECAwQFBgcICQoLDA0ODw==
//!           caps mon = "allow *"
//! ```
//!
//! A line is a section, a setting, blank, or a comment from `#` or `;` on. Within quotes a
//! backslash takes the meaning from the next character.

use std::collections::BTreeMap;
use std::fmt::Write;

use zeroize::Zeroizing;

use super::name::AuthName;
use super::secret::{Key, ParseKeyError};

/// Longest keyring, in bytes.
pub const KEYRING_LEN_MAX: usize = 1 << 20;
/// Most principals of one keyring.
pub const KEYRING_PRINCIPALS_MAX: usize = 4096;

// What stands around an id, and around caps, in a file; generously.
const KEY_OVERHEAD: usize = 96;
const CAPS_OVERHEAD: usize = 32;

/// What a keyring knows of one principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The secret it shares with the monitors.
    pub key: Key,
    /// What it may do, by service: `mon` to `allow *`.
    pub caps: BTreeMap<String, String>,
}

/// Principals by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keyring {
    principals: BTreeMap<AuthName, Principal>,
}

/// A keyring that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("keyring, line {line}: {cause}")]
pub struct KeyringError {
    /// Counted from one.
    pub line: usize,
    /// What is wrong with it.
    pub cause: KeyringCause,
}

/// What can be wrong with a line. Values are not repeated: they may be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringCause {
    /// The file is too long to be one.
    #[error("{len} bytes, at most {KEYRING_LEN_MAX} accepted")]
    TooLong {
        /// Bytes of the file.
        len: usize,
    },
    /// Too many sections.
    #[error("more than {KEYRING_PRINCIPALS_MAX} principals")]
    TooMany,
    /// Neither a section nor a setting.
    #[error("neither [principal] nor name = value")]
    Line,
    /// A section that names nobody.
    #[error("[{0}] is not a principal such as client.admin")]
    Name(String),
    /// A principal twice.
    #[error("[{0}] is there already")]
    SecondSection(AuthName),
    /// A setting in front of the first section.
    #[error("a setting before the first [principal]")]
    NoSection,
    /// A setting that keyrings do not have.
    #[error("neither key nor caps SERVICE")]
    Setting,
    /// A setting twice.
    #[error("{0:?} is there already")]
    SecondSetting(String),
    /// A quote without its twin, or something behind it.
    #[error("a value in quotes ends with its quote")]
    Quote,
    /// A key that is none.
    #[error(transparent)]
    Key(#[from] ParseKeyError),
    /// A section without a key.
    #[error("[{0}] has no key")]
    NoKey(AuthName),
}

/// A section while its lines come in.
struct Section {
    line: usize,
    name: AuthName,
    key: Option<Key>,
    caps: BTreeMap<String, String>,
}

impl Keyring {
    /// Reads a keyring.
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        if text.len() > KEYRING_LEN_MAX {
            return Err(KeyringError { line: 1, cause: KeyringCause::TooLong { len: text.len() } });
        }
        let (mut keyring, mut section) = (Self::default(), None);
        for (line, text) in (1..).zip(text.lines()) {
            let at = |cause| KeyringError { line, cause };
            let text = text.trim();
            if text.is_empty() || text.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = text.strip_prefix('[') {
                let (name, rest) = name.split_once(']').ok_or_else(|| at(KeyringCause::Line))?;
                if !without_comment(rest).is_empty() {
                    return Err(at(KeyringCause::Line));
                }
                keyring.close(section.take())?;
                section = Some(keyring.begin(line, name.trim()).map_err(at)?);
                continue;
            }
            let (setting, value) = text.split_once('=').ok_or_else(|| at(KeyringCause::Line))?;
            let section = section.as_mut().ok_or_else(|| at(KeyringCause::NoSection))?;
            section.set(setting.trim(), value).map_err(at)?;
        }
        keyring.close(section)?;
        Ok(keyring)
    }

    /// The keyring as a file, which only its owner should be able to read.
    pub fn to_text(&self) -> Zeroizing<String> {
        // Room for all of it at once: a text that grows leaves copies of keys behind.
        let caps = self.principals.values().flat_map(|principal| &principal.caps);
        let caps_len: usize =
            caps.map(|(service, caps)| service.len() + 2 * caps.len() + CAPS_OVERHEAD).sum();
        let keys_len: usize = self.principals.keys().map(|name| name.id.len() + KEY_OVERHEAD).sum();
        let mut text = Zeroizing::new(String::with_capacity(keys_len + caps_len));
        let written: Result<(), std::fmt::Error> = self.iter().try_for_each(|(name, principal)| {
            writeln!(text, "[{name}]")?;
            writeln!(text, "\tkey = {}", *principal.key.to_base64())?;
            principal.caps.iter().try_for_each(|(service, caps)| {
                let caps = caps.replace('\\', "\\\\").replace('"', "\\\"");
                writeln!(text, "\tcaps {service} = \"{caps}\"")
            })
        });
        written.expect("a String takes everything");
        text
    }

    /// What is known of `name`.
    pub fn get(&self, name: &AuthName) -> Option<&Principal> {
        self.principals.get(name)
    }

    /// Adds a principal, or replaces it. Texts of a keyring are single lines; what is not would not
    /// be read back.
    pub fn insert(&mut self, name: AuthName, principal: Principal) -> Option<Principal> {
        self.principals.insert(name, principal)
    }

    /// Forgets a principal.
    pub fn remove(&mut self, name: &AuthName) -> Option<Principal> {
        self.principals.remove(name)
    }

    /// Everybody, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&AuthName, &Principal)> {
        self.principals.iter()
    }

    fn begin(&self, line: usize, name: &str) -> Result<Section, KeyringCause> {
        if self.principals.len() == KEYRING_PRINCIPALS_MAX {
            return Err(KeyringCause::TooMany);
        }
        let name: AuthName = name.parse().map_err(|_| KeyringCause::Name(name.to_owned()))?;
        if self.principals.contains_key(&name) {
            return Err(KeyringCause::SecondSection(name));
        }
        Ok(Section { line, name, key: None, caps: BTreeMap::new() })
    }

    fn close(&mut self, section: Option<Section>) -> Result<(), KeyringError> {
        let Some(Section { line, name, key, caps }) = section else {
            return Ok(());
        };
        let Some(key) = key else {
            return Err(KeyringError { line, cause: KeyringCause::NoKey(name) });
        };
        self.insert(name, Principal { key, caps });
        Ok(())
    }
}

impl Section {
    fn set(&mut self, setting: &str, value: &str) -> Result<(), KeyringCause> {
        let value = unquoted(value.trim())?;
        let second = || KeyringCause::SecondSetting(setting.to_owned());
        match setting.split_once(char::is_whitespace) {
            None if setting == "key" => {
                if self.key.replace(value.parse()?).is_some() {
                    return Err(second());
                }
            }
            None if setting == "auid" => (), // old keyrings have it; it means nothing any more
            Some(("caps", service)) => {
                let service = service.trim_start().to_owned();
                if self.caps.insert(service, value.as_str().to_owned()).is_some() {
                    return Err(second());
                }
            }
            _ => return Err(KeyringCause::Setting),
        }
        Ok(())
    }
}

/// A value without its quotes, or up to a comment.
fn unquoted(text: &str) -> Result<Zeroizing<String>, KeyringCause> {
    let Some(quoted) = text.strip_prefix('"') else {
        return Ok(Zeroizing::new(without_comment(text).to_owned()));
    };
    let mut value = Zeroizing::new(String::with_capacity(quoted.len()));
    let mut chars = quoted.chars();
    loop {
        match chars.next().ok_or(KeyringCause::Quote)? {
            '"' => break,
            '\\' => value.push(chars.next().ok_or(KeyringCause::Quote)?),
            other => value.push(other),
        }
    }
    match without_comment(chars.as_str()) {
        "" => Ok(value),
        _ => Err(KeyringCause::Quote),
    }
}

fn without_comment(text: &str) -> &str {
    text.split(['#', ';']).next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "AQAA8VNlAAAAABAAAAECAwQFBgcICQoLDA0ODw==";

    fn cause(text: &str) -> (usize, KeyringCause) {
        let KeyringError { line, cause } = Keyring::parse(text).unwrap_err();
        (line, cause)
    }

    #[test]
    fn a_keyring_of_ceph_s_reads_and_writes_the_same() {
        let file = format!(
            "[client.admin]\n\tkey = {TEXT}\n\tcaps mds = \"allow *\"\n\tcaps mon = \"allow *\"\n\
             [mon.]\n\tkey = {TEXT}\n\tcaps mon = \"allow *\"\n"
        );
        let keyring = Keyring::parse(&file).unwrap();
        assert_eq!(keyring.to_text().lines().count(), file.lines().count());
        assert_eq!(Keyring::parse(&keyring.to_text()), Ok(keyring.clone()));
        let admin = keyring.get(&"client.admin".parse().unwrap()).unwrap();
        assert_eq!(admin.key, TEXT.parse().unwrap());
        assert_eq!(admin.caps["mds"], "allow *");
        assert!(keyring.get(&"client.other".parse().unwrap()).is_none());
        assert!(keyring.to_text().contains("[mon.]\n\tkey = AQAA"));
    }

    #[test]
    fn comments_quotes_and_old_settings_are_taken() {
        let file = format!(
            "# by hand\n\n  [client.a] ; first\nkey={TEXT} # its key\nauid = 0\n\
             caps  osd = allow rw pool=x ; no quotes\ncaps mon = \"allow \\\"r\\\" # no comment\" #\n"
        );
        let keyring = Keyring::parse(&file).unwrap();
        let caps = &keyring.get(&"client.a".parse().unwrap()).unwrap().caps;
        assert_eq!(caps["osd"], "allow rw pool=x");
        assert_eq!(caps["mon"], "allow \"r\" # no comment");
        assert_eq!(Keyring::parse(&keyring.to_text()), Ok(keyring));
    }

    #[test]
    fn an_error_names_its_line_and_no_secret() {
        use KeyringCause as Cause;
        let key = format!("key = {TEXT}");
        let name = || "client.a".parse::<AuthName>().unwrap();
        assert_eq!(cause(&key), (1, Cause::NoSection));
        assert_eq!(cause("\n[client.a\n"), (2, Cause::Line));
        assert_eq!(cause("[client.a] x\n"), (1, Cause::Line));
        assert_eq!(cause("[client.a]\nkey\n"), (2, Cause::Line));
        assert_eq!(cause("[admin]\n"), (1, Cause::Name("admin".into())));
        assert_eq!(cause("\n[client.a]\n\n[osd.1]\n"), (2, Cause::NoKey(name())));
        assert_eq!(cause("[client.a]\nkeys = x\n"), (2, Cause::Setting));
        assert_eq!(cause("[client.a]\nkey = secret!\n"), (2, Cause::Key(ParseKeyError::Text)));
        assert_eq!(cause("[client.a]\ncaps mon = \"r\n"), (2, Cause::Quote));
        assert_eq!(cause("[client.a]\ncaps mon = \"r\" w\n"), (2, Cause::Quote));
        let twice = format!("[client.a]\n{key}\n{key}\n");
        assert_eq!(cause(&twice), (3, Cause::SecondSetting("key".into())));
        let twice = format!("[client.a]\n{key}\n[client.a]\n");
        assert_eq!(cause(&twice), (3, Cause::SecondSection(name())));
        let error = Keyring::parse("[client.a]\nkey = secret!\n").unwrap_err();
        assert_eq!(error.to_string(), "keyring, line 2: a key is 40 characters of base64");
    }

    #[test]
    fn a_keyring_has_its_limits() {
        let long = "#".repeat(KEYRING_LEN_MAX + 1);
        assert_eq!(cause(&long), (1, KeyringCause::TooLong { len: long.len() }));
        let sections = 0..=KEYRING_PRINCIPALS_MAX;
        let many: String = sections.map(|n| format!("[osd.{n}]\nkey = {TEXT}\n")).collect();
        assert_eq!(cause(&many), (2 * KEYRING_PRINCIPALS_MAX + 1, KeyringCause::TooMany));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]=\"#; a-z.\\\\\n\t]{0,200}") {
            let _ = Keyring::parse(&text);
        }

        #[test]
        fn what_is_written_is_read_again(
            id in "[a-z0-9.-]{0,20}",
            caps in proptest::collection::btree_map("[a-z]{1,5}", "[^\n\r]{0,40}", 0..4),
            secret: [u8; 16],
        ) {
            let mut keyring = Keyring::default();
            let key = Key::new(secret, Duration::from_secs(7));
            keyring.insert(
                AuthName::new(crate::EntityType::Osd, id),
                Principal { key, caps },
            );
            prop_assert_eq!(Keyring::parse(&keyring.to_text()), Ok(keyring));
        }
    }
}
