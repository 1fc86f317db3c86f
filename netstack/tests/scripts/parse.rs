//! The text of a script.
//!
//! ```text
//!   # RFC 9293 section 3.5: what it shows        the first line
//!   set mtu 1500                                 settings come first
//!   listen                                       a call; `= result` says what it must return
//!   < S 0 mss 1460                               the peer sends
//!   > SA 0 ack 1 mss 1460                        the stack must have sent, and nothing before it
//!   < A 1+100 ack 1                              100 bytes from sequence number 1
//!   and send 50                                  in the same turn as the line before
//!   > A 1+50 ack 101
//!   +0.2 > A 1+50 ack 101                        after 200 ms, 5 ms more or less
//!   +0.3~0.5 > A 1+50 ack 101                    after 300 to 500 ms
//!   +1 nothing                                   nothing is sent for a second
//!
//!   known gap: why                               two variants of the rest
//!   wanted > A 51 ack 101                        what the RFC asks for, and must fail
//!   today nothing                                what is so, and must hold
//! ```
//!
//! Each side's sequence numbers count from its initial one, in `ack` and `sack` too. Flags are the
//! letters S F R A U, or `-`; PSH is not looked at. What a line with `>` does not mention is not
//! compared; `none` asks for the absence of an option. `new` is an initial number that the flow has not had, and
//! `newer` one beyond all numbers of its connection before. Bytes of either stream follow a pattern,
//! and are checked wherever they come out.

use std::time::Duration;

use crate::segment::Flags;

/// How exact a plain time is.
const TOLERANCE: Duration = Duration::from_millis(5);

/// A line that does something.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) number: usize,
    pub(crate) text: String,
    /// Which variants it belongs to.
    pub(crate) variant: Variant,
    /// The least and the most time after the line before.
    pub(crate) delay: Option<(Duration, Duration)>,
    /// Nothing happens between the line before and this one.
    pub(crate) is_joined: bool,
    pub(crate) step: Step,
}

/// Which variants of a script with a known gap a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    Both,
    Wanted,
    Today,
}

/// What a line does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Set { name: String, value: String },
    Call { words: Vec<String>, result: Option<String> },
    Inject(Written),
    Icmp { code: u8, mtu: u16, seq: i64 },
    Expect(Written),
    Nothing,
}

/// A segment as it is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    pub(crate) flags: Flags,
    /// Absent: an initial number that was not seen before.
    pub(crate) seq: Option<i64>,
    /// It has to be beyond all of the connection before.
    pub(crate) is_newer: bool,
    pub(crate) len: usize,
    pub(crate) ack: Option<i64>,
    pub(crate) window: Option<u16>,
    pub(crate) mss: Option<Asked<u16>>,
    pub(crate) wscale: Option<Asked<u8>>,
    pub(crate) sackok: Option<Asked<()>>,
    pub(crate) sack: Option<Asked<Vec<(i64, i64)>>>,
    pub(crate) ts: Option<Asked<(u32, u32)>>,
    /// The payload is not what the stream has there; from the stack it may be anything.
    pub(crate) is_foreign: bool,
    /// The checksum is wrong.
    pub(crate) is_damaged: bool,
}

/// An option's value; `None`: it must be absent.
pub(crate) type Asked<T> = Option<T>;

/// A script.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// What stands before the colon of the first line, and after it.
    pub(crate) section: String,
    pub(crate) title: String,
    pub(crate) gap: Option<String>,
    pub(crate) lines: Vec<Line>,
}

impl Script {
    /// Reads a script. The error says which line is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let first = text.lines().next().and_then(|line| line.strip_prefix("# "));
        let (section, title) = first
            .and_then(|line| line.split_once(": "))
            .ok_or("1: the first line is `# RFC <number> section <section>: <title>`")?;
        let mut gaps = Vec::new();
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if let Some(gap) = line.strip_prefix("known gap: ") {
                gaps.push(gap.to_owned());
            } else if !line.is_empty() {
                let number = index + 1;
                lines.push(
                    parse_line(number, line)
                        .ok_or_else(|| format!("{number}: cannot be read: {line}"))?,
                );
            }
        }
        let has_variants = lines.iter().any(|line| line.variant == Variant::Wanted);
        if has_variants == gaps.is_empty() {
            return Err("a `known gap:` has lines with `wanted`, and nothing else has".into());
        }
        let gap = (!gaps.is_empty()).then(|| gaps.join("; "));
        Ok(Self { section: section.to_owned(), title: title.to_owned(), gap, lines })
    }
}

fn parse_line(number: usize, text: &str) -> Option<Line> {
    let mut words = text.split_whitespace().peekable();
    let variant = match words.peek().copied() {
        Some("wanted") => Variant::Wanted,
        Some("today") => Variant::Today,
        _ => Variant::Both,
    };
    if variant != Variant::Both {
        words.next();
    }
    let delay = match words.peek().and_then(|word| word.strip_prefix('+')) {
        Some(delay) => Some(parse_delay(delay)?),
        None => None,
    };
    if delay.is_some() {
        words.next();
    }
    let is_joined = words.next_if_eq(&"and").is_some();
    let words: Vec<&str> = words.collect();
    let step = match words.as_slice() {
        ["nothing"] => Step::Nothing,
        ["set", name, value] => Step::Set { name: (*name).into(), value: (*value).into() },
        ["<", "icmp", kind @ ..] => parse_icmp(kind)?,
        ["<", words @ ..] => Step::Inject(parse_segment(words)?),
        [">", words @ ..] => Step::Expect(parse_segment(words)?),
        [call @ .., "=", result] => parse_call(call, Some((*result).to_owned())),
        call => parse_call(call, None),
    };
    Some(Line { number, text: text.to_owned(), variant, delay, is_joined, step })
}

