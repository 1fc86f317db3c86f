//! A monitor's keys and what follows from them: secrets for clients, services and monitors.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use messenger_proto::auth::cephx::{LoginServer, MonLogin, Services, TicketLifetimes, Tickets};
use messenger_proto::auth::keyring::{Keyring, Principal};
use messenger_proto::auth::{Auth, AuthMethod, AuthName, AuthRules, ConnectionMode, Key, Secrets};
use messenger_proto::v2::control::MODE_CRC;

/// The Unix time at which every test begins.
pub(crate) const NOW: Duration = Duration::from_secs(1_000_000);

/// Bytes that do not repeat soon, the same in each run.
pub(crate) fn counting(mut state: u64) -> impl FnMut(&mut [u8]) + Send {
    move |bytes: &mut [u8]| {
        for byte in bytes {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            *byte = (state >> 56) as u8;
        }
    }
}

pub(crate) struct Realm {
    server: LoginServer,
    modes: Vec<ConnectionMode>,
}

impl Realm {
    /// Knows `client.admin`, `osd.0`, `osd.1` and `mon.0`. All of its members use these modes.
    pub(crate) fn new(modes: &[ConnectionMode]) -> Self {
        let mut random = counting(1);
        let mut keyring = Keyring::default();
        for name in ["client.admin", "osd.0", "osd.1", "mon.0"] {
            let caps = ["mon", "osd"].map(|of| (of.to_owned(), format!("allow {of}")));
            let key = Key::generate(NOW, &mut random);
            keyring.insert(name.parse().unwrap(), Principal { key, caps: caps.into() });
        }
        let server = LoginServer::new(keyring, TicketLifetimes::default(), NOW, &mut random);
        Self { server, modes: modes.to_vec() }
    }

    fn rules(&self) -> AuthRules {
        AuthRules::uniform(&[AuthMethod::Cephx], &self.modes)
    }

    fn secrets(seed: u64) -> Secrets {
        let random = Mutex::new(counting(seed));
        Secrets::new(move |bytes| (random.lock().unwrap())(bytes))
    }

    fn key(&self, name: &str) -> Key {
        self.server.keyring.get(&name.parse::<AuthName>().unwrap()).unwrap().key.clone()
    }

    /// Somebody who has a key and nothing else.
    pub(crate) fn stranger(&self, name: &str) -> Arc<Auth> {
        let secrets = Self::secrets(2).with_key(self.key(name), Services::ALL);
        Auth::with_secrets(self.rules(), secrets)
    }

    /// Somebody with a wrong key.
    pub(crate) fn impostor(&self) -> Arc<Auth> {
        let secrets = Self::secrets(2).with_key(self.key("osd.0"), Services::ALL);
        Auth::with_secrets(self.rules(), secrets)
    }

    /// Somebody who is logged in, and a service if need be.
    pub(crate) fn member(&self, name: &str, global_id: u64) -> Arc<Auth> {
        let auth = self.stranger(name);
        let secrets = auth.secrets.as_ref().unwrap();
        secrets.set_tickets(self.tickets(name, global_id));
        let kind = name.parse::<AuthName>().unwrap().kind;
        if let Some(rotating) = self.server.secrets(kind) {
            secrets.set_rotating(rotating.clone());
        }
        auth
    }

    pub(crate) fn monitor(&self) -> Arc<Auth> {
        let secrets = Self::secrets(3).with_monitor(self.server.clone());
        Auth::with_secrets(self.rules(), secrets)
    }

    fn tickets(&self, name: &str, global_id: u64) -> Tickets {
        let mut random = counting(global_id);
        let login = MonLogin::new(name.parse().unwrap(), self.key(name), Services::ALL);
        let (pending, challenge) = LoginServer::begin(&login.request(), &mut random).unwrap();
        let answer = login.on_challenge(&challenge, &mut random).unwrap();
        let finish = pending.finish(&self.server, &answer, MODE_CRC, global_id, NOW, &mut random);
        let admitted = finish.unwrap();
        login.on_done(admitted.global_id, MODE_CRC, &admitted.payload, NOW).unwrap().tickets
    }
}
