//! Both sides of authentication by messages: logins, renewals in time, and a service's secrets.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::sync::Arc;
use std::time::Duration;

use messenger_ceph::{
    AUTH_RETRY, AuthClient, AuthErrand, AuthError, AuthServer, MAuth, MAuthReply,
};
use messenger_proto::EntityType;
use messenger_proto::auth::cephx::{
    CephxError, LoginServer, MonLogin, RotatingSecrets, Services, TicketLifetimes, Tickets,
};
use messenger_proto::auth::keyring::Principal;
use messenger_proto::auth::{
    Auth, AuthMethod, AuthName, AuthRules, ConnectionMode, Key, Keyring, Refusal, RefusalKind,
    Secrets,
};

const NOW: Duration = Duration::from_secs(1_700_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const NUMBER: u64 = 4242;

/// Bytes that do not repeat soon, the same in each run.
fn random(bytes: &mut [u8]) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static STATE: AtomicU64 = AtomicU64::new(7);
    for byte in bytes {
        let state = STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        *byte = (state.wrapping_mul(0x5851_f42d_4c95_7f2d) >> 56) as u8;
    }
}

fn name(text: &str) -> AuthName {
    text.parse().unwrap()
}

fn auth(methods: &[AuthMethod], secrets: Secrets) -> Arc<Auth> {
    Auth::with_secrets(AuthRules::uniform(methods, &[ConnectionMode::Crc]), secrets)
}

/// A monitor and one session with it.
struct Scene {
    monitor: Arc<Auth>,
    client: AuthClient,
    secrets: Arc<Auth>,
    server: AuthServer,
    now: Duration,
    /// How many messages the client sent.
    sent: usize,
    refusals: Vec<Refusal>,
}

impl Scene {
    fn new(who: &str) -> Self {
        Self::with_key_of(who, who)
    }

    fn with_key_of(who: &str, key_of: &str) -> Self {
        let mut keyring = Keyring::default();
        for principal in ["client.admin", "osd.0"] {
            let caps = ["mon", "osd"].map(|of| (of.to_owned(), "allow *".to_owned()));
            let key = Key::generate(NOW, &mut random);
            keyring.insert(name(principal), Principal { key, caps: caps.into() });
        }
        let key = keyring.get(&name(key_of)).unwrap().key.clone();
        let server = LoginServer::new(keyring, TicketLifetimes::default(), NOW, &mut random);
        let monitor = auth(&[AuthMethod::Cephx], Secrets::new(random).with_monitor(server));
        let secrets = Secrets::new(random).with_key(key, Services::ALL);
        let secrets = auth(&[AuthMethod::Cephx], secrets);
        let client = AuthClient::new(Arc::clone(&secrets), name(who));
        let (server, refusals) = (AuthServer::stranger(), Vec::new());
        Self { monitor, client, secrets, server, now: NOW, sent: 0, refusals }
    }

    /// Answers what the client sends, until it is content or wants a new session.
    fn run(&mut self) -> Result<Option<AuthErrand>, AuthError> {
        while let Some(errand) = self.client.poll(self.now) {
            let AuthErrand::Send(ask) = errand else {
                return Ok(Some(errand));
            };
            self.sent += 1;
            let (reply, refusal) = self.server.answer(&self.monitor, &ask, NUMBER, self.now);
            self.refusals.extend(refusal);
            self.client.on_reply(&reply, self.now)?;
        }
        Ok(None)
    }

    fn logged_in(who: &str) -> Self {
        let mut scene = Self::new(who);
        scene.client.log_in(scene.now);
        assert_eq!(scene.run(), Ok(None));
        scene
    }

    fn tickets(&self) -> Tickets {
        self.secrets.secrets.as_ref().unwrap().tickets()
    }

    fn rotating(&self) -> RotatingSecrets {
        self.secrets.secrets.as_ref().unwrap().rotating()
    }
}

#[test]
fn a_client_logs_in_and_gets_every_ticket() {
    let scene = Scene::logged_in("client.admin");
    assert!(scene.client.is_logged_in());
    assert_eq!(scene.server.identity().unwrap().name, name("client.admin"));
    let tickets = scene.tickets();
    assert_eq!(tickets.global_id(), NUMBER);
    assert!(tickets.due(Services::ALL, NOW).is_empty());
    assert_eq!(scene.sent, 2, "its name, its proof; the tickets came with the AUTH ticket");
    assert_eq!(scene.client.poll_timeout(), Some(NOW + HOUR * 3 / 4));
}

