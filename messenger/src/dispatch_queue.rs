//! Messages and news on their way to the application, and the one thread that hands them out.
//!
//! The order is [`PriorityQueue`]'s; this is the thin shell of a lock and a bell around it. It is
//! off the data path: what must be fast is dispatched on the worker and never comes here.
//!
//! News of a connection's life travel at the strict priority 255 under one class, so they keep
//! their order among themselves and precede ordinary messages (contracts Q-7, D-13). A message of
//! a connection that is down is dropped when it comes and when it goes, so none follows the
//! connection's reset (D-14).

use crate::clock::Clock;
use crate::connection::Connection;
use crate::dispatcher::Dispatchers;
use crate::endpoint::Endpoint;
use crate::metrics::{Histogram, NamedCounters};
use crate::priority_queue::{CONTROL_CLASS, PriorityQueue, Weights};
use messenger_proto::message::{Message, PRIORITY_HIGHEST};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What happened to a connection, for the dispatch thread to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Connect,
    Accept,
    RemoteReset,
    Reset,
    Refused,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "news are rare, a box per message is not")]
enum Item {
    Message(Connection, Message),
    News(Connection, News),
}

#[derive(Debug)]
struct State {
    queue: PriorityQueue<Item>,
    messages: usize,
    counts: Counts,
    stopped: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    queued: u64,
    discarded: u64,
    news: u64,
}

/// One messenger's queue; all methods from any thread, and none but `run` blocks.
#[derive(Debug)]
pub(crate) struct DispatchQueue {
    state: Mutex<State>,
    bell: Condvar,
    /// From the last byte of a message to the dispatcher.
    waits: Histogram,
    clock: Clock,
}

impl DispatchQueue {
    pub(crate) fn new(weights: Weights, clock: Clock) -> Self {
        Self {
            state: Mutex::new(State {
                queue: PriorityQueue::new(weights),
                messages: 0,
                counts: Counts::default(),
                stopped: false,
            }),
            bell: Condvar::new(),
            waits: Histogram::default(),
            clock,
        }
    }

    /// Queues a message under its connection's class, local ones under the control class.
    pub(crate) fn push(&self, connection: Connection, message: Message) {
        let class = match connection.is_loopback() {
            true => CONTROL_CLASS,
            false => connection.id(),
        };
        let (priority, cost) = (message.header.priority, message.cost() as u64);
        let mut state = self.lock();
        // Under the lock: whoever takes the connection down sets its flag before it discards here.
        if !state.stopped && !connection.is_down() {
            let item = Item::Message(connection, message);
            state.queue.push(priority, class, cost, item);
            state.messages += 1;
            state.counts.queued += 1;
            self.bell.notify_one();
        }
    }

    /// Queues news of a connection.
    pub(crate) fn tell(&self, connection: Connection, news: News) {
        let mut state = self.lock();
        if !state.stopped {
            state.counts.news += 1;
            let item = Item::News(connection, news);
            state.queue.push(PRIORITY_HIGHEST, CONTROL_CLASS, 0, item);
            self.bell.notify_one();
        }
    }

    /// Drops the queued messages of one connection, which is marked as down already.
    pub(crate) fn discard(&self, connection: &Connection) {
        if connection.is_loopback() {
            return; // shares its class with the control items, which are never discarded
        }
        let mut state = self.lock();
        let gone = state.queue.discard(connection.id());
        state.messages -= gone.len();
        state.counts.discarded += gone.len() as u64;
        drop(state); // the messages go after it: dropping one may wake a session
        drop(gone);
    }

    /// Messages queued, without the news (M-26).
    pub(crate) fn len(&self) -> usize {
        self.lock().messages
    }

    /// How long the oldest queued message waits, counted from its first byte (M-26).
    pub(crate) fn max_age(&self, now: Instant) -> Option<Duration> {
        let state = self.lock();
        let fronts = state.queue.fronts().filter_map(|item| match item {
            Item::Message(_, message) => message.stamps.recv,
            Item::News(..) => None,
        });
        let oldest = fronts.min()?;
        Some(now.saturating_duration_since(oldest))
    }

    /// Name and value of what was counted, in a fixed order.
    pub(crate) fn counters(&self) -> NamedCounters {
        let state = self.lock();
        let (messages, counts) = (state.messages as u64, state.counts);
        drop(state);
        let mut named = vec![
            ("messages", messages),
            ("queued_messages", counts.queued),
            ("discarded_messages", counts.discarded),
            ("news", counts.news),
        ];
        named.extend(self.waits.named());
        named
    }

