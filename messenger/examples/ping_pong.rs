//! The seed's client and server: one pings, the other answers.
//!
//! ```text
//!   cargo run --example ping_pong server 127.0.0.1:6800
//!   cargo run --example ping_pong client v2:127.0.0.1:6800/NONCE
//! ```
//!
//! The server prints the address to give to the client: the nonce names this run of it. A third
//! argument names a configuration file, which may choose another transport.

use messenger::{
    Config, Connection, Dispatcher, DispatcherPriority, EntityAddr, EntityAddrVec, EntityName,
    EntityType, Message, Messenger, Policy, msg_type,
};
use std::error::Error;
use std::sync::{Arc, mpsc};
use std::time::Instant;

const PINGS: u64 = 10;

/// Answers pings where they arrive, without a change of threads.
struct Pong;

impl Dispatcher for Pong {
    fn can_fast_dispatch_any(&self) -> bool {
        true
    }

    fn can_fast_dispatch(&self, message: &Message) -> bool {
        message.header.kind == msg_type::PING
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        let pong = Message::new(msg_type::PING).with_tid(message.header.tid);
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

/// Tells the main thread of answers, and of the end.
struct Answers(mpsc::Sender<Option<u64>>);

impl Dispatcher for Answers {
    fn dispatch(&self, _: &Connection, message: Message) -> Result<(), Message> {
        let _ = self.0.send(Some(message.header.tid));
        Ok(())
    }

    fn handle_reset(&self, _: &Connection) -> bool {
        let _ = self.0.send(None);
        true
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let config = match arguments.get(2) {
        Some(file) => Config::from_toml(&std::fs::read_to_string(file)?)?,
        None => Config::default(),
    };
    match arguments.first().map(String::as_str) {
        Some("server") if arguments.len() >= 2 => serve(&arguments[1], config),
        Some("client") if arguments.len() >= 2 => ping(&arguments[1], config),
        _ => Err("usage: ping_pong server IP:PORT | client v2:IP:PORT/NONCE [CONFIG]".into()),
    }
}

fn serve(listen: &str, config: Config) -> Result<(), Box<dyn Error>> {
    let server = Messenger::create(EntityName::new(EntityType::Osd, 0), config)?;
    server.set_default_policy(Policy::stateless_server())?;
    server.add_dispatcher_tail(Arc::new(Pong), DispatcherPriority::DEFAULT)?;
    for addr in server.bind(listen.parse()?)?.iter() {
        println!("{addr}");
    }
    server.start()?;
    Ok(server.wait()?)
}

fn ping(server: &str, config: Config) -> Result<(), Box<dyn Error>> {
    let addrs = EntityAddrVec::from(server.parse::<EntityAddr>()?);
    let (answers, arrived) = mpsc::channel();
    let client = Messenger::create(EntityName::new(EntityType::Client, 1), config)?;
    client.set_default_policy(Policy::lossy_client())?;
    client.add_dispatcher_tail(Arc::new(Answers(answers)), DispatcherPriority::DEFAULT)?;
    client.start()?;
    for tid in 1..=PINGS {
        let sent = Instant::now();
        let ping = Message::new(msg_type::PING).with_tid(tid);
        client.send_to(ping, EntityType::Osd, &addrs)?;
        match arrived.recv()? {
            Some(tid) => println!("ping {tid}: {:?}", sent.elapsed()),
            None => return Err("the server went".into()),
        }
    }
    client.shutdown();
    Ok(client.wait()?)
}
