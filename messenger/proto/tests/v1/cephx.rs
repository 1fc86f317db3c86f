//! Cephx inside connects: its blobs pass through both handshakes, and its session key signs what is
//! said afterwards.

use std::time::Duration;

use messenger_proto::auth::cephx::{
    Answer as Verdict, AuthorizerVerifier, LoginServer, METHOD_CEPHX, MessageSigner, MonLogin,
    Services, TicketLifetimes, Tickets,
};
use messenger_proto::auth::keyring::{Keyring, Principal};
use messenger_proto::auth::name::AuthName;
use messenger_proto::auth::secret::Key;
use messenger_proto::v1::{
    Accept, Answer, Attempt, Dial, Encoder, Refusal, Reply, Request, Terms, Wire,
};
use messenger_proto::v2::control::MODE_CRC;
use messenger_proto::{EntityType, features};

use crate::link::{Handshake, accepting, dial, terms};
use crate::stream::{decoder, message, read_one, sections, written};

const NOW: Duration = Duration::from_secs(1_700_000_000);

/// Bytes that do not repeat soon, the same in each run.
fn counting() -> impl FnMut(&mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |bytes| {
        for byte in bytes {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            *byte = (state >> 56) as u8;
        }
    }
}

/// A monitor, and what a client got from it.
fn logged_in(random: &mut dyn FnMut(&mut [u8])) -> (LoginServer, Tickets) {
    let admin: AuthName = "client.admin".parse().unwrap();
    let key = Key::new([5; 16], NOW);
    let caps = [("osd".to_owned(), "allow *".to_owned())].into();
    let mut keyring = Keyring::default();
    keyring.insert(admin.clone(), Principal { key: key.clone(), caps });
    let server = LoginServer::new(keyring, TicketLifetimes::default(), NOW, random);
    let login = MonLogin::new(admin, key, Services::ALL);
    let (pending, challenge) = LoginServer::begin(&login.request(), random).unwrap();
    let answer = login.on_challenge(&challenge, random).unwrap();
    let admitted = pending.finish(&server, &answer, MODE_CRC, 4123, NOW, random).unwrap();
    let logged_in = login.on_done(4123, MODE_CRC, &admitted.payload, NOW).unwrap();
    (server, logged_in.tickets)
}

fn attempt(global_seq: u32, authorizer: &[u8]) -> Attempt {
    Attempt {
        global_seq,
        authorizer_protocol: METHOD_CEPHX,
        authorizer: authorizer.to_vec(),
        ..Attempt::default()
    }
}

#[test]
fn a_service_challenges_a_client_and_both_sign_their_messages() {
    let random = &mut counting();
    let (monitor, tickets) = logged_in(random);
    let secrets = monitor.secrets(EntityType::Osd).unwrap();
    let mut verifier = AuthorizerVerifier::new(EntityType::Osd);
    let mut verify = |request: &Request, random: &mut dyn FnMut(&mut [u8])| {
        assert_eq!(request.authorizer_protocol, METHOD_CEPHX);
        verifier.on_authorizer(&request.authorizer, MODE_CRC, secrets, NOW, random)
    };
    let mut link = Handshake::greeted(dial(), accepting());
    link.terms = |kind| {
        let terms = terms(kind);
        Terms { required: terms.required | features::MSG_AUTH, ..terms }
    };

    let authorizer = tickets.authorizer(EntityType::Osd, NOW, random).unwrap();
    let request = link.request(attempt(1, &authorizer.request()));
    let Ok(Verdict::Challenge(challenge)) = verify(&request, random) else {
        panic!("not challenged");
    };
    let Reply::Challenge(challenge) = link.answer(Answer::Challenge(challenge)) else {
        panic!("challenge not heard");
    };
    let answer = authorizer.on_challenge(&challenge).unwrap();
    let request = link.request(attempt(1, &answer));
    let Ok(Verdict::Admitted(admitted)) = verify(&request, random) else {
        panic!("not admitted");
    };

    // The session has its own word to say, and the same authorizer comes again. A verifier takes no
    // answer twice, so the owner must not ask it.
    link.answer(Answer::RetryGlobal { global_seq: 3 });
    let request = link.request(attempt(4, &answer));
    assert!(request.convinced);
    verify(&request, random).unwrap_err();

    let authorizer_reply = admitted.payload.clone();
    let [client, server] = link.open(Accept { authorizer_reply, ..Accept::default() });
    let authorized = authorizer.on_done(&client.authorizer_reply, MODE_CRC).unwrap();

    let wire = Wire::new(client.features, true);
    assert_eq!((wire, wire.long_footer), (Wire::new(server.features, true), true));
    let keys = [&authorized.session_key, &admitted.session_key];
    for (ours, theirs) in [(keys[0], keys[1]), (keys[1], keys[0])] {
        let mut encoder = Encoder::new(wire);
        encoder.sign(MessageSigner::new(ours));
        let mut decoder = decoder(wire, Some(MessageSigner::new(theirs)));
        let sent = message([5, 0, 600]);
        let got = read_one(&mut decoder, written(&encoder, &sent).freeze()).unwrap();
        assert_eq!(sections(&got), sections(&sent));
    }
}

#[test]
fn a_client_without_room_for_signatures_is_refused_where_they_are_required() {
    let supported = features::SUPPORTED & !features::MSG_AUTH;
    let poor = Dial { supported, ..dial() };
    let mut link = Handshake::greeted(poor, accepting());
    link.terms =
        |_| Terms { supported: features::SUPPORTED, required: features::MSG_AUTH, lossy: true };
    link.connector.connect(attempt(1, b"whatever"), &mut link.to_server);
    assert_eq!(link.server(), Ok(None));
    let refused = Refusal::Features { missing: features::MSG_AUTH };
    assert_eq!(link.client(), Ok(Some(Reply::Refused(refused))));
}
