//! Logins, renewals, and requests for more.

use super::super::{PendingLogin, RotatingSecrets};
use super::*;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_login_ends_with_the_same_keys_on_both_sides() {
    for mode in MODES {
        let mut random = counting();
        let server = monitor(&mut random);
        let login = MonLogin::new(admin(), test_key(), Services::ALL);
        let (client, admitted) = log_in(login, &server, mode, NOW, &mut random).unwrap();
        assert_eq!(client.session_key, admitted.session_key);
        let secrets = (client.connection_secret.as_ref(), admitted.connection_secret.as_ref());
        assert!(agree(mode, secrets.0, secrets.1));
        assert_eq!((admitted.name, admitted.global_id), (admin(), 4242));
        assert_eq!((admitted.caps.allow_all, &*admitted.caps.text), (false, "allow mon"));

        let tickets = client.tickets;
        assert_eq!(tickets.global_id(), 4242);
        assert!(tickets.due(Services::ALL, NOW).is_empty());
        let auth = tickets.get(EntityType::Auth).unwrap();
        assert_eq!((auth.service(), auth.session_key()), (EntityType::Auth, &client.session_key));
        assert_eq!((auth.expires(), auth.renew_at()), (NOW + 72 * HOUR, NOW + 54 * HOUR));
        let osd = tickets.get(EntityType::Osd).unwrap();
        assert_eq!((osd.expires(), osd.renew_at()), (NOW + HOUR, NOW + HOUR * 3 / 4));
    }
}

#[test]
fn only_what_was_asked_for_is_granted() {
    let mut random = counting();
    let server = monitor(&mut random);
    let login = MonLogin::new(admin(), test_key(), Services::only(EntityType::Osd));
    let (client, _) = log_in(login, &server, MODE_CRC, NOW, &mut random).unwrap();
    let missing = client.tickets.due(Services::ALL, NOW);
    assert!(missing.iter().eq([EntityType::Mon, EntityType::Mds, EntityType::Mgr]));
    assert_eq!(client.tickets.renew_at(Services::only(EntityType::Mds)), None);
    assert_eq!(client.tickets.renew_at(Services::NONE), None);
    let renew_at = client.tickets.renew_at(Services::only(EntityType::Osd));
    assert_eq!(renew_at, Some(NOW + HOUR * 3 / 4));
}

#[test]
fn a_wrong_key_and_an_unknown_name_fail_behind_the_challenge_and_alike_outside() {
    let mut random = counting();
    let server = monitor(&mut random);
    let wrong = MonLogin::new(admin(), Key::generate(NOW, &mut random), Services::ALL);
    let error = log_in(wrong, &server, MODE_CRC, NOW, &mut random).unwrap_err();
    assert_eq!((&error, error.errno()), (&CephxError::WrongProof(admin()), -13));

    // The key that stands in for those of unknown principals is nobody's.
    for key in [test_key(), Key::new([0; 16], Duration::ZERO)] {
        let unknown = MonLogin::new(name("client.nobody"), key, Services::ALL);
        let (_, challenge) = LoginServer::begin(&unknown.request(), &mut random).unwrap();
        assert_eq!(challenge.len(), 9);
        let error = log_in(unknown, &server, MODE_CRC, NOW, &mut random).unwrap_err();
        let expected = CephxError::UnknownPrincipal(name("client.nobody"));
        assert_eq!((&error, error.errno()), (&expected, -13));
    }
}

#[test]
fn an_answer_to_another_challenge_is_refused() {
    let mut random = counting();
    let server = monitor(&mut random);
    let login = MonLogin::new(admin(), test_key(), Services::ALL);
    let (_, overheard) = LoginServer::begin(&login.request(), &mut random).unwrap();
    let answer = login.on_challenge(&overheard, &mut random).unwrap();
    let (pending, _) = LoginServer::begin(&login.request(), &mut random).unwrap();
    let refused = pending.finish(&server, &answer, MODE_CRC, 7, NOW, &mut random);
    assert_eq!(refused.unwrap_err(), CephxError::WrongProof(admin()));
}

#[test]
fn a_renewal_keeps_the_number_by_the_old_ticket() {
    for mode in MODES {
        let mut random = counting();
        let mut server = monitor(&mut random);
        let first = logged_in(&server, &mut random).tickets;
        let later = NOW + 50 * HOUR; // services' secrets have rotated, AUTH's have not
        server.rotate(later, &mut random);
        let login = || MonLogin::new(admin(), test_key(), Services::ALL);
        let renewal = login().renewing(&first, later);
        let (client, admitted) = log_in(renewal, &server, mode, later, &mut random).unwrap();
        assert_eq!(admitted.global_id, first.global_id());
        assert_eq!(client.session_key, admitted.session_key);
        assert_ne!(&client.session_key, first.session_key(EntityType::Auth).unwrap());
        assert_eq!(client.tickets.get(EntityType::Auth).unwrap().expires(), later + 72 * HOUR);
        // The renewed tickets work.
        let authorizer = client.tickets.authorizer(EntityType::Osd, later, &mut random).unwrap();
        let mut osd = Service { now: later, ..Service::osd(&server, mode) };
        challenged(osd.take(&authorizer.request(), &mut random).unwrap());

        // With an expired ticket it is a new client.
        let late = NOW + 72 * HOUR;
        let again = login().renewing(&first, late);
        assert_eq!(again.request(), login().request());
    }
}