#[test]
fn tickets_are_renewed_when_a_quarter_of_their_life_is_left() {
    let mut scene = Scene::logged_in("client.admin");
    scene.now = NOW + HOUR * 3 / 4 - Duration::from_nanos(1);
    assert_eq!((scene.run(), scene.sent), (Ok(None), 2));
    for round in 1..=3 {
        scene.now = scene.client.poll_timeout().unwrap();
        assert_eq!(scene.run(), Ok(None));
        assert_eq!(scene.sent, 2 + round, "one message for all of them");
        let osd = scene.tickets().get(EntityType::Osd).unwrap().expires();
        assert_eq!(osd, scene.now + HOUR);
    }
    assert_eq!(scene.tickets().global_id(), NUMBER);
}

#[test]
fn the_auth_ticket_is_renewed_by_a_new_session_which_keeps_the_number() {
    let mut scene = Scene::logged_in("client.admin");
    let auth_at = scene.tickets().get(EntityType::Auth).unwrap().renew_at();
    while scene.client.poll_timeout().unwrap() < auth_at {
        scene.now = scene.client.poll_timeout().unwrap();
        let secrets = scene.monitor.secrets.as_ref().unwrap();
        secrets.with_login_server(|server| server.rotate(scene.now, &mut random));
        assert_eq!(scene.run(), Ok(None));
    }
    scene.now = auth_at;
    assert_eq!(scene.run(), Ok(Some(AuthErrand::NewSession)));
    assert_eq!(scene.client.poll(scene.now), None, "not at once again");

    scene.server = AuthServer::stranger();
    scene.client.log_in(scene.now);
    assert_eq!(scene.run(), Ok(None));
    assert_eq!(scene.tickets().global_id(), NUMBER);
    assert!(scene.tickets().get(EntityType::Auth).unwrap().renew_at() > scene.now);
}

#[test]
fn a_service_gets_its_secrets_and_the_next_ones_when_they_come() {
    let mut scene = Scene::new("osd.0");
    scene.client = AuthClient::new(Arc::clone(&scene.secrets), name("osd.0")).serving();
    scene.client.log_in(scene.now);
    assert_eq!(scene.run(), Ok(None));
    let of_monitor = |scene: &Scene| {
        let secrets = scene.monitor.secrets.as_ref().unwrap();
        secrets.with_login_server(|server| server.secrets(EntityType::Osd).cloned())
    };
    assert_eq!(Some(Some(scene.rotating())), of_monitor(&scene));

    let due_at = scene.rotating().due_at().unwrap();
    scene.now = due_at;
    assert_eq!(scene.run(), Ok(None));
    // The monitor has no others yet: it is asked again, but not in a hurry.
    assert_eq!(scene.rotating().due_at(), Some(due_at));
    assert_eq!(scene.client.poll_timeout(), Some(due_at + AUTH_RETRY));
    let secrets = scene.monitor.secrets.as_ref().unwrap();
    secrets.with_login_server(|server| server.rotate(due_at, &mut random));
    scene.now = due_at + AUTH_RETRY;
    assert_eq!(scene.run(), Ok(None));
    assert_eq!(Some(Some(scene.rotating())), of_monitor(&scene));
    assert!(scene.rotating().due_at().unwrap() > scene.now);
}

#[test]
fn a_client_is_given_no_service_s_secrets() {
    let mut scene = Scene::new("client.admin");
    scene.client = AuthClient::new(Arc::clone(&scene.secrets), name("client.admin")).serving();
    scene.client.log_in(scene.now);
    let refused = CephxError::Refused { status: -13 };
    assert_eq!(scene.run(), Err(AuthError::Cephx(refused)));
    assert_eq!(scene.rotating(), RotatingSecrets::default());
}

#[test]
fn frames_that_log_in_leave_the_rest_to_messages() {
    let mut scene = Scene::new("client.admin");
    assert_eq!(scene.client.poll(NOW), None, "there is no session");
    let (key, _) = scene.secrets.secrets.as_ref().unwrap().key().unwrap();
    let login = MonLogin::new(name("client.admin"), key, Services::NONE);
    let (pending, challenge) = LoginServer::begin(&login.request(), &mut random).unwrap();
    let answer = login.on_challenge(&challenge, &mut random).unwrap();
    let secrets = scene.monitor.secrets.as_ref().unwrap();
    let admitted = secrets.with_login_server(|server| {
        pending.finish(server, &answer, 1, 7, NOW, &mut random).unwrap()
    });
    let tickets = login.on_done(7, 1, &admitted.unwrap().payload, NOW).unwrap().tickets;
    scene.secrets.secrets.as_ref().unwrap().set_tickets(tickets);

    let identity = messenger_proto::auth::AuthIdentity {
        name: name("client.admin"),
        caps: Default::default(),
    };
    scene.server = AuthServer::authenticated(identity, 7);
    scene.client.on_session();
    assert_eq!((scene.run(), scene.sent), (Ok(None), 1));
    assert!(scene.tickets().due(Services::ALL, NOW).is_empty());
    assert_eq!(scene.tickets().global_id(), 7);
}

