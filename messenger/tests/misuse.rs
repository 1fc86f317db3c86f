//! What an application should not do, or does at the wrong moment: a typed answer each time, never
//! a hang, and nobody else notices.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod common;

use common::*;
use messenger::{
    Action, Config, ConnectOptions, Connection, Dispatcher, DispatcherPriority, EntityName,
    EntityType, Error, Message, Policy, SendError, Step,
};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use steps::Steps;

/// Runs each scenario on each stack.
macro_rules! on_every_stack {
    ($($scenario:ident),* $(,)?) => {
        mod posix {
            $(#[test] fn $scenario() {
                super::$scenario(&super::Posix::between(["127.0.0.1", "127.0.0.2"], 2));
            })*
        }
        mod simple {
            $(#[test] fn $scenario() {
                super::$scenario(&super::Simple::between(["127.0.0.1", "127.0.0.2"]));
            })*
        }
        mod sim {
            $(#[test] fn $scenario() { super::$scenario(&super::common::sim::Sim::new(2)); })*
        }
    };
}

on_every_stack!(
    a_message_is_taken_in_every_state_that_may_deliver_it,
    a_connection_may_be_marked_down_in_every_callback,
    a_panic_in_any_callback_ends_its_connection_only,
    shutdown_returns_while_a_dispatcher_is_stuck_and_wait_returns_after_it,
    a_range_without_a_free_port_says_so,
    a_twin_is_refused_and_refuses,
    a_dial_to_the_own_address_over_the_wire_ends_in_a_reset,
    rebind_moves_the_messenger_and_ends_its_sessions,
    client_reset_makes_a_new_client_of_an_old_one,
    a_second_life_restores_everything,
    a_black_hole_swallows_both_directions_and_lets_go,
    data_arrives_in_the_buffer_posted_for_it,
    strangers_hold_no_more_memory_than_they_may,
);

fn a_message_is_taken_in_every_state_that_may_deliver_it(net: &impl Net) {
    let steps = Steps::default();
    let s = server_with(net, Recorder::fast(), config(), Policy::stateful_server());
    let plan = Plan::client(Recorder::fast(), Policy::lossless_peer());
    let c = Plan { steps: Some(&steps), ..plan }.start(net);
    for step in [Step::ClientBanner, Step::AuthRequest, Step::ClientIdent] {
        steps.hold_at(step);
    }
    let to_s = c.connect(&s);
    send(&to_s, ping(0)); // dialling
    for (tid, step) in (1..).zip([Step::ClientBanner, Step::AuthRequest, Step::ClientIdent]) {
        let held = steps.wait_until_held(step);
        send(&held, ping(tid)); // in the middle of the handshake
        held.resume(Action::Continue);
    }
    s.recorder.wait_for(&Saw::Fast(3));
    send(&to_s, ping(4)); // ready
    s.recorder.wait_for(&Saw::Fast(4));
    eventually("all is acknowledged", || to_s.outgoing() == (0, 0));

    // Parked by a fault with nothing to send.
    steps.hold_at(Step::MessageSeen);
    send(&s.recorder.accepted()[0], ping(100));
    steps.wait_until_held(Step::MessageSeen).resume(Action::Fail);
    eventually("it is parked", || !to_s.is_connected());
    send(&to_s, ping(5));
    s.recorder.wait_for(&Saw::Fast(5));
    c.recorder.wait_for(&Saw::Fast(100));
    assert_eq!(s.recorder.saw().iter().filter(|saw| matches!(saw, Saw::Fast(_))).count(), 6);

    to_s.mark_down();
    let refused = to_s.send_message(ping(6)).unwrap_err();
    assert!(matches!(refused, SendError::Closed(_)), "marked down: {refused}");
    let loopback = c.messenger.loopback_connection().unwrap();
    send(&loopback, ping(7));
    c.recorder.wait_for(&Saw::Fast(7));
    c.end();
    for connection in [&to_s, &loopback] {
        let refused = connection.send_message(ping(8)).unwrap_err();
        assert_eq!(refused.into_message().header.tid, 8, "of a messenger that has ended");
    }
    let gone = c.messenger.send_to(ping(9), EntityType::Osd, &s.addrs).unwrap_err();
    assert!(matches!(gone, Error::NotRunning), "{gone}");
    s.end();
}

/// A callback of a [`Dispatcher`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Callback {
    FastAuthentication,
    FastConnect,
    FastAccept,
    Connect,
    Accept,
    FastPreprocess,
    FastDispatch,
    Dispatch,
    Reset,
    RemoteReset,
}

