//! The client of the quick start as a program: it pings a `simple_server`, one ping at a time.
//!
//! ```text
//!   cargo run --example simple_client v2:127.0.0.1:6800/NONCE [PINGS] [CONFIG]
//! ```

use messenger::{
    Config, Connection, Dispatcher, DispatcherPriority, EntityAddr, EntityAddrVec, EntityName,
    EntityType, Message, Messenger, Policy, msg_type,
};
use std::error::Error;
use std::sync::{Arc, mpsc};
use std::time::Instant;

/// Tells the main thread of answers, and of the end.
struct Answers(mpsc::Sender<Option<u64>>);

impl Dispatcher for Answers {
    fn dispatch(&self, _: &Connection, message: Message) -> Result<(), Message> {
        // Nobody listens once the program ends.
        let _ = self.0.send(Some(message.header.tid));
        Ok(())
    }

    fn handle_reset(&self, _: &Connection) -> bool {
        let _ = self.0.send(None);
        true
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: simple_client v2:IP:PORT/NONCE [PINGS] [CONFIG]";
    let server = arguments.next().ok_or(usage)?.parse::<EntityAddr>()?;
    let pings = arguments.next().map_or(Ok(10), |count| count.parse::<u64>())?;
    let config = match arguments.next() {
        Some(file) => Config::from_toml(&std::fs::read_to_string(file)?)?,
        None => Config::default(),
    };

    let (answers, arrived) = mpsc::channel();
    let client = Messenger::create(EntityName::new(EntityType::Client, 1), config)?;
    client.set_default_policy(Policy::lossy_client())?;
    client.add_dispatcher_tail(Arc::new(Answers(answers)), DispatcherPriority::DEFAULT)?;
    client.start()?;
    for tid in 1..=pings {
        let sent = Instant::now();
        let ping = Message::new(msg_type::PING).with_tid(tid);
        client.send_to(ping, EntityType::Osd, &EntityAddrVec::from(server))?;
        match arrived.recv()? {
            Some(tid) => println!("ping {tid}: {:?}", sent.elapsed()),
            None => return Err("the server went".into()),
        }
    }
    client.shutdown();
    Ok(client.wait()?)
}
