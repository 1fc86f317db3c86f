//! Ceph's messenger over kernel TCP or over our own TCP on DPDK.
//!
//! The layers in the order a received message crosses them:
//!
//! ```text
//!   netstack::Worker   sockets and readiness; knows no messages
//!   event_center       one thread's events in fair turns; knows sockets by their names only
//!   worker_loop        the shell that joins sockets, sessions and dispatchers
//!   messenger_proto    the session: bytes to messages and back; knows no sockets, no clock
//!   dispatch_queue     what the application does not take on the spot, by priority
//!   Dispatcher         the application
//! ```
//!
//! `simple` stands beside the first three, in place of them: kernel TCP with two threads for each
//! connection, to compare with.
//!
//! Beside them: [`Messenger`], an endpoint with its address and policies; [`Connection`], the
//! handle of a session; [`Workers`], the threads, which all messengers of a process share; and
//! [`Config`].
//!
//! # Quick start
//!
//! Create, set policies, bind, add the first dispatcher, start, wait: a server and its client, here
//! in one process. `examples/simple_server.rs` and `examples/simple_client.rs` are the same as two
//! programs.
//!
//! ```
//! use messenger::{
//!     Config, Connection, Dispatcher, DispatcherPriority, EntityName, EntityType, Message,
//!     Messenger, Policy, msg_type,
//! };
//! use std::sync::{Arc, mpsc};
//!
//! /// Answers each ping where it arrived, without a change of threads.
//! struct Pong;
//!
//! impl Dispatcher for Pong {
//!     fn can_fast_dispatch_any(&self) -> bool {
//!         true
//!     }
//!     fn can_fast_dispatch(&self, message: &Message) -> bool {
//!         message.header.kind == msg_type::PING
//!     }
//!     fn fast_dispatch(&self, connection: &Connection, message: Message) {
//!         let pong = Message::new(msg_type::PING).with_data(message.data);
//!         let _ = connection.send_message(pong); // the client may have left
//!     }
//! }
//!
//! /// Passes the answers on.
//! struct Answers(mpsc::Sender<Message>);
//!
//! impl Dispatcher for Answers {
//!     fn dispatch(&self, _: &Connection, message: Message) -> Result<(), Message> {
//!         let _ = self.0.send(message);
//!         Ok(())
//!     }
//! }
//!
//! let server = Messenger::create(EntityName::new(EntityType::Osd, 0), Config::default())?;
//! server.set_default_policy(Policy::stateless_server())?;
//! let addrs = server.bind("127.0.0.1:0".parse()?)?;
//! server.add_dispatcher_tail(Arc::new(Pong), DispatcherPriority::DEFAULT)?;
//! server.start()?;
//!
//! let (answers, arrived) = mpsc::channel();
//! let client = Messenger::create(EntityName::new(EntityType::Client, 1), Config::default())?;
//! client.set_default_policy(Policy::lossy_client())?;
//! client.add_dispatcher_tail(Arc::new(Answers(answers)), DispatcherPriority::DEFAULT)?;
//! client.start()?;
//!
//! let ping = Message::new(msg_type::PING).with_data("hello");
//! client.send_to(ping, EntityType::Osd, &addrs)?;
//! assert_eq!(arrived.recv()?.data, "hello");
//!
//! for messenger in [client, server] {
//!     messenger.shutdown();
//!     messenger.wait()?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![expect(
    clippy::result_large_err,
    reason = "a message that is not taken comes back in the error; a box would cost every one"
)]

mod accounts;
mod clock;
pub mod config;
mod connection;
mod credentials;
mod dispatch_queue;
mod dispatcher;
mod endpoint;
mod error;
pub mod event_center;
pub mod inbox;
mod injection;
mod loopback;
mod messenger;
mod metrics;
mod priority_queue;
mod registry;
mod seeds;
mod shell;
mod simple;
mod tenant;
mod timers;
mod transport;
mod worker_loop;
mod workers;

pub use clock::Clock;
pub use config::{
    Cidr, Config, ConfigError, Congestion, DpdkTable, Idle, MsType, NativeTable, OP_THREADS_MAX,
    OpThreads, PosixTable,
};
pub use connection::{Connection, PrivData, SendError};
pub use dispatcher::{Dispatcher, DispatcherPriority};
pub use error::Error;
pub use messenger::{ConnectOptions, Messenger};
pub use metrics::{CounterSet, MessengerCounters, NamedCounters, WorkerCounters};
pub use transport::dpdk_version;
pub use workers::{DriveOptions, Driven, Workers, WorkersOptions};

pub use netstack::posix::Driver;

pub use messenger_proto::auth;
pub use messenger_proto::{
    Action, AddrType, EntityAddr, EntityAddrVec, EntityName, EntityType, Message, Policy, Step,
    Throttle, msg_type,
};