/// What is done in it: the connection is the one it is called for, if it is called for one.
type Deed = Box<dyn Fn(Option<&Connection>) + Send + Sync>;

/// Does something in one callback, once.
struct Saboteur {
    at: Callback,
    fast: bool,
    deed: Mutex<Option<Deed>>,
    did: mpsc::Sender<()>,
}

impl Saboteur {
    fn new(at: Callback, deed: Deed) -> (Arc<Self>, mpsc::Receiver<()>) {
        let (did, done) = mpsc::channel();
        let fast = matches!(at, Callback::FastPreprocess | Callback::FastDispatch);
        (Arc::new(Self { at, fast, deed: Mutex::new(Some(deed)), did }), done)
    }

    fn reach(&self, at: Callback, connection: Option<&Connection>) {
        let deed = if self.at == at { self.deed.lock().unwrap().take() } else { None };
        if let Some(deed) = deed {
            let _ = self.did.send(());
            deed(connection);
        }
    }
}

impl Dispatcher for Saboteur {
    fn can_fast_dispatch_any(&self) -> bool {
        self.fast
    }
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        self.fast
    }
    fn fast_preprocess(&self, _: &Message) {
        self.reach(Callback::FastPreprocess, None);
    }
    fn fast_dispatch(&self, connection: &Connection, _: Message) {
        self.reach(Callback::FastDispatch, Some(connection));
    }
    fn dispatch(&self, connection: &Connection, _: Message) -> Result<(), Message> {
        self.reach(Callback::Dispatch, Some(connection));
        Ok(())
    }
    fn handle_fast_authentication(&self, connection: &Connection) -> bool {
        self.reach(Callback::FastAuthentication, Some(connection));
        true
    }
    fn handle_fast_connect(&self, connection: &Connection) {
        if !connection.is_loopback() {
            self.reach(Callback::FastConnect, Some(connection));
        }
    }
    fn handle_fast_accept(&self, connection: &Connection) {
        self.reach(Callback::FastAccept, Some(connection));
    }
    fn handle_connect(&self, connection: &Connection) {
        self.reach(Callback::Connect, Some(connection));
    }
    fn handle_accept(&self, connection: &Connection) {
        self.reach(Callback::Accept, Some(connection));
    }
    fn handle_reset(&self, connection: &Connection) -> bool {
        self.reach(Callback::Reset, Some(connection));
        false
    }
    fn handle_remote_reset(&self, connection: &Connection) {
        self.reach(Callback::RemoteReset, Some(connection));
    }
}

/// Those of a server, and what brings them about: a client that connects, sends, and starts over.
const AT_SERVER: [Callback; 8] = [
    Callback::FastAuthentication,
    Callback::FastAccept,
    Callback::Accept,
    Callback::FastPreprocess,
    Callback::FastDispatch,
    Callback::Dispatch,
    Callback::Reset,
    Callback::RemoteReset,
];
const AT_CLIENT: [Callback; 2] = [Callback::FastConnect, Callback::Connect];

/// Does `deed` in one callback of a server or a client, and checks that a bystander on the same
/// workers talks on.
fn sabotage(net: &impl Net, at: Callback, deed: Deed) {
    let (saboteur, done) = Saboteur::new(at, deed);
    let is_server = AT_SERVER.contains(&at);
    let start = |plan: Plan<'_>, sabotaged: bool| {
        let messenger = net.messenger(plan.end, plan.name, config());
        messenger.set_default_policy(plan.policy).unwrap();
        if sabotaged {
            let dispatcher = saboteur.clone();
            messenger.add_dispatcher_tail(dispatcher, DispatcherPriority::HIGH).unwrap();
        }
        let recorder = Arc::new(plan.recorder);
        messenger.add_dispatcher_tail(recorder.clone(), DispatcherPriority::DEFAULT).unwrap();
        plan.listens.bind(net, plan.end, &messenger);
        messenger.start().unwrap();
        let addrs = messenger.addrs();
        Host { messenger: Arc::new(messenger), recorder, addrs }
    };
    let s = start(Plan::server(Recorder::queued(), Policy::stateful_server()), is_server);
    let c = start(Plan::client(Recorder::queued(), Policy::lossless_client()), !is_server);
    let bystander = client(net, Recorder::fast());
    let other = server(net, Recorder::fast().echoing());
    let from_bystander = bystander.connect(&other);

    let first = c.connect(&s);
    let _ = first.send_message(ping(1));
    match at {
        Callback::RemoteReset => {
            s.recorder.wait_for(&Saw::FastAccept);
            first.mark_down();
            let _ = c.connect(&s).send_message(ping(2));
        }
        Callback::Reset => {
            s.recorder.wait_for(&Saw::FastAccept);
            assert!(s.messenger.mark_down(&s.recorder.accepted()[0].peer_addrs()));
        }
        _ => {}
    }
    done.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{at:?} is not called"));
    send(&from_bystander, ping(3));
    bystander.recorder.wait_for(&Saw::Fast(3));
    for host in [c, s, bystander, other] {
        host.end();
    }
}

