//! Where and with what a run was made: what tells why two runs differ.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// What a reader of the record needs to make the run again. What cannot be read is empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Environment {
    pub(crate) started_unix_s: u64,
    pub(crate) command: Vec<String>,
    pub(crate) version: String,
    /// Of the source, `+changes` if it was not all committed.
    pub(crate) commit: String,
    pub(crate) dpdk: Option<String>,
    pub(crate) kernel: String,
    pub(crate) cpu_model: String,
    pub(crate) cpus: usize,
    pub(crate) cpu_flags: String,
    /// Frequency governor of the first CPU; none in most virtual machines.
    pub(crate) governor: Option<String>,
    /// CPUs that this process may run on.
    pub(crate) allowed_cpus: String,
    /// The client's effective configuration; empty without a messenger.
    pub(crate) config: String,
}

impl Environment {
    pub(crate) fn read(config: String) -> Self {
        let cpuinfo = text("/proc/cpuinfo");
        let cpu = |key: &str| field(&cpuinfo, key);
        let uname = rustix::system::uname();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let governor = text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        Self {
            started_unix_s: now.map_or(0, |since| since.as_secs()),
            command: std::env::args().collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("MSGR_COMMIT").to_owned(),
            dpdk: messenger::dpdk_version().map(str::to_owned),
            kernel: format!(
                "{} {}",
                uname.sysname().to_string_lossy(),
                uname.release().to_string_lossy()
            ),
            cpu_model: cpu("model name"),
            cpus: std::thread::available_parallelism().map_or(0, Into::into),
            cpu_flags: cpu("flags"),
            governor: Some(governor.trim().to_owned()).filter(|governor| !governor.is_empty()),
            allowed_cpus: field(&text("/proc/self/status"), "Cpus_allowed_list"),
            config,
        }
    }
}

fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The value of the first line `key: value`.
fn field(text: &str, key: &str) -> String {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = lines.filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim());
    values.next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "model\t\t: 1\nmodel name\t: A CPU: fast\nflags : a b\nmodel name : other\n";
        assert_eq!(field(text, "model name"), "A CPU: fast");
        assert_eq!(field(text, "flags"), "a b");
        assert_eq!(field(text, "power"), "");
    }

    #[test]
    fn the_machine_is_recorded() {
        let environment = Environment::read(String::new());
        assert!(environment.kernel.len() > "Linux ".len(), "{}", environment.kernel);
        assert!(environment.cpus > 0 && !environment.allowed_cpus.is_empty());
        assert_ne!(environment.commit, "");
    }
}
