//! `msgr ceph ping-osd`: heartbeats to an OSD, as its peers send them.
//!
//! An OSD that restarts is another one to its sessions: it has a new nonce, and maybe new ports. So
//! whenever answers stop, the monitors are asked where it is now, and pings go on from there. What
//! was under way on a session that ended is lost, and counted.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use messenger::{Connection, EntityAddrVec, EntityName, EntityType, Message, MsType};
use messenger_ceph::{MOSDPing, OsdDump, OsdState, Payload, PingOp, Span, kind, placement};
use serde::Serialize;

use super::caller::{Caller, News, What};
use super::monitor::Monitor;
use crate::report::{Latencies, PingReport, Run, table};
use crate::signals::{self, Stop};

/// Answers that take longer make us ask where the OSD is now.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often signals are looked for.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// Length that Ceph pads heartbeats to (`osd_heartbeat_min_size`).
const PING_LEN: u16 = 2000;
/// Largest `--depth`.
const DEPTH_MAX: usize = 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct PingArgs {
    /// Number of the OSD
    #[arg(value_parser = clap::value_parser!(u16))]
    id: u16,
    /// Pings to send
    #[arg(long, value_name = "N", default_value_t = 10)]
    count: u64,
    /// Time from one ping to the next; 0: as soon as an answer is there
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    interval: u64,
    /// Pings under way at any time
    #[arg(long, value_name = "N", default_value_t = 1)]
    depth: usize,
}

/// What the command was asked beyond its own arguments.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) stack: MsType,
    pub(crate) patience: Duration,
    pub(crate) json: bool,
}

/// A run, as `--json` prints it. Its `messages` are the answered pings.
#[derive(Debug, Serialize)]
struct Report {
    osd: i32,
    sent: u64,
    lost: u64,
    /// Sessions it took: more than one if the OSD restarted.
    sessions: u64,
    #[serde(flatten)]
    run: PingReport,
}

pub(crate) fn run(monitor: Monitor, args: &PingArgs, options: &Options) -> Result<()> {
    ensure!(
        args.count > 0 && (1..=DEPTH_MAX).contains(&args.depth),
        "--count is at least 1 and --depth between 1 and {DEPTH_MAX}; try: --count 10 --depth 1"
    );
    let stop = signals::stop_requested()?;
    let mut pinger = Pinger::new(monitor, args)?;
    let ended_early = pinger.ping_all(&stop, options.patience)?;
    let report = pinger.report(options, ended_early.clone());
    print(&report, options.json)?;
    match ended_early {
        Some(why) => bail!("{why} ({} of {} pings answered)", report.run.messages, args.count),
        None => Ok(()),
    }
}

#[derive(Debug)]
struct Pinger {
    monitor: Monitor,
    caller: Caller,
    osd: i32,
    count: u64,
    interval: Duration,
    depth: usize,
    /// All pings but for their stamps.
    ping: MOSDPing,
    session: Option<Session>,
    /// When those under way were sent, by their stamps.
    under_way: BTreeMap<Span, Instant>,
    started: Instant,
    next_at: Instant,
    sent: u64,
    lost: u64,
    sessions: u64,
    latencies: Latencies,
}

#[derive(Debug)]
struct Session {
    connection: Connection,
    addrs: EntityAddrVec,
}

impl Pinger {
    fn new(monitor: Monitor, args: &PingArgs) -> Result<Self> {
        let osd = i32::from(args.id);
        // OSDs keep a clock for each number that pings them, in a table as long as the highest one:
        // so it must be low. The OSD's own is in no other's way.
        let caller = monitor.caller().beside(EntityName::new(EntityType::Client, osd.into()))?;
        let ping = MOSDPing { fsid: monitor.fsid(), ..MOSDPing::default() }.padded_for(PING_LEN);
        let now = Instant::now();
        Ok(Self {
            monitor,
            caller,
            osd,
            count: args.count,
            interval: Duration::from_millis(args.interval),
            depth: args.depth,
            ping,
            session: None,
            under_way: BTreeMap::new(),
            started: now,
            next_at: now,
            sent: 0,
            lost: 0,
            sessions: 0,
            latencies: Latencies::new(),
        })
    }

    /// Pings until all are answered or lost; why it ended earlier, if it did.
    fn ping_all(&mut self, stop: &Stop, patience: Duration) -> Result<Option<String>> {
        let mut look_at = Instant::now();
        let mut trouble_since = None;
        while self.sent < self.count || !self.under_way.is_empty() {
            let now = Instant::now();
            if stop.wait_until(Some(now)) {
                return Ok(Some("interrupted".to_owned()));
            }
            if self.is_answered(now) {
                trouble_since = None;
            } else if now - *trouble_since.get_or_insert(now) > patience {
                return Ok(Some(self.silence(patience)));
            } else if now >= look_at {
                self.look(now + patience)?;
                look_at = Instant::now() + LOOK_EVERY;
            }
            self.send_due(now);
            let wake_at = if self.may_send() { self.next_at } else { now + WAIT_MAX };
            if let Some(news) = self.caller.next(wake_at.min(now + WAIT_MAX)) {
                self.take(&news)?;
            }
        }
        Ok(None)
    }

