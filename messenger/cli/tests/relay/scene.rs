//! A messenger of ours that is an OSD to a real one, and what both know of their session.

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex};

use messenger::auth::Auth;
use messenger::{
    Action, Config, ConnectOptions, Connection, Dispatcher, DispatcherPriority, EntityAddr,
    EntityAddrVec, EntityName, EntityType, Message, Messenger, MsType, OpThreads, Policy, Step,
};
use messenger_ceph::{Fsid, JsonCommand, MCommand, MCommandReply, MPing, Payload};
use messenger_proto::v2::control::{ClientIdent, ServerIdent, SessionReconnect};

use super::Party::{Osd, Ours};
use super::{Letter, Link, Relay};
use crate::cluster::{Cluster, Over, TAP, join_tap};
use crate::lab::sandbox::Namespace;
use crate::lab::{KERNEL_V4, PATIENCE, STACK_V4};

/// Who we are: a number that no OSD of the cluster has.
pub(crate) const OURS: EntityName = EntityName::new(EntityType::Osd, 7);
/// Below the OSD's in the order of races, which starts with a nonce's lowest byte.
pub(crate) const NONCE: u32 = 1 << 24;
/// The first scene's; above those that an OSD takes.
pub(crate) const PORTS: u16 = 7600;

/// What the application is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The answer to the command of this tid.
    Answer(u64),
    RemoteReset,
}

struct Inbox(Mutex<Sender<News>>);

impl Inbox {
    fn tell(&self, news: News) {
        // Nobody listens at the end of a test.
        let _ = self.0.lock().unwrap().send(news);
    }
}

impl Dispatcher for Inbox {
    fn dispatch(&self, _: &Connection, message: Message) -> Result<(), Message> {
        match MCommandReply::from_message(&message) {
            Ok(MCommandReply { result: 0, .. }) => self.tell(News::Answer(message.header.tid)),
            _ => return Err(message),
        }
        Ok(())
    }

    fn handle_remote_reset(&self, _: &Connection) {
        self.tell(News::RemoteReset);
    }
}

/// A messenger of ours, and whom it takes for the OSD.
pub(crate) struct Us {
    pub(crate) messenger: Messenger,
    news: Receiver<News>,
    osd: EntityAddrVec,
    fsid: Fsid,
}

impl Us {
    /// Our session with the OSD.
    pub(crate) fn connection(&self) -> Connection {
        self.messenger.connect_to(EntityType::Osd, &self.osd, ConnectOptions::default()).unwrap()
    }

    fn send(&self, message: Message) {
        self.connection().send_message(message).unwrap();
    }

    /// Has the OSD say something.
    pub(crate) fn ask(&self, tid: u64) {
        let command = MCommand::new(self.fsid, &JsonCommand::new("version"));
        self.send(command.to_message().with_tid(tid));
    }

    /// Gives us something to say, so that we dial.
    pub(crate) fn ping(&self) {
        self.send(MPing::default().to_message());
    }

    pub(crate) fn hears(&self, expected: News) {
        assert_eq!(self.news.recv_timeout(PATIENCE), Ok(expected));
    }

    pub(crate) fn hears_no_more(&self) {
        assert_eq!(self.news.try_recv(), Err(TryRecvError::Empty));
    }
}

/// We, a relay, and behind that the OSD.
pub(crate) struct Scene {
    pub(crate) us: Us,
    pub(crate) relay: Relay,
}

impl Scene {
    fn set(stage: &Stage, port: u16) -> Self {
        let local = SocketAddr::new(stage.ip, port);
        let relay = Relay::between(local, stage.osd.preferred());
        let seen = |addr: &EntityAddr| match *addr == stage.osd.preferred() {
            true => relay.front(),
            false => *addr,
        };
        let osd = EntityAddrVec(stage.osd.iter().map(seen).collect());
        let us = stage.us(NONCE, osd, |_, _| Action::Continue);
        let public = EntityAddr::v2(relay.back(), 0).into();
        us.messenger.bindv(&EntityAddr::v2(local, 0).into(), Some(&public)).unwrap();
        us.messenger.start().unwrap();
        Self { us, relay }
    }

    /// A session, made by us.
    pub(crate) fn open(&self) -> Session {
        self.us.connection();
        let mut link = self.relay.next_dial(Ours);
        let client: ClientIdent = link.pass(Ours);
        let server: ServerIdent = link.pass(Osd);
        assert_eq!((client.flags, server.flags), (0, 0), "lossless for both");
        assert!(client.cookie != 0 && server.cookie != 0);
        Session { link, client, server }
    }

    /// A session whose transport broke: the OSD said something that we did not get, and we are even.
    pub(crate) fn broken(&self) -> Broken {
        let mut session = self.open();
        self.us.ask(1);
        assert_eq!(session.link.pass_message(Ours).header.seq, 1);
        let missed = session.link.take_message(Osd);
        session.breaks(1, missed)
    }
}

/// A session that stands, and the idents that began it.
pub(crate) struct Session {
    pub(crate) link: Link,
    pub(crate) client: ClientIdent,
    pub(crate) server: ServerIdent,
}

impl Session {
    /// Its transport breaks. The OSD has so many messages of ours and we know it; what it said last
    /// we did not get.
    pub(crate) fn breaks(self, said: u64, missed: Letter) -> Broken {
        self.link.cut_after_ack(said);
        let heard = missed.header.seq - 1;
        Broken { client: self.client, server: self.server, said, heard, missed }
    }
}

