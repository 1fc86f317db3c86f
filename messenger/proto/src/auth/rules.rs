//! Which methods and connection modes are allowed between which kinds of entities.
//!
//! ```text
//!             peer  mon, mgr                        osd, mds                  client
//!   own mon, mgr    cluster_required                service_required          service_required
//!                   mon_cluster_mode                mon_service_mode          mon_service_mode
//!       osd, mds    cluster_required                cluster_required          service_required
//!                   mon_cluster_mode                cluster_mode              service_mode
//!       client      client_required                 client_required           client_required
//!                   mon_client_mode                 client_mode               client_mode
//! ```

use std::fmt;
use std::str::FromStr;

use crate::entity::EntityType;
use crate::v2::control::{MODE_CRC, MODE_SECURE};

/// A word that names no method, or no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is no {what}")]
pub struct ParseAuthError {
    /// The word.
    pub word: String,
    /// What it was to be.
    pub what: &'static str,
}

/// How peers convince each other of who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum AuthMethod {
    /// They say so.
    None = 1,
    /// They know a secret.
    Cephx = 2,
}

impl AuthMethod {
    /// Every method, in the order of the wire numbers.
    pub const ALL: [Self; 2] = [Self::None, Self::Cephx];

    /// The method with this wire number.
    pub fn from_wire(value: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.to_wire() == value)
    }

    /// The wire number.
    pub const fn to_wire(self) -> u32 {
        self as u32
    }

    /// Ceph's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Cephx => "cephx",
        }
    }

    /// Whether a transport may go on in this mode: without a secret there is nothing to seal with.
    pub const fn allows(self, mode: ConnectionMode) -> bool {
        match self {
            Self::None => matches!(mode, ConnectionMode::Crc),
            Self::Cephx => true,
        }
    }
}

impl FromStr for AuthMethod {
    type Err = ParseAuthError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|method| method.as_str() == word);
        found.ok_or_else(|| ParseAuthError { word: word.to_owned(), what: "auth method" })
    }
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What protects the frames behind AUTH_DONE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ConnectionMode {
    /// Checksums, against accidents.
    Crc = MODE_CRC,
    /// Encryption and authentication tags.
    Secure = MODE_SECURE,
}

impl ConnectionMode {
    /// Both modes, in the order of the wire numbers.
    pub const ALL: [Self; 2] = [Self::Crc, Self::Secure];

    /// The mode with this wire number.
    pub fn from_wire(value: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.to_wire() == value)
    }

    /// The wire number.
    pub const fn to_wire(self) -> u32 {
        self as u32
    }

    /// Ceph's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Crc => "crc",
            Self::Secure => "secure",
        }
    }
}

impl FromStr for ConnectionMode {
    type Err = ParseAuthError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|mode| mode.as_str() == word);
        found.ok_or_else(|| ParseAuthError { word: word.to_owned(), what: "connection mode" })
    }
}

impl fmt::Display for ConnectionMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads a list as Ceph's options have it, preferred first: words between commas, semicolons or
/// blanks, of which the first of equal ones counts.
pub fn parse_list<T: FromStr + PartialEq>(text: &str) -> Result<Vec<T>, T::Err> {
    let mut list = Vec::new();
    for word in text.split([',', ';', ' ', '\t']).filter(|word| !word.is_empty()) {
        let item = word.parse()?;
        if !list.contains(&item) {
            list.push(item);
        }
    }
    Ok(list)
}

/// Allowed methods and modes, each preferred first, under the names of Ceph's options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthRules {
    /// `auth_cluster_required`: among daemons.
    pub cluster_required: Vec<AuthMethod>,
    /// `auth_service_required`: what a daemon requires of its clients.
    pub service_required: Vec<AuthMethod>,
    /// `auth_client_required`: what a client requires of daemons.
    pub client_required: Vec<AuthMethod>,
    /// `ms_cluster_mode`.
    pub cluster_mode: Vec<ConnectionMode>,
    /// `ms_service_mode`.
    pub service_mode: Vec<ConnectionMode>,
    /// `ms_client_mode`.
    pub client_mode: Vec<ConnectionMode>,
    /// `ms_mon_cluster_mode`: daemons with monitors and managers.
    pub mon_cluster_mode: Vec<ConnectionMode>,
    /// `ms_mon_service_mode`: what monitors and managers allow others.
    pub mon_service_mode: Vec<ConnectionMode>,
    /// `ms_mon_client_mode`: clients with monitors and managers.
    pub mon_client_mode: Vec<ConnectionMode>,
}

