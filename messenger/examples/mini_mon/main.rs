//! A monitor small enough to read: real Ceph clients find it, subscribe, and run commands.
//!
//! ```text
//!   cargo run --example mini_mon -- --bind 127.0.0.1:3300 --fsid 3f04cebd-60a0-46cf-a196-ccb5f627f974
//!
//!   cat >ceph.conf <<END
//!   [global]
//!   fsid = 3f04cebd-60a0-46cf-a196-ccb5f627f974
//!   mon_host = v2:127.0.0.1:3300/0
//!   auth_client_required = none
//!   END
//!   ceph -c ceph.conf status
//! ```
//!
//! Clients of msgr1 are served at a second address: `--bind v1:127.0.0.1:6789`.
//!
//! It keeps no state but its map, of which it is the only monitor, and lets everybody in; or, with
//! `--keyring FILE`, those whose keys are there, by cephx and in the connection mode they prefer:
//!
//! ```text
//!   ceph-authtool keyring --create-keyring --gen-key -n client.admin --cap mon 'allow *'
//!   auth_client_required = cephx, and keyring = FILE, in ceph.conf
//! ```

mod commands;
mod door;
mod monitor;
mod options;

use messenger::{DispatcherPriority, EntityAddrVec, EntityName, EntityType, Messenger, Policy};
use messenger_ceph::{MonInfo, MonMap};
use monitor::Monitor;
use options::Options;
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

/// What Ceph's monitors insist on while there are no pools.
const FEATURES_REQUIRED: u64 = 0x0c01_0200_0204_0000;
/// Monitors have no incarnations: their address alone is enough to find them.
const NONCE: u32 = 0;
const RANK: i64 = 0;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("mini_mon: {error}");
            return ExitCode::from(2);
        }
    };
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mini_mon: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    if options.exit_with_parent {
        let signal = Some(rustix::process::Signal::TERM);
        rustix::process::set_parent_process_death_signal(signal)?;
    }
    let name = EntityName::new(EntityType::Mon, RANK);
    let messenger = Messenger::create(name, options.config()?)?;
    messenger.set_nonce(NONCE)?;
    let features_required = FEATURES_REQUIRED;
    messenger.set_default_policy(Policy { features_required, ..Policy::stateless_server() })?;
    if let Some(keyring) = &options.keyring {
        messenger.set_auth(door::cephx(keyring)?)?;
    }
    let addrs = messenger.bindv(&options.bind, None)?;
    let monitor = Arc::new(Monitor::new(map(options, &addrs)?, messenger.auth()));
    messenger.add_dispatcher_tail(monitor, DispatcherPriority::DEFAULT)?;
    messenger.start()?;
    report(options, &addrs);
    Ok(messenger.wait()?)
}

/// The map of a cluster that begins now, with us as its only monitor.
fn map(options: &Options, addrs: &EntityAddrVec) -> Result<MonMap, Box<dyn Error>> {
    let addrs = addrs.clone();
    let monitor = MonInfo { name: options.name.clone(), addrs, ..MonInfo::default() };
    let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(MonMap::new(options.fsid, created, vec![monitor]))
}

fn report(options: &Options, addrs: &EntityAddrVec) {
    if options.json {
        let addrs: Vec<_> = addrs.iter().map(ToString::to_string).collect();
        let fsid = options.fsid.to_string();
        println!("{}", serde_json::json!({ "event": "ready", "fsid": fsid, "addrs": addrs }));
    } else {
        println!("mon.{} of {} serves on {addrs}", options.name, options.fsid);
    }
}
