//! `msgr bench run`: one load, measured.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use messenger::{Config, EntityAddr};

use crate::bench::client::Client;
use crate::bench::environment::Environment;
use crate::bench::generator::{LATE_AFTER, Record, Window};
use crate::bench::lanes::Lanes;
use crate::bench::load::{Kind, Load, LoadArgs, Pace};
use crate::bench::meter::{Cycles, Half, Meter};
use crate::bench::over_messenger::OverMessenger;
use crate::bench::pair::{Pair, Spec};
use crate::bench::report::{OpenFigures, Report, SCHEMA, Second};
use crate::bench::save::{self, HdrLog};
use crate::bench::server::Question;
use crate::bench::yardstick::{self, Waiting};
use crate::options::{TransportArgs, parse_addr, parse_seconds};
use crate::signals::{self, Stop};

/// How often the run is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often, once nothing is sent any more.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(1);
/// How long the last replies may take.
const DRAIN: Duration = Duration::from_secs(2);
const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// IP:PORT of a `msgr bench serve`; or a pair to start here: posix, simple, dpdk-memif,
    /// dpdk-vhost, dpdk-tap, kernel-epoll, kernel-spin, each with @FILE for its configuration
    #[arg(value_name = "TARGET")]
    target: Target,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    transport: TransportArgs,
    /// Load a `msgr bench serve --yardstick`: bare frames over kernel TCP, without a messenger
    #[arg(long, value_enum, conflicts_with = "stack")]
    yardstick: Option<Waiting>,
    /// Run on these CPUs only, all threads: 0,1 [default with a pair: the second]
    #[arg(long, value_name = "CPU,...", value_delimiter = ',')]
    pin: Vec<usize>,
    /// CPUs of a pair's server [default: the first]
    #[arg(long, value_name = "CPU,...", value_delimiter = ',')]
    server_pin: Vec<usize>,
    /// Give up if not all connections are there after this long
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = parse_seconds)]
    patience: Duration,
    /// Give up when messages are under way and no reply comes for this long
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_seconds)]
    silence: Duration,
    /// Keep the record in a file, by its ending .json, .csv, .md, .html or .hlog (HDR); repeatable
    #[arg(long, value_name = "FILE")]
    save: Vec<PathBuf>,
    /// Print the record as one JSON object
    #[arg(long)]
    json: bool,
    /// Stop the generator once for so long, in the middle
    #[arg(long, value_name = "SECONDS", hide = true, value_parser = parse_seconds)]
    inject_stall: Option<Duration>,
}

/// Whom to load.
#[derive(Clone, Debug)]
enum Target {
    Addr(EntityAddr),
    Pair(Spec),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let spec = |_| {
            let spec = text.parse().map(Self::Pair);
            spec.map_err(|error| format!("{error}; or write IP:PORT"))
        };
        parse_addr(text).map(Self::Addr).or_else(spec)
    }
}

pub(crate) fn run(args: &RunArgs) -> Result<ExitCode> {
    save::check(&args.save, &save::OF_ONE)?;
    let load = args.load.load()?;
    let stop = signals::stop_requested()?;
    let (mut pair, target) = match &args.target {
        Target::Addr(addr) => (None, *addr),
        Target::Pair(spec) => {
            let pair = Pair::start(spec, &args.cpus(0, &args.server_pin))?;
            let target = pair.target;
            (Some(pair), target)
        }
    };
    let config = match &pair {
        Some(pair) => pair.join()?,
        None => args.transport.config()?,
    };
    super::pin(&args.cpus(1, &args.pin))?;
    let yardstick = pair.as_ref().map_or(args.yardstick, Pair::yardstick);
    let mut course = Course::start(args, load, target, config, yardstick)?;
    course.begin(pair.as_mut(), &stop)?;
    let ended_early = course.watch(pair.as_mut(), &stop);
    let report = course.report(ended_early);
    save::write(&args.save, &report, &course.log)?;
    let mut out = std::io::stdout().lock();
    match args.json {
        true => writeln!(out, "{}", serde_json::to_string(&report)?)?,
        false => write!(out, "\n{}", report.text())?,
    }
    drop(out);
    let ended = course.client.end();
    if !report.valid {
        bail!("the run is invalid: {}", report.problems.join("; "));
    }
    ended?;
    if let Some(mut pair) = pair {
        pair.server.stop()?;
    }
    Ok(ExitCode::SUCCESS)
}