    /// Lets the thread end: messages still queued are dropped, news are told.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.bell.notify_all();
    }

    /// The dispatch thread: hands out until [`DispatchQueue::stop`], then the news that are left.
    pub(crate) fn run(&self, endpoint: &Endpoint) {
        while let Some((item, stopped)) = self.next() {
            if let Item::News(connection, _) = &item {
                let delay = endpoint.options.injection.callback_delay(connection.id());
                if !delay.is_zero() {
                    self.clock.sleep(delay); // for tests, contract Q-12
                }
            }
            self.hand_out(endpoint, item, stopped);
        }
    }

    /// Hands out one item, if there is one, in place of the dispatch thread.
    pub(crate) fn run_once(&self, endpoint: &Endpoint) -> bool {
        let next = self.lock().pop();
        next.map(|(item, stopped)| self.hand_out(endpoint, item, stopped)).is_some()
    }

    fn hand_out(&self, endpoint: &Endpoint, item: Item, stopped: bool) {
        match item {
            Item::News(connection, news) => tell(&endpoint.dispatchers, &connection, news),
            Item::Message(connection, message) if !stopped && !connection.is_down() => {
                self.dispatch(endpoint, &connection, message);
            }
            Item::Message(..) => {
                self.lock().counts.discarded += 1;
            }
        }
    }

    fn dispatch(&self, endpoint: &Endpoint, connection: &Connection, mut message: Message) {
        let now = self.clock.now();
        message.stamps.dispatch = Some(now);
        let since = message.stamps.recv_complete.unwrap_or(now);
        self.waits.record(now.saturating_duration_since(since));
        if let Err(message) = endpoint.dispatchers.dispatch(connection, message) {
            let kind = message.header.kind;
            tracing::error!(%connection, kind, "no dispatcher took this message; dropped");
            endpoint.options.die_on.judge_unhandled(connection);
        }
    }

    /// Blocks until there is an item; `None` when stopped and empty.
    fn next(&self) -> Option<(Item, bool)> {
        let mut state = self.lock();
        loop {
            if let Some(next) = state.pop() {
                return Some(next);
            }
            if state.stopped {
                return None;
            }
            let woken = self.bell.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The next item, and whether the queue has been stopped.
    fn pop(&mut self) -> Option<(Item, bool)> {
        let item = self.queue.pop()?;
        self.messages -= usize::from(matches!(item, Item::Message(..)));
        Some((item, self.stopped))
    }
}

fn tell(dispatchers: &Dispatchers, connection: &Connection, news: News) {
    match news {
        News::Connect => dispatchers.tell(connection, |d, c| d.handle_connect(c)),
        News::Accept => dispatchers.tell(connection, |d, c| d.handle_accept(c)),
        News::RemoteReset => dispatchers.tell(connection, |d, c| d.handle_remote_reset(c)),
        News::Reset => dispatchers.ask(connection, |d, c| d.handle_reset(c)),
        News::Refused => dispatchers.ask(connection, |d, c| d.handle_refused(c)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Flag;
    use crate::dispatcher::{Dispatcher, DispatcherPriority};
    use crate::endpoint::bench;
    use std::sync::Arc;

    /// Writes down what it is told, under its name.
    struct Scribe {
        name: &'static str,
        takes: bool,
        notes: Arc<Mutex<Vec<String>>>,
    }

    impl Scribe {
        fn note(&self, what: &str) {
            self.notes.lock().unwrap().push(format!("{} {what}", self.name));
        }
    }

    impl Dispatcher for Scribe {
        fn dispatch(&self, _: &Connection, message: Message) -> Result<(), Message> {
            self.note(&message.header.tid.to_string());
            if self.takes { Ok(()) } else { Err(message) }
        }
        fn handle_accept(&self, _: &Connection) {
            self.note("accept");
        }
        fn handle_reset(&self, _: &Connection) -> bool {
            self.note("reset");
            self.takes
        }
    }

    struct Desk {
        dispatchers: Dispatchers,
        queue: DispatchQueue,
        one: Connection,
        two: Connection,
        notes: Arc<Mutex<Vec<String>>>,
    }

    impl Desk {
        /// Dispatchers of the given names; the last one takes everything.
        fn new(names: &[&'static str]) -> Self {
            let notes = Arc::default();
            let mut dispatchers = Dispatchers::default();
            for name in names {
                let takes = names.last() == Some(name);
                let notes = Arc::clone(&notes);
                let scribe = Arc::new(Scribe { name, takes, notes });
                dispatchers.add_tail(scribe, DispatcherPriority::DEFAULT);
            }
            let (endpoint, gate) = (bench::endpoint(Dispatchers::default()), bench::gate(0));
            Self {
                dispatchers,
                queue: DispatchQueue::new(Weights::default(), Clock::real()),
                one: bench::connection(&endpoint, &gate),
                two: bench::connection(&endpoint, &gate),
                notes,
            }
        }

        fn push(&self, connection: &Connection, tid: u64) {
            let mut message = Message::new(2).with_tid(tid);
            message.stamps.recv = Some(Instant::now());
            self.queue.push(connection.clone(), message);
        }

        /// Hands out what is queued.
        fn run(&self) -> Vec<String> {
            let endpoint = bench::endpoint(self.dispatchers.clone());
            while self.queue.run_once(&endpoint) {}
            std::mem::take(&mut self.notes.lock().unwrap())
        }
    }

    #[test]
    fn news_precede_messages_and_a_message_goes_on_until_taken() {
        let desk = Desk::new(&["a", "b"]);
        desk.push(&desk.one, 1);
        desk.queue.tell(desk.one.clone(), News::Accept);
        desk.queue.tell(desk.two.clone(), News::Reset);
        assert_eq!(desk.queue.len(), 1);
        let told = ["a accept", "b accept", "a reset", "b reset", "a 1", "b 1"];
        assert_eq!(desk.run(), told);
        assert_eq!(desk.queue.len(), 0);
    }

    #[test]
    fn who_saw_to_a_reset_keeps_it_from_the_next() {
        let mut desk = Desk::new(&["a"]);
        let notes = Arc::clone(&desk.notes);
        let first = Arc::new(Scribe { name: "first", takes: true, notes });
        desk.dispatchers.add_head(first, DispatcherPriority::DEFAULT);
        desk.queue.tell(desk.one.clone(), News::Reset);
        assert_eq!(desk.run(), ["first reset"]);
    }

    #[test]
    fn a_lower_number_is_asked_first_whatever_the_order_of_adding() {
        let mut desk = Desk::new(&["default"]);
        let scribe = |name| Arc::new(Scribe { name, takes: false, notes: Arc::clone(&desk.notes) });
        let (low, high, head) = (scribe("low"), scribe("high"), scribe("head"));
        desk.dispatchers.add_head(low, DispatcherPriority::LOW);
        desk.dispatchers.add_tail(high, DispatcherPriority::HIGH);
        desk.dispatchers.add_head(head, DispatcherPriority::DEFAULT);
        desk.queue.tell(desk.one.clone(), News::Accept);
        let order = ["high accept", "head accept", "default accept", "low accept"];
        assert_eq!(desk.run(), order);
    }

    #[test]
    fn no_message_of_a_connection_follows_its_end() {
        let desk = Desk::new(&["a"]);
        desk.push(&desk.one, 1);
        desk.push(&desk.two, 2);
        desk.one.raise(Flag::Down);
        desk.queue.discard(&desk.one);
        desk.push(&desk.one, 3);
        desk.queue.tell(desk.one.clone(), News::Reset);
        assert_eq!(desk.queue.len(), 1);
        assert_eq!(desk.run(), ["a reset", "a 2"]);
    }

    #[test]
    fn after_the_stop_messages_are_dropped_and_news_told() {
        let desk = Desk::new(&["a"]);
        desk.push(&desk.one, 1);
        desk.queue.tell(desk.one.clone(), News::Reset);
        desk.queue.stop();
        desk.queue.tell(desk.two.clone(), News::Accept);
        desk.queue.run(&bench::endpoint(desk.dispatchers.clone()));
        assert_eq!(*desk.notes.lock().unwrap(), ["a reset"]);
    }

    #[test]
    fn waits_are_counted_by_length_and_what_was_dropped_apart() {
        let desk = Desk::new(&["a"]);
        for (connection, tid, ms) in [(&desk.one, 1, 3), (&desk.one, 2, 3), (&desk.two, 3, 300)] {
            let mut message = Message::new(2).with_tid(tid);
            let complete = Instant::now().checked_sub(Duration::from_millis(ms));
            message.stamps.recv_complete = complete;
            desk.queue.push(connection.clone(), message);
        }
        desk.run();
        desk.push(&desk.two, 4);
        desk.two.raise(Flag::Down);
        desk.queue.discard(&desk.two);
        desk.queue.tell(desk.two.clone(), News::Reset);

        let counters = desk.queue.counters();
        let get = |wanted| counters.iter().find(|(name, _)| *name == wanted).unwrap().1;
        assert_eq!((get("messages"), get("queued_messages")), (0, 4));
        assert_eq!((get("discarded_messages"), get("news")), (1, 1));
        assert_eq!(get("wait_count"), 3);
        // A slow machine may make them longer, never shorter.
        assert!(get("wait_sum_us") >= 306_000);
        let below = counters.iter().take_while(|(name, _)| *name != "wait_2048_to_4096_us");
        let below = below.filter(|(name, _)| name.contains("_to_")).map(|(_, n)| n).sum::<u64>();
        assert_eq!(below, 0);
    }

    #[test]
    fn the_age_is_that_of_the_oldest_message() {
        let desk = Desk::new(&["a"]);
        assert_eq!(desk.queue.max_age(Instant::now()), None);
        desk.push(&desk.one, 1);
        let later = Instant::now() + Duration::from_secs(7);
        desk.push(&desk.two, 2);
        assert!(desk.queue.max_age(later) >= Some(Duration::from_secs(7)));
    }
}
