//! What a messenger proves itself with: its configuration's rules, and the key in its keyring.

use crate::config::{Config, ConfigError};
use crate::error::Error;
use messenger_proto::EntityName;
use messenger_proto::auth::cephx::Services;
use messenger_proto::auth::keyring::{KEYRING_LEN_MAX, Keyring};
use messenger_proto::auth::{Auth, AuthMethod, Secrets};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The rules and, where a method needs it and a keyring is named, the key of `name`. Reads a file.
pub(crate) fn of(name: EntityName, config: &Config) -> Result<Arc<Auth>, Error> {
    let rules = config.auth_rules();
    let required = [&rules.cluster_required, &rules.service_required, &rules.client_required];
    let needs_key = required.iter().any(|methods| methods.contains(&AuthMethod::Cephx));
    if !needs_key || config.keyring.as_os_str().is_empty() {
        return Ok(Auth::new(rules));
    }
    let path = &config.keyring;
    let refused = |what: String| ConfigError::new(format!("keyring {}: {what}", path.display()));
    let text = read(path).map_err(|error| refused(error.to_string()))?;
    let keyring = Keyring::parse(&text).map_err(|error| refused(error.to_string()))?;
    let name = config.session_options().auth_name(name);
    let principal = keyring.get(&name).ok_or_else(|| {
        refused(format!("it has no [{name}]; set auth_id to the one it has, or add its key"))
    })?;
    let secrets = secrets()?.with_key(principal.key.clone(), Services::ALL);
    Ok(Auth::with_secrets(rules, secrets))
}

/// No secrets yet, and the system's randomness to make some.
fn secrets() -> Result<Secrets, Error> {
    let random = |bytes: &mut [u8]| getrandom::fill(bytes).map_err(io::Error::other);
    random(&mut [0; 1]).map_err(Error::Random)?;
    Ok(Secrets::new(move |bytes| {
        random(bytes).expect("the system's randomness does not run dry");
    }))
}

/// The text of a file, or as much of it as makes it too long for a keyring.
fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    File::open(path)?.take(KEYRING_LEN_MAX as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use messenger_proto::{EntityType, auth::ConnectionMode};
    use std::path::PathBuf;

    struct Keyfile(PathBuf);

    impl Keyfile {
        fn new(test: &str, text: &str) -> Self {
            let file = format!("messenger-keyring-{test}-{}", std::process::id());
            let path = std::env::temp_dir().join(file);
            std::fs::write(&path, text).unwrap();
            Self(path)
        }

        fn config(&self) -> Config {
            let toml = format!(
                "auth_client_required = \"cephx, none\"\nms_mon_client_mode = \"secure crc\"\n\
                 keyring = {:?}\n",
                self.0.display().to_string()
            );
            Config::from_toml(&toml).unwrap()
        }
    }

    impl Drop for Keyfile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    const ADMIN: &str = "[client.admin]\n\tkey = AQAA8VNlAAAAABAAAAECAwQFBgcICQoLDA0ODw==\n";

    fn unnumbered() -> EntityName {
        EntityName::new(EntityType::Client, EntityName::UNNUMBERED)
    }

    #[test]
    fn a_client_finds_its_key_by_its_name() {
        let file = Keyfile::new("found", ADMIN);
        let auth = of(unnumbered(), &file.config()).unwrap();
        assert!(auth.secrets.is_some());
        assert_eq!(auth.rules.client_required, [AuthMethod::Cephx, AuthMethod::None]);
        let modes = [ConnectionMode::Secure, ConnectionMode::Crc];
        assert_eq!(auth.rules.mon_client_mode, modes);
    }

    #[test]
    fn what_is_wrong_with_a_keyring_is_told() {
        let file = Keyfile::new("other", ADMIN);
        let refused = of(EntityName::new(EntityType::Osd, 3), &file.config()).unwrap_err();
        assert!(refused.to_string().contains("it has no [osd.3]"), "{refused}");
        let file = Keyfile::new("broken", "[client.admin]\n\tkey = short\n");
        let refused = of(unnumbered(), &file.config()).unwrap_err().to_string();
        assert!(refused.contains("line 2") && !refused.contains("short"), "{refused}");
        let long = Keyfile::new("long", &"#".repeat(KEYRING_LEN_MAX + 7));
        assert!(of(unnumbered(), &long.config()).is_err());
        let gone = Config { keyring: PathBuf::from("/nowhere/keyring"), ..file.config() };
        let refused = of(unnumbered(), &gone).unwrap_err().to_string();
        assert!(refused.contains("/nowhere/keyring: No such file"), "{refused}");
    }

    #[test]
    fn without_cephx_no_keyring_is_read() {
        let config = Config { keyring: PathBuf::from("/nowhere"), ..Config::default() };
        assert!(of(unnumbered(), &config).unwrap().secrets.is_none());
    }
}