impl RunArgs {
    /// What was asked for; for a pair on several CPUs, an end each.
    fn cpus(&self, index: usize, asked: &[usize]) -> Vec<usize> {
        let is_pair = matches!(self.target, Target::Pair(_));
        if !asked.is_empty() || !is_pair || allowed_cpus().len() < 2 {
            return asked.to_vec();
        }
        allowed_cpus().get(index).copied().into_iter().collect()
    }
}

fn allowed_cpus() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None);
    set.map_or_else(
        |_| Vec::new(),
        |set| (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect(),
    )
}

/// A run from its connections to its record.
struct Course<'a> {
    args: &'a RunArgs,
    load: Load,
    target: EntityAddr,
    transport: String,
    environment: Environment,
    lanes: Arc<Lanes>,
    client: Box<dyn Client>,
    window: Window,
    cycles: Cycles,
    /// Since the beginning of the window.
    meter: Option<Meter>,
    server: Option<Half>,
    total: Record,
    seconds: Vec<Second>,
    log: HdrLog,
}

impl<'a> Course<'a> {
    fn start(
        args: &'a RunArgs,
        load: Load,
        target: EntityAddr,
        config: Config,
        yardstick: Option<Waiting>,
    ) -> Result<Self> {
        let cycles = Cycles::count();
        let stack = config.ms_type.to_string();
        let text = if yardstick.is_some() { String::new() } else { config.to_string() };
        let environment = Environment::read(text);
        let (lanes, client): (_, Box<dyn Client>) = match yardstick {
            Some(waiting) => {
                let lanes = Arc::new(Lanes::new(&load, 1));
                let socket = target.socket.context("an address without a socket")?;
                let client =
                    yardstick::Client::connect(&load, waiting, socket, Arc::clone(&lanes))?;
                (lanes, Box::new(client))
            }
            None => {
                let workers = config.ms_async_op_threads.count().get();
                let lanes = Arc::new(Lanes::new(&load, workers));
                let client = OverMessenger::connect(&load, config, target, Arc::clone(&lanes))?;
                (lanes, Box::new(client))
            }
        };
        let now = Instant::now();
        Ok(Self {
            args,
            load,
            target,
            transport: yardstick.map_or(stack, |waiting| waiting.name().to_owned()),
            environment,
            lanes,
            client,
            window: Window { from: now, until: now },
            cycles,
            meter: None,
            server: None,
            total: Record::new(),
            seconds: Vec::new(),
            log: HdrLog::new(&args.save),
        })
    }

    /// Waits for the connections, and lets the messages leave.
    fn begin(&mut self, mut pair: Option<&mut Pair>, stop: &Stop) -> Result<()> {
        let deadline = Instant::now() + self.args.patience;
        while self.client.connected() < self.load.all_connections() {
            let (have, want) = (self.client.connected(), self.load.all_connections());
            if let Some(why) = self.trouble(pair.as_deref_mut()) {
                bail!("{why} ({have} of {want} connections were there)");
            }
            if Instant::now() > deadline {
                bail!(
                    "{have} of {want} connections after {:?}; does `msgr bench serve` run there?",
                    self.args.patience
                );
            }
            if stop.wait_until(Some(Instant::now() + DRAIN_LOOK_EVERY)) {
                bail!("interrupted");
            }
        }
        self.client.ask(Question::Begin)?;
        let now = Instant::now();
        let from = now + self.load.warmup();
        self.window = Window { from, until: from + self.load.duration() };
        self.lanes.begin(now, self.window);
        self.client.begin()
    }

    /// What ends the run before its time.
    fn trouble(&self, pair: Option<&mut Pair>) -> Option<String> {
        let server = pair.and_then(|pair| pair.server.ended());
        server.map(|why| format!("{why:#}")).or_else(|| self.lanes.failure().map(str::to_owned))
    }

