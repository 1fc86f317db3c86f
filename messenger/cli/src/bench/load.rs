//! What a run sends: messages of which kind and sizes, and who decides when the next one leaves.
//!
//! ```text
//!   closed loop   a reply makes room for the next message: depth, connections, think time
//!   open loop     a clock decides, replies or not: rate, arrivals
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::bench::random::Random;
use crate::options::parse_seconds;

/// Largest message.
const SIZE_MAX: usize = 64 << 20;
/// Most sizes in a mix.
const SIZES_MAX: usize = 16;
/// Most messages under way on one connection.
const DEPTH_MAX: usize = 1024;
/// Most connections.
const CONNECTIONS_MAX: usize = 100_000;
/// Most messages under way on all connections, in both loops.
pub(crate) const UNDER_WAY_MAX: usize = 1 << 20;
/// Highest rate, a message a nanosecond.
const RATE_MAX: f64 = 1e9;
/// Longest run: the second-by-second record grows with it.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// The payload comes back
    Echo,
    /// The reply is empty
    Ping,
    /// No reply: the server counts
    Stream,
}

/// When messages of an open loop leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arrivals {
    /// One after the other at equal distances
    Constant,
    /// Independent of each other, as from many users
    Poisson,
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Load")]
pub(crate) struct LoadArgs {
    /// What becomes of a message
    #[arg(long, value_enum, default_value = "echo")]
    kind: Kind,
    /// Bytes of payload; or a mix with weights: 64:90,4096:10
    #[arg(long, value_name = "BYTES", default_value = "64")]
    size: SizeMix,
    /// Closed loop: messages under way on each connection
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "rate")]
    depth: usize,
    /// Connections; messages take them in turn
    #[arg(long, value_name = "N", default_value_t = 1)]
    connections: usize,
    /// Further connections, on which nothing is sent
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle_connections: usize,
    /// Closed loop: rest between a reply and the next message
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = parse_seconds,
          conflicts_with = "rate")]
    think_time: Duration,
    /// Open loop: messages a second, all connections together
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Open loop: when they leave
    #[arg(long, value_enum, default_value = "constant", requires = "rate")]
    arrivals: Arrivals,
    /// Time before measuring
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = parse_seconds)]
    warmup: Duration,
    /// Time to measure
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    duration: Duration,
    /// Start of the random numbers behind mixes and Poisson arrivals
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// A load without contradictions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) kind: Kind,
    pub(crate) sizes: SizeMix,
    pub(crate) connections: usize,
    #[serde(default)] // reports of before have none
    pub(crate) idle_connections: usize,
    pub(crate) pace: Pace,
    pub(crate) warmup_s: f64,
    pub(crate) duration_s: f64,
    pub(crate) seed: u64,
}

/// Who decides when the next message leaves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "loop", rename_all = "lowercase")]
pub(crate) enum Pace {
    Closed { depth: usize, think_time_s: f64 },
    Open { rate_per_s: f64, arrivals: Arrivals },
}

impl LoadArgs {
    pub(crate) fn load(&self) -> Result<Load> {
        let Self { depth, connections, idle_connections, rate, duration, .. } = *self;
        if depth == 0 || depth > DEPTH_MAX {
            bail!("--depth is 1 to {DEPTH_MAX}");
        }
        if connections == 0 || connections > CONNECTIONS_MAX {
            bail!("--connections is 1 to {CONNECTIONS_MAX}");
        }
        if idle_connections > CONNECTIONS_MAX - connections {
            bail!("--connections and --idle-connections together are at most {CONNECTIONS_MAX}");
        }
        if depth * connections > UNDER_WAY_MAX {
            bail!("--depth times --connections is at most {UNDER_WAY_MAX}");
        }
        if duration.is_zero() || duration + self.warmup > DURATION_MAX {
            bail!("--duration is more than 0, and at most a day with --warmup");
        }
        let pace = match rate {
            None => Pace::Closed { depth, think_time_s: self.think_time.as_secs_f64() },
            Some(rate_per_s) if rate_per_s > 0.0 && rate_per_s <= RATE_MAX => {
                Pace::Open { rate_per_s, arrivals: self.arrivals }
            }
            Some(_) => bail!("--rate is more than 0 and at most {RATE_MAX:.0}"),
        };
        Ok(Load {
            kind: self.kind,
            sizes: self.size.clone(),
            connections,
            idle_connections,
            pace,
            warmup_s: self.warmup.as_secs_f64(),
            duration_s: duration.as_secs_f64(),
            seed: self.seed,
        })
    }
}

impl LoadArgs {
    /// The same load at another pace.
    pub(crate) fn load_at(&self, pace: Pace) -> Result<Load> {
        let (depth, rate) = match pace {
            Pace::Closed { depth, .. } => (depth, None),
            Pace::Open { rate_per_s, .. } => (self.depth, Some(rate_per_s)),
        };
        Self { depth, rate, ..self.clone() }.load()
    }
}

