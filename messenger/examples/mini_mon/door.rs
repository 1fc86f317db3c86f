//! Who is let in: those whose keys are in a file.

use crate::monitor::now;
use messenger::auth::cephx::{LoginServer, TicketLifetimes};
use messenger::auth::{Auth, AuthMethod, AuthRules, ConnectionMode, Keyring, Secrets};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Both, as the client prefers.
const MODES: [ConnectionMode; 2] = [ConnectionMode::Secure, ConnectionMode::Crc];
/// How often is looked whether secrets are used up.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Authentication by cephx alone, with the keys in a file.
pub(crate) fn cephx(keyring: &Path) -> Result<Arc<Auth>, Box<dyn Error>> {
    let text = std::fs::read_to_string(keyring).map(Zeroizing::new);
    let text = text.map_err(|error| format!("keyring {}: {error}", keyring.display()))?;
    let lifetimes = TicketLifetimes::default();
    let server = LoginServer::new(Keyring::parse(&text)?, lifetimes, now(), &mut random);
    let secrets = Secrets::new(random).with_monitor(server);
    let auth = Auth::with_secrets(AuthRules::uniform(&[AuthMethod::Cephx], &MODES), secrets);
    let rotating = Arc::clone(&auth);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(LOOK_EVERY);
            if let Some(secrets) = &rotating.secrets {
                secrets.with_login_server(|server| server.rotate(now(), &mut random));
            }
        }
    });
    Ok(auth)
}

fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the system has randomness");
}
