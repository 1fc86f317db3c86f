//! Both sides of a handshake against each other, through every reply there is.

use bytes::{Bytes, BytesMut};
use messenger_proto::v1::banner::{MAGIC_LEN, write_server};
use messenger_proto::v1::{
    ATTEMPTS_MAX, Accept, Accepting, Answer, Attempt, ConnectReply, Connector, Dial, Heard, Opened,
    Refusal, Reply, ReplyTag, Terms, V1Error,
};
use messenger_proto::{EntityAddr, EntityType, ProtocolError, features};

use crate::link::{Handshake, accepting, addr, dial};

fn attempt(global_seq: u32, connect_seq: u32) -> Attempt {
    Attempt {
        global_seq,
        connect_seq,
        in_seq: 40,
        authorizer_protocol: 1,
        authorizer: b"it is me".to_vec(),
    }
}

#[test]
fn a_client_is_let_in_and_both_know_the_same() {
    let mut link = Handshake::new(dial(), accepting());
    let own_addr = addr("any:10.0.0.1:0/9");
    assert_eq!(link.client(), Ok(Some(Reply::Greeted { own_addr })));
    assert!(link.connector.is_idle());

    let request = link.request(attempt(5, 0));
    assert_eq!((request.kind, request.addr), (EntityType::Client, addr("v1:10.0.0.1:0/9")));
    assert_eq!((request.global_seq, request.connect_seq, request.lossy), (5, 0, true));
    assert_eq!((request.authorizer_protocol, &request.authorizer[..]), (1, &b"it is me"[..]));
    assert!(!request.convinced);

    let [client, server] =
        link.open(Accept { global_seq: 8, in_seq: 12, authorizer_reply: b"it is you".to_vec() });
    let expected = Opened {
        features: features::SUPPORTED,
        lossy: false, // the server's word
        global_seq: 8,
        connect_seq: 1,
        acked: Some(12),
        authorizer_reply: Bytes::from_static(b"it is you"),
    };
    assert_eq!(client, expected);
    let authorizer_reply = Bytes::new();
    assert_eq!(server, Opened { global_seq: 5, acked: Some(40), authorizer_reply, ..expected });
}

#[test]
fn a_client_that_does_not_ask_how_far_the_session_got_is_ready_at_once() {
    let supported = features::SUPPORTED & !features::RECONNECT_SEQ;
    let mut link = Handshake::greeted(Dial { supported, ..dial() }, accepting());
    assert_eq!(link.request(attempt(5, 3)).features, supported);
    let server = link.acceptor.answer(Answer::Accept(Accept::default()), &mut link.to_client);
    let server = server.unwrap();
    assert_eq!((server.features, server.connect_seq, server.acked), (supported, 4, None));
    let Ok(Some(Reply::Ready(client))) = link.client() else {
        panic!("not ready");
    };
    assert_eq!((client.features, client.connect_seq, client.acked), (supported, 4, None));
    assert_eq!((link.connector.wants(), link.acceptor.wants()), (None, None));
}

#[test]
fn whatever_leaves_another_try_leads_to_a_session_on_the_same_transport() {
    let answers = [
        (Answer::ResetSession, Reply::ResetSession),
        (Answer::RetrySession { connect_seq: 7 }, Reply::RetrySession { connect_seq: 7 }),
        (Answer::RetryGlobal { global_seq: 9 }, Reply::RetryGlobal { global_seq: 9 }),
        (Answer::Challenge(b"who?".to_vec()), Reply::Challenge(Bytes::from_static(b"who?"))),
    ];
    let mut all = Handshake::greeted(dial(), accepting());
    for (answer, heard) in answers {
        let mut link = Handshake::greeted(dial(), accepting());
        for link in [&mut link, &mut all] {
            link.request(attempt(1, 2));
            assert_eq!(link.answer(answer.clone()), heard);
            assert!(link.connector.is_idle() && !link.acceptor.is_asked());
        }
        let request = link.request(attempt(10, 7));
        assert_eq!((request.global_seq, request.connect_seq), (10, 7));
        assert_eq!(link.open(Accept::default()).map(|opened| opened.connect_seq), [8, 8]);
    }
    all.request(attempt(10, 7));
    all.open(Accept::default());
}

#[test]
fn who_loses_a_race_or_is_refused_has_nothing_more_to_say() {
    let answers =
        [(Answer::Wait, Reply::Wait), (Answer::BadAuthorizer, Reply::Refused(Refusal::Authorizer))];
    for (answer, heard) in answers {
        let mut link = Handshake::greeted(dial(), accepting());
        link.request(attempt(1, 0));
        assert_eq!(link.answer(answer), heard);
        assert_eq!((link.connector.wants(), link.connector.is_idle()), (None, false));
        assert!(link.acceptor.wants().is_some(), "the server would listen");
    }
    let error = ProtocolError::from(V1Error::from(Refusal::Authorizer));
    assert_eq!(error.kind(), "v1_refused");
}

