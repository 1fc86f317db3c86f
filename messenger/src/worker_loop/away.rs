//! Sessions that moved to another worker, and the commands that still come here for them.
//!
//! A handle names one worker for ever, its home; a session moves to where its peer's newest TCP
//! connection arrived (contract L-6). The home passes its commands on, so the order in which the
//! application asked is the order in which the session is told, wherever it is:
//!
//! ```text
//!   handles -> home -> the session's worker
//!                |  "decide about this newcomer"      from now on the home holds commands back
//!                <--"it is there now"                 held ones follow, then all others
//! ```

use super::command::{Ask, Command};
use crate::connection::Connection;
use crate::workers::Gate;
use std::collections::HashMap;
use std::sync::Arc;

/// The moved sessions of the handles that call this worker their home.
#[derive(Debug, Default)]
pub(crate) struct Away(HashMap<Connection, Place>);

#[derive(Debug)]
struct Place {
    at: Arc<Gate>,
    /// A decision is under way that may move the session on.
    held: Option<Vec<Ask>>,
}

impl Away {
    /// Whether the session is away.
    #[inline]
    pub(crate) fn has(&self, connection: &Connection) -> bool {
        !self.0.is_empty() && self.0.contains_key(connection)
    }

    /// Passes a command on, or holds it, if the session is away; gives it back if it is here.
    pub(crate) fn pass_on(&mut self, connection: &Connection, ask: Ask) -> Option<Ask> {
        let Some(place) = self.0.get_mut(connection) else {
            return Some(ask);
        };
        match &mut place.held {
            Some(held) => held.push(ask),
            None => place.tell(connection, ask),
        }
        None
    }

    /// The session leaves from here.
    pub(crate) fn went(&mut self, connection: Connection, to: Arc<Gate>) {
        self.0.insert(connection, Place { at: to, held: None });
    }

    /// A decision fell: the session is at `at`. Gives back the commands that were held if it is
    /// here or nowhere.
    pub(crate) fn settle(
        &mut self,
        here: &Arc<Gate>,
        connection: &Connection,
        at: Option<Arc<Gate>>,
    ) -> Vec<Ask> {
        let Some(mut place) = self.0.remove(connection) else {
            return Vec::new();
        };
        let held = place.held.take().unwrap_or_default();
        let Some(at) = at.filter(|at| !Arc::ptr_eq(at, here)) else {
            return held;
        };
        place.at = at;
        self.0.insert(connection.clone(), place);
        // One of those held may ask for the next decision and hold back the rest again.
        for ask in held {
            let here = self.pass_on(connection, ask);
            debug_assert!(here.is_none(), "it is away");
        }
        Vec::new()
    }
}

impl Place {
    fn tell(&mut self, connection: &Connection, ask: Ask) {
        if matches!(ask, Ask::Judge(_)) {
            self.held = Some(Vec::new());
        }
        self.at.post(Command::Session(connection.clone(), ask));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatcher::Dispatchers;
    use crate::endpoint::bench;
    use crate::worker_loop::command::Newcomer;
    use messenger_proto::Message;

    fn message(tid: u64) -> Ask {
        Ask::Send(Message::new(2).with_tid(tid))
    }

    fn judge(connection: &Connection) -> Ask {
        let (connection, ident) = (connection.clone(), Box::new(bench::ident()));
        Ask::Judge(Newcomer { connection, ident })
    }

    /// The tids of messages in order, 0 for a newcomer to be judged.
    fn numbers(asks: impl IntoIterator<Item = Ask>) -> Vec<u64> {
        let number = |ask| match ask {
            Ask::Send(message) => message.header.tid,
            Ask::Judge(_) => 0,
            other => unreachable!("not sent here: {other:?}"),
        };
        asks.into_iter().map(number).collect()
    }

    fn arrived(gate: &Gate) -> Vec<u64> {
        numbers(std::iter::from_fn(|| match gate.inbox().take()? {
            Command::Session(_, ask) => Some(ask),
            other => unreachable!("not sent here: {other:?}"),
        }))
    }

    #[test]
    fn commands_follow_a_session_in_the_order_they_were_given() {
        let endpoint = bench::endpoint(Dispatchers::default());
        let [home, second, third] = [0, 1, 2].map(bench::gate);
        let connection = bench::connection(&endpoint, &home);
        let mut away = Away::default();
        let here = away.pass_on(&connection, message(1));
        assert_eq!(numbers(here), [1], "not away yet");

        away.went(connection.clone(), Arc::clone(&second));
        for ask in [message(2), judge(&connection), message(3), judge(&connection), message(4)] {
            assert!(away.pass_on(&connection, ask).is_none());
        }
        assert_eq!(arrived(&second), [2, 0], "what follows waits for the decision");

        let held = away.settle(&home, &connection, Some(Arc::clone(&third)));
        assert!(held.is_empty());
        assert_eq!(arrived(&third), [3, 0], "the next decision holds the rest back again");
        assert!(away.pass_on(&connection, message(5)).is_none());

        let held = away.settle(&home, &connection, Some(Arc::clone(&home)));
        assert_eq!(numbers(held), [4, 5], "it is home: to be done here");
        assert_eq!(numbers(away.pass_on(&connection, message(6))), [6]);
        assert!(arrived(&second).is_empty() && arrived(&third).is_empty());
    }

    #[test]
    fn a_session_that_ended_elsewhere_leaves_nothing_behind() {
        let endpoint = bench::endpoint(Dispatchers::default());
        let [home, second] = [0, 1].map(bench::gate);
        let connection = bench::connection(&endpoint, &home);
        let mut away = Away::default();
        away.went(connection.clone(), second);
        assert!(away.pass_on(&connection, judge(&connection)).is_none());
        assert!(away.pass_on(&connection, message(1)).is_none());
        assert_eq!(numbers(away.settle(&home, &connection, None)), [1]);
        assert!(away.0.is_empty());
        assert!(away.settle(&home, &connection, None).is_empty());
    }
}
