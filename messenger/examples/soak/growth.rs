//! What must not grow: memory, file descriptors, and every gauge of the workers.

use super::common::memory::rss_kb;
use super::common::{End, Net};
use messenger::{Config, EntityName, EntityType, Error, Messenger};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long closing connections, timers and frames may take to go after a round.
const SETTLE: Duration = Duration::from_secs(60);
/// How often is looked meanwhile.
const LOOK: Duration = Duration::from_millis(50);
/// How much more memory the allocator may keep at the end. `make soak` has it give back each buffer
/// of a message as soon as it is free; left to itself, glibc's keeps the most that was ever in use.
const RSS_SLACK_KB: u64 = 32 << 10;
/// A transmit ring gives frames back when it is used the next time.
const FRAMES_SLACK: u64 = 2048;

/// How much of everything is in use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Level {
    pub(crate) fds: u64,
    rss_kb: u64,
    /// The counters that end in `_in_use`, of both hosts.
    gauges: BTreeMap<String, u64>,
}

impl Level {
    pub(crate) fn rss_mb(&self) -> u64 {
        self.rss_kb >> 10
    }

    /// What is above `limit`, and by how much.
    fn excess(&self, limit: &Self) -> Option<String> {
        let rss = ("rss_kb".to_owned(), self.rss_kb, limit.rss_kb + RSS_SLACK_KB);
        let fds = ("fds".to_owned(), self.fds, limit.fds);
        let gauges = self.gauges.iter().map(|(name, value)| {
            let slack = if name.ends_with("frames_in_use") { FRAMES_SLACK } else { 0 };
            let max = limit.gauges.get(name).copied().unwrap_or(0) + slack;
            (name.clone(), *value, max)
        });
        let grown = [rss, fds].into_iter().chain(gauges).filter(|(_, value, max)| value > max);
        let texts = grown.map(|(name, value, max)| format!("{name} is {value}, at most {max}"));
        let texts: Vec<_> = texts.collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

/// A messenger on each host that does nothing: it keeps the workers, and asks them.
pub(crate) struct Probes([Messenger; 2]);

impl Probes {
    pub(crate) fn start(net: &dyn Net) -> Result<Self, Error> {
        let name = EntityName::new(EntityType::Mgr, 0);
        let probe = |end| net.messenger(end, name, Config::default());
        let probes = [End::Server, End::Client].map(probe);
        for probe in &probes {
            probe.start()?;
        }
        Ok(Self(probes))
    }

    /// Finds the level, as soon as no connection and no closed flow is left.
    pub(crate) fn level(&self, level: &mut Level) -> Result<(), String> {
        let is_settled = |level: &Level| {
            let mut all = level.gauges.iter();
            all.all(|(name, value)| {
                let is_flow = ["connections", "flows", "time_wait", "half_open", "lingering"]
                    .iter()
                    .any(|of| name.contains(of));
                !is_flow || *value == 0
            })
        };
        self.wait(level, |level| match is_settled(level) {
            true => None,
            false => Some(format!("something is still open: {:?}", level.gauges)),
        })
    }

    /// Finds the level, as soon as nothing is above `limit`.
    pub(crate) fn level_no_higher_than(
        &self,
        limit: &Level,
        level: &mut Level,
    ) -> Result<(), String> {
        self.wait(level, |level| level.excess(limit).map(|excess| format!("growth: {excess}")))
    }

    /// Leaves in `level` what was seen last, whatever came of it.
    fn wait(
        &self,
        level: &mut Level,
        complaint: impl Fn(&Level) -> Option<String>,
    ) -> Result<(), String> {
        let until = Instant::now() + SETTLE;
        loop {
            *level = self.look()?;
            match complaint(level) {
                None => return Ok(()),
                Some(complaint) if Instant::now() > until => return Err(complaint),
                Some(_) => std::thread::sleep(LOOK),
            }
        }
    }

    fn look(&self) -> Result<Level, String> {
        let (fds, rss_kb) = (count_fds()?, rss_kb()?);
        let mut gauges = BTreeMap::new();
        for (host, probe) in self.0.iter().enumerate() {
            for worker in probe.counters().workers {
                let all = worker.transport.iter().chain(&worker.messenger);
                let named = all.filter(|(name, _)| {
                    name.ends_with("_in_use") || *name == "msgr_active_connections"
                });
                for (name, value) in named {
                    gauges.insert(format!("{host}.{}.{name}", worker.worker), *value);
                }
            }
        }
        Ok(Level { fds, rss_kb, gauges })
    }
}

fn count_fds() -> Result<u64, String> {
    let entries = std::fs::read_dir("/proc/self/fd");
    let entries = entries.map_err(|error| format!("/proc/self/fd: {error}; is /proc mounted?"))?;
    Ok(entries.count() as u64)
}