    /// Follows the run to its end; why that came early.
    fn watch(&mut self, mut pair: Option<&mut Pair>, stop: &Stop) -> Option<String> {
        let Window { from, until } = self.window;
        let mut spare = Record::new();
        let mut next_second = from + SECOND;
        let (mut replies, mut heard) = (0, Instant::now());
        let mut stall = self.args.inject_stall;
        let early = loop {
            let now = Instant::now();
            if let Some(why) = self.trouble(pair.as_deref_mut()) {
                break Some(why);
            }
            if self.meter.is_none()
                && now >= from
                && let Err(error) = self.begin_counting()
            {
                break Some(format!("{error:#}"));
            }
            let (under_way, seen) = self.lanes.state();
            if under_way == 0 || seen != replies {
                (replies, heard) = (seen, now);
            }
            if now - heard > self.args.silence {
                break Some(format!("no reply for {:?}", self.args.silence));
            }
            if now >= next_second && next_second < until {
                self.end_second(next_second, &mut spare);
                next_second += SECOND;
            }
            let is_drained = under_way == 0 && !self.lanes.is_behind(now);
            if now >= until && (is_drained || now > until + DRAIN) {
                break None;
            }
            if now >= from + self.load.duration() / 2
                && let Some(time) = stall.take()
            {
                self.lanes.stall(time);
            }
            let look = if now < until { LOOK_EVERY } else { DRAIN_LOOK_EVERY };
            let events = [from, until, next_second].into_iter().filter(|event| *event > now);
            let next = events.fold(now + look, Instant::min);
            if stop.wait_until(Some(next)) {
                break Some("interrupted".to_owned());
            }
        };
        self.end_second(Instant::now().min(until), &mut spare);
        if early.is_none() {
            match self.client.ask(Question::End) {
                Ok(answer) => self.server = answer.half,
                Err(error) => return Some(format!("{error:#}")),
            }
        }
        early
    }

    fn begin_counting(&mut self) -> Result<()> {
        self.meter = Some(Meter::start(&self.cycles, self.client.counters()));
        self.client.ask(Question::Begin).map(|_| ())
    }

    /// Takes what was recorded since the last second's end, and tells it.
    fn end_second(&mut self, end: Instant, spare: &mut Record) {
        let mut record = Record::new();
        self.lanes.take_records(&mut record, spare);
        let until_s = end.saturating_duration_since(self.window.from).as_secs_f64();
        let started = self.seconds.last().map_or(0.0, |last| last.until_s);
        let length = until_s - started;
        self.total.add(&record);
        if length <= 0.0 {
            return;
        }
        self.log.add(started, length, record.latencies.histogram());
        let us = record.latencies.microseconds();
        let second = Second {
            until_s,
            messages_per_s: record.latencies.count() as f64 / length,
            p50_us: us.p50,
            p99_us: us.p99,
            max_us: us.max,
        };
        if !self.args.json {
            if self.seconds.is_empty() {
                println!("{}", Second::HEADING);
            }
            println!("{second}");
        }
        self.seconds.push(second);
    }

    fn report(&mut self, ended_early: Option<String>) -> Report {
        let total = &self.total;
        let counters = self.lanes.failure().is_none().then(|| self.client.counters()).flatten();
        let Some(meter) = self.meter.take() else {
            let nothing = Meter::start(&self.cycles, None).read(0, 0, &self.cycles, None);
            return self.record(ended_early, nothing, 0.0);
        };
        let half = meter.read(total.sent, total.bytes, &self.cycles, counters);
        let end = total.last_reply.unwrap_or(self.window.from);
        let end = if ended_early.is_none() { end.max(self.window.until) } else { end };
        let elapsed_s = end.saturating_duration_since(self.window.from).as_secs_f64();
        self.record(ended_early, half, elapsed_s)
    }

    fn record(&self, ended_early: Option<String>, client: Half, elapsed_s: f64) -> Report {
        let total = &self.total;
        let per_s = |count: u64| if elapsed_s > 0.0 { count as f64 / elapsed_s } else { 0.0 };
        let overdue = self.lanes.count_overdue(Instant::now());
        let (due, late) = (total.sent + overdue, total.late + overdue);
        let open = matches!(self.load.pace, Pace::Open { .. }).then(|| OpenFigures {
            service_us: total.service.microseconds(),
            due,
            late,
            late_percent: late as f64 * 100.0 / due.max(1) as f64,
            late_after_us: LATE_AFTER.as_secs_f64() * 1e6,
        });
        let mut report = Report {
            schema: SCHEMA,
            transport: self.transport.clone(),
            target: self.target.to_string(),
            load: self.load.clone(),
            valid: true,
            problems: Vec::new(),
            ended_early,
            elapsed_s,
            messages: total.latencies.count(),
            messages_per_s: per_s(total.latencies.count()),
            payload_bytes_per_s: per_s(total.bytes),
            unanswered: self.lanes.state().0,
            latency_kind: if self.load.kind == Kind::Stream { "sent" } else { "rtt" }.to_owned(),
            latency_us: total.latencies.microseconds(),
            open,
            curve_us: total.latencies.curve(),
            seconds: self.seconds.clone(),
            client,
            server: self.server.clone(),
            environment: self.environment.clone(),
        };
        report.judge();
        report
    }
}