/// C-5, D-15.
fn a_connection_may_be_marked_down_in_every_callback(net: &impl Net) {
    let marked = Arc::new(Mutex::new(None));
    for at in AT_SERVER.into_iter().chain(AT_CLIENT) {
        let slot = Arc::clone(&marked);
        sabotage(
            net,
            at,
            Box::new(move |connection| {
                if let Some(connection) = connection {
                    connection.mark_down();
                    assert!(!connection.is_connected());
                    *slot.lock().unwrap() = Some(connection.clone());
                }
            }),
        );
        if let Some(connection) = marked.lock().unwrap().take() {
            assert!(connection.is_down(), "{at:?}");
        }
    }
}

fn a_panic_in_any_callback_ends_its_connection_only(net: &impl Net) {
    for at in AT_SERVER.into_iter().chain(AT_CLIENT) {
        sabotage(net, at, Box::new(|_| panic!("a test of panics: expected in the output")));
    }
}

/// M-14, M-15.
fn shutdown_returns_while_a_dispatcher_is_stuck_and_wait_returns_after_it(net: &impl Net) {
    let (release, gate) = mpsc::channel::<()>();
    let (stuck, is_stuck) = mpsc::channel();
    let hooks = Mutex::new((stuck, gate));
    let recorder = Recorder::queued().on_message(move |_, _| {
        let hooks = hooks.lock().unwrap();
        hooks.0.send(()).unwrap();
        let _ = hooks.1.recv(); // a closed gate lets all pass
    });
    let s = server(net, recorder);
    let c = client(net, Recorder::queued());
    let to_s = c.connect(&s);
    send(&to_s, ping(1));
    is_stuck.recv_timeout(PATIENCE).unwrap();
    s.messenger.shutdown();
    s.messenger.shutdown(); // idempotent
    let (waited, has_waited) = mpsc::channel();
    std::thread::scope(|scope| {
        let messenger = &s.messenger;
        scope.spawn(move || waited.send(messenger.wait()).unwrap());
        eventually("its connections end all the same", || to_s.is_down());
        assert!(has_waited.try_recv().is_err(), "wait returned before the callback did");
        drop(release);
        has_waited.recv_timeout(PATIENCE).unwrap().unwrap();
    });
    c.end();
}

/// M-8.
fn a_range_without_a_free_port_says_so(net: &impl Net) {
    let s = server(net, Recorder::queued());
    let port = s.addrs.first().and_then(|addr| addr.socket).unwrap().port();
    let busy = Config { ms_bind_port_min: port, ms_bind_port_max: port, ..config() };
    let name = EntityName::new(EntityType::Osd, 1);
    let ip = net.ip(End::Server);
    let late = net.messenger(End::Server, name, busy);
    let error = late.bind(SocketAddr::new(ip, 0)).unwrap_err();
    assert!(
        matches!(error, Error::NoFreePort { ip: at, min, max } if (at, min, max) == (ip, port, port)),
        "{error:?}"
    );
    // And it is no server's end: the port's owner is still there, and free to move.
    let c = client(net, Recorder::queued());
    send(&c.connect(&s), ping(1));
    s.recorder.wait_for(&Saw::Queued(1));
    c.end();
    s.end();
    late.bind(SocketAddr::new(ip, 0)).unwrap();
}

/// L-7: two that claim the same address and nonce. Neither of their dials can win, so a server
/// that both dial is told that the second replaces the first, and nobody hangs.
fn a_twin_is_refused_and_refuses(net: &impl Net) {
    let s = server_with(net, Recorder::queued(), config(), Policy::lossless_peer_reuse());
    let twin = || {
        let plan = Plan::client(Recorder::queued(), Policy::lossless_peer_reuse());
        Plan { nonce: Some(7), ..plan }.start(net)
    };
    let (one, two) = (twin(), twin());
    let from_one = one.connect(&s);
    send(&from_one, ping(1));
    s.recorder.wait_for(&Saw::Queued(1));
    let from_two = two.connect(&s);
    send(&from_two, ping(2));
    s.recorder.wait_for(&Saw::Queued(2));
    // The second took the session of the first over; S knows that what it was is gone.
    s.recorder.wait_for(&Saw::RemoteReset);
    assert_eq!(s.recorder.accepted().len(), 1);
    for host in [one, two, s] {
        host.end();
    }
}

