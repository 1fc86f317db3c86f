//! A software device as DPDK spells it: `net_tap0,iface=dt0,mac=02:00:00:00:00:01`.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// Longest device name DPDK takes, in bytes.
const NAME_LEN_MAX: usize = 63;
/// Bytes of a memif buffer unless `bsize` says otherwise.
const MEMIF_BSIZE: u16 = 2048;

/// A software device to be plugged in: driver name and number, then the driver's own arguments.
///
/// The driver judges the arguments; here only the form is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vdev {
    name: String,
    args: String,
}

/// The drivers that need treatment of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    Memif,
    Ring,
    Tap,
    Vhost,
    VirtioUser,
    Other,
}

impl Vdev {
    /// The device's name, which is also its port's: `net_tap0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything after the name: `iface=dt0,mac=...`; may be empty.
    pub fn args(&self) -> &str {
        &self.args
    }

    /// The value of one argument.
    pub fn arg(&self, key: &str) -> Option<&str> {
        let pairs = self.args.split(',').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(k, _)| *k == key).map(|(_, value)| value).next_back()
    }

    /// DPDK picks the driver by the name's beginning, old names included.
    pub(crate) fn driver(&self) -> Driver {
        let name = self.name.as_str();
        if name.starts_with("net_memif") {
            Driver::Memif
        } else if name.starts_with("net_ring") || name.starts_with("eth_ring") {
            Driver::Ring
        } else if name.starts_with("net_tap") || name.starts_with("eth_tap") {
            Driver::Tap
        } else if name.starts_with("net_vhost") || name.starts_with("eth_vhost") {
            Driver::Vhost
        } else if name.starts_with("net_virtio_user") || name.starts_with("virtio_user") {
            Driver::VirtioUser
        } else {
            Driver::Other
        }
    }

    /// Whether this end calls and the other one listens, so coming back after the peer died is
    /// our part.
    pub(crate) fn is_client(&self) -> bool {
        match self.driver() {
            Driver::Memif => !matches!(self.arg("role"), Some("server" | "master")),
            Driver::VirtioUser => {
                self.arg("server") != Some("1")
                    && !self.arg("path").is_some_and(|path| path.starts_with("/dev/"))
            }
            Driver::Ring | Driver::Tap | Driver::Vhost | Driver::Other => false,
        }
    }

    /// The socket file this end makes and listens on.
    pub(crate) fn listens_on(&self) -> Option<&str> {
        match self.driver() {
            Driver::Memif if !self.is_client() && self.arg("socket-abstract") == Some("no") => {
                self.arg("socket")
            }
            Driver::Vhost if self.arg("client") != Some("1") => self.arg("iface"),
            Driver::VirtioUser if self.arg("server") == Some("1") => self.arg("path"),
            _ => None,
        }
    }

    /// Bytes of one buffer of a memif ring.
    pub(crate) fn memif_bsize(&self) -> u16 {
        self.arg("bsize").and_then(|size| size.parse().ok()).unwrap_or(MEMIF_BSIZE)
    }

    /// The same device with its Ethernet address fixed, unless it is already.
    pub(crate) fn with_mac(self, mac: [u8; 6]) -> Self {
        if self.arg("mac").is_some() {
            return self;
        }
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        let comma = if self.args.is_empty() { "" } else { "," };
        Self { args: format!("{}{comma}mac={mac}", self.args), ..self }
    }
}

impl FromStr for Vdev {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, args) = text.split_once(',').unwrap_or((text, ""));
        let reason = if name.is_empty() || name.contains(['=', '/']) {
            Some("it does not start with a device name, like net_tap0")
        } else if name.len() > NAME_LEN_MAX {
            Some("its name is longer than 63 bytes")
        } else if text.contains(|c: char| c.is_whitespace() || c == '\0') {
            Some("it has white space or a zero byte inside")
        } else {
            None
        };
        match reason {
            Some(reason) => Err(Error::Argument { what: "vdev", text: text.to_owned(), reason }),
            None => Ok(Self { name: name.to_owned(), args: args.to_owned() }),
        }
    }
}

impl fmt::Display for Vdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comma = if self.args.is_empty() { "" } else { "," };
        write!(f, "{}{comma}{}", self.name, self.args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vdev(text: &str) -> Vdev {
        text.parse().unwrap()
    }

    #[test]
    fn name_and_arguments_are_told_apart() {
        let tap = vdev("net_tap0,iface=dt0,mac=02:00:00:00:00:01");
        assert_eq!(
            (tap.name(), tap.arg("iface"), tap.arg("persist")),
            ("net_tap0", Some("dt0"), None)
        );
        assert_eq!(tap.to_string(), "net_tap0,iface=dt0,mac=02:00:00:00:00:01");
        assert_eq!(vdev("net_null0").to_string(), "net_null0");
    }

    #[test]
    fn only_the_end_that_calls_is_a_client() {
        assert!(vdev("net_memif0,socket=/x").is_client());
        assert!(!vdev("net_memif0,role=server,socket=/x").is_client());
        assert!(vdev("net_virtio_user0,path=/x").is_client());
        assert!(!vdev("net_virtio_user0,path=/x,server=1").is_client());
        assert!(!vdev("net_virtio_user0,path=/dev/vhost-net").is_client());
        assert!(!vdev("net_vhost0,iface=/x").is_client());
    }

    #[test]
    fn the_end_that_listens_names_its_socket_file() {
        assert_eq!(vdev("net_vhost0,iface=/x").listens_on(), Some("/x"));
        assert_eq!(vdev("net_vhost0,iface=/x,client=1").listens_on(), None);
        assert_eq!(vdev("net_virtio_user0,path=/x,server=1").listens_on(), Some("/x"));
        assert_eq!(vdev("net_memif0,role=server,socket=/x").listens_on(), None);
        let memif = vdev("net_memif0,role=server,socket-abstract=no,socket=/x");
        assert_eq!(memif.listens_on(), Some("/x"));
    }

    #[test]
    fn a_mac_is_added_once() {
        let mac = [2, 0, 0, 0, 0, 0xab];
        assert_eq!(vdev("net_virtio_user0").with_mac(mac).args(), "mac=02:00:00:00:00:ab");
        let fixed = vdev("net_virtio_user0,path=/x").with_mac(mac);
        assert_eq!(fixed.args(), "path=/x,mac=02:00:00:00:00:ab");
        assert_eq!(fixed.clone().with_mac([0; 6]), fixed);
    }

    #[test]
    fn what_is_no_device_is_refused() {
        for text in ["", ",iface=x", "iface=x", "net_tap0, iface=x", &"n".repeat(64)] {
            assert!(text.parse::<Vdev>().is_err(), "{text:?}");
        }
    }
}
