//! The secrets a service shares with the monitors: numbered, three at a time, each for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BytesMut;

use super::OP_ROTATING;
use super::crypt::{open, seal_blob};
use super::error::CephxError;
use super::ticket::version;
use super::tickets::read_status;
use crate::auth::secret::Key;
use crate::denc::{Reader, Writer};
use crate::v2::Utime;

/// Most secrets of one service at a time.
pub const ROTATING_SECRETS_MAX: usize = 16;

/// The previous one, for tickets still around; the current one, for new tickets; and the next one,
/// so that a service knows it before the first ticket that needs it.
const KEPT: usize = 3;

/// One of a service's secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotatingSecret {
    /// The secret.
    pub key: Key,
    /// When it stops being the current one (Unix time).
    pub expires: Duration,
}

/// A service's secrets by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RotatingSecrets {
    secrets: BTreeMap<u64, RotatingSecret>,
    last_id: u64,
}

impl RotatingSecrets {
    /// Adds a secret that did not come from a monitor, such as the one all monitors share, which has
    /// number `u64::MAX`.
    pub fn insert(&mut self, id: u64, secret: RotatingSecret) {
        self.secrets.insert(id, secret);
        while self.secrets.len() > ROTATING_SECRETS_MAX {
            self.secrets.pop_first();
        }
        self.last_id = self.last_id.max(id);
    }

    /// The secret of a number.
    pub fn get(&self, id: u64) -> Option<&RotatingSecret> {
        self.secrets.get(&id)
    }

    /// The secret that tickets are sealed with, and its number: the last but one, as the last is
    /// the next.
    pub fn current(&self) -> Option<(u64, &RotatingSecret)> {
        let mut newest = self.secrets.iter().rev();
        let last = newest.next();
        newest.next().or(last).map(|(id, secret)| (*id, secret))
    }

    /// Whether new ones are needed: there are too few, or the current one is used up.
    pub fn due(&self, now: Duration) -> bool {
        self.due_at().is_none_or(|due_at| due_at <= now)
    }

    /// When new ones will be needed; `None` if they are already.
    pub fn due_at(&self) -> Option<Duration> {
        let (_, current) = self.current().filter(|_| self.secrets.len() >= KEPT)?;
        Some(current.expires)
    }

    /// As a monitor: makes the secrets that are due, each current for `lifetime`, and says whether
    /// there are new ones.
    pub fn rotate(
        &mut self,
        now: Duration,
        lifetime: Duration,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> bool {
        let mut rotated = false;
        // Each round ends later than the one before, so three are enough after any pause.
        for _ in 0..KEPT {
            if !self.due(now) {
                break;
            }
            let starts = self.secrets.last_key_value().map_or(now, |(_, next)| next.expires);
            let expires = starts.max(now).saturating_add(lifetime);
            let Some(id) = self.last_id.checked_add(1) else {
                break;
            };
            self.insert(id, RotatingSecret { key: Key::generate(now, random), expires });
            while self.secrets.len() > KEPT {
                self.secrets.pop_first();
            }
            rotated = true;
        }
        rotated
    }

    /// As a service: asks a monitor for its secrets (cephx: rotating secrets).
    pub fn request() -> Vec<u8> {
        OP_ROTATING.to_le_bytes().to_vec()
    }

    /// As a service with this key: the monitor's reply to [`RotatingSecrets::request`].
    pub fn from_reply(payload: &[u8], principal_key: &Key) -> Result<Self, CephxError> {
        let reader = &mut Reader::new(payload);
        read_status(reader, OP_ROTATING)?;
        let opened = open(principal_key, reader.blob()?, "rotating secrets")?;
        let reader = &mut opened.reader();
        version(reader, 1, "rotating secrets")?;
        let mut secrets = BTreeMap::new();
        for _ in 0..reader.count(ROTATING_SECRETS_MAX)? {
            let id = reader.u64()?;
            version(reader, 1, "rotating secret")?;
            let (key, expires) = (Key::decode(reader)?, Utime::decode(reader)?.into());
            secrets.insert(id, RotatingSecret { key, expires });
        }
        Ok(Self { secrets, last_id: reader.u64()? })
    }

    /// As a monitor: the reply to a service with this key.
    pub(super) fn reply(&self, principal_key: &Key) -> Vec<u8> {
        let mut out = BytesMut::new();
        let mut writer = Writer::new(&mut out);
        writer.u16(OP_ROTATING);
        writer.i32(0);
        seal_blob(&mut writer, principal_key, |body| {
            body.u8(1);
            body.len(self.secrets.len());
            for (id, secret) in &self.secrets {
                body.u64(*id);
                body.u8(1);
                secret.key.encode(body);
                Utime::from(secret.expires).encode(body);
            }
            body.u64(self.last_id);
        });
        out.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::cephx::tests::{counting, test_key};

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn secrets_rotate_one_by_one_and_the_last_but_one_is_current() {
        let (mut secrets, mut random, start) =
            (RotatingSecrets::default(), counting(), 1000 * HOUR);
        assert!(secrets.current().is_none());
        assert!(secrets.rotate(start, HOUR, &mut random));
        let ids = |secrets: &RotatingSecrets| secrets.secrets.keys().copied().collect::<Vec<_>>();
        assert_eq!((ids(&secrets), secrets.current().unwrap().0), (vec![1, 2, 3], 2));
        assert!(!secrets.rotate(start + 2 * HOUR - Duration::from_nanos(1), HOUR, &mut random));
        assert!(secrets.rotate(start + 2 * HOUR, HOUR, &mut random));
        assert_eq!((ids(&secrets), secrets.current().unwrap().0), (vec![2, 3, 4], 3));
        // Asleep for long: all of them are replaced, and the current one is good.
        let late = start + 500 * HOUR;
        assert!(secrets.rotate(late, HOUR, &mut random));
        assert_eq!(ids(&secrets), [4, 5, 6]);
        assert!(secrets.current().unwrap().1.expires > late && !secrets.due(late));
    }

    #[test]
    fn a_service_gets_what_the_monitor_has() {
        let (mut secrets, mut random) = (RotatingSecrets::default(), counting());
        secrets.rotate(HOUR, HOUR, &mut random);
        let reply = secrets.reply(&test_key());
        assert_eq!(RotatingSecrets::request(), [0x00, 0x04]);
        assert_eq!(RotatingSecrets::from_reply(&reply, &test_key()), Ok(secrets));
        let other = Key::generate(HOUR, &mut random);
        let refused = RotatingSecrets::from_reply(&reply, &other);
        assert_eq!(refused, Err(CephxError::NotOurs { what: "rotating secrets" }));
        let refused = RotatingSecrets::from_reply(&[0, 4, 0xf3, 0xff, 0xff, 0xff], &other);
        assert_eq!(refused, Err(CephxError::Refused { status: -13 }));
    }

    #[test]
    fn strangers_and_too_many_are_bounded() {
        let mut secrets = RotatingSecrets::default();
        for id in 0..100 {
            secrets.insert(id, RotatingSecret { key: test_key(), expires: HOUR });
        }
        assert_eq!(secrets.secrets.len(), ROTATING_SECRETS_MAX);
    }
}
