//! A monitor's client: finds one that answers, and runs commands there.

use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use messenger::auth::ConnectionMode;
use messenger::{AddrType, Config, Connection, EntityAddr, EntityAddrVec, EntityType, Message};
use messenger_ceph::{
    AuthClient, AuthErrand, Fsid, JsonCommand, MAuthReply, MMonCommand, MMonCommandAck, MMonGetMap,
    MMonMap, Payload, kind,
};

use super::caller::{Caller, What};
use super::{cause, now};

/// How long one monitor may take before the next is tried (Ceph: `mon_client_hunt_interval`).
const HUNT_EVERY: Duration = Duration::from_secs(3);
/// Pause before a monitor that refused is tried again, when it is the only one; and how often we
/// look whether one lets us in.
const PAUSE: Duration = Duration::from_millis(100);
/// Ports of a monitor that is named without one, for msgr2 and msgr1.
const PORTS: [u16; 2] = [3300, 6789];

/// One of the cluster's monitors; another one when that fails.
#[derive(Debug)]
pub(crate) struct Monitor {
    caller: Caller,
    addrs: Vec<EntityAddr>,
    /// Which of the addresses is tried next.
    next: usize,
    session: Option<Connection>,
    /// Keeps the tickets good that the caller and its like show to OSDs.
    errands: AuthClient,
    fsid: Fsid,
    tid: u64,
}

/// An address as people write it: `IP`, `IP:PORT`, or `v2:IP:PORT/0` as Ceph prints it; for msgr1
/// with `v1:` in front.
pub(crate) fn parse_addr(text: &str) -> Result<EntityAddr, String> {
    let [v2, v1] = PORTS;
    let (kind, port, bare) = match text.strip_prefix("v1:") {
        Some(bare) => (AddrType::Legacy, v1, bare),
        None => (AddrType::Msgr2, v2, text.strip_prefix("v2:").unwrap_or(text)),
    };
    let bare = bare.strip_suffix("/0").unwrap_or(bare);
    let socket = bare
        .parse()
        .or_else(|_| bare.parse().map(|ip| std::net::SocketAddr::new(ip, port)))
        .map_err(|_| format!("{text:?} is no monitor's address; write IP or IP:PORT"))?;
    Ok(EntityAddr { kind, nonce: 0, socket: Some(socket) }) // monitors have no incarnations
}

impl Monitor {
    /// Finds a monitor and asks it which cluster this is.
    pub(crate) fn find(config: &Config, addrs: &[EntityAddr], deadline: Instant) -> Result<Self> {
        let protocol = addrs.first().map_or(AddrType::Msgr2, |addr| addr.kind);
        let caller = Caller::start(config, protocol)?;
        let auth = caller.auth();
        let modes = auth.rules.terms(EntityType::Client, EntityType::Mon).modes;
        ensure!(
            protocol != AddrType::Legacy || modes.contains(&ConnectionMode::Crc),
            "msgr1 encrypts nothing, and the configuration insists on it; name the monitor without \
             v1:, or set ms_mon_client_mode = \"crc\" in --config"
        );
        let name = caller.auth_name().parse().context("our own name")?;
        let errands = AuthClient::new(auth, name);
        let (addrs, session, fsid) = (addrs.to_vec(), None, Fsid::default());
        let mut monitor = Self { caller, addrs, next: 0, session, errands, fsid, tid: 0 };
        let answer = monitor.ask(&MMonGetMap.to_message(), kind::MON_MAP, deadline)?;
        monitor.fsid = MMonMap::from_message(&answer)
            .with_context(|| format!("{} sent no map of monitors", monitor.who()))?
            .map
            .fsid;
        Ok(monitor)
    }

    /// What talks to it, and holds what it gave us to show to OSDs.
    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The cluster.
    pub(crate) fn fsid(&self) -> Fsid {
        self.fsid
    }

