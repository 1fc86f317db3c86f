//! The command line.

use messenger::{Cidr, Config, EntityAddrVec, MsType, OpThreads};
use messenger_ceph::Fsid;
use std::error::Error;
use std::path::PathBuf;
use std::str::FromStr;

const USAGE: &str = "--bind [v1:]IP:PORT... --fsid UUID [--name NAME] [--keyring FILE] [--config FILE] [--stack posix|dpdk] \
     [--vdev DEVICE] [--addr IP/LEN]... [--json] [--exit-with-parent]";

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Options {
    /// Those that begin with `v1:` are for msgr1.
    pub(crate) bind: EntityAddrVec,
    pub(crate) fsid: Fsid,
    pub(crate) name: String,
    /// Who may come in, by cephx; everybody without it.
    pub(crate) keyring: Option<PathBuf>,
    pub(crate) json: bool,
    pub(crate) exit_with_parent: bool,
    file: Option<String>,
    stack: Option<MsType>,
    vdev: Option<String>,
    addrs: Vec<Cidr>,
}

impl Options {
    /// Reads the arguments; an error says what is wrong and what would be right.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut bind = EntityAddrVec::default();
        let (mut fsid, mut file, mut stack, mut vdev) = (None, None, None, None);
        let (mut name, mut addrs) = ("a".to_owned(), Vec::new());
        let mut keyring = None;
        let (mut json, mut exit_with_parent) = (false, false);
        while let Some(key) = arguments.next() {
            let mut value =
                || arguments.next().ok_or_else(|| format!("{key} lacks its value; usage: {USAGE}"));
            match key.as_str() {
                "--bind" => {
                    let expected = "an address such as 127.0.0.1:3300 or v1:127.0.0.1:6789";
                    bind.0.push(parse(&key, &value()?, expected)?);
                }
                "--fsid" => fsid = Some(parse(&key, &value()?, "a UUID, see uuidgen")?),
                "--name" => name = value()?,
                "--keyring" => keyring = Some(value()?.into()),
                "--config" => file = Some(value()?),
                "--stack" => stack = Some(parse_stack(&value()?)?),
                "--vdev" => vdev = Some(value()?),
                "--addr" => addrs.push(parse(&key, &value()?, "an address such as 10.99.0.2/24")?),
                "--json" => json = true,
                "--exit-with-parent" => exit_with_parent = true,
                _ => return Err(format!("unknown argument {key:?}; usage: {USAGE}")),
            }
        }
        let missing = |what: &str| format!("{what} is missing; usage: {USAGE}");
        if bind.is_empty() {
            return Err(missing("--bind"));
        }
        let fsid = fsid.ok_or_else(|| missing("--fsid"))?;
        Ok(Self { bind, fsid, name, keyring, json, exit_with_parent, file, stack, vdev, addrs })
    }

    /// The file's settings, then the flags'.
    pub(crate) fn config(&self) -> Result<Config, Box<dyn Error>> {
        let mut config = match &self.file {
            Some(file) => Config::from_toml(&std::fs::read_to_string(file)?)?,
            None => Config {
                // Ceph's three suit a large cluster; a small monitor gets by with one.
                ms_async_op_threads: OpThreads::try_from(1)?,
                ..Config::default()
            },
        };
        if let Some(stack) = self.stack {
            config.ms_type = stack;
        }
        if let Some(vdev) = &self.vdev {
            config.dpdk.vdev.clone_from(vdev);
            config.dpdk.queues = config.ms_async_op_threads;
        }
        if !self.addrs.is_empty() {
            config.native.addrs.clone_from(&self.addrs);
        }
        Ok(config)
    }
}

fn parse<T: FromStr>(key: &str, value: &str, expected: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{key} {value:?} is not {expected}"))
}

fn parse_stack(value: &str) -> Result<MsType, String> {
    match value {
        "posix" => Ok(MsType::Posix),
        "dpdk" => Ok(MsType::Dpdk),
        _ => Err(format!("unknown stack {value:?}: choose posix or dpdk")),
    }
}