/// L-7, M-17: over the wire to ourselves. The two ends of it have equal addresses: neither wins.
fn a_dial_to_the_own_address_over_the_wire_ends_in_a_reset(net: &impl Net) {
    let policy = Policy::lossless_peer_reuse();
    let s = server_with(net, Recorder::queued(), config(), policy);
    let local = s.connect(&s);
    assert!(local.is_loopback());
    let options = ConnectOptions { not_local: true, anonymous: false };
    let to_self = s.messenger.connect_to(EntityType::Osd, &s.addrs, options).unwrap();
    assert!(!to_self.is_loopback());
    send(&to_self, ping(1));
    s.recorder.wait_for(&Saw::Reset); // the accepting end
    assert_eq!(s.recorder.accepted(), []);
    to_self.mark_down();
    send(&local, ping(2));
    s.recorder.wait_for(&Saw::Queued(2));
    assert_eq!(s.recorder.count(&Saw::Queued(1)), 0);
    s.end();
}

/// M-10, M-4.
fn rebind_moves_the_messenger_and_ends_its_sessions(net: &impl Net) {
    let s = server(net, Recorder::queued());
    let c = client(net, Recorder::queued());
    let before = c.connect(&s);
    send(&before, ping(1));
    s.recorder.wait_for(&Saw::Queued(1));
    let (nonce, socket) = (s.messenger.nonce(), s.addrs.first().unwrap().socket.unwrap());
    let addrs = s.messenger.rebind(&[socket.port() + 1]).unwrap();
    let moved = addrs.first().unwrap();
    assert!(![socket.port(), socket.port() + 1].contains(&moved.socket.unwrap().port()));
    assert_eq!(moved.nonce, nonce.wrapping_add(1_000_000).max(1));
    for host in [&s, &c] {
        host.recorder.wait_for(&Saw::Reset);
    }
    assert!(before.is_down());
    // Who still comes to the old address is refused and told so.
    let lost = c.connect(&s);
    c.recorder.wait_for(&Saw::Refused);
    assert!(!lost.is_connected());
    c.messenger.send_to(ping(2), EntityType::Osd, &addrs).unwrap();
    s.recorder.wait_for(&Saw::Queued(2));
    c.end();
    s.end();
    assert!(matches!(s.messenger.rebind(&[]), Err(Error::NotRunning)));
}

/// M-12.
fn client_reset_makes_a_new_client_of_an_old_one(net: &impl Net) {
    let s = server_with(net, Recorder::fast().echoing(), config(), Policy::stateful_server());
    let c = client_with(net, Recorder::fast(), config(), Policy::lossless_client());
    let loopback = c.messenger.loopback_connection().unwrap();
    let before = c.connect(&s);
    send(&before, ping(1));
    c.recorder.wait_for(&Saw::Fast(1));
    let nonce = c.messenger.nonce();
    c.messenger.client_reset().unwrap();
    assert_eq!(c.messenger.nonce(), nonce.wrapping_add(1_000_000).max(1));
    assert!(before.is_down());
    c.recorder.wait_for_on(&before, &Saw::Reset, 1);
    c.recorder.wait_for_on(&loopback, &Saw::FastConnect, 2);
    let after = c.connect(&s);
    send(&after, ping(2));
    c.recorder.wait_for(&Saw::Fast(2));
    // To the server it is somebody else: the old one's session waits in vain.
    assert_eq!(s.recorder.count(&Saw::RemoteReset), 0);
    assert_eq!(s.recorder.accepted().len(), 2);
    c.end();
    s.end();
    assert!(matches!(c.messenger.client_reset(), Err(Error::NotRunning)));
}

/// M-16: everything, where Ceph restores the fast path only.
fn a_second_life_restores_everything(net: &impl Net) {
    let s = server(net, Recorder::queued().echoing());
    let c = client(net, Recorder::queued());
    let mut nonces = vec![c.messenger.nonce()];
    for life in 1..=3 {
        let to_s = c.connect(&s);
        send(&to_s, ping(life));
        c.recorder.wait_for_on(&to_s, &Saw::Queued(life), 1);
        let loopback = c.messenger.loopback_connection().unwrap();
        send(&loopback, ping(100 + life));
        c.recorder.wait_for(&Saw::Queued(100 + life));
        c.end();
        assert!(matches!(to_s.send_message(ping(0)), Err(SendError::Closed(_))));
        assert!(matches!(loopback.send_message(ping(0)), Err(SendError::Closed(_))));
        c.messenger.start().unwrap();
        assert!(matches!(c.messenger.start(), Err(Error::Started)));
        nonces.push(c.messenger.nonce());
    }
    nonces.dedup();
    assert_eq!(nonces.len(), 4, "each life is another incarnation");
    c.end();
    s.end();
}

