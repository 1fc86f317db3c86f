//! The running set of workers: threads, their inboxes, and who shares them.
//!
//! A process needs one set per transport, however many messengers it has: those that name the same
//! transport with the same settings share one (contract M-2). The set ends when its last messenger
//! is gone: each thread ends its sessions and is joined. A set can also do without threads, see
//! [`Driven`].

use crate::clock::Clock;
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::inbox::Inbox;
use crate::metrics::WorkerCounters;
use crate::registry::Registry;
use crate::worker_loop::{Ask, Command, WorkerLoop};
use messenger_proto::Message;
use netstack::stack::{EventDriver, NetworkStack, Worker};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

mod driven;
pub(crate) mod own_lane;

use driven::Drive;
pub use driven::{DriveOptions, Driven};

/// How long a caller waits for a worker's answer before it takes the worker for dead.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How [`Workers`] are started.
#[derive(Clone, Debug)]
pub struct WorkersOptions {
    /// Start of the threads' names; the worker's number follows. Linux shows 15 bytes.
    pub name: String,
    /// Items each worker's inbox holds before senders get their message back.
    pub inbox_items: NonZeroUsize,
    /// CPUs to pin the workers to, one each; empty: not pinned. With fewer CPUs than workers the
    /// list is used again from its start.
    pub cpus: Vec<usize>,
}

impl Default for WorkersOptions {
    fn default() -> Self {
        Self {
            name: String::from("msgr-worker"),
            inbox_items: const { NonZeroUsize::new(8192).expect("not zero") },
            cpus: Vec::new(),
        }
    }
}

/// The threads of one transport, shared by all messengers that use it, and joined when the last of
/// those is gone.
pub struct Workers {
    gates: Vec<Arc<Gate>>,
    clock: Clock,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// In place of threads, see [`Driven`].
    drive: Option<Drive>,
}

impl Workers {
    /// Starts one thread per worker of `stack` and returns when all are ready.
    ///
    /// # Errors
    /// If the stack cannot make its workers, a thread cannot be made or pinned, or a worker cannot
    /// start on it. What had started is ended.
    pub fn start<S: NetworkStack>(stack: S, options: &WorkersOptions) -> io::Result<Arc<Self>> {
        let mut workers = Self {
            gates: Vec::new(),
            clock: Clock::real(),
            threads: Mutex::default(),
            drive: None,
        };
        let (ready, outcomes) = channel();
        for (index, worker) in stack.into_workers()?.into_iter().enumerate() {
            let inbox = Inbox::new(options.inbox_items.get(), worker.waker());
            let gate = Arc::new(Gate::new(index, inbox));
            workers.gates.push(Arc::clone(&gate));
            let cpu = options.cpus.iter().cycle().nth(index).copied();
            let secret = getrandom::u64().map_err(io::Error::other)?;
            let ready = ready.clone();
            let thread = std::thread::Builder::new()
                .name(format!("{}-{index}", options.name))
                .spawn(move || run(worker, gate, cpu, secret, ready))?;
            workers.own_threads().push(thread);
        }
        drop(ready);
        outcomes.into_iter().collect::<io::Result<()>>()?;
        Ok(Arc::new(workers))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.gates.len()
    }

    pub(crate) fn gates(&self) -> &[Arc<Gate>] {
        &self.gates
    }

    /// The worker with the fewest references, with one more (contract M-28).
    pub(crate) fn least_loaded(&self) -> Option<&Arc<Gate>> {
        let open = self.gates.iter().filter(|gate| !gate.is_shut());
        let gate = open.min_by_key(|gate| gate.references.load(Ordering::Relaxed))?;
        gate.add_reference();
        Some(gate)
    }

    /// Whether the calling thread is one of the workers, which must not wait for workers.
    pub(crate) fn runs_current_thread(&self) -> bool {
        if let Some(drive) = &self.drive {
            return drive.is_turning();
        }
        let current = std::thread::current().id();
        self.gates.iter().any(|gate| gate.thread.get() == Some(&current))
    }

    /// Snapshots of all workers' counters; a worker that does not answer is left out.
    pub(crate) fn counters(&self) -> Vec<WorkerCounters> {
        if self.runs_current_thread() {
            return Vec::new();
        }
        let ask = |gate: &Arc<Gate>| {
            let (reply, answer) = channel();
            gate.post(Command::Count(reply));
            answer
        };
        let answers: Vec<_> = self.gates.iter().map(ask).collect();
        answers.iter().filter_map(|answer| self.answer(answer)).collect()
    }

    /// What time it is for them and their messengers.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether they have no threads of their own.
    pub(crate) fn are_driven(&self) -> bool {
        self.drive.is_some()
    }

    /// A random number, from the driver's seed if there is a driver.
    pub(crate) fn draw(&self) -> io::Result<u64> {
        match &self.drive {
            Some(drive) => Ok(drive.draw()),
            None => getrandom::u64().map_err(io::Error::other),
        }
    }