#[test]
fn who_has_another_key_is_refused_and_has_to_begin_anew() {
    let mut scene = Scene::with_key_of("client.admin", "osd.0");
    scene.client.log_in(scene.now);
    let refused = AuthError::Cephx(CephxError::Refused { status: -13 });
    assert_eq!(scene.run(), Err(refused));
    assert_eq!(scene.refusals[0].kind(), RefusalKind::WrongKey);
    assert!(!scene.client.is_logged_in() && scene.server.identity().is_none());
    assert_eq!((scene.run(), scene.client.poll_timeout()), (Ok(None), None));
    assert_eq!(scene.tickets().global_id(), 0);
}

#[test]
fn a_monitor_that_forgot_us_is_logged_in_to_again() {
    let mut scene = Scene::logged_in("client.admin");
    scene.now = scene.client.poll_timeout().unwrap();
    // Another monitor's secrets: it does not know our AUTH ticket.
    scene.monitor = Scene::new("client.admin").monitor;
    assert!(matches!(scene.run(), Err(AuthError::Cephx(CephxError::Refused { .. }))));
    assert_eq!(scene.run(), Ok(None), "not in a hurry");
    scene.now = scene.client.poll_timeout().unwrap();
    assert_eq!(scene.run(), Ok(Some(AuthErrand::NewSession)));
}

#[test]
fn neither_side_takes_a_method_it_does_not_allow() {
    let mut scene = Scene::new("client.admin");
    scene.monitor = Auth::new(AuthRules::default()); // method none
    scene.client.log_in(scene.now);
    assert!(matches!(scene.run(), Err(AuthError::Cephx(CephxError::Refused { status: -95 }))));
    assert_eq!(scene.refusals[0].kind(), RefusalKind::Method);

    // A monitor that says "none" all the same is not believed.
    scene.client.log_in(scene.now);
    assert!(matches!(scene.client.poll(NOW), Some(AuthErrand::Send(_))));
    let reply = MAuthReply { method: 1, global_id: 5, ..MAuthReply::default() };
    assert_eq!(scene.client.on_reply(&reply, NOW), Err(AuthError::Method(1)));
    assert!(!scene.client.is_logged_in());
}

#[test]
fn method_none_needs_no_proof_and_nothing_of_it_runs_out() {
    let none = || Auth::new(AuthRules::default());
    let mut scene = Scene::new("client.admin");
    (scene.monitor, scene.secrets) = (none(), none());
    scene.client = AuthClient::new(Arc::clone(&scene.secrets), name("client.admin"));
    scene.client.log_in(scene.now);
    assert_eq!((scene.run(), scene.sent), (Ok(None), 1));
    assert!(scene.client.is_logged_in() && scene.client.poll_timeout().is_none());
    assert_eq!(scene.server.identity().unwrap().name, name("client.admin"));
}

#[test]
fn answers_that_nobody_asked_for_change_nothing() {
    let mut scene = Scene::logged_in("client.admin");
    let before = scene.tickets().get(EntityType::Osd).unwrap().expires();
    let reply = MAuthReply { method: 2, ..MAuthReply::default() };
    scene.now += HOUR / 2;
    assert_eq!(scene.client.on_reply(&reply, scene.now), Err(AuthError::Unasked));
    assert_eq!(scene.tickets().get(EntityType::Osd).unwrap().expires(), before);
}

#[test]
fn nonsense_is_refused_and_ends_nothing_but_a_login() {
    let mut scene = Scene::logged_in("client.admin");
    for payload in [&b""[..], &[0, 2], &[0, 4], &[7; 100]] {
        let ask = MAuth { method: 2, payload: payload.to_vec().into(), ..MAuth::default() };
        let (reply, refusal) = scene.server.answer(&scene.monitor, &ask, NUMBER, NOW);
        assert!(reply.result < 0 && refusal.is_some(), "{reply:?}");
        assert!(scene.server.identity().is_some());
        let (reply, refusal) = AuthServer::stranger().answer(&scene.monitor, &ask, NUMBER, NOW);
        assert!(reply.result < 0 && refusal.is_some(), "{reply:?}");
    }
}
