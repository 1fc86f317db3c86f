//! Ceph's messenger protocol as a pure state machine: bytes, time and randomness go in, bytes and
//! events come out.
//!
//! ```text
//!   session      one conversation with a peer: handshake, queues, faults, backoff, replay
//!   auth         who the peer is
//!   v2           the msgr2 wire: banner, frames, control payloads
//!   v1           the msgr1 wire: handshake, messages
//!   identity, policy, throttle, message, rx_buffers, addr, entity      the nouns
//!   crc, denc    checksums and primitive encodings
//! ```
//!
//! Nothing here knows sockets, threads or clocks. The shell around a [`Session`] makes one mutation
//! and then drains its outputs in a fixed order:
//!
//! ```
//! # use std::{io, time::Instant};
//! # use messenger_proto::{ProtocolError, Session, SessionEvent};
//! # fn turn(session: &mut Session, now: Instant, received: usize,
//! #         dispatch: fn(SessionEvent), send: fn(&[io::IoSlice<'_>]) -> usize,
//! #         arm: fn(Option<Instant>)) -> Result<(), ProtocolError> {
//! session.handle_received(now, received)?; // bytes the transport put in rx_space()
//! while let Some(event) = session.poll_event() {
//!     dispatch(event);
//! }
//! while let Some(batch) = session.poll_transmit(now) {
//!     let (wanted, sent) = (batch.len(), send(&batch.slices()));
//!     session.transmitted(sent);
//!     if sent < wanted {
//!         break; // the transport is full
//!     }
//! }
//! arm(session.poll_timeout());
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod addr;
pub mod auth;
pub mod crc;
pub mod denc;
pub mod entity;
pub mod error;
pub mod features;
pub mod identity;
pub mod message;
pub mod policy;
pub mod rx_buffers;
pub mod session;
pub mod throttle;
pub mod v1;
pub mod v2;

pub use addr::{AddrType, EntityAddr, EntityAddrVec};
pub use entity::{EntityName, EntityType};
pub use error::ProtocolError;
pub use identity::{GlobalSeq, Identity, Limits, SessionOptions, UnixAnchor};
pub use message::{Message, MessageHeader, msg_type};
pub use policy::{Policy, PolicySet};
pub use rx_buffers::{RX_BUFFERS_MAX, RxBuffers};
pub use session::{
    Action, CloseReason, Decision, Fault, GATHER_MAX, Gather, IdentRequest, Interceptor, PeerFacts,
    PeerIdent, SendError, Session, SessionEvent, SessionStats, Step, TransportNews, Verdict,
};
pub use throttle::{Permit, Throttle, ThrottleCounters, Unblock};