impl Load {
    pub(crate) fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup_s)
    }

    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.duration_s)
    }

    /// Connections with and without messages.
    pub(crate) fn all_connections(&self) -> usize {
        self.connections + self.idle_connections
    }

    /// The flags that ask for this load.
    pub(crate) fn flags(&self) -> Vec<String> {
        let kind = self.kind.to_possible_value().map_or_else(String::new, |v| v.get_name().into());
        let mut flags = vec![
            ("--kind", kind),
            ("--size", self.sizes.to_string()),
            ("--connections", self.connections.to_string()),
            ("--idle-connections", self.idle_connections.to_string()),
            ("--warmup", self.warmup_s.to_string()),
            ("--duration", self.duration_s.to_string()),
            ("--seed", self.seed.to_string()),
        ];
        match self.pace {
            Pace::Closed { depth, think_time_s } => {
                flags.push(("--depth", depth.to_string()));
                flags.push(("--think-time", think_time_s.to_string()));
            }
            Pace::Open { rate_per_s, arrivals } => {
                let arrivals = arrivals.to_possible_value();
                flags.push(("--rate", rate_per_s.to_string()));
                flags.extend(arrivals.map(|v| ("--arrivals", v.get_name().to_owned())));
            }
        }
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Echo => "echo",
            Kind::Ping => "ping",
            Kind::Stream => "stream",
        };
        write!(f, "{kind} of {} B, {} connection(s), ", self.sizes, self.connections)?;
        if self.idle_connections > 0 {
            write!(f, "{} idle ones beside, ", self.idle_connections)?;
        }
        match self.pace {
            Pace::Closed { depth, think_time_s } => {
                write!(f, "closed loop of depth {depth}")?;
                if think_time_s > 0.0 {
                    write!(f, " with {think_time_s} s of think time")?;
                }
            }
            Pace::Open { rate_per_s, arrivals } => {
                let arrivals = match arrivals {
                    Arrivals::Constant => "constant",
                    Arrivals::Poisson => "Poisson",
                };
                write!(f, "open loop at {rate_per_s} msg/s, {arrivals} arrivals")?;
            }
        }
        write!(f, "; {} s after {} s of warm-up", self.duration_s, self.warmup_s)
    }
}

/// Sizes with their weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct SizeMix(Vec<(usize, u32)>);

impl SizeMix {
    pub(crate) fn largest(&self) -> usize {
        self.0.iter().map(|(size, _)| *size).max().unwrap_or(0)
    }

    /// One of the sizes, as often as its weight says.
    pub(crate) fn pick(&self, random: &mut Random) -> usize {
        let [(size, _)] = self.0[..] else {
            return self.pick_weighted(random);
        };
        size
    }

    fn pick_weighted(&self, random: &mut Random) -> usize {
        let total: u64 = self.0.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut at = random.below(total);
        for (size, weight) in &self.0 {
            match at.checked_sub((*weight).into()) {
                Some(rest) => at = rest,
                None => return *size,
            }
        }
        unreachable!("a number below the sum of the weights falls into one of them")
    }
}

impl FromStr for SizeMix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let entry = |entry: &str| {
            let (size, weight) = entry.split_once(':').unwrap_or((entry, "1"));
            let size = size.parse().ok().filter(|size| *size <= SIZE_MAX)?;
            let weight = weight.parse().ok().filter(|weight| *weight > 0)?;
            Some((size, weight))
        };
        let mix: Option<Vec<_>> = text.split(',').map(entry).collect();
        mix.filter(|mix| mix.len() <= SIZES_MAX).map(Self).ok_or_else(|| {
            format!(
                "{text:?} is no mix of sizes; write BYTES or BYTES:WEIGHT,... with at most \
                 {SIZE_MAX} bytes and {SIZES_MAX} sizes"
            )
        })
    }
}

impl fmt::Display for SizeMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(size, _)] = self.0[..] {
            return write!(f, "{size}");
        }
        for (index, (size, weight)) in self.0.iter().enumerate() {
            write!(f, "{}{size}:{weight}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl TryFrom<String> for SizeMix {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<SizeMix> for String {
    fn from(mix: SizeMix) -> Self {
        mix.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        load: LoadArgs,
    }

    fn load(args: &[&str]) -> Load {
        let args = ["bench"].iter().chain(args);
        Line::try_parse_from(args).unwrap().load.load().unwrap()
    }

    #[test]
    fn a_mix_is_picked_from_by_weight() {
        let mix: SizeMix = "64:90,4096:10".parse().unwrap();
        let mut random = Random::new(7);
        let small = (0..10_000).filter(|_| mix.pick(&mut random) == 64).count();
        assert!((8_800..9_200).contains(&small), "{small}");
        assert_eq!(mix.largest(), 4096);
        assert_eq!(mix.to_string(), "64:90,4096:10");
        assert_eq!("0".parse::<SizeMix>().unwrap().largest(), 0);
    }

    #[test]
    fn what_is_no_mix_is_refused() {
        for text in ["", "x", "64:0", "64:", "64,,1", "99999999999", "-1", "64:1:2"] {
            assert!(text.parse::<SizeMix>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_load_is_what_its_own_flags_ask_for() {
        for args in [
            &["--depth", "32", "--size", "64:9,4096:1", "--think-time", "0.001"][..],
            &["--rate", "1000", "--arrivals", "poisson", "--kind", "ping", "--seed", "4"],
            &["--kind", "stream", "--warmup", "0", "--duration", "0.5"],
        ] {
            let asked = load(args);
            let flags = asked.flags();
            let flags: Vec<_> = flags.iter().map(String::as_str).collect();
            assert_eq!(load(&flags), asked);
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for args in [
            &["--depth", "0"][..],
            &["--depth", "1024", "--connections", "100000"],
            &["--rate", "0"],
            &["--rate", "nan"],
            &["--duration", "0"],
            &["--connections", "0"],
            &["--idle-connections", "100000"],
        ] {
            let line = Line::try_parse_from(["bench"].iter().chain(args)).unwrap();
            assert!(line.load.load().is_err(), "{args:?}");
        }
        assert!(Line::try_parse_from(["bench", "--rate", "1", "--depth", "2"]).is_err());
    }
}