/// C-14.
fn a_black_hole_swallows_both_directions_and_lets_go(net: &impl Net) {
    let s = server(net, Recorder::fast().echoing());
    let c = client(net, Recorder::fast());
    let to_s = c.connect(&s);
    send(&to_s, ping(1));
    c.recorder.wait_for(&Saw::Fast(1));
    let to_c = s.recorder.accepted().remove(0);

    c.messenger.set_blackhole(EntityType::Osd, true).unwrap();
    send(&to_s, ping(2)); // vanishes here
    send(&to_c, ping(3)); // arrives and vanishes
    eventually("the other direction is drained", || to_c.outgoing() == (0, 0));
    // Behind it on the same transport comes what tells that it arrived.
    to_c.send_keepalive();
    eventually("it has passed", || to_s.last_keepalive().is_some());
    c.messenger.set_blackhole(EntityType::Osd, false).unwrap();
    send(&to_s, ping(4));
    c.recorder.wait_for(&Saw::Fast(4));
    assert_eq!(s.recorder.fast_on(&to_c), [Saw::FastAccept, Saw::Fast(1), Saw::Fast(4)]);
    assert_eq!(c.recorder.fast_on(&to_s), [Saw::FastConnect, Saw::Fast(1), Saw::Fast(4)]);
    eventually("no share of a budget went with it", || {
        c.messenger.counters().dispatch_throttle_bytes == 0
    });
    c.end();
    s.end();
}

/// C-13.
fn data_arrives_in_the_buffer_posted_for_it(net: &impl Net) {
    const LEN: usize = 3 << 20;
    let s = server(net, Recorder::fast().echoing());
    let c = client(net, Recorder::fast().keeping_messages());
    let to_s = c.connect(&s);
    let buffer = bytes::BytesMut::with_capacity(LEN);
    let place = buffer.as_ptr();
    to_s.post_rx_buffer(1, buffer).unwrap();
    to_s.post_rx_buffer(2, bytes::BytesMut::with_capacity(LEN - 1)).unwrap();
    let data: Vec<u8> = (0..LEN).map(|at| (at ^ (at >> 8)) as u8).collect();
    for tid in 1..=3 {
        send(&to_s, ping(tid).with_data(data.clone()));
        c.recorder.wait_for(&Saw::Fast(tid));
    }
    let answers = c.recorder.take_messages();
    assert!(answers.iter().all(|answer| answer.data == data));
    assert_eq!(answers[0].data.as_ptr(), place, "read straight into it");
    assert_ne!(answers[2].data.as_ptr(), place);
    assert!(to_s.revoke_rx_buffer(1).is_none(), "used up");
    let small = to_s.revoke_rx_buffer(2).expect("too small, so left alone");
    assert_eq!(small.capacity(), LEN - 1);
    c.end();
    s.end();
}

/// Peers that stop in the middle of their handshake keep what they may have us hold until they are
/// gone; others are turned away meanwhile, and then let in.
fn strangers_hold_no_more_memory_than_they_may(net: &impl Net) {
    let config =
        Config { accepting_bytes: 100 << 10, accepting_connection_bytes: 32 << 10, ..config() };
    let s = server_with(net, Recorder::fast().echoing(), config, Policy::stateless_server());
    let counted = |name: &str| s.messenger.counters().total(name);
    let steps = Steps::default();
    let plan = Plan::client(Recorder::fast(), Policy::lossy_client());
    let strangers = Plan { steps: Some(&steps), ..plan }.start(net);
    let anonymous = ConnectOptions { anonymous: true, ..ConnectOptions::default() };
    for _ in 0..3 {
        steps.hold_at(Step::AuthRequest);
        strangers.messenger.connect_to(EntityType::Osd, &s.addrs, anonymous).unwrap();
        steps.wait_until_held(Step::AuthRequest);
    }
    let c = client(net, Recorder::fast());
    let to_s = c.connect(&s);
    send(&to_s, ping(1));
    eventually("one too many is turned away", || counted("msgr_accept_refused_bytes") > 0);
    assert_eq!(counted("msgr_accept_refused"), 0);
    assert_eq!(c.recorder.count(&Saw::Fast(1)), 0);
    strangers.end();
    c.recorder.wait_for(&Saw::Fast(1)); // it tries again
    c.end();
    s.end();
}