/// What is known of a session whose transport broke.
pub(crate) struct Broken {
    pub(crate) client: ClientIdent,
    pub(crate) server: ServerIdent,
    said: u64,
    heard: u64,
    missed: Letter,
}

impl Broken {
    /// The OSD's next dial, which asks to go on.
    pub(crate) fn osd_dials(&self, scene: &Scene, connect_seq: u64) -> (Link, SessionReconnect) {
        let mut link = scene.relay.next_dial(Osd);
        let request: SessionReconnect = link.take(Osd);
        assert_eq!(request, self.request(&request, &self.server.addrs, connect_seq, self.said));
        assert!(request.global_seq > self.server.global_seq, "{request:?}");
        (link, request)
    }

    /// Our next dial, which asks to go on.
    pub(crate) fn we_dial(&self, scene: &Scene, connect_seq: u64) -> (Link, SessionReconnect) {
        let mut link = scene.relay.next_dial(Ours);
        let request: SessionReconnect = link.take(Ours);
        assert_eq!(request, self.request(&request, &self.client.addrs, connect_seq, self.heard));
        assert!(request.global_seq > self.client.global_seq, "{request:?}");
        (link, request)
    }

    /// What a dialler has to ask; its global_seq is its own.
    fn request(
        &self,
        got: &SessionReconnect,
        addrs: &EntityAddrVec,
        connect_seq: u64,
        msg_seq: u64,
    ) -> SessionReconnect {
        SessionReconnect {
            addrs: addrs.clone(),
            client_cookie: self.client.cookie,
            server_cookie: self.server.cookie,
            global_seq: got.global_seq,
            connect_seq,
            msg_seq,
        }
    }

    /// The OSD says again what we missed, under the number it had, and our application gets it.
    pub(crate) fn is_repaired(&self, scene: &Scene, link: &mut Link) {
        let again = link.pass_message(Osd);
        assert_eq!(again.header, self.missed.header);
        assert_eq!(again.sections, self.missed.sections);
        scene.us.hears(News::Answer(again.header.tid));
    }
}

/// What all scenes of one TCP share.
pub(crate) struct Stage {
    config: Config,
    ip: IpAddr,
    osd: EntityAddrVec,
    fsid: Fsid,
    auth: Option<Arc<Auth>>,
}

impl Stage {
    pub(crate) fn of(cluster: &Cluster, over: Over) -> Self {
        let dump = cluster.osd_dump();
        let osd = dump.up(0).unwrap().cluster_addrs.clone();
        let one = OpThreads::new(1).unwrap();
        let mut config = Config { ms_async_op_threads: one, ..Config::default() };
        let mut ip = KERNEL_V4;
        if over == Over::Dpdk {
            config.ms_type = MsType::Dpdk;
            config.dpdk.vdev = format!("net_tap0,iface={TAP}");
            config.native.addrs = vec![format!("{STACK_V4}/24").parse().unwrap()];
            ip = STACK_V4;
        }
        Self { config, ip: ip.parse().unwrap(), osd, fsid: dump.fsid, auth: None }
    }

    /// With the tickets and secrets of somebody who has logged in.
    pub(crate) fn with_auth(mut self, auth: Arc<Auth>) -> Self {
        self.auth = Some(auth);
        self
    }

    /// A messenger of ours that is not bound yet.
    fn us(
        &self,
        nonce: u32,
        osd: EntityAddrVec,
        intercept: impl Fn(&Connection, Step) -> Action + Send + Sync + 'static,
    ) -> Us {
        let messenger = Messenger::create(OURS, self.config.clone()).unwrap();
        messenger.set_nonce(nonce).unwrap();
        messenger.set_default_policy(Policy::lossless_peer()).unwrap();
        messenger.set_interceptor(intercept).unwrap();
        if let Some(auth) = &self.auth {
            messenger.set_auth(Arc::clone(auth)).unwrap();
        }
        let (sender, news) = mpsc::channel();
        let inbox = Arc::new(Inbox(Mutex::new(sender)));
        messenger.add_dispatcher_tail(inbox, DispatcherPriority::DEFAULT).unwrap();
        Us { messenger, news, osd, fsid: self.fsid }
    }

    /// We, without a relay, and steps of ours that break. Our dials lose every race.
    pub(crate) fn directly(
        &self,
        port: u16,
        intercept: impl Fn(&Connection, Step) -> Action + Send + Sync + 'static,
    ) -> Us {
        let us = self.us(u32::MAX, self.osd.clone(), intercept);
        us.messenger.bind(SocketAddr::new(self.ip, port)).unwrap();
        us.messenger.start().unwrap();
        us
    }

    /// Keeps the workers, and with them the tap, from one messenger to the next.
    pub(crate) fn keep(&self, namespace: &Namespace) -> Messenger {
        let keeper = Messenger::create(OURS, self.config.clone()).unwrap();
        if self.config.ms_type == MsType::Dpdk {
            join_tap(namespace);
        }
        keeper
    }

    /// Plays every scene; each is another session.
    pub(crate) fn play(&self, scenes: &[fn(&Scene)]) {
        for (port, scene) in (PORTS..).zip(scenes) {
            let set = Scene::set(self, port);
            scene(&set);
            set.us.hears_no_more();
        }
    }
}
