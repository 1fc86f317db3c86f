//! `msgr ping`: a closed loop of messages against `msgr serve`.
//!
//! The loop closes on the worker's thread: a reply's callback takes the time and sends the next
//! message, so what is measured is the messenger and not a hand-over to some other thread.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use messenger::{
    ConnectOptions, Connection, Dispatcher, DispatcherPriority, EntityAddr, EntityAddrVec,
    EntityName, EntityType, Message, Messenger, Policy, msg_type,
};

use crate::options::{TransportArgs, parse_addr, parse_seconds};
use crate::report::{self, Latencies, PingReport, Run};
use crate::signals;

/// Longest silence of the peer before we give up, once connected.
const REPLY_PATIENCE: Duration = Duration::from_secs(10);
/// How often progress is drawn and patience is checked.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Largest `--size`.
const SIZE_MAX: usize = 64 << 20;
/// Largest `--depth`.
const DEPTH_MAX: usize = 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct PingArgs {
    #[command(flatten)]
    transport: TransportArgs,
    /// Whom to ping: IP:PORT or IP:PORT/NONCE; for msgr1 with v1: in front
    #[arg(value_name = "TARGET", value_parser = parse_addr)]
    target: EntityAddr,
    /// Be reachable there ourselves, as daemons are; clients need no address
    #[arg(long, value_name = "IP:PORT", value_parser = parse_addr)]
    bind: Option<EntityAddr>,
    /// What the target is
    #[arg(long, value_name = "TYPE", default_value = "osd")]
    peer: EntityType,
    /// Messages to send, the warm-up not counted
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    count: u64,
    /// Messages to send before measuring
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    warmup: u64,
    /// Bytes of data in each message
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    size: usize,
    /// Messages under way at any time
    #[arg(long, value_name = "N", default_value_t = 1)]
    depth: usize,
    /// Give up if no session is there after this long
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = parse_seconds)]
    patience: Duration,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// The closed loop; everything in it is touched by the worker's thread alone while it runs.
#[derive(Debug)]
struct Loop {
    payload: Bytes,
    to_send: u64,
    to_answer: u64,
    /// The first tid that counts.
    warmup: u64,
    /// When the message with tid `index` modulo the depth was sent.
    sent_at: Vec<Instant>,
    next_tid: u64,
    latencies: Latencies,
    measured_from: Option<Instant>,
    measured_until: Instant,
    connected: bool,
    progress: u64,
    failure: Option<String>,
}

#[derive(Debug)]
struct Pinger {
    state: Mutex<Loop>,
    changed: Condvar,
}

impl Pinger {
    fn lock(&self) -> MutexGuard<'_, Loop> {
        // A panic in a callback is reported by the messenger; the numbers so far remain good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, why: &str) {
        self.lock().failure.get_or_insert_with(|| why.to_owned());
        self.changed.notify_all();
    }
}

impl Loop {
    fn send_next(&mut self, connection: &Connection) {
        if self.to_send == 0 {
            return;
        }
        let tid = self.next_tid;
        let message = Message::new(msg_type::PING).with_tid(tid).with_data(self.payload.clone());
        let now = Instant::now();
        let slots = self.sent_at.len() as u64;
        let slot = usize::try_from(tid % slots).expect("less than the depth");
        self.sent_at[slot] = now;
        self.next_tid += 1;
        self.to_send -= 1;
        if tid == self.warmup {
            self.measured_from = Some(now);
        }
        if let Err(error) = connection.send_message(message) {
            self.failure.get_or_insert_with(|| error.to_string());
        }
    }

    fn take_reply(&mut self, message: &Message) {
        let now = Instant::now();
        let slots = self.sent_at.len() as u64;
        let slot = usize::try_from(message.header.tid % slots).expect("less than the depth");
        if message.data != self.payload {
            self.failure.get_or_insert_with(|| "a reply differs from what was sent".to_owned());
        }
        self.progress += 1;
        self.to_answer = self.to_answer.saturating_sub(1);
        if message.header.tid >= self.warmup {
            self.latencies.record(now - self.sent_at[slot]);
            self.measured_until = now;
        }
    }
}

impl Dispatcher for Pinger {
    fn can_fast_dispatch_any(&self) -> bool {
        true
    }

    fn can_fast_dispatch(&self, _message: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        let mut state = self.lock();
        state.take_reply(&message);
        state.send_next(connection);
        if state.to_answer == 0 || state.failure.is_some() {
            self.changed.notify_all();
        }
    }

