//! An entity of a real cluster that lives in the test: a messenger with a key of the cluster's, whose
//! tickets and secrets are kept good by messages to the monitor.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use messenger::auth::cephx::{RotatingSecrets, Tickets};
use messenger::{
    Config, ConnectOptions, Connection, Dispatcher, DispatcherPriority, EntityAddrVec, EntityName,
    EntityType, Message, Messenger, Policy, msg_type,
};
use messenger_ceph::{AuthClient, AuthErrand, MAuthReply, Payload, kind};

use crate::lab::{KERNEL_V4, PATIENCE};

const MONITOR: &str = "v2:10.99.0.1:3300/0";
/// How often is looked for what is due.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A member of the cluster, on a session with its monitor.
pub(crate) struct Member {
    pub(crate) messenger: Messenger,
    errands: AuthClient,
    monitor: Connection,
    news: Receiver<News>,
    /// Messages sent on errands.
    pub(crate) asked: usize,
}

/// A connection stands, or brought a message.
type News = (Connection, Option<Message>);

impl Member {
    /// Logs in at the monitor with the key in a file: `client.admin` without a number, or a service,
    /// which then has its secrets and listens.
    pub(crate) fn log_in(name: EntityName, keyring: &Path) -> Self {
        Self::log_in_with(name, keyring, "")
    }

    /// The same, with more lines of configuration.
    pub(crate) fn log_in_with(name: EntityName, keyring: &Path, more: &str) -> Self {
        let serves = name.kind != EntityType::Client;
        let text = format!(
            "auth_client_required = \"cephx\"\nauth_cluster_required = \"cephx\"\n\
             auth_service_required = \"cephx\"\nkeyring = {keyring:?}\nms_async_op_threads = 1\n{more}"
        );
        let messenger = Messenger::create(name, Config::from_toml(&text).unwrap()).unwrap();
        messenger.set_default_policy(Policy::lossy_client()).unwrap();
        messenger.set_policy(EntityType::Client, Policy::stateless_server()).unwrap();
        let (sender, news) = mpsc::channel();
        let inbox = Arc::new(Inbox { sender: Mutex::new(sender), serves });
        messenger.add_dispatcher_tail(inbox, DispatcherPriority::DEFAULT).unwrap();
        let errands = match serves {
            true => {
                messenger.bind(SocketAddr::new(KERNEL_V4.parse().unwrap(), 0)).unwrap();
                AuthClient::new(messenger.auth(), name.to_string().parse().unwrap()).serving()
            }
            false => AuthClient::new(messenger.auth(), "client.admin".parse().unwrap()),
        };
        messenger.start().unwrap();
        let monitor = dial(&messenger, EntityType::Mon, &EntityAddrVec::from(monitor_addr()));
        let mut member = Self { messenger, errands, monitor, news, asked: 0 };
        member.wait_ready(&member.monitor.clone());
        member.errands.on_session();
        member.run_errands();
        member
    }

    /// What it shows to services.
    pub(crate) fn tickets(&self) -> Tickets {
        self.messenger.auth().secrets.as_ref().unwrap().tickets()
    }

    /// What it verifies its clients' tickets with.
    pub(crate) fn rotating(&self) -> RotatingSecrets {
        self.messenger.auth().secrets.as_ref().unwrap().rotating()
    }

    /// Runs errands until a moment has come.
    pub(crate) fn keep_until(&mut self, until: Duration) {
        while now() < until {
            std::thread::sleep(LOOK_EVERY);
            self.run_errands();
        }
    }

    /// A session with somebody, who has let us in.
    pub(crate) fn open(&self, kind: EntityType, addrs: &EntityAddrVec) -> Connection {
        let connection = dial(&self.messenger, kind, addrs);
        self.wait_ready(&connection);
        connection
    }

    /// Sends a ping and waits for the same.
    pub(crate) fn ping(&self, to: &Connection) {
        to.send_message(Message::new(msg_type::PING)).unwrap();
        self.wait(to, |message| message.is_some_and(|it| it.header.kind == msg_type::PING));
    }

    pub(crate) fn end(self) {
        self.messenger.shutdown();
        self.messenger.wait().unwrap();
    }

    fn run_errands(&mut self) {
        while let Some(errand) = self.errands.poll(now()) {
            let AuthErrand::Send(ask) = errand else {
                panic!("the AUTH ticket is good for days");
            };
            self.asked += 1;
            self.monitor.send_message(ask.to_message()).unwrap();
            let is_reply = |it: &Message| it.header.kind == kind::AUTH_REPLY;
            let reply = self.wait(&self.monitor, |message| message.is_some_and(is_reply)).unwrap();
            let reply = MAuthReply::from_message(&reply).unwrap();
            self.errands.on_reply(&reply, now()).unwrap();
        }
    }

    fn wait_ready(&self, connection: &Connection) {
        self.wait(connection, |message| message.is_none());
    }

    /// The next news of a connection that are such, all others are dropped.
    fn wait(
        &self,
        connection: &Connection,
        such: impl Fn(Option<&Message>) -> bool,
    ) -> Option<Message> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (from, news) = self.news.recv_timeout(left).expect("news of the connection");
            if from == *connection && such(news.as_ref()) {
                return news;
            }
        }
    }
}

/// The time that tickets go by.
pub(crate) fn now() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap()
}

fn monitor_addr() -> messenger::EntityAddr {
    MONITOR.parse().unwrap()
}

fn dial(messenger: &Messenger, kind: EntityType, addrs: &EntityAddrVec) -> Connection {
    let options = ConnectOptions { anonymous: true, not_local: true };
    messenger.connect_to(kind, addrs, options).unwrap()
}

/// Tells what happens; a service's answers pings.
struct Inbox {
    sender: Mutex<Sender<News>>,
    serves: bool,
}

impl Inbox {
    fn tell(&self, connection: &Connection, message: Option<Message>) {
        let _ = self.sender.lock().unwrap().send((connection.clone(), message)); // the test may end
    }
}

impl Dispatcher for Inbox {
    fn can_fast_dispatch_any(&self) -> bool {
        true
    }
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }
    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        if self.serves && message.header.kind == msg_type::PING {
            let _ = connection.send_message(Message::new(msg_type::PING)); // it may have left
        }
        self.tell(connection, Some(message));
    }
    fn handle_fast_connect(&self, connection: &Connection) {
        self.tell(connection, None);
    }
    fn handle_fast_accept(&self, connection: &Connection) {
        self.tell(connection, None);
    }
    fn handle_reset(&self, _: &Connection) -> bool {
        true
    }
}
