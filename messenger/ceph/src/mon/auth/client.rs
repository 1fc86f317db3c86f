//! What a client has to say to a monitor so that its tickets, and a service's secrets, stay good.

use std::sync::Arc;
use std::time::Duration;

use messenger_proto::EntityType;
use messenger_proto::auth::cephx::{CephxError, LoggedIn, MonLogin, RotatingSecrets, Services};
use messenger_proto::auth::{Auth, AuthMethod, AuthName, ConnectionMode, Secrets};

use super::{MAuth, MAuthReply, Offer};

/// How long to wait before a monitor is asked again for what it did not give.
pub const AUTH_RETRY: Duration = Duration::from_secs(3);

/// Keeps the [`Secrets`] of a messenger good, by messages to a monitor. It sends nothing itself:
/// after each call, and at [`AuthClient::poll_timeout`], do what [`AuthClient::poll`] asks for.
///
/// Times are since the Unix epoch: tickets expire by the clock on the wall.
///
/// ```text
///   the session with the monitor stands       msgr2: on_session(), for its frames logged us in
///                                             msgr1: log_in()
///   an MAuthReply comes                       on_reply()
/// ```
#[derive(Debug)]
pub struct AuthClient {
    auth: Arc<Auth>,
    name: AuthName,
    serves: bool,
    step: Step,
    /// To be sent.
    outgoing: Option<MAuth>,
    logged_in: bool,
    /// The monitor did not take our AUTH ticket.
    spurned: bool,
    retry_at: Duration,
}

/// What [`AuthClient::poll`] asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthErrand {
    /// Send this to the monitor.
    Send(MAuth),
    /// The AUTH ticket needs renewal, which only a login brings: make a new session with a monitor.
    NewSession,
}

/// What is wrong with a monitor's answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// It refuses, or what it sent does not convince.
    #[error(transparent)]
    Cephx(#[from] CephxError),
    /// It chose a method that we did not offer, or changed the method.
    #[error("the monitor chose authentication method {0}, which was not offered")]
    Method(u32),
    /// It answers what was not asked.
    #[error("an MAuthReply that nobody asked for")]
    Unasked,
}

/// What the monitor owes an answer to.
#[derive(Debug)]
enum Step {
    Idle,
    /// We said who we are, and how we can prove it.
    Offered,
    /// We proved it.
    Proved(Box<MonLogin>),
    Tickets,
    Rotating,
}

impl AuthClient {
    /// For a messenger that authenticates with `auth`, as `name`.
    pub fn new(auth: Arc<Auth>, name: AuthName) -> Self {
        Self {
            auth,
            name,
            serves: false,
            step: Step::Idle,
            outgoing: None,
            logged_in: false,
            spurned: false,
            retry_at: Duration::ZERO,
        }
    }

    /// Also keeps the secrets with which `name`, who is a service, verifies its clients' tickets.
    #[must_use]
    pub fn serving(mut self) -> Self {
        self.serves = true;
        self
    }

    /// A session with a monitor stands, and its transport logged us in. What an earlier one still
    /// owed is asked again.
    pub fn on_session(&mut self) {
        (self.step, self.outgoing) = (Step::Idle, None);
        (self.logged_in, self.spurned, self.retry_at) = (true, false, Duration::ZERO);
    }

    /// A session with a monitor stands, and nobody has logged in yet. Begins to.
    pub fn log_in(&mut self, now: Duration) {
        self.on_session();
        self.logged_in = false;
        let terms = self.auth.rules.terms(self.name.kind, EntityType::Mon);
        let methods = terms.methods.iter().map(|method| method.to_wire()).collect();
        let global_id = self.login(now).map_or(0, |login| login.global_id());
        let offer = Offer { methods, name: self.name.clone(), global_id };
        (self.step, self.outgoing) = (Step::Offered, Some(offer.to_message()));
    }

    /// Whether the monitor knows who we are.
    pub fn is_logged_in(&self) -> bool {
        self.logged_in
    }