    fn handle_fast_connect(&self, connection: &Connection) {
        let mut state = self.lock();
        // The messenger's connection to itself is announced the same way.
        if state.connected || connection.is_loopback() {
            return;
        }
        state.connected = true;
        for _ in 0..state.sent_at.len() {
            state.send_next(connection);
        }
    }

    fn handle_reset(&self, _connection: &Connection) -> bool {
        self.fail("the peer ended the connection");
        true
    }
}

pub(crate) fn run(args: &PingArgs) -> Result<()> {
    if args.size > SIZE_MAX || args.depth == 0 || args.depth > DEPTH_MAX || args.count == 0 {
        bail!(
            "--size is at most {SIZE_MAX}, --depth is 1 to {DEPTH_MAX} and --count at least 1; \
             see msgr ping --help"
        );
    }
    let stop = signals::stop_requested()?;
    let config = args.transport.config()?;
    let stack = config.ms_type.to_string();
    let messenger = Messenger::create(EntityName::new(EntityType::Client, -1), config)?;
    messenger.set_default_policy(Policy::lossy_client())?;
    let now = Instant::now();
    let total = args.warmup.saturating_add(args.count);
    let pinger = Arc::new(Pinger {
        state: Mutex::new(Loop {
            payload: Bytes::from(pattern(args.size)),
            to_send: total,
            to_answer: total,
            warmup: args.warmup,
            sent_at: vec![now; args.depth],
            next_tid: 0,
            latencies: Latencies::new(),
            measured_from: None,
            measured_until: now,
            connected: false,
            progress: 0,
            failure: None,
        }),
        changed: Condvar::new(),
    });
    messenger.add_dispatcher_tail(pinger.clone(), DispatcherPriority::DEFAULT)?;
    if let Some(addr) = args.bind {
        messenger.bindv(&addr.into(), None).with_context(|| format!("cannot bind {addr}"))?;
    }
    messenger.start()?;
    let target = EntityAddrVec::from(args.target);
    let connection = messenger.connect_to(args.peer, &target, ConnectOptions::default())?;

    let ended_early = watch(&pinger, total, args.patience, &stop);
    let state = pinger.lock();
    let elapsed = state.measured_from.map_or(Duration::ZERO, |from| state.measured_until - from);
    let run =
        Run { stack: &stack, target: args.target.to_string(), size: args.size, depth: args.depth };
    let report = PingReport::new(&run, &state.latencies, elapsed, ended_early.clone());
    drop(state);
    connection.mark_down();
    messenger.shutdown();
    messenger.wait()?;
    print(&report, args.json)?;
    match ended_early {
        Some(why) => bail!("{why} ({} of {} messages answered)", report.messages, args.count),
        None => Ok(()),
    }
}

/// Waits for the loop to finish; the reason if it did not.
fn watch(pinger: &Pinger, total: u64, patience: Duration, stop: &signals::Stop) -> Option<String> {
    let bar = progress_bar(total);
    let started = Instant::now();
    let mut last = (0, started);
    let outcome = loop {
        let mut state = pinger.lock();
        if state.failure.is_none() && state.to_answer > 0 {
            state = pinger
                .changed
                .wait_timeout(state, LOOK_EVERY)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        bar.set_position(state.progress);
        if state.to_answer == 0 {
            break None;
        }
        if let Some(why) = &state.failure {
            break Some(why.clone());
        }
        let now = Instant::now();
        if state.progress != last.0 {
            last = (state.progress, now);
        }
        if !state.connected && now - started > patience {
            break Some(format!(
                "no session after {patience:?}; is `msgr serve` running there, with this nonce?"
            ));
        }
        if state.connected && now - last.1.max(started) > REPLY_PATIENCE.max(patience) {
            break Some(format!("no reply for {:?}", REPLY_PATIENCE.max(patience)));
        }
        drop(state);
        if stop.wait_until(Some(now)) {
            break Some("interrupted".to_owned());
        }
    };
    bar.finish_and_clear();
    outcome
}

fn progress_bar(total: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{bar:40} {pos}/{len} messages, {per_sec}, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_style(style)
}

fn print(report: &PingReport, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(report)?)?;
    } else {
        writeln!(
            out,
            "{} messages of {} B to {} over {}, {} under way; round trips in microseconds",
            report.messages, report.size_bytes, report.target, report.stack, report.depth
        )?;
        write!(out, "{}", report::table(&[("ping".to_owned(), report.clone())]))?;
    }
    Ok(())
}

/// Bytes that differ from their neighbours, so that shifted data is noticed.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}
