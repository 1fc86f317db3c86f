//! What a worker's callbacks send by way of the worker itself: it needs no queue between threads.
//!
//! ```text
//!   callback --send_message--> own lane --> session, when the callbacks of this turn are done
//!                        \---> inbox        if something waits there already
//! ```
//!
//! A message goes this way only while the inbox's bounded lane is empty, and the worker empties
//! this lane before it takes anything from that one: so no message overtakes another that was sent
//! before it, from whatever thread.

use super::Gate;
use crate::connection::Connection;
use messenger_proto::Message;
use std::cell::RefCell;
use std::collections::VecDeque;

thread_local! {
    static LANE: RefCell<Lane> = const { RefCell::new(Lane { of: None, items: VecDeque::new() }) };
}

struct Lane {
    /// The gate whose worker runs callbacks on this thread.
    of: Option<*const Gate>,
    items: VecDeque<(Connection, Message)>,
}

/// The worker of `gate` is about to run callbacks on this thread.
pub(crate) fn open(gate: &Gate) {
    LANE.with_borrow_mut(|lane| lane.of = Some(gate));
}

/// It has run them, and sent what they sent.
pub(crate) fn close() {
    LANE.with_borrow_mut(|lane| {
        debug_assert!(lane.items.is_empty(), "what callbacks sent is sent");
        lane.of = None;
    });
}

/// Whether a message for a session of `gate`'s worker can go this way: this is the thread, and the
/// moment, and there are fewer than `most` already.
pub(super) fn takes(gate: &Gate, most: usize) -> bool {
    let gate = Some(std::ptr::from_ref(gate));
    LANE.with_borrow(|lane| lane.of == gate && lane.items.len() < most)
}

/// Takes a message for a session of that worker.
pub(super) fn push(connection: &Connection, message: Message) {
    let item = (connection.clone(), message);
    LANE.with_borrow_mut(|lane| lane.items.push_back(item));
}

/// The oldest message.
pub(crate) fn take() -> Option<(Connection, Message)> {
    LANE.with_borrow_mut(|lane| lane.items.pop_front())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatcher::Dispatchers;
    use crate::endpoint::bench;
    use crate::worker_loop::{Ask, Command};

    fn send(gate: &Gate, connection: &Connection, tid: u64) {
        gate.send_message(connection, Message::new(2).with_tid(tid)).unwrap();
    }

    fn own() -> Vec<u64> {
        std::iter::from_fn(take).map(|(_, message)| message.header.tid).collect()
    }

    fn inboxed(gate: &Gate) -> Vec<u64> {
        let taken = std::iter::from_fn(|| gate.inbox().take());
        taken
            .map(|command| match command {
                Command::Session(_, Ask::Send(message)) => message.header.tid,
                other => unreachable!("not sent here: {other:?}"),
            })
            .collect()
    }

    #[test]
    fn only_callbacks_of_this_worker_go_this_way_and_overtake_nobody() {
        let endpoint = bench::endpoint(Dispatchers::default());
        let [here, elsewhere] = [0, 1].map(bench::gate);
        let [ours, others] = [&here, &elsewhere].map(|gate| bench::connection(&endpoint, gate));
        send(&here, &ours, 1);
        assert_eq!((own(), inboxed(&here)), (vec![], vec![1]), "no callback runs");

        open(&here);
        send(&here, &ours, 2);
        send(&elsewhere, &others, 3);
        std::thread::scope(|scope| {
            scope.spawn(|| send(&here, &ours, 4));
        });
        send(&here, &ours, 5);
        assert_eq!(inboxed(&elsewhere), [3]);
        assert_eq!((own(), inboxed(&here)), (vec![2], vec![4, 5]), "5 was sent after 4");
        close();
        send(&here, &ours, 6);
        assert_eq!((own(), inboxed(&here)), (vec![], vec![6]));
    }

    #[test]
    fn a_callback_can_send_no_more_than_an_inbox_holds_twice() {
        let endpoint = bench::endpoint(Dispatchers::default());
        let gate = bench::gate(0);
        let connection = bench::connection(&endpoint, &gate);
        open(&gate);
        let send = || gate.send_message(&connection, Message::new(2));
        let taken = std::iter::repeat_with(send).take_while(Result::is_ok).count();
        assert_eq!(taken, 2 * gate.inbox().capacity());
        assert_eq!(own().len(), gate.inbox().capacity());
        close();
    }
}