    /// The monitor's answer. After an error the same is asked again later, but for a login, which
    /// ends with its session.
    ///
    /// # Errors
    /// If the monitor refuses, or its answer does not convince.
    pub fn on_reply(&mut self, reply: &MAuthReply, now: Duration) -> Result<(), AuthError> {
        self.retry_at = now.saturating_add(AUTH_RETRY);
        let step = std::mem::replace(&mut self.step, Step::Idle);
        if reply.result < 0 {
            self.spurned = matches!(step, Step::Tickets);
            return Err(CephxError::Refused { status: reply.result }.into());
        }
        match step {
            Step::Idle => Err(AuthError::Unasked),
            Step::Offered => self.on_method(reply, now),
            _ if reply.method != AuthMethod::Cephx.to_wire() => {
                Err(AuthError::Method(reply.method))
            }
            Step::Proved(login) => {
                // Frames are not sealed with what this brings: msgr1 has no secure mode.
                let mode = ConnectionMode::Crc.to_wire();
                let done = login.on_done(reply.global_id, mode, &reply.payload, now);
                let LoggedIn { tickets, .. } = done?;
                self.secrets()?.set_tickets(tickets);
                (self.logged_in, self.retry_at) = (true, now);
                Ok(())
            }
            Step::Tickets => {
                let mut tickets = self.secrets()?.tickets();
                let taken = tickets.on_reply(&reply.payload, now);
                self.spurned = taken.is_err();
                taken?;
                self.secrets()?.set_tickets(tickets);
                if !matches!(self.due(now), Some(Due::Tickets(_))) {
                    self.retry_at = now;
                }
                Ok(())
            }
            Step::Rotating => {
                let (key, _) = self.secrets()?.key().ok_or(CephxError::NoTicket(self.name.kind))?;
                let rotating = RotatingSecrets::from_reply(&reply.payload, &key)?;
                if !rotating.due(now) {
                    self.retry_at = now;
                }
                self.secrets()?.set_rotating(rotating);
                Ok(())
            }
        }
    }

    /// What is to be done now, if anything. One request is under way at a time.
    pub fn poll(&mut self, now: Duration) -> Option<AuthErrand> {
        if let Some(message) = self.outgoing.take() {
            return Some(AuthErrand::Send(message));
        }
        if !self.logged_in || !matches!(self.step, Step::Idle) || now < self.retry_at {
            return None;
        }
        let due = self.due(now)?;
        self.retry_at = now.saturating_add(AUTH_RETRY);
        let secrets = self.auth.secrets.as_ref()?;
        let (step, payload) = match due {
            Due::Login => return Some(AuthErrand::NewSession),
            Due::Tickets(services) => {
                let request = secrets.tickets().request(services, now, &mut secrets.random());
                (Step::Tickets, request.ok()?) // the AUTH ticket is good, or a login was due
            }
            Due::Rotating => (Step::Rotating, RotatingSecrets::request()),
        };
        self.step = step;
        let method = AuthMethod::Cephx.to_wire();
        Some(AuthErrand::Send(MAuth { method, payload: payload.into(), ..MAuth::default() }))
    }

    /// When to [poll](Self::poll) again if nothing happens before; `None` while the monitor's answer
    /// is awaited, and where nothing runs out.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if !self.logged_in || !matches!(self.step, Step::Idle) {
            return None;
        }
        let secrets = self.auth.secrets.as_ref()?;
        let (_, wanted) = secrets.key()?;
        let wanted = wanted.with(Services::only(EntityType::Auth));
        let tickets = secrets.tickets().renew_at(wanted).unwrap_or_default();
        let rotating = self.serves.then(|| secrets.rotating().due_at().unwrap_or_default());
        Some(rotating.map_or(tickets, |rotating| rotating.min(tickets)).max(self.retry_at))
    }

    /// The monitor chose a method; cephx has a challenge with it.
    fn on_method(&mut self, reply: &MAuthReply, now: Duration) -> Result<(), AuthError> {
        let terms = self.auth.rules.terms(self.name.kind, EntityType::Mon);
        let chosen = AuthMethod::from_wire(reply.method);
        match chosen.filter(|method| terms.methods.contains(method)) {
            None => Err(AuthError::Method(reply.method)),
            Some(AuthMethod::None) => {
                self.logged_in = true;
                Ok(())
            }
            Some(AuthMethod::Cephx) => {
                let login = self.login(now).ok_or(AuthError::Method(reply.method))?;
                let answer = login.on_challenge(&reply.payload, &mut self.secrets()?.random())?;
                let (method, payload) = (reply.method, answer.into());
                self.outgoing = Some(MAuth { method, payload, ..MAuth::default() });
                self.step = Step::Proved(Box::new(login));
                Ok(())
            }
        }
    }

    /// A login with our key, if we have one.
    fn login(&self, now: Duration) -> Option<MonLogin> {
        let secrets = self.auth.secrets.as_ref()?;
        let (key, wanted) = secrets.key()?;
        Some(MonLogin::new(self.name.clone(), key, wanted).renewing(&secrets.tickets(), now))
    }

    fn due(&self, now: Duration) -> Option<Due> {
        let secrets = self.auth.secrets.as_ref()?;
        let (_, wanted) = secrets.key()?;
        let (tickets, auth) = (secrets.tickets(), Services::only(EntityType::Auth));
        let services = tickets.due(wanted.without(auth), now);
        if self.spurned || !tickets.due(auth, now).is_empty() {
            Some(Due::Login)
        } else if !services.is_empty() {
            Some(Due::Tickets(services))
        } else {
            (self.serves && secrets.rotating().due(now)).then_some(Due::Rotating)
        }
    }

    fn secrets(&self) -> Result<&Secrets, CephxError> {
        self.auth.secrets.as_ref().ok_or(CephxError::NoTicket(EntityType::Auth))
    }
}

/// What has run out, or will soon.
enum Due {
    Login,
    Tickets(Services),
    Rotating,
}
