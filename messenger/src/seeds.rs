//! Random numbers from one secret, for what outsiders must not predict: cookies and nonces.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// A keyed hash of a counter.
pub(crate) struct Seeds {
    secret: u64,
    drawn: u64,
}

impl Seeds {
    pub(crate) fn new(secret: u64) -> Self {
        Self { secret, drawn: 0 }
    }

    pub(crate) fn draw(&mut self) -> u64 {
        self.drawn += 1;
        let mut hasher = DefaultHasher::new();
        (self.secret, self.drawn).hash(&mut hasher);
        hasher.finish()
    }
}