impl Default for AuthRules {
    fn default() -> Self {
        Self::uniform(&[AuthMethod::None], &[ConnectionMode::Crc])
    }
}

/// What one entity allows another one, each preferred first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms<'a> {
    /// Methods.
    pub methods: &'a [AuthMethod],
    /// Connection modes.
    pub modes: &'a [ConnectionMode],
}

impl AuthRules {
    /// The same methods and modes towards everybody.
    pub fn uniform(methods: &[AuthMethod], modes: &[ConnectionMode]) -> Self {
        let (methods, modes) = (|| methods.to_vec(), || modes.to_vec());
        Self {
            cluster_required: methods(),
            service_required: methods(),
            client_required: methods(),
            cluster_mode: modes(),
            service_mode: modes(),
            client_mode: modes(),
            mon_cluster_mode: modes(),
            mon_service_mode: modes(),
            mon_client_mode: modes(),
        }
    }

    /// What an entity of type `own` allows a peer, whoever dials.
    pub fn terms(&self, own: EntityType, peer: EntityType) -> Terms<'_> {
        use EntityType::{Client, Mgr, Mon};
        let (methods, modes) = match (own, peer) {
            (Client, Mon | Mgr) => (&self.client_required, &self.mon_client_mode),
            (Client, _) => (&self.client_required, &self.client_mode),
            (_, Mon | Mgr) => (&self.cluster_required, &self.mon_cluster_mode),
            (Mon | Mgr, _) => (&self.service_required, &self.mon_service_mode),
            (_, Client) => (&self.service_required, &self.service_mode),
            _ => (&self.cluster_required, &self.cluster_mode),
        };
        Terms { methods, modes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_ceph_writes_them() {
        let modes = parse_list("secure crc, secure");
        assert_eq!(modes, Ok(vec![ConnectionMode::Secure, ConnectionMode::Crc]));
        let methods = parse_list("cephx;none");
        assert_eq!(methods, Ok(vec![AuthMethod::Cephx, AuthMethod::None]));
        assert_eq!(parse_list::<AuthMethod>(""), Ok(vec![]));
        let refused = parse_list::<ConnectionMode>("crc plain").unwrap_err();
        assert_eq!(refused.to_string(), "\"plain\" is no connection mode");
    }

    #[test]
    fn terms_are_the_table_s() {
        use EntityType::{Client, Mds, Mgr, Mon, Osd};
        let rules = AuthRules {
            mon_client_mode: vec![ConnectionMode::Secure],
            mon_service_mode: vec![ConnectionMode::Secure],
            service_required: vec![],
            ..AuthRules::default()
        };
        let terms = |own, peer| {
            let Terms { methods, modes } = rules.terms(own, peer);
            (methods.len(), modes[0])
        };
        assert_eq!(terms(Client, Mon), (1, ConnectionMode::Secure));
        assert_eq!(terms(Client, Osd), (1, ConnectionMode::Crc));
        assert_eq!(terms(Mgr, Client), (0, ConnectionMode::Secure));
        assert_eq!(terms(Mon, Osd), (0, ConnectionMode::Secure));
        assert_eq!(terms(Mon, Mgr), (1, ConnectionMode::Crc));
        assert_eq!(terms(Osd, Mon), (1, ConnectionMode::Crc));
        assert_eq!(terms(Osd, Mds), (1, ConnectionMode::Crc));
        assert_eq!(terms(Mds, Client), (0, ConnectionMode::Crc));
    }
}