    /// Whether there is a session, and no ping waits for long.
    fn is_answered(&self, now: Instant) -> bool {
        let is_late = |sent_at: &Instant| now.saturating_duration_since(*sent_at) > LOOK_EVERY;
        self.is_connected() && !self.under_way.values().next().is_some_and(is_late)
    }

    fn is_connected(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.connection.is_connected())
    }

    fn may_send(&self) -> bool {
        self.is_connected() && self.sent < self.count && self.under_way.len() < self.depth
    }

    /// Goes where the OSD is by the newest map, unless we are there.
    fn look(&mut self, deadline: Instant) -> Result<()> {
        let dump = self.monitor.output(&placement::osd_dump(), deadline)?;
        let dump = OsdDump::parse(&dump)?;
        let Some(state) = dump.osds.iter().find(|state| state.osd == self.osd) else {
            bail!(
                "there is no osd.{}; this shows which there are: msgr ceph --mon {} command osd tree",
                self.osd,
                self.monitor.at()
            );
        };
        let addrs = heartbeat_addrs(state);
        let is_there = |session: &Session| session.addrs == *addrs && !session.connection.is_down();
        if !state.up || addrs.is_empty() || self.session.as_ref().is_some_and(is_there) {
            return Ok(());
        }
        self.leave();
        self.ping.epoch = dump.epoch;
        let connection = self.caller.dial(EntityType::Osd, addrs)?;
        self.session = Some(Session { connection, addrs: addrs.clone() });
        Ok(())
    }

    /// Ends the session, if there is one; nobody will answer what is under way.
    fn leave(&mut self) {
        if let Some(session) = self.session.take() {
            session.connection.mark_down();
        }
        self.lost += self.under_way.len() as u64;
        self.under_way.clear();
    }

    fn send_due(&mut self, now: Instant) {
        while self.may_send() && now >= self.next_at {
            let Some(session) = &self.session else { return };
            let sent_at = Instant::now();
            let stamp = self.stamp(sent_at);
            let ping =
                MOSDPing { stamp: super::now(), ping_stamp: stamp, send_stamp: stamp, ..self.ping };
            if session.connection.send_message(ping.to_message()).is_err() {
                return; // it is over; its news comes
            }
            self.under_way.insert(stamp, sent_at);
            self.sent += 1;
            self.next_at = now.max(self.next_at) + self.interval;
        }
    }

    /// Our monotonic clock, never twice the same.
    fn stamp(&self, now: Instant) -> Span {
        let stamp = Span::from(now - self.started);
        let last = self.under_way.keys().next_back().map_or(0, |last| last.nanos());
        Span::from_nanos(stamp.nanos().max(last + 1))
    }

    fn take(&mut self, news: &News) -> Result<()> {
        if self.session.as_ref().is_none_or(|session| session.connection != news.connection) {
            return Ok(());
        }
        match &news.what {
            What::Ready => {
                self.sessions += 1;
                tracing::info!(peer = ?news.connection.peer_socket_addr(), "session stands");
            }
            What::Over => self.leave(),
            What::Message(message) => self.take_reply(message, news.at)?,
            What::Refused => {} // the map will tell
        }
        Ok(())
    }

    fn take_reply(&mut self, message: &Message, at: Instant) -> Result<()> {
        if message.header.kind != kind::OSD_PING {
            return Ok(());
        }
        let reply = MOSDPing::from_message(message)
            .with_context(|| format!("osd.{} sent a broken heartbeat", self.osd))?;
        if reply.op == PingOp::PingReply
            && let Some(sent_at) = self.under_way.remove(&reply.ping_stamp)
        {
            self.latencies.record(at - sent_at);
        }
        Ok(())
    }

    fn silence(&self, patience: Duration) -> String {
        let osd = self.osd;
        match &self.session {
            Some(session) => format!(
                "osd.{osd} at {} does not answer for {patience:?}; restart it on its host: \
                 systemctl restart ceph-osd@{osd}",
                session.addrs
            ),
            None => format!(
                "osd.{osd} is down for {patience:?}; start it on its host: systemctl start \
                 ceph-osd@{osd}"
            ),
        }
    }

    fn report(&self, options: &Options, ended_early: Option<String>) -> Report {
        let target = self.session.as_ref().map_or_else(String::new, |s| s.addrs.to_string());
        let stack = options.stack.to_string();
        let run = Run { stack: &stack, target, size: PING_LEN.into(), depth: self.depth };
        Report {
            osd: self.osd,
            sent: self.sent,
            lost: self.lost + self.under_way.len() as u64,
            sessions: self.sessions,
            run: PingReport::new(&run, &self.latencies, self.started.elapsed(), ended_early),
        }
    }
}

/// Where heartbeats of the clients' network find an OSD, or else those of the OSDs' own.
fn heartbeat_addrs(state: &OsdState) -> &EntityAddrVec {
    match state.heartbeat_front.is_empty() {
        false => &state.heartbeat_front,
        true => &state.heartbeat_back,
    }
}

fn print(report: &Report, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(report)?)?;
        return Ok(());
    }
    let Report { osd, sent, lost, sessions, run } = report;
    writeln!(
        out,
        "osd.{osd} at {} over {}: {sent} sent, {} answered, {lost} lost, {sessions} session(s); \
         round trips in microseconds",
        run.target, run.stack, run.messages
    )?;
    write!(out, "{}", table(&[("ping".to_owned(), run.clone())]))?;
    Ok(())
}
