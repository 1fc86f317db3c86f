//! The rows of Ceph's failure-injection matrix (#43 to #50).

use super::options::names;
use super::synthetic::{Dispatching, Shape};
use messenger::{Config, EntityType};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What is done to the messengers beside their work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    /// #43: one socket operation in 5000 fails.
    Few,
    /// #44: one in 500.
    Many,
    /// #45: one in 2500, and connections that are idle for 5 s end.
    Fastclose,
    /// #46: one in 2500; messages of OSDs are late, and race points take a while.
    OsdDelay,
    /// #47: the dispatcher sleeps.
    OsdDispatchDelay,
    /// #48: as #46 between OSDs and metadata servers, on both sides.
    OsdMdsDelay,
    /// #49: with checksums and without, in turns; banner revision 1 is what both sides always find.
    Variants,
    /// #50: nothing.
    None,
}

const ROWS: [Row; 8] = [
    Row::Few,
    Row::Many,
    Row::Fastclose,
    Row::OsdDelay,
    Row::OsdDispatchDelay,
    Row::OsdMdsDelay,
    Row::Variants,
    Row::None,
];

impl Row {
    /// What a round consists of: #17 and #18 in turns.
    pub(crate) fn shape(self, round: u64) -> Shape {
        let config = self.config(round);
        let shape = match round % 2 {
            0 => Shape::stress(config.clone()),
            _ => Shape::stress_1(config.clone()),
        };
        match self {
            Self::OsdDispatchDelay => {
                let sleep = Duration::from_millis(100);
                Shape { dispatching: Dispatching::Queued { percent: 10, sleep }, ..shape }
            }
            Self::OsdMdsDelay => Shape {
                client_type: EntityType::Mds,
                server_config: late("client mds", config.clone()),
                client_config: late("client mds osd", config),
                ..shape
            },
            _ => shape,
        }
    }

    fn config(self, round: u64) -> Config {
        let config = Config {
            ms_die_on_old_message: true,
            ms_die_on_bad_msg: true,
            ms_max_backoff: Duration::from_secs(1),
            ..Config::default()
        };
        let breaking = |one_in| Config { ms_inject_socket_failures: one_in, ..config.clone() };
        match self {
            Self::Few => breaking(5000),
            Self::Many => breaking(500),
            Self::Fastclose => {
                let idle = Duration::from_secs(5);
                Config { ms_connection_idle_timeout: idle, ..breaking(2500) }
            }
            Self::OsdDelay => late("osd", breaking(2500)),
            Self::OsdMdsDelay => breaking(2500),
            Self::Variants => Config { ms_crc_data: (round / 2).is_multiple_of(2), ..config },
            Self::OsdDispatchDelay | Self::None => config,
        }
    }
}

fn late(types: &str, config: Config) -> Config {
    Config {
        ms_inject_delay_type: types.to_owned(),
        ms_inject_delay_probability: 0.005,
        ms_inject_delay_max: Duration::from_secs(1),
        ms_inject_internal_delays: Duration::from_millis(2),
        ..config
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Few => "few",
            Self::Many => "many",
            Self::Fastclose => "fastclose",
            Self::OsdDelay => "osd-delay",
            Self::OsdDispatchDelay => "osd-dispatch-delay",
            Self::OsdMdsDelay => "osd-mds-delay",
            Self::Variants => "variants",
            Self::None => "none",
        })
    }
}

impl FromStr for Row {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = ROWS.into_iter().find(|row| row.to_string() == text);
        found.ok_or_else(|| format!("unknown row {text:?}: choose one of {}", names(&ROWS)))
    }
}