    /// Runs a command and returns what became of it, good or bad.
    pub(crate) fn run(
        &mut self,
        command: &JsonCommand,
        deadline: Instant,
    ) -> Result<MMonCommandAck> {
        let ask = MMonCommand::new(self.fsid, command).to_message();
        let answer = self
            .ask(&ask, kind::MON_COMMAND_ACK, deadline)
            .with_context(|| format!("no answer to `{}`", command.prefix()))?;
        MMonCommandAck::from_message(&answer)
            .with_context(|| format!("{} sent a broken answer", self.who()))
    }

    /// Runs a command that has to succeed, for its output.
    pub(crate) fn output(&mut self, command: &JsonCommand, deadline: Instant) -> Result<Vec<u8>> {
        let ack = self.run(command, deadline)?;
        match ack.result {
            result if result < 0 => Err(self.refusal(command, &ack)),
            _ => Ok(ack.output.to_vec()),
        }
    }

    /// Why a command failed, in the monitor's words, and what to do about it.
    pub(crate) fn refusal(&self, command: &JsonCommand, ack: &MMonCommandAck) -> Error {
        let cause = cause(ack.result);
        let said = match ack.status.trim() {
            "" => cause.to_string(),
            status => format!("{status} ({cause})"),
        };
        anyhow!(
            "the monitor refused `{}`: {said}; its commands: msgr ceph --mon {} command \
             get_command_descriptions",
            command.prefix(),
            self.at()
        )
    }

    /// The address of the present monitor, as `--mon` takes it.
    pub(crate) fn at(&self) -> String {
        let addr = &self.addrs[self.next % self.addrs.len()];
        match addr.socket {
            Some(socket) if addr.kind == AddrType::Msgr2 => socket.to_string(),
            _ => addr.to_string(),
        }
    }

    /// All monitors have the same keys, so there is no use in asking others.
    fn denial(&self) -> String {
        let name = self.caller.auth_name();
        format!(
            "{} does not let {name} in: it knows no such name, has another key for it, or wants \
             another method or mode; compare the key with the keyring's: ceph auth get {name}",
            self.who()
        )
    }

    fn who(&self) -> String {
        format!("the monitor at {}", self.at())
    }

    /// Sends `ask` and waits for its answer; on another monitor if this one leaves meanwhile.
    fn ask(&mut self, ask: &Message, answer: u16, deadline: Instant) -> Result<Message> {
        self.tid += 1;
        loop {
            let session = self.session(deadline)?;
            let message = Message::new(ask.header.kind)
                .with_version(ask.header.version, ask.header.compat_version)
                .with_tid(self.tid)
                .with_front(ask.front.clone())
                .with_data(ask.data.clone());
            if session.send_message(message).is_ok()
                && let Some(message) = self.wait(&session, answer, deadline)?
            {
                return Ok(message);
            }
            session.mark_down();
            self.session = None;
            self.next += 1;
        }
    }

    /// The answer to the last question; `None` if the session ended before.
    fn wait(&self, session: &Connection, kind: u16, until: Instant) -> Result<Option<Message>> {
        let answer = self.wait_for(session, until, |message| {
            // A map comes without the tid of its question.
            message.header.kind == kind && (kind == kind::MON_MAP || message.header.tid == self.tid)
        });
        match answer {
            Waited::Message(message) => return Ok(Some(*message)),
            Waited::Over => return Ok(None),
            Waited::Silence => {}
        }
        bail!(
            "{} took the question and keeps silent; if the monitors have no quorum, this says so \
             on its host: ceph daemon mon.$(hostname -s) mon_status",
            self.who()
        )
    }