#[test]
fn a_client_of_another_protocol_or_without_features_is_refused_without_asking() {
    let mistaken = Dial { peer: EntityType::Mon, ..dial() };
    let mut link = Handshake::greeted(mistaken, accepting());
    link.connector.connect(attempt(1, 0), &mut link.to_server);
    assert_eq!(link.server(), Ok(None));
    let refused = Reply::Refused(Refusal::Protocol { ours: 15, theirs: 24 });
    assert_eq!(link.client(), Ok(Some(refused)));
    assert!(link.acceptor.wants().is_some());

    let poor = Dial { supported: 0, ..dial() };
    let mut link = Handshake::greeted(poor, accepting());
    link.connector.connect(attempt(1, 0), &mut link.to_server);
    assert_eq!(link.server(), Ok(None));
    let missing = features::REQUIRED;
    assert_eq!(link.client(), Ok(Some(Reply::Refused(Refusal::Features { missing }))));

    // What is required may depend on who asks; the first rule that is broken is the one told.
    let mut link = Handshake::greeted(Dial { own: EntityType::Osd, ..poor }, accepting());
    link.terms = |kind| Terms {
        supported: 7,
        required: if kind == EntityType::Osd { 5 } else { 0 },
        lossy: true,
    };
    link.connector.connect(attempt(1, 0), &mut link.to_server);
    assert_eq!(link.server(), Ok(None));
    assert_eq!(link.client(), Ok(Some(Reply::Refused(Refusal::Features { missing: 5 }))));
}

#[test]
fn features_that_we_require_are_demanded_of_the_server_too() {
    let mut link = Handshake::greeted(dial(), accepting());
    link.terms = |_| Terms { supported: features::MSG_AUTH, required: 0, lossy: false };
    link.request(attempt(1, 0));
    link.acceptor.answer(Answer::Accept(Accept::default()), &mut link.to_client);
    assert_eq!(link.client(), Err(V1Error::MissingFeatures { missing: features::REQUIRED }));
    assert_eq!(link.connector.wants(), None);
}

#[test]
fn an_authorizer_that_convinced_is_known_again_and_no_other() {
    let mut link = Handshake::greeted(dial(), accepting());
    let with = |authorizer: &str| Attempt { authorizer: authorizer.into(), ..attempt(1, 0) };
    let retry = || Answer::RetryGlobal { global_seq: 1 };
    let steps = [
        ("a", false, Answer::Challenge(b"?".to_vec())),
        ("a", false, retry()),
        ("a", true, retry()),
        ("b", false, retry()),
        ("b", true, Answer::ResetSession),
        ("a", false, Answer::Challenge(b"?".to_vec())),
        ("a", false, Answer::RetrySession { connect_seq: 1 }),
        ("a", true, retry()),
    ];
    for (step, (authorizer, convinced, answer)) in steps.into_iter().enumerate() {
        assert_eq!(link.request(with(authorizer)).convinced, convinced, "step {step}");
        link.answer(answer);
    }
    let other_method = Attempt { authorizer_protocol: 2, ..with("a") };
    assert!(!link.request(other_method).convinced);
}

#[test]
fn the_server_has_to_be_the_one_dialled() {
    let greet = |server: &str| {
        let own_addr = addr(server);
        Handshake::new(dial(), Accepting { own_addr, ..accepting() }).client()
    };
    assert!(greet("v1:10.0.0.2:6801/77").is_ok());
    assert!(greet("v1:0.0.0.0:6801/77").is_ok(), "it may not know its IP address");
    for other in ["v1:10.0.0.3:6801/77", "v1:10.0.0.2:6801/78", "v1:0.0.0.0:6803/77", "none:-/77"] {
        let (dialled, got) = (dial().target, addr(other));
        assert_eq!(greet(other), Err(V1Error::NotTheDialled { dialled, got }));
    }
}

#[test]
fn a_client_s_blank_address_is_filled_in_and_another_one_kept() {
    let announced = |own: &str| {
        let own_addr = addr(own);
        let mut link = Handshake::greeted(Dial { own_addr, ..dial() }, accepting());
        link.request(attempt(1, 0)).addr
    };
    assert_eq!(announced("v1:192.168.1.1:6809/4"), addr("v1:192.168.1.1:6809/4"));
    assert_eq!(announced("v1:0.0.0.0:6809/4"), addr("v1:10.0.0.1:6809/4"));
    assert_eq!(announced("any:-/4"), addr("v1:10.0.0.1:0/4"));

    // A client that leaves it blank on the wire.
    let mut link = Handshake::new(dial(), accepting());
    link.client().unwrap();
    link.to_server.truncate(MAGIC_LEN);
    let mut blank = BytesMut::new();
    write_server(&EntityAddr::unbound(4), &EntityAddr::NONE, &mut blank);
    link.to_server.extend_from_slice(&blank[MAGIC_LEN..MAGIC_LEN + 136]);
    assert_eq!(link.request(attempt(1, 0)).addr, addr("v1:10.0.0.1:0/4"));
}

