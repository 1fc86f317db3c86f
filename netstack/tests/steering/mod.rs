//! What the steering tests are made of.

pub(crate) mod hopper;
pub(crate) mod node;
pub(crate) mod tap;
