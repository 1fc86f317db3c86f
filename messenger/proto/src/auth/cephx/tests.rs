//! Both sides of cephx against each other, against captured bytes, and against somebody between.

mod authorizers;
mod captured;
mod logins;
mod tampering;

use std::time::Duration;

use bytes::BytesMut;

use super::{
    Admitted, Answer, AuthorizerVerifier, CephxError, LoggedIn, LoginServer, MonLogin, Services,
    TicketLifetimes,
};
use crate::auth::keyring::{Keyring, Principal};
use crate::auth::name::AuthName;
use crate::auth::secret::Key;
use crate::entity::EntityType;
use crate::v2::control::{Keepalive2, MODE_CRC, MODE_SECURE};
use crate::v2::{ConnectionSecret, Encoder, Revision, Role, Utime, Wire};

pub(super) const NOW: Duration = Duration::from_secs(1_700_000_000);
pub(super) const MODES: [u32; 2] = [MODE_CRC, MODE_SECURE];

/// Bytes from hexadecimal digits, spaces ignored.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// The key of the published vectors.
pub(super) fn test_key() -> Key {
    Key::new(std::array::from_fn(|at| at as u8), NOW)
}

/// Bytes that do not repeat soon, the same in each run.
pub(super) fn counting() -> impl FnMut(&mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |bytes| {
        for byte in bytes {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            *byte = (state >> 56) as u8;
        }
    }
}

fn name(text: &str) -> AuthName {
    text.parse().unwrap()
}

fn admin() -> AuthName {
    name("client.admin")
}

/// A monitor and its principals.
fn monitor(random: &mut dyn FnMut(&mut [u8])) -> LoginServer {
    let mut keyring = Keyring::default();
    for principal in ["client.admin", "osd.0", "mon."] {
        let caps = ["mon", "osd"].map(|service| (service.to_owned(), format!("allow {service}")));
        let key = if principal == "client.admin" { test_key() } else { Key::generate(NOW, random) };
        keyring.insert(name(principal), Principal { key, caps: caps.into() });
    }
    LoginServer::new(keyring, TicketLifetimes::default(), NOW, random)
}

/// A login from begin to end.
fn log_in(
    login: MonLogin,
    server: &LoginServer,
    mode: u32,
    now: Duration,
    random: &mut dyn FnMut(&mut [u8]),
) -> Result<(LoggedIn, Admitted), CephxError> {
    let (pending, challenge) = LoginServer::begin(&login.request(), random)?;
    let answer = login.on_challenge(&challenge, random)?;
    let admitted = pending.finish(server, &answer, mode, 4242, now, random)?;
    let logged_in = login.on_done(admitted.global_id, mode, &admitted.payload, now)?;
    Ok((logged_in, admitted))
}

/// The admin of [`monitor`], logged in.
fn logged_in(server: &LoginServer, random: &mut dyn FnMut(&mut [u8])) -> LoggedIn {
    let login = MonLogin::new(admin(), test_key(), Services::ALL);
    log_in(login, server, MODE_CRC, NOW, random).unwrap().0
}

fn challenged(answer: Answer) -> Vec<u8> {
    match answer {
        Answer::Challenge(challenge) => challenge,
        Answer::Admitted(admitted) => panic!("let in at once: {admitted:?}"),
    }
}

fn let_in(answer: Answer) -> Admitted {
    match answer {
        Answer::Admitted(admitted) => *admitted,
        Answer::Challenge(_) => panic!("challenged again"),
    }
}

/// A service and what it needs to look at authorizers.
struct Service<'a> {
    monitor: &'a LoginServer,
    verifier: AuthorizerVerifier,
    mode: u32,
    now: Duration,
}

impl<'a> Service<'a> {
    fn osd(monitor: &'a LoginServer, mode: u32) -> Self {
        let verifier = AuthorizerVerifier::new(EntityType::Osd);
        Self { monitor, verifier, mode, now: NOW }
    }

    fn take(
        &mut self,
        authorizer: &[u8],
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Answer, CephxError> {
        let secrets = self.monitor.secrets(EntityType::Osd).unwrap();
        self.verifier.on_authorizer(authorizer, self.mode, secrets, self.now, random)
    }
}

/// What a secret makes of a frame: equal for equal secrets only.
fn fingerprint(secret: &ConnectionSecret) -> BytesMut {
    let mut encoder = Encoder::new(Wire { revision: Revision::Rev1, crc_data: true });
    encoder.secure(secret.keys(Role::Server, Revision::Rev1).unwrap().0);
    let mut out = BytesMut::new();
    encoder.control(&Keepalive2(Utime::default()), &mut out).unwrap();
    out
}

/// Both sides have come to the same secret, or both to none.
fn agree(mode: u32, client: Option<&ConnectionSecret>, server: Option<&ConnectionSecret>) -> bool {
    match (client, server) {
        (Some(client), Some(server)) => {
            mode == MODE_SECURE && fingerprint(client) == fingerprint(server)
        }
        (None, None) => mode == MODE_CRC,
        _ => false,
    }
}