#[test]
fn a_session_opens_with_the_number_asked_for_plus_one() {
    for (asked, got, fine) in [(0, 1, true), (5, 6, true), (5, 5, false), (u32::MAX, 0, true)] {
        let mut link = Handshake::greeted(dial(), accepting());
        link.connector.connect(attempt(1, asked), &mut link.to_server);
        ConnectReply {
            tag: ReplyTag::Ready,
            features: features::SUPPORTED,
            global_seq: 1,
            connect_seq: got,
            protocol: 24,
            authorizer_len: 0,
            lossy: true,
        }
        .write(&mut link.to_client);
        match link.client() {
            Ok(Some(Reply::Ready(opened))) => assert!(fine && opened.connect_seq == got),
            other => {
                assert_eq!(other, Err(V1Error::ConnectSeq { expected: asked + 1, got }));
                assert!(!fine);
            }
        }
    }
}

#[test]
fn neither_side_goes_on_asking_for_ever() {
    let mut link = Handshake::greeted(dial(), accepting());
    let error = loop {
        link.connector.connect(attempt(1, 0), &mut link.to_server);
        assert!(matches!(link.server(), Ok(Some(Heard::Request(_)))));
        link.acceptor.answer(Answer::ResetSession, &mut link.to_client);
        if let Err(error) = link.client() {
            break error;
        }
    };
    assert_eq!(error, V1Error::TooManyAttempts { attempts: ATTEMPTS_MAX });

    // A client that goes on all the same.
    let mut other = Connector::new(dial(), &mut link.to_server);
    link.to_server.clear();
    for piece in greeting() {
        other.push(piece, &mut link.to_server).unwrap();
    }
    link.to_server.clear();
    other.connect(attempt(1, 0), &mut link.to_server);
    let attempts = ATTEMPTS_MAX + 1;
    assert_eq!(link.server(), Err(V1Error::TooManyAttempts { attempts }));
    assert_eq!(link.acceptor.wants(), None);
}

/// A server's first bytes, as pieces.
fn greeting() -> [Bytes; 2] {
    let mut out = BytesMut::new();
    write_server(&dial().target, &addr("v1:10.0.0.1:34567/0"), &mut out);
    let rest = out.split_off(MAGIC_LEN);
    [out.freeze(), rest.freeze()]
}

#[test]
fn other_protocols_are_recognised_by_their_first_bytes() {
    let mut link = Handshake::new(dial(), accepting());
    for banner in [&mut link.to_client, &mut link.to_server] {
        banner.clear();
        banner.extend_from_slice(b"ceph v2\n\x10\0");
    }
    let refused = V1Error::BadBanner { got: *b"ceph v2\n\x10" };
    assert_eq!(link.client(), Err(refused.clone()));
    assert_eq!(link.server(), Err(refused));
}

/// A client's whole part of a session's opening, with what the server has to answer in between.
#[test]
fn a_handshake_cut_at_any_byte_waits_and_one_changed_at_any_byte_never_panics() {
    let mut link = Handshake::greeted(dial(), accepting());
    link.connector.connect(attempt(1, 0), &mut link.to_server);
    let request = link.to_server.clone().freeze();
    link.server().unwrap();
    let accept = Accept { authorizer_reply: b"reply".to_vec(), ..Accept::default() };
    link.acceptor.answer(Answer::Accept(accept), &mut link.to_client);
    let reply = link.to_client.clone().freeze();

    let server = |bytes: &[u8]| {
        let mut link = Handshake::greeted(dial(), accepting());
        link.to_server.extend_from_slice(bytes);
        link.server()
    };
    let client = |bytes: &[u8]| {
        let mut link = Handshake::greeted(dial(), accepting());
        link.connector.connect(attempt(1, 0), &mut link.to_server);
        link.to_client.extend_from_slice(bytes);
        link.client()
    };
    assert!(matches!(server(&request), Ok(Some(Heard::Request(_)))));
    assert!(matches!(client(&reply), Ok(Some(Reply::Ready(_)))));
    for len in 0..request.len() {
        assert_eq!(server(&request[..len]), Ok(None), "{len} bytes");
    }
    for len in 0..reply.len() {
        assert_eq!(client(&reply[..len]), Ok(None), "{len} bytes");
    }
    // Nothing protects these bytes, so a change may mean something; whatever it means has a type.
    for bit in 0..request.len() * 8 {
        let mut bad = request.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        let _ = server(&bad);
    }
    for bit in 0..reply.len() * 8 {
        let mut bad = reply.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        let _ = client(&bad);
    }
}