#[test]
fn a_number_without_its_ticket_is_not_given_away() {
    let mut random = counting();
    let server = monitor(&mut random);
    let answer = |pending: PendingLogin,
                  login: &MonLogin,
                  challenge: &[u8],
                  random: &mut dyn FnMut(&mut [u8])| {
        let answer = login.on_challenge(challenge, random).unwrap();
        pending.finish(&server, &answer, MODE_CRC, 4242, NOW, random)
    };
    let reclaim = CephxError::Reclaim { name: admin(), global_id: 9 };

    let no_ticket = MonLogin::new(admin(), test_key(), Services::ALL);
    let (pending, challenge) = PendingLogin::new(admin(), 9, &mut random);
    let refused = answer(pending, &no_ticket, &challenge, &mut random).unwrap_err();
    assert_eq!((&refused, refused.errno()), (&reclaim, -13));

    let tickets = logged_in(&server, &mut random).tickets; // of client 4242
    let other_ticket = MonLogin::new(admin(), test_key(), Services::ALL).renewing(&tickets, NOW);
    let (pending, challenge) = PendingLogin::new(admin(), 9, &mut random);
    let refused = answer(pending, &other_ticket, &challenge, &mut random).unwrap_err();
    assert_eq!(refused, reclaim);

    // Somebody else's ticket.
    let osd_key = server.keyring.get(&name("osd.0")).unwrap().key.clone();
    let thief = MonLogin::new(name("osd.0"), osd_key, Services::ALL).renewing(&tickets, NOW);
    let refused = log_in(thief, &server, MODE_CRC, NOW, &mut random).unwrap_err();
    assert_eq!(refused, CephxError::Reclaim { name: name("osd.0"), global_id: 4242 });
}

#[test]
fn tickets_are_asked_for_one_by_one_and_renewed() {
    let mut random = counting();
    let server = monitor(&mut random);
    let login = MonLogin::new(admin(), test_key(), Services::NONE);
    let mut tickets = log_in(login, &server, MODE_CRC, NOW, &mut random).unwrap().0.tickets;
    let osd = Services::only(EntityType::Osd);
    let refused = tickets.authorizer(EntityType::Osd, NOW, &mut random).unwrap_err();
    assert_eq!(refused, CephxError::NoTicket(EntityType::Osd));
    for now in [NOW, NOW + HOUR * 3 / 4] {
        assert_eq!(tickets.due(osd, now), osd);
        let request = tickets.request(osd, now, &mut random).unwrap();
        let reply = server.grant_tickets(&request, now, &mut random).unwrap();
        assert_eq!(tickets.on_reply(&reply, now), Ok(osd));
        assert!(tickets.due(osd, now).is_empty());
        assert_eq!(tickets.get(EntityType::Osd).unwrap().expires(), now + HOUR);
    }
    let request = tickets.request(Services::ALL, NOW, &mut random).unwrap();
    let reply = server.grant_tickets(&request, NOW, &mut random).unwrap();
    let all_but_auth = Services::ALL.without(Services::only(EntityType::Auth));
    assert_eq!(tickets.on_reply(&reply, NOW), Ok(all_but_auth), "AUTH takes a login");

    let late = NOW + 72 * HOUR;
    let refused = tickets.request(osd, late, &mut random).unwrap_err();
    assert_eq!(refused, CephxError::NoTicket(EntityType::Auth));
    let refused =
        server.grant_tickets(&tickets.request(osd, NOW, &mut random).unwrap(), late, &mut random);
    assert!(matches!(refused, Err(CephxError::Expired { .. })));
    let refusal = LoginServer::refuse_tickets(&refused.unwrap_err());
    assert_eq!(refusal, hex("0002 f3ffffff"));
    let refused = tickets.on_reply(&refusal, NOW).unwrap_err();
    assert_eq!((&refused, refused.errno()), (&CephxError::Refused { status: -13 }, -13));
}

#[test]
fn services_get_their_secrets_and_clients_none() {
    let mut random = counting();
    let server = monitor(&mut random);
    let osd = server.keyring.get(&name("osd.0")).unwrap().key.clone();
    let reply = server.rotating_secrets(&name("osd.0")).unwrap();
    let secrets = RotatingSecrets::from_reply(&reply, &osd).unwrap();
    assert_eq!(Some(&secrets), server.secrets(EntityType::Osd));
    for refused in ["client.admin", "mon.", "osd.7"] {
        assert_eq!(server.rotating_secrets(&name(refused)).unwrap_err().errno(), -13);
    }
}

#[test]
fn a_client_wants_a_secret_in_secure_mode() {
    let mut random = counting();
    let server = monitor(&mut random);
    let login = MonLogin::new(admin(), test_key(), Services::ALL);
    let (pending, challenge) = LoginServer::begin(&login.request(), &mut random).unwrap();
    let answer = login.on_challenge(&challenge, &mut random).unwrap();
    let admitted = pending.finish(&server, &answer, MODE_CRC, 7, NOW, &mut random).unwrap();
    let refused = login.on_done(7, MODE_SECURE, &admitted.payload, NOW).unwrap_err();
    assert_eq!(refused, CephxError::ConnectionSecret { len: 0, expected: 64 });
}