    /// The present session, or one with the first monitor that answers.
    fn session(&mut self, deadline: Instant) -> Result<Connection> {
        if let Some(session) = self.session.take() {
            if session.is_connected() && self.run_errands(&session, deadline)? {
                self.session = Some(session.clone());
                return Ok(session);
            }
            session.mark_down();
        }
        let mut refused = false;
        loop {
            let addr = self.addrs[self.next % self.addrs.len()];
            let denials = self.caller.denials();
            let session = self.caller.dial(EntityType::Mon, &EntityAddrVec::from(addr))?;
            let until = deadline.min(Instant::now() + HUNT_EVERY);
            while Instant::now() < until {
                let Some(news) = self.caller.next(until.min(Instant::now() + PAUSE)) else {
                    ensure!(self.caller.denials() == denials, self.denial());
                    continue;
                };
                match news.what {
                    _ if news.connection != session => {}
                    What::Ready => {
                        match addr.kind {
                            AddrType::Legacy => self.errands.log_in(now().into()),
                            _ => self.errands.on_session(), // its frames logged us in
                        }
                        if !self.run_errands(&session, until)? {
                            break;
                        }
                        self.session = Some(session.clone());
                        return Ok(session);
                    }
                    What::Refused => {
                        refused = true;
                        break;
                    }
                    What::Over => break,
                    What::Message(_) => {}
                }
            }
            session.mark_down();
            if Instant::now() >= deadline {
                let more = match self.addrs.len() {
                    1 => String::new(),
                    all => format!(", nor with the {} others", all - 1),
                };
                let cause = match refused {
                    true => {
                        "nobody listens there; start it on its host: systemctl start \
                             ceph-mon.target"
                    }
                    false => {
                        "it keeps silent; this may say why: msgr --log messenger=debug ceph ..."
                    }
                };
                bail!("no session with {}{more}: {cause}", self.who());
            }
            self.next += 1;
            std::thread::sleep(PAUSE.min(deadline.saturating_duration_since(Instant::now())));
        }
    }

    /// Logs in, if that is to be done by messages, and renews the tickets that run out. False: the
    /// session ended, the monitor kept silent, or there has to be a new session.
    fn run_errands(&mut self, session: &Connection, until: Instant) -> Result<bool> {
        while let Some(errand) = self.errands.poll(now().into()) {
            let AuthErrand::Send(ask) = errand else {
                return Ok(false);
            };
            if session.send_message(ask.to_message()).is_err() {
                return Ok(false);
            }
            let is_reply = |message: &Message| message.header.kind == kind::AUTH_REPLY;
            let Waited::Message(answer) = self.wait_for(session, until, is_reply) else {
                return Ok(false);
            };
            let reply = MAuthReply::from_message(&answer)
                .with_context(|| format!("{} sent a broken answer", self.who()))?;
            match self.errands.on_reply(&reply, now().into()) {
                // What there is may be good for a while, and then there is a new session.
                Err(error) if self.errands.is_logged_in() => {
                    tracing::warn!(%error, "no new tickets");
                }
                outcome => outcome.with_context(|| self.denial())?,
            }
        }
        Ok(true)
    }

    /// The first message of a session that is wanted, or why there is none.
    fn wait_for(
        &self,
        session: &Connection,
        until: Instant,
        is_wanted: impl Fn(&Message) -> bool,
    ) -> Waited {
        while let Some(news) = self.caller.next(until) {
            match news.what {
                _ if news.connection != *session => {}
                What::Over => return Waited::Over,
                What::Message(message) if is_wanted(&message) => return Waited::Message(message),
                _ => {}
            }
        }
        Waited::Silence
    }
}

/// What came of waiting for a message.
#[derive(Debug)]
enum Waited {
    Message(Box<Message>),
    /// The session ended.
    Over,
    /// Time ran out.
    Silence,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_goes_by_its_ip_alone() {
        let full: EntityAddr = "v2:10.0.0.1:3300/0".parse().unwrap();
        for text in ["10.0.0.1", "10.0.0.1:3300", "v2:10.0.0.1:3300", "v2:10.0.0.1:3300/0"] {
            assert_eq!(parse_addr(text), Ok(full), "{text}");
        }
        assert_eq!(parse_addr("::1"), Ok("v2:[::1]:3300/0".parse().unwrap()));
        for text in ["v1:10.0.0.1", "v1:10.0.0.1:6789/0"] {
            assert_eq!(parse_addr(text), Ok("v1:10.0.0.1:6789/0".parse().unwrap()), "{text}");
        }
        for text in ["", "mon.a", "10.0.0.1:", "v3:10.0.0.1:6789", "10.0.0.1:3300/7"] {
            assert!(parse_addr(text).is_err(), "{text}");
        }
    }
}
