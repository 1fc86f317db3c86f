//! The server of the quick start as a program: it answers pings where they arrive.
//!
//! ```text
//!   cargo run --example simple_server 127.0.0.1:6800 [CONFIG]
//! ```
//!
//! It prints the address to give to `simple_client`: the nonce names this run of it. CONFIG is a
//! configuration file (TOML), which may choose another transport.

use messenger::{
    Config, Connection, Dispatcher, DispatcherPriority, EntityName, EntityType, Message, Messenger,
    Policy, msg_type,
};
use std::error::Error;
use std::sync::Arc;

/// Answers each ping with one of the same tid and data, without a change of threads.
struct Pong;

impl Dispatcher for Pong {
    fn can_fast_dispatch_any(&self) -> bool {
        true
    }

    fn can_fast_dispatch(&self, message: &Message) -> bool {
        message.header.kind == msg_type::PING
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        let tid = message.header.tid;
        let pong = Message::new(msg_type::PING).with_tid(tid).with_data(message.data);
        if let Err(error) = connection.send_message(pong) {
            eprintln!("no answer for {connection}: {error}");
        }
    }

    fn handle_accept(&self, connection: &Connection) {
        println!("{connection} came");
    }

    fn handle_reset(&self, connection: &Connection) -> bool {
        println!("{connection} went");
        true
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().ok_or("usage: simple_server IP:PORT [CONFIG]")?;
    let config = match arguments.next() {
        Some(file) => Config::from_toml(&std::fs::read_to_string(file)?)?,
        None => Config::default(),
    };
    let server = Messenger::create(EntityName::new(EntityType::Osd, 0), config)?;
    server.set_default_policy(Policy::stateless_server())?;
    let addrs = server.bind(listen.parse()?)?;
    server.add_dispatcher_tail(Arc::new(Pong), DispatcherPriority::DEFAULT)?;
    server.start()?;
    for addr in addrs.iter() {
        println!("{addr}");
    }
    Ok(server.wait()?)
}
