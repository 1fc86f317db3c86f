//! Runs a script, line by line, and says what went otherwise.

use std::time::Duration;

use crate::parse::{Asked, Line, Script, Step, Variant, Written};
use crate::segment::{self, Flags, Options, Segment};
use crate::world::{self, Setting, World};

/// A line that did not hold.
#[derive(Debug)]
struct Failure {
    variant: Variant,
    text: String,
}

/// Runs a script; with a known gap, both of its variants. The error is for a person to read.
pub(crate) fn run(script: &Script) -> Result<(), String> {
    if script.gap.is_none() {
        return run_variant(script, Variant::Both).map_err(|failure| failure.text);
    }
    run_variant(script, Variant::Today)
        .map_err(|failure| format!("as it is today:\n{}", failure.text))?;
    match run_variant(script, Variant::Wanted) {
        Err(Failure { variant: Variant::Wanted, .. }) => Ok(()),
        Err(failure) => Err(format!("as it should be, and not where said:\n{}", failure.text)),
        Ok(()) => Err("the gap is closed: take out its heading and the lines with `today`".into()),
    }
}

fn run_variant(script: &Script, variant: Variant) -> Result<(), Failure> {
    let is_in = |line: &&Line| matches!(line.variant, Variant::Both) || line.variant == variant;
    let lines: Vec<_> = script.lines.iter().filter(is_in).collect();
    let settings = lines.iter().take_while(|line| matches!(line.step, Step::Set { .. })).count();
    let (first, rest) = lines.split_at(settings);
    let mut setting = Setting::default();
    for line in first {
        if let Step::Set { name, value } = &line.step
            && setting.set(name, value).is_none()
        {
            return Err(failure(line, "no such setting", None));
        }
    }
    let mut world = World::new(&setting);
    for (index, line) in rest.iter().enumerate() {
        let is_answer = line.is_joined && matches!(line.step, Step::Call { .. });
        if is_answer && matches!(rest[index - 1].step, Step::Inject(_)) {
            world.receive();
        }
        let done = act(&mut world, line);
        done.map_err(|reason| failure(line, &reason, Some(&world)))?;
        if !rest.get(index + 1).is_some_and(|next| next.is_joined) {
            world.settle();
        }
    }
    let last = rest.last().expect("a script does something");
    is_silent(&world).map_err(|reason| failure(last, &reason, Some(&world)))?;
    let history = world.history();
    world.finish().map_err(|reason| {
        let text = format!("{reason}\n  so far:\n{history}");
        Failure { variant: Variant::Both, text }
    })
}

fn failure(line: &Line, reason: &str, world: Option<&World>) -> Failure {
    let history =
        world.map_or_else(String::new, |world| format!("\n  so far:\n{}", world.history()));
    let text = format!("  line {}: {}\n  {reason}{history}", line.number, line.text);
    Failure { variant: line.variant, text }
}

fn act(world: &mut World, line: &Line) -> Result<(), String> {
    if let Step::Expect(written) = &line.step {
        return expect(world, line.delay, written);
    }
    if let Some((least, most)) = line.delay {
        // The middle, which is the time as it was written.
        world.advance(world.now + (least + most) / 2, true);
    }
    is_silent(world)?;
    match &line.step {
        Step::Set { .. } => return Err("settings come first".into()),
        Step::Call { words, result } => {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let came = world.call(&words).ok_or("no such call, or no socket for it")?;
            let is_stream = matches!(words[0], "send" | "recv");
            let wanted = result.as_deref().unwrap_or(if is_stream { words[1] } else { "ok" });
            if came != wanted {
                return Err(format!("returned {came}, not {wanted}"));
            }
        }
        Step::Inject(written) => {
            let segment = to_segment(world, written)?;
            world.inject(&segment, written.is_damaged);
        }
        Step::Icmp { code, mtu, seq } => world.inject_icmp(*code, *mtu, *seq),
        Step::Nothing | Step::Expect(_) => {}
    }
    Ok(())
}

/// Fails if the stack has sent what no line asked for.
fn is_silent(world: &World) -> Result<(), String> {
    if world.heard.is_empty() { Ok(()) } else { Err("sent what was not expected".into()) }
}

