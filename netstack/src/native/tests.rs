//! The worker against itself and against hand-made segments, over a simulated network and under
//! a virtual clock.

mod blind;
mod chaos;
mod closing;
mod data;
mod flood;
mod lab;
mod limits;
mod misers;
mod observing;
mod opening;
mod raw;
mod steering;
