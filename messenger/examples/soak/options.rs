//! The command line.

use super::rows::Row;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What the command line asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) row: Row,
    pub(crate) stack: Stack,
    pub(crate) time: Duration,
    pub(crate) seed: u64,
    pub(crate) json: bool,
}

/// Over what the messengers talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stack {
    Posix,
    Sim,
    Dpdk,
    Simple,
}

const STACKS: [Stack; 4] = [Stack::Posix, Stack::Sim, Stack::Dpdk, Stack::Simple];
const USAGE: &str = "--row ROW --stack STACK [--minutes N] [--seed N] [--json]";

impl Options {
    /// Reads the arguments; an error says what is wrong and what would be right.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut row, mut stack) = (None, None);
        let (mut minutes, mut seed, mut json) = (10.0, 1, false);
        while let Some(key) = arguments.next() {
            if key == "--json" {
                json = true;
                continue;
            }
            let mut value =
                || arguments.next().ok_or_else(|| format!("{key} lacks its value; usage: {USAGE}"));
            match key.as_str() {
                "--row" => row = Some(value()?.parse::<Row>()?),
                "--stack" => stack = Some(value()?.parse::<Stack>()?),
                "--minutes" => minutes = parse::<f64>(&key, &value()?, "a number such as 10")?,
                "--seed" => seed = parse(&key, &value()?, "a whole number")?,
                _ => return Err(format!("unknown argument {key:?}; usage: {USAGE}")),
            }
        }
        let missing = |what: &str| format!("{what} is missing; usage: {USAGE}");
        let time = Duration::try_from_secs_f64(minutes * 60.0)
            .map_err(|error| format!("--minutes {minutes}: {error}; give a number such as 10"))?;
        Ok(Self {
            row: row.ok_or_else(|| missing("--row"))?,
            stack: stack.ok_or_else(|| missing("--stack"))?,
            time,
            seed,
            json,
        })
    }
}

fn parse<T: FromStr>(key: &str, value: &str, expected: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{key} {value:?} is not {expected}"))
}

/// The names of all choices, for an error.
pub(crate) fn names<T: fmt::Display>(all: &[T]) -> String {
    all.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Posix => "posix",
            Self::Sim => "sim",
            Self::Dpdk => "dpdk",
            Self::Simple => "simple",
        })
    }
}

impl FromStr for Stack {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = STACKS.into_iter().find(|stack| stack.to_string() == text);
        found.ok_or_else(|| format!("unknown stack {text:?}: choose one of {}", names(&STACKS)))
    }
}