fn expect(
    world: &mut World,
    delay: Option<(Duration, Duration)>,
    written: &Written,
) -> Result<(), String> {
    let began = world.now;
    if let Some((_, most)) = delay {
        world.advance(began + most, true);
    }
    let Some(heard) = world.heard.pop_front() else {
        return Err("nothing was sent".into());
    };
    let after = heard.at - began;
    if delay.is_some_and(|(least, _)| after < least) {
        return Err(format!("sent after {after:?} already"));
    }
    let (number, flow) = world.flow();
    if heard.flow != number {
        return Err(format!("sent on flow {}", heard.flow));
    }
    let segment = &heard.segment;
    if written.seq.is_none() && flow.old_isns.contains(&segment.seq) {
        return Err("sent with an initial number of before".into());
    }
    if written.is_newer && segment::distance(segment.seq, flow.old_end) <= 0 {
        return Err("sent with a number of the connection before".into());
    }
    let (host_isn, peer_isn) = (flow.host_isn.unwrap_or(0), flow.peer_isn);
    match differs(written, segment, host_isn, peer_isn) {
        None => Ok(()),
        Some(what) => {
            Err(format!("sent with another {what}: {}", segment.describe(host_isn, peer_isn)))
        }
    }
}

fn absolute(base: u32, number: i64) -> u32 {
    base.wrapping_add(number as u32)
}

/// The first thing in which a segment is not as written.
fn differs(
    written: &Written,
    segment: &Segment,
    seq_base: u32,
    ack_base: u32,
) -> Option<&'static str> {
    let Segment { flags, seq, ack, window, options, payload } = segment;
    let seq_wanted = absolute(seq_base, written.seq.unwrap_or(0));
    let blocks = |blocks: &Vec<(i64, i64)>| -> Vec<_> {
        let edge = |number| absolute(ack_base, number);
        blocks.iter().map(|block| (edge(block.0), edge(block.1))).collect()
    };
    let sack = written.sack.as_ref().map(|asked| asked.as_ref().map(blocks).unwrap_or_default());
    // The first byte has sequence number 1.
    let first = seq_wanted.wrapping_sub(seq_base).wrapping_sub(1);
    let is_any = payload.is_empty() || written.is_foreign;
    let checks = [
        (written.flags == flags.without(Flags::PSH), "flags"),
        (seq_wanted == *seq, "sequence number"),
        (written.len == payload.len(), "length"),
        (is_any || *payload == world::stream(false, first, payload.len()), "payload"),
        (written.ack.is_none_or(|number| absolute(ack_base, number) == *ack), "acknowledgement"),
        (written.window.is_none_or(|wanted| wanted == *window), "window"),
        (is_as_asked(written.mss, options.mss), "MSS"),
        (is_as_asked(written.wscale, options.wscale), "window scale"),
        (is_as_asked(written.sackok, options.sackok.then_some(())), "SACK permitted"),
        (sack.is_none_or(|wanted| wanted == options.sack), "SACK"),
        (is_as_asked(written.ts, options.ts), "time stamp"),
    ];
    checks.into_iter().find(|(holds, _)| !holds).map(|(_, what)| what)
}

fn is_as_asked<T: PartialEq>(asked: Option<Asked<T>>, found: Option<T>) -> bool {
    asked.is_none_or(|asked| asked == found)
}

/// The segment that a script wants the peer to send.
fn to_segment(world: &mut World, written: &Written) -> Result<Segment, String> {
    let flow = world.flow().1;
    let (peer_isn, host_isn) = (flow.peer_isn, flow.host_isn);
    let seq = absolute(peer_isn, written.seq.ok_or("`new` is for what the stack sends")?);
    let host_isn = match (host_isn, &written.ack) {
        (None, Some(_)) => 0, // of nothing the stack ever said
        (isn, _) => isn.unwrap_or(0),
    };
    let mut payload = world::stream(true, seq.wrapping_sub(peer_isn).wrapping_sub(1), written.len);
    if written.is_foreign {
        payload.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let edge = |number| absolute(host_isn, number);
    let sack = written.sack.clone().flatten().unwrap_or_default();
    Ok(Segment {
        flags: written.flags,
        seq,
        ack: written.ack.map_or(0, edge),
        window: written.window.unwrap_or(u16::MAX),
        options: Options {
            mss: written.mss.flatten(),
            wscale: written.wscale.flatten(),
            sackok: written.sackok.flatten().is_some(),
            sack: sack.into_iter().map(|(from, to)| (edge(from), edge(to))).collect(),
            ts: written.ts.flatten(),
        },
        payload,
    })
}
