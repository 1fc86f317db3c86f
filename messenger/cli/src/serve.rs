//! `msgr serve`: answers every message with itself.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use messenger::{
    Connection, Dispatcher, DispatcherPriority, EntityAddr, EntityAddrVec, EntityName, Message,
    Messenger, Policy,
};
use serde_json::{Value, json};

use crate::options::{TransportArgs, parse_addr, parse_seconds};
use crate::report::SCHEMA;
use crate::signals;

/// Counters are not printed more often than this.
const STATS_EVERY_MIN: Duration = Duration::from_millis(10);

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    transport: TransportArgs,
    /// Address to serve on, may be repeated; port 0 takes a free one of the configured range. With v1:
    /// in front it is for msgr1; one of each protocol may share a port
    #[arg(long, value_name = "IP:PORT", required = true, value_parser = parse_addr)]
    bind: Vec<EntityAddr>,
    /// Who we are to our peers
    #[arg(long, value_name = "TYPE.ID", default_value = "osd.0")]
    entity: EntityName,
    /// Tells incarnations on one address apart; peers must name it when they dial
    #[arg(long, value_name = "N", default_value_t = 0)]
    nonce: u32,
    /// Print counters as often as this, and once at the end
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    stats: Option<Duration>,
    /// Print JSON, a line an event
    #[arg(long)]
    json: bool,
}

/// Sends each message back where it came from.
#[derive(Debug, Default)]
struct Echo {
    answered: AtomicU64,
    accepted: AtomicU64,
    ended: AtomicU64,
}

impl Dispatcher for Echo {
    fn can_fast_dispatch_any(&self) -> bool {
        true
    }

    fn can_fast_dispatch(&self, _message: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        // A peer that is gone by now needs no answer; its end is told by `handle_reset`.
        if connection.send_message(echo(message)).is_ok() {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn handle_accept(&self, connection: &Connection) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        tracing::info!(peer = ?connection.peer_socket_addr(), "connection accepted");
    }

    fn handle_reset(&self, connection: &Connection) -> bool {
        self.ended.fetch_add(1, Ordering::Relaxed);
        tracing::info!(peer = ?connection.peer_socket_addr(), "connection ended");
        true
    }
}

/// The same sections again, as a message of ours.
fn echo(message: Message) -> Message {
    Message::new(message.header.kind)
        .with_tid(message.header.tid)
        .with_priority(message.header.priority)
        .with_version(message.header.version, message.header.compat_version)
        .with_front(message.front)
        .with_middle(message.middle)
        .with_data(message.data)
}

pub(crate) fn run(args: &ServeArgs) -> Result<()> {
    let stop = signals::stop_requested()?;
    let config = args.transport.config()?;
    let stack = config.ms_type.to_string();
    let messenger = Messenger::create(args.entity, config)?;
    messenger.set_nonce(args.nonce)?;
    messenger.set_default_policy(Policy::stateless_server())?;
    let echo = Arc::new(Echo::default());
    let wanted = EntityAddrVec(args.bind.clone());
    let addrs =
        messenger.bindv(&wanted, None).with_context(|| format!("cannot serve on {wanted}"))?;
    messenger.add_dispatcher_tail(echo.clone(), DispatcherPriority::DEFAULT)?;
    messenger.start()?;

    let out = Printer { json: args.json };
    let each_addr: Vec<_> = addrs.iter().map(ToString::to_string).collect();
    out.event(
        &format!("{} serves on {addrs} over {stack}; end it with Ctrl-C", args.entity),
        json!({
            "schema": SCHEMA, "event": "ready", "entity": args.entity.to_string(),
            "addrs": each_addr, "stack": stack, "pid": std::process::id(),
        }),
    )?;

    let every = args.stats.map(|every| every.max(STATS_EVERY_MIN));
    let mut next = every.map(|every| Instant::now() + every);
    while !stop.wait_until(next) {
        out.counters("counters", &echo, &messenger)?;
        next = every.map(|every| Instant::now() + every);
    }
    if args.json || every.is_some() {
        out.counters("end", &echo, &messenger)?;
    }
    messenger.shutdown();
    messenger.wait()?;
    Ok(())
}

struct Printer {
    json: bool,
}

impl Printer {
    fn event(&self, text: &str, value: Value) -> Result<()> {
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{value}")?;
        } else {
            writeln!(out, "{text}")?;
        }
        Ok(out.flush()?)
    }

    fn counters(&self, event: &str, echo: &Echo, messenger: &Messenger) -> Result<()> {
        let accepted = echo.accepted.load(Ordering::Relaxed);
        let ended = echo.ended.load(Ordering::Relaxed);
        let answered = echo.answered.load(Ordering::Relaxed);
        let counters = messenger.counters();
        let text = format!("{accepted} accepted, {ended} ended, {answered} answered\n{counters}");
        // Each worker's counters once more in one flat object: what scripts read before there were
        // sets.
        let flat = counters.workers.iter().map(|worker| {
            let all = worker.messenger.iter().chain(&worker.transport);
            all.map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
        });
        let workers: Vec<Value> = flat.map(Value::Object).collect();
        self.event(
            &text,
            json!({
                "schema": SCHEMA, "event": event, "accepted": accepted, "ended": ended,
                "answered": answered, "workers": workers, "counters": counters,
            }),
        )
    }
}
