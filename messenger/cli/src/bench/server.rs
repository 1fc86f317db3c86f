//! `msgr bench serve`: answers a load, and tells the client about its own half of the run.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use messenger::{
    Connection, Dispatcher, DispatcherPriority, EntityAddr, EntityName, EntityType, Message,
    Messenger, MessengerCounters, Policy, SendError,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::bench::load::Kind;
use crate::bench::meter::{Cycles, Half, Meter};
use crate::bench::report::SCHEMA;
use crate::bench::yardstick::{self, Waiting};
use crate::options::{TransportArgs, parse_addr};
use crate::signals;

/// Types of the bench's messages, which no daemon of Ceph uses.
pub(crate) mod msg_type {
    /// Comes back with its payload.
    pub(crate) const ECHO: u16 = 0xbe01;
    /// Comes back without.
    pub(crate) const PING: u16 = 0xbe02;
    /// Does not come back.
    pub(crate) const STREAM: u16 = 0xbe03;
    /// A question about the server's half, and its answer.
    pub(crate) const CONTROL: u16 = 0xbe04;
}

/// The type of messages of this kind.
pub(crate) fn msg_kind(kind: Kind) -> u16 {
    match kind {
        Kind::Echo => msg_type::ECHO,
        Kind::Ping => msg_type::PING,
        Kind::Stream => msg_type::STREAM,
    }
}

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Question {
    /// Count from now.
    Begin,
    /// How much was it?
    End,
}

impl Question {
    pub(crate) fn to_bytes(self) -> Bytes {
        json!({ "schema": SCHEMA, "question": self }).to_string().into()
    }
}

/// What a server answers; with its half at the end only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)] // a question that some other server echoes is no answer
pub(crate) struct Answer {
    pub(crate) schema: u32,
    pub(crate) half: Option<Half>,
}

impl Answer {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let answer: Self = serde_json::from_slice(bytes)
            .context("the answer is not one of `msgr bench serve`; is that what runs there?")?;
        if answer.schema != SCHEMA {
            bail!("the server speaks schema {}, we {SCHEMA}: another version", answer.schema);
        }
        Ok(answer)
    }
}

/// The server's count of a run.
#[derive(Debug)]
pub(crate) struct Tally {
    cycles: Cycles,
    messages: AtomicU64,
    bytes: AtomicU64,
    /// Where the run began: messages, bytes, and what was spent by then.
    begun: Mutex<Option<(u64, u64, Meter)>>,
}

impl Tally {
    /// To be made before the threads that do the work.
    pub(crate) fn new() -> Self {
        Self {
            cycles: Cycles::count(),
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            begun: Mutex::new(None),
        }
    }

    /// A message came.
    pub(crate) fn add(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn now(&self) -> (u64, u64) {
        (self.messages.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// The answer to a question as it arrived.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn answer(
        &self,
        question: &[u8],
        counters: Option<MessengerCounters>,
    ) -> Result<Vec<u8>> {
        #[derive(Deserialize)]
        struct Asked {
            question: Question,
        }
        let Asked { question } = serde_json::from_slice(question).context("no question")?;
        let (messages, bytes) = self.now();
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let half = match question {
            Question::Begin => {
                *begun = Some((messages, bytes, Meter::start(&self.cycles, counters)));
                None
            }
            Question::End => begun.as_ref().map(|(messages_then, bytes_then, meter)| {
                meter.read(messages - messages_then, bytes - bytes_then, &self.cycles, counters)
            }),
        };
        Ok(serde_json::to_vec(&Answer { schema: SCHEMA, half })?)
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    transport: TransportArgs,
    /// Serve bare frames over kernel TCP, without a messenger, and wait for sockets like this
    #[arg(long, value_enum, conflicts_with = "stack")]
    yardstick: Option<Waiting>,
    /// Address to serve on; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", value_parser = parse_addr)]
    bind: EntityAddr,
    /// Run on these CPUs only, all threads: 0,1
    #[arg(long, value_name = "CPU,...", value_delimiter = ',')]
    pin: Vec<usize>,
    /// Print JSON, a line an event
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &ServeArgs) -> Result<()> {
    super::pin(&args.pin)?;
    let stop = signals::stop_requested()?;
    let told = |addr: String, stack: &str| -> Result<()> {
        let mut out = std::io::stdout().lock();
        match args.json {
            true => {
                let ready = json!({
                    "schema": SCHEMA, "event": "ready", "addrs": [addr], "stack": stack,
                    "pid": std::process::id(),
                });
                writeln!(out, "{ready}")?;
            }
            false => writeln!(out, "serves loads on {addr} over {stack}; end it with Ctrl-C")?,
        }
        Ok(out.flush()?)
    };
    if let Some(waiting) = args.yardstick {
        let socket = args.bind.socket.context("an address without a socket")?;
        let server = yardstick::Server::start(socket, waiting)?;
        told(server.addr().to_string(), waiting.name())?;
        stop.wait_until(None);
        return server.end();
    }
    let answering = Arc::new(Answering { tally: Tally::new(), messenger: OnceLock::new() });
    let config = args.transport.config()?;
    let stack = config.ms_type.to_string();
    let messenger = Arc::new(Messenger::create(EntityName::new(EntityType::Osd, 0), config)?);
    messenger.set_nonce(0)?;
    messenger.set_default_policy(Policy::stateless_server())?;
    let _ = answering.messenger.set(Arc::downgrade(&messenger));
    messenger.add_dispatcher_tail(answering, DispatcherPriority::DEFAULT)?;
    let addrs = messenger
        .bindv(&args.bind.into(), None)
        .with_context(|| format!("cannot serve on {}", args.bind))?;
    messenger.start()?;
    let addr = addrs.iter().next().context("bound to no address")?;
    told(addr.to_string(), &stack)?;
    stop.wait_until(None);
    messenger.shutdown();
    messenger.wait()?;
    Ok(())
}

/// The dispatcher of a serving messenger.
struct Answering {
    tally: Tally,
    messenger: OnceLock<Weak<Messenger>>,
}

impl Answering {
    fn reply(&self, message: Message) -> Option<Message> {
        self.tally.add(message.data.len());
        let reply = Message::new(message.header.kind).with_tid(message.header.tid);
        match message.header.kind {
            msg_type::ECHO => Some(reply.with_data(message.data)),
            msg_type::PING => Some(reply),
            _ => None,
        }
    }
}

impl Dispatcher for Answering {
    fn can_fast_dispatch_any(&self) -> bool {
        true
    }

    fn can_fast_dispatch(&self, message: &Message) -> bool {
        // Counters come from the workers, so a worker cannot wait for them.
        message.header.kind != msg_type::CONTROL
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        let Some(reply) = self.reply(message) else {
            return;
        };
        match connection.send_message(reply) {
            Ok(()) | Err(SendError::Closed(_)) => {} // a client that has left needs none
            Err(error) => {
                // The client must not take a missing reply for a slow one.
                tracing::warn!("no room for a reply: {error}");
                connection.mark_down();
            }
        }
    }

    fn dispatch(&self, connection: &Connection, message: Message) -> Result<(), Message> {
        if message.header.kind != msg_type::CONTROL {
            return Err(message);
        }
        let messenger = self.messenger.get().and_then(Weak::upgrade);
        let counters = messenger.map(|messenger| messenger.counters());
        match self.tally.answer(&message.data, counters) {
            Ok(answer) => {
                let answer = Message::new(msg_type::CONTROL).with_data(answer);
                let _ = connection.send_message(answer);
            }
            Err(error) => tracing::warn!("a question that is none: {error:#}"),
        }
        Ok(())
    }
}
