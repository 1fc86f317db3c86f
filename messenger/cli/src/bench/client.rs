//! What a run asks of its loading end, whatever carries the messages.

use std::time::Duration;

use anyhow::Result;
use messenger::MessengerCounters;

use crate::bench::server::{Answer, Question};

/// How long the server may take to answer a question.
pub(crate) const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// A loading end: over the messenger, or bare frames over kernel TCP. It sends what the generators
/// of its lanes say and tells them the replies.
pub(crate) trait Client {
    /// How many connections have been made so far.
    fn connected(&self) -> usize;

    /// Lets the first messages leave.
    ///
    /// # Errors
    /// If the machine has no thread for it.
    fn begin(&mut self) -> Result<()>;

    /// Asks the server about its half, and waits for the answer.
    ///
    /// # Errors
    /// If it does not come, or is no answer.
    fn ask(&mut self, question: Question) -> Result<Answer>;

    /// The counters of its messenger, if it has one.
    fn counters(&self) -> Option<MessengerCounters>;

    /// Closes the connections.
    ///
    /// # Errors
    /// If it does not end in an orderly way.
    fn end(self: Box<Self>) -> Result<()>;
}
