//! Whole messengers that authenticate by cephx: a login at a monitor, a ticket for an OSD, and
//! both connection modes, on every stack that needs no DPDK.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod common;

use common::*;
use messenger::auth::cephx::{LoginServer, Services, TicketLifetimes};
use messenger::auth::keyring::Principal;
use messenger::auth::{Auth, AuthMethod, AuthRules, ConnectionMode, Key, Keyring, Secrets};
use messenger::{Config, ConnectOptions, EntityName, EntityType, Policy};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Runs each scenario on each stack.
macro_rules! on_every_stack {
    ($($scenario:ident),* $(,)?) => {
        mod posix {
            $(#[test] fn $scenario() { super::$scenario(&super::Posix::new("127.0.0.1", 2)); })*
        }
        mod simple {
            $(#[test] fn $scenario() { super::$scenario(&super::Simple::new("127.0.0.1")); })*
        }
        mod native {
            $(#[test] fn $scenario() { super::$scenario(&super::sim::Sim::new(1)); })*
        }
    };
}

on_every_stack!(
    a_client_logs_in_and_shows_its_ticket,
    a_wrong_key_opens_nothing,
    who_insists_on_secure_mode_gets_it_or_nothing,
);

const CRC: &[ConnectionMode] = &[ConnectionMode::Crc];
const SECURE: &[ConnectionMode] = &[ConnectionMode::Secure];

fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).unwrap();
}

/// Who may log in, and what with.
struct Realm(LoginServer);

impl Realm {
    fn new() -> Self {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let mut keyring = Keyring::default();
        for name in ["client.admin", "client.other"] {
            let caps = ["mon", "osd"].map(|of| (of.to_owned(), String::from("allow r")));
            let key = Key::generate(now, &mut random);
            keyring.insert(name.parse().unwrap(), Principal { key, caps: caps.into() });
        }
        Self(LoginServer::new(keyring, TicketLifetimes::default(), now, &mut random))
    }

    /// `client.admin`, with somebody's key.
    fn client(&self, key_of: &str, modes: &[ConnectionMode]) -> Arc<Auth> {
        let key = self.0.keyring.get(&key_of.parse().unwrap()).unwrap().key.clone();
        auth(modes, Secrets::new(random).with_key(key, Services::ALL))
    }

    fn monitor(&self, modes: &[ConnectionMode]) -> Arc<Auth> {
        auth(modes, Secrets::new(random).with_monitor(self.0.clone()))
    }

    fn osd(&self, modes: &[ConnectionMode]) -> Arc<Auth> {
        let secrets = Secrets::new(random);
        secrets.set_rotating(self.0.secrets(EntityType::Osd).unwrap().clone());
        auth(modes, secrets)
    }
}

fn auth(modes: &[ConnectionMode], secrets: Secrets) -> Arc<Auth> {
    Auth::with_secrets(AuthRules::uniform(&[AuthMethod::Cephx], modes), secrets)
}

fn start(net: &impl Net, kind: EntityType, auth: Arc<Auth>) -> Host {
    let config = Config { ms_initial_backoff: Duration::from_millis(5), ..config() };
    let plan = match kind {
        EntityType::Client => Plan {
            name: EntityName::new(kind, EntityName::UNNUMBERED),
            ..Plan::client(Recorder::fast(), Policy::lossy_client())
        },
        _ => Plan {
            name: EntityName::new(kind, 0),
            ..Plan::server(Recorder::fast().echoing(), Policy::stateless_server())
        },
    };
    Plan { config, auth: Some(auth), ..plan }.start(net)
}

fn end(hosts: &[&Host]) {
    hosts.iter().for_each(|host| host.end());
}

fn a_client_logs_in_and_shows_its_ticket(net: &impl Net) {
    for modes in [CRC, SECURE] {
        let realm = Realm::new();
        let mon = start(net, EntityType::Mon, realm.monitor(modes));
        let osd = start(net, EntityType::Osd, realm.osd(modes));
        let client = start(net, EntityType::Client, realm.client("client.admin", modes));
        let to_mon = client.connect(&mon);
        send(&to_mon, ping(1));
        client.recorder.wait_for(&Saw::Fast(1));
        let auth = client.messenger.auth();
        let tickets = auth.secrets.as_ref().unwrap().tickets();
        assert!(tickets.global_id() > 0);

        let to_osd = client.connect(&osd);
        send(&to_osd, ping(2).with_data(vec![7; 100_000]));
        client.recorder.wait_for(&Saw::Fast(2));
        let accepted = osd.recorder.wait_for_accept(&[]);
        let who = accepted.peer_auth().unwrap();
        assert_eq!(who.name.to_string(), "client.admin");
        assert_eq!(who.caps.text, "allow r");
        let number = accepted.peer_name().unwrap().number;
        assert_eq!(u64::try_from(number), Ok(tickets.global_id()));
        let sealed = counted(&client, "msgr_send_encrypted_bytes");
        assert_eq!(sealed > 100_000, modes == SECURE, "{sealed} bytes were sealed");
        end(&[&client, &osd, &mon]);
    }
}

fn a_wrong_key_opens_nothing(net: &impl Net) {
    let realm = Realm::new();
    let mon = start(net, EntityType::Mon, realm.monitor(CRC));
    let client = start(net, EntityType::Client, realm.client("client.other", CRC));
    let options = ConnectOptions::default();
    let to_mon = client.messenger.connect_to(EntityType::Mon, &mon.addrs, options).unwrap();
    to_mon.send_message(ping(1)).unwrap();
    eventually("it is turned away, again and again", || faults(&client) >= 3);
    assert!(!to_mon.is_connected());
    assert_eq!(mon.recorder.accepted(), []);
    end(&[&client, &mon]);
}

fn who_insists_on_secure_mode_gets_it_or_nothing(net: &impl Net) {
    let realm = Realm::new();
    let mon = start(net, EntityType::Mon, realm.monitor(CRC));
    let client = start(net, EntityType::Client, realm.client("client.admin", SECURE));
    let to_mon = client.connect(&mon);
    to_mon.send_message(ping(1)).unwrap();
    eventually("it goes away, again and again", || faults(&client) >= 3);
    assert_eq!(mon.recorder.accepted(), []);
    end(&[&client, &mon]);
}

fn faults(host: &Host) -> u64 {
    counted(host, "msgr_faults")
}

fn counted(host: &Host, counter: &str) -> u64 {
    let workers = host.messenger.counters().workers;
    let all = workers.iter().flat_map(|worker| &worker.messenger);
    all.filter(|(name, _)| *name == counter).map(|(_, value)| *value).sum()
}