fn parse_call(words: &[&str], result: Option<String>) -> Step {
    Step::Call { words: words.iter().map(|word| (*word).to_owned()).collect(), result }
}

fn parse_delay(text: &str) -> Option<(Duration, Duration)> {
    let seconds = |text: &str| Some(Duration::from_secs_f64(text.parse().ok()?));
    match text.split_once('~') {
        Some((least, most)) => Some((seconds(least)?, seconds(most)?)),
        None => {
            let time = seconds(text)?;
            Some((time.saturating_sub(TOLERANCE), time + TOLERANCE))
        }
    }
}

/// RFC 792's codes of an unreachable destination by name, and the number of the quoted segment.
fn parse_icmp(words: &[&str]) -> Option<Step> {
    let (code, mtu, seq) = match words {
        ["net-unreachable", seq] => (0, 0, seq),
        ["host-unreachable", seq] => (1, 0, seq),
        ["port-unreachable", seq] => (3, 0, seq),
        ["too-big", mtu, seq] => (4, mtu.parse().ok()?, seq),
        _ => return None,
    };
    Some(Step::Icmp { code, mtu, seq: seq.parse().ok()? })
}

/// Reads letters, or `-` for none.
fn parse_flags(text: &str) -> Option<Flags> {
    if text == "-" {
        return Some(Flags(0));
    }
    let bit = |letter| Flags::LETTERS.iter().find(|(other, _)| *other == letter);
    text.chars().try_fold(Flags(0), |flags, letter| Some(Flags(flags.0 | bit(letter)?.1)))
}

fn parse_segment(words: &[&str]) -> Option<Written> {
    let mut words = words.iter().copied();
    let mut written = Written { flags: parse_flags(words.next()?)?, ..Written::default() };
    match words.next()? {
        "new" => {}
        "newer" => written.is_newer = true,
        number => {
            let (seq, len) = number.split_once('+').unwrap_or((number, "0"));
            written.seq = Some(seq.parse().ok()?);
            written.len = len.parse().ok()?;
        }
    }
    while let Some(word) = words.next() {
        match word {
            "ack" => written.ack = Some(words.next()?.parse().ok()?),
            "win" => written.window = Some(words.next()?.parse().ok()?),
            "mss" => written.mss = Some(parse_asked(words.next()?)?),
            "wscale" => written.wscale = Some(parse_asked(words.next()?)?),
            "sackok" => written.sackok = Some(Some(())),
            "nosackok" => written.sackok = Some(None),
            "sack" => match words.next()? {
                "none" => written.sack = Some(None),
                block => {
                    let (from, to) = block.split_once("..")?;
                    let block = (from.parse().ok()?, to.parse().ok()?);
                    written.sack.get_or_insert_default().get_or_insert_default().push(block);
                }
            },
            "ts" => match words.next()? {
                "none" => written.ts = Some(None),
                stamp => {
                    written.ts = Some(Some((stamp.parse().ok()?, words.next()?.parse().ok()?)));
                }
            },
            "foreign" => written.is_foreign = true,
            "damaged" => written.is_damaged = true,
            _ => return None,
        }
    }
    Some(written)
}

/// Outer `None`: it cannot be read.
fn parse_asked<T: std::str::FromStr>(word: &str) -> Option<Asked<T>> {
    if word == "none" { Some(None) } else { Some(Some(word.parse().ok()?)) }
}

#[test]
fn lines_say_what_they_say() {
    let script = "# RFC 1 section 2: title\n\nset mtu 9000 # a comment\n+0.3~0.5 > FA 1+10 ack -1 \
                  win 7 sack 3..5 sack 8..9\nand send 5 = 3\n< icmp too-big 576 0\n";
    let script = Script::parse(script).unwrap();
    assert_eq!((script.section.as_str(), script.title.as_str()), ("RFC 1 section 2", "title"));
    let [set, expect, send, icmp] = script.lines.as_slice() else {
        panic!("{:?}", script.lines);
    };
    assert!(matches!(&set.step, Step::Set { name, value } if name == "mtu" && value == "9000"));
    assert_eq!(
        expect.delay.unwrap(),
        (Duration::from_millis(300), Duration::from_millis(500)),
        "{expect:?}"
    );
    let Step::Expect(written) = &expect.step else { panic!("{expect:?}") };
    assert_eq!((written.seq, written.len, written.ack), (Some(1), 10, Some(-1)));
    assert_eq!(written.sack, Some(Some(vec![(3, 5), (8, 9)])));
    assert!(send.is_joined);
    assert!(matches!(&send.step, Step::Call { result: Some(result), .. } if result == "3"));
    assert!(matches!(icmp.step, Step::Icmp { code: 4, mtu: 576, seq: 0 }));
}

#[test]
fn what_cannot_be_read_is_told_by_its_line() {
    for (line, reason) in [
        ("> X 1", "2: cannot be read"),
        ("> A 1 ack", "2: cannot be read"),
        ("< A 1 whatever 3", "2: cannot be read"),
        ("+soon nothing", "2: cannot be read"),
        ("wanted nothing", "known gap"),
        ("known gap: none here", "known gap"),
    ] {
        let error = Script::parse(&format!("# RFC 1 section 2: title\n{line}\n")).unwrap_err();
        assert!(error.contains(reason), "{line}: {error}");
    }
    assert!(Script::parse("listen\n").unwrap_err().contains("the first line"));
}
