//! Whole messengers that authenticate by cephx: a login at a monitor, a ticket for an OSD, both
//! connection modes, and who is not let in and is counted; on every stack that needs no DPDK.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod common;
mod raw;

use common::*;
use messenger::auth::cephx::{LoginServer, MonLogin, Services, TicketLifetimes, Tickets};
use messenger::auth::keyring::Principal;
use messenger::auth::{
    Auth, AuthMethod, AuthName, AuthRules, ConnectionMode, Key, Keyring, Secrets,
};
use messenger::{Config, EntityName, EntityType, Policy};
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
    nobody_knows_a_stranger,
    a_ticket_that_ran_out_opens_nothing,
    a_ticket_of_another_realm_opens_nothing,
    no_side_falls_back_to_what_it_does_not_allow,
);

/// The same on both stacks over kernel TCP, which a client without a messenger reaches.
macro_rules! over_kernel_tcp {
    ($($scenario:ident),* $(,)?) => {
        mod posix_raw {
            $(#[test] fn $scenario() { super::$scenario(&super::Posix::new("127.0.0.1", 2)); })*
        }
        mod simple_raw {
            $(#[test] fn $scenario() { super::$scenario(&super::Simple::new("127.0.0.1")); })*
        }
    };
}

over_kernel_tcp!(an_overheard_authorizer_opens_nothing, a_peer_that_says_nonsense_is_told_so);

const CRC: &[ConnectionMode] = &[ConnectionMode::Crc];
const SECURE: &[ConnectionMode] = &[ConnectionMode::Secure];
const HOUR: Duration = Duration::from_secs(3600);
const EACCES: i32 = -13; // Linux's numbers are the protocol's

fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).unwrap();
}

/// Who may log in, and what with.
struct Realm(LoginServer);

