//! What the monitor answers.

use crate::commands;
use messenger::auth::Auth;
use messenger::{Connection, Dispatcher, Message};
use messenger_ceph::{
    AuthServer, Error, MAuth, MConfig, MMonCommand, MMonGetMap, MMonGetVersion,
    MMonGetVersionReply, MMonMap, MMonSubscribe, MMonSubscribeAck, MPing, MonMap, Payload, kind,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Peers with this feature renew no subscriptions, and wait for no confirmation.
const FEATURE_STATEFUL_SUBSCRIPTIONS: u64 = 1 << 57;
const SUBSCRIPTION_INTERVAL_SECONDS: u32 = 300;

/// The only monitor of its cluster.
pub(crate) struct Monitor {
    map: MonMap,
    auth: Arc<Auth>,
}

/// How far a peer has come that authenticates by messages: what we keep with its connection.
type Door = Mutex<AuthServer>;

fn door(connection: &Connection) -> Arc<Door> {
    let kept = connection.priv_data().and_then(|kept| kept.downcast::<Door>().ok());
    kept.unwrap_or_else(|| {
        let door = Arc::new(Door::new(AuthServer::stranger()));
        connection.set_priv_data(Some(door.clone()));
        door
    })
}

fn lock(door: &Door) -> MutexGuard<'_, AuthServer> {
    door.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Monitor {
    pub(crate) fn new(map: MonMap, auth: Arc<Auth>) -> Self {
        Self { map, auth }
    }

    /// The answers to a message; none if it is not for monitors.
    fn answers(
        &self,
        connection: &Connection,
        message: &Message,
    ) -> Option<Result<Vec<Message>, Error>> {
        let is_known = self.knows(connection);
        Some(match message.header.kind {
            kind::PING => MPing::from_message(message).map(|_| vec![self.pong()]),
            kind::AUTH => {
                MAuth::from_message(message).map(|ask| self.authenticate(connection, &ask))
            }
            kind::MON_GET_MAP => MMonGetMap::from_message(message).map(|_| vec![self.map()]),
            _ if !is_known => Ok(Vec::new()), // who comes over msgr1 logs in first
            kind::MON_SUBSCRIBE => {
                MMonSubscribe::from_message(message).map(|ask| self.subscribe(connection, &ask))
            }
            kind::MON_GET_VERSION => {
                MMonGetVersion::from_message(message).map(|ask| vec![self.version(&ask)])
            }
            kind::MON_COMMAND => MMonCommand::from_message(message)
                .map(|ask| vec![commands::run(&self.map, &ask).to_message()]),
            kind::SHUTDOWN => Ok(Vec::new()),
            _ => return None,
        })
    }

    fn map(&self) -> Message {
        MMonMap { map: self.map.clone() }.to_message()
    }

    /// Whether the peer has authenticated: with the frames of msgr2, or by messages over msgr1.
    fn knows(&self, connection: &Connection) -> bool {
        connection.peer_auth().is_some() || lock(&door(connection)).identity().is_some()
    }

    /// Logins over msgr1; over both protocols tickets before the old ones run out, and secrets of
    /// services. Who has just come in gets the map, as from a real monitor.
    fn authenticate(&self, connection: &Connection, ask: &MAuth) -> Vec<Message> {
        let fresh = u64::from(getrandom::u32().unwrap_or(1)).max(1);
        let number = connection.peer_name().map_or(0, |name| name.number);
        let number = u64::try_from(number).unwrap_or(fresh);
        let door = door(connection);
        let mut server = lock(&door);
        if let Some(identity) = connection.peer_auth() {
            *server = AuthServer::authenticated(identity, number);
        }
        let was_known = server.identity().is_some();
        let (reply, refusal) = server.answer(&self.auth, ask, number, now());
        let comes_in = !was_known && server.identity().is_some();
        drop(server);
        if let Some(refusal) = refusal {
            eprintln!("mini_mon: {connection}: {refusal}");
        }
        let map = comes_in.then(|| self.map());
        std::iter::once(reply.to_message()).chain(map).collect()
    }

    fn pong(&self) -> Message {
        let names = &self.map.ranks;
        let report = serde_json::json!({ "mon_status": { "rank": 0, "quorum_names": names } });
        MPing { report: Some(report.to_string()) }.to_message()
    }

    /// What there is at once. Nothing changes later, so nothing is kept of a subscription.
    fn subscribe(&self, connection: &Connection, ask: &MMonSubscribe) -> Vec<Message> {
        let mut answers = Vec::new();
        if !connection.has_features(FEATURE_STATEFUL_SUBSCRIPTIONS) {
            let interval_seconds = SUBSCRIPTION_INTERVAL_SECONDS;
            let ack = MMonSubscribeAck { interval_seconds, fsid: self.map.fsid };
            answers.push(ack.to_message());
        }
        for (what, subscription) in &ask.what {
            match what.as_str() {
                "monmap" if subscription.start <= self.map.epoch.into() => answers.push(self.map()),
                "config" => answers.push(MConfig::default().to_message()),
                _ => {} // maps of daemons that we do not have
            }
        }
        answers
    }

    fn version(&self, ask: &MMonGetVersion) -> Message {
        let newest = if ask.what == "monmap" { self.map.epoch.into() } else { 0 };
        let handle = ask.handle;
        MMonGetVersionReply { handle, newest, oldest: newest }.to_message()
    }
}

impl Dispatcher for Monitor {
    fn dispatch(&self, connection: &Connection, message: Message) -> Result<(), Message> {
        match self.answers(connection, &message) {
            None => return Err(message),
            Some(Ok(answers)) => {
                for answer in answers {
                    let answer = answer.with_tid(message.header.tid);
                    if let Err(error) = connection.send_message(answer) {
                        eprintln!("mini_mon: no answer for {connection}: {error}");
                    }
                }
            }
            Some(Err(error)) => {
                eprintln!("mini_mon: {connection}: {}", chain(&error));
                connection.mark_down();
            }
        }
        Ok(())
    }

    fn handle_reset(&self, _: &Connection) -> bool {
        true // clients come and go
    }
}

/// The time that tickets go by.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