    /// Waits for the answer to a command; `None`: the worker is dead.
    pub(crate) fn answer<T>(&self, answer: &Receiver<T>) -> Option<T> {
        match &self.drive {
            None => answer.recv_timeout(ANSWER_WITHIN).ok(),
            Some(drive) => drive.turn_until(|| match answer.try_recv() {
                Ok(answer) => Some(Some(answer)),
                Err(TryRecvError::Disconnected) => Some(None),
                Err(TryRecvError::Empty) => None,
            }),
        }
    }

    /// Waits until every connection of a registry that takes no more has ended.
    pub(crate) fn wait_until_empty(&self, registry: &Registry) {
        match &self.drive {
            None => registry.wait_until_empty(),
            Some(drive) => drive.turn_until(|| (registry.len() == 0).then_some(())),
        }
    }

    /// Hands out what the endpoint queues; whether that is to be done by threads instead.
    pub(crate) fn attend(&self, endpoint: &Arc<Endpoint>) -> bool {
        self.drive.as_ref().inspect(|drive| drive.attend(endpoint)).is_none()
    }

    fn own_threads(&mut self) -> &mut Vec<JoinHandle<()>> {
        self.threads.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for gate in &self.gates {
            gate.post(Command::Stop);
        }
        let current = std::thread::current().id();
        for thread in std::mem::take(self.own_threads()) {
            // A callback that drops the last messenger runs on a thread that then ends by itself.
            if thread.thread().id() != current && thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
        for gate in &self.gates {
            while gate.inbox.take().is_some() {}
        }
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.gates).finish()
    }
}

/// A worker thread.
fn run<W: Worker>(
    mut worker: W,
    gate: Arc<Gate>,
    cpu: Option<usize>,
    secret: u64,
    ready: Sender<io::Result<()>>,
) {
    gate.thread.get_or_init(|| std::thread::current().id());
    let started = cpu.map_or(Ok(()), pin).and_then(|()| worker.start());
    let failed = started.is_err();
    // The starter waits for every answer, so it is there.
    let _ = ready.send(started);
    drop(ready);
    if failed {
        gate.shut();
        return;
    }
    let index = gate.index();
    let name = worker.name();
    if let Err(error) = WorkerLoop::new(worker, gate, Clock::real(), secret).run() {
        tracing::error!(worker = index, driver = name, %error, "worker failed; its sessions ended");
    }
}

fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        let reason = format!("cpu {cpu} is beyond {}", CpuSet::MAX_CPU - 1);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// The way to one worker, for everybody else.
pub(crate) struct Gate {
    index: usize,
    inbox: Arc<Inbox<Command>>,
    /// Connections that live on this worker or are about to.
    references: AtomicUsize,
    shut: AtomicBool,
    thread: OnceLock<ThreadId>,
}

impl Gate {
    pub(crate) fn new(index: usize, inbox: Inbox<Command>) -> Self {
        Self {
            index,
            inbox: Arc::new(inbox),
            references: AtomicUsize::new(0),
            shut: AtomicBool::new(false),
            thread: OnceLock::new(),
        }
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox<Command>> {
        &self.inbox
    }

    /// Sends through the bounded lane; gives the command back if it is full or the worker ended.
    pub(crate) fn send(&self, command: Command) -> Result<(), Command> {
        if self.is_shut() {
            return Err(command);
        }
        self.inbox.send(command)
    }

    /// Sends a message to a session of this worker, or of one that it passes commands on to; gives
    /// it back if there is no room or the worker ended.
    #[expect(clippy::result_large_err, reason = "the message goes back as it came, unboxed")]
    pub(crate) fn send_message(
        &self,
        connection: &Connection,
        message: Message,
    ) -> Result<(), Message> {
        if self.is_shut() {
            return Err(message);
        }
        if self.inbox.is_bounded_empty() && own_lane::takes(self, self.inbox.capacity()) {
            own_lane::push(connection, message);
            return Ok(());
        }
        let command = Command::Session(connection.clone(), Ask::Send(message));
        self.inbox.send(command).map_err(|command| match command {
            Command::Session(_, Ask::Send(message)) => message,
            _ => unreachable!("the inbox gives back what it was given"),
        })
    }

    /// Posts through the control lane. A worker that ended takes nothing.
    pub(crate) fn post(&self, command: Command) {
        if !self.is_shut() {
            self.inbox.post(command);
        }
    }

    /// The worker ends: nothing more is taken.
    pub(crate) fn shut(&self) {
        self.shut.store(true, Ordering::Release);
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Acquire)
    }

    pub(crate) fn add_reference(&self) {
        self.references.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn drop_reference(&self) {
        self.references.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("index", &self.index)
            .field("references", &self.references)
            .field("inbox", &self.inbox)
            .finish_non_exhaustive()
    }
}