impl Realm {
    fn new() -> Self {
        let now = now();
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

fn now() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap()
}

/// The tickets of a login at a monitor whose clock is late by so much: they end early.
fn tickets(realm: &Realm, late: Duration) -> Tickets {
    let key = realm.0.keyring.get(&admin()).unwrap().key.clone();
    let login = MonLogin::new(admin(), key, Services::ALL);
    let (pending, challenge) = LoginServer::begin(&login.request(), &mut random).unwrap();
    let answer = login.on_challenge(&challenge, &mut random).unwrap();
    let (mode, id) = (ConnectionMode::Crc.to_wire(), 4242);
    let admitted = pending.finish(&realm.0, &answer, mode, id, now() - late, &mut random).unwrap();
    login.on_done(id, mode, &admitted.payload, now()).unwrap().tickets
}

fn admin() -> AuthName {
    "client.admin".parse().unwrap()
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
    is_turned_away(&client, &mon, "wrong_key");
    end(&[&client, &mon]);
}

fn nobody_knows_a_stranger(net: &impl Net) {
    let (realm, mut elsewhere) = (Realm::new(), Realm::new());
    elsewhere.0.keyring.remove(&admin());
    let mon = start(net, EntityType::Mon, elsewhere.monitor(CRC));
    let client = start(net, EntityType::Client, realm.client("client.admin", CRC));
    is_turned_away(&client, &mon, "unknown_entity");
    end(&[&client, &mon]);
}

fn a_ticket_that_ran_out_opens_nothing(net: &impl Net) {
    let realm = Realm::new();
    let osd = start(net, EntityType::Osd, realm.osd(CRC));
    let client = start(net, EntityType::Client, realm.client("client.admin", CRC));
    let auth = client.messenger.auth();
    // The client takes it for good; a service's tickets last for an hour.
    auth.secrets.as_ref().unwrap().set_tickets(tickets(&realm, 2 * HOUR));
    is_turned_away(&client, &osd, "expired");
    // And the service takes the client's next one.
    auth.secrets.as_ref().unwrap().set_tickets(tickets(&realm, HOUR / 2));
    send(&client.connect(&osd), ping(3));
    client.recorder.wait_for(&Saw::Fast(3));
    end(&[&client, &osd]);
}

fn a_ticket_of_another_realm_opens_nothing(net: &impl Net) {
    let (realm, elsewhere) = (Realm::new(), Realm::new());
    let osd = start(net, EntityType::Osd, elsewhere.osd(CRC));
    let client = start(net, EntityType::Client, realm.client("client.admin", CRC));
    let auth = client.messenger.auth();
    auth.secrets.as_ref().unwrap().set_tickets(tickets(&realm, Duration::ZERO));
    is_turned_away(&client, &osd, "ticket");
    end(&[&client, &osd]);
}

/// Neither the mode nor the method: each side has its rules, whatever the other one offers.
fn no_side_falls_back_to_what_it_does_not_allow(net: &impl Net) {
    let none = || Auth::new(AuthRules::uniform(&[AuthMethod::None], CRC));
    let realm = Realm::new();
    let admin = |modes| realm.client("client.admin", modes);
    for (client, mon, reason) in [
        (admin(SECURE), realm.monitor(CRC), "mode"),
        (admin(CRC), realm.monitor(SECURE), "mode"),
        (none(), realm.monitor(CRC), "method"),
        (admin(CRC), none(), "method"),
    ] {
        let mon = start(net, EntityType::Mon, mon);
        let client = start(net, EntityType::Client, client);
        is_turned_away(&client, &mon, reason);
        end(&[&client, &mon]);
    }
}

fn an_overheard_authorizer_opens_nothing(net: &impl Net) {
    let realm = Realm::new();
    let osd = start(net, EntityType::Osd, realm.osd(CRC));
    let tickets = tickets(&realm, Duration::ZERO);
    let authorizer = tickets.authorizer(EntityType::Osd, now(), &mut random).unwrap();
    let mut honest = raw::Client::dial(&osd.addrs);
    let challenge = honest.request(&authorizer.request()).challenge();
    let overheard = authorizer.on_challenge(&challenge).unwrap();
    honest.answer(&overheard).done();

    let replayed = || counted(&osd, "msgr_auth_refused_replayed");
    let before = replayed();
    let mut thief = raw::Client::dial(&osd.addrs);
    assert_eq!(thief.request(&overheard).refusal(), EACCES, "no challenge was given");
    let challenge = thief.request(&authorizer.request()).challenge();
    assert!(!challenge.is_empty());
    assert_eq!(thief.answer(&overheard).refusal(), EACCES, "another challenge was given");
    assert_eq!(thief.answer(&overheard).refusal(), EACCES, "a challenge is for one answer");
    eventually("each attempt is counted", || replayed() == before + 3);
    end(&[&osd]);
}

fn a_peer_that_says_nonsense_is_told_so(net: &impl Net) {
    let realm = Realm::new();
    let osd = start(net, EntityType::Osd, realm.osd(CRC));
    let malformed = || counted(&osd, "msgr_auth_refused_malformed");
    let before = malformed();
    let mut peer = raw::Client::dial(&osd.addrs);
    assert_eq!(peer.request(b"").refusal(), EACCES);
    assert_eq!(peer.request(&[77; 100]).refusal(), EACCES);
    // For a monitor, which this is not.
    let key = Key::generate(now(), &mut random);
    let login = MonLogin::new(admin(), key, Services::ALL).request();
    assert_eq!(peer.request(&login).refusal(), EACCES);
    eventually("each attempt is counted", || malformed() == before + 3);

    let claims = || counted(&osd, "msgr_auth_refused_claim");
    let before = claims();
    let tickets = tickets(&realm, Duration::ZERO);
    let mds = tickets.authorizer(EntityType::Mds, now(), &mut random).unwrap();
    assert_eq!(peer.request(&mds.request()).refusal(), EACCES);
    eventually("the attempt is counted", || claims() == before + 1);
    end(&[&osd]);
}

/// The client tries again and again, and gets a refusal each time, for this reason and no other.
fn is_turned_away(client: &Host, server: &Host, reason: &str) {
    let reason = format!("msgr_auth_refused_{reason}");
    let (refused, denied) = (counted(server, &reason), counted(client, "msgr_auth_denied"));
    let to_server = client.connect(server);
    to_server.send_message(ping(1)).unwrap();
    eventually("it is turned away, again and again", || {
        counted(server, &reason) >= refused + 3 && counted(client, "msgr_auth_denied") >= denied + 3
    });
    assert!(!to_server.is_connected());
    assert_eq!(server.recorder.accepted(), []);
    to_server.mark_down();
}

fn counted(host: &Host, counter: &str) -> u64 {
    let workers = host.messenger.counters().workers;
    let all = workers.iter().flat_map(|worker| &worker.messenger);
    all.filter(|(name, _)| *name == counter).map(|(_, value)| *value).sum()
}
