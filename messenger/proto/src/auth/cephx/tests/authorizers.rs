//! Clients at the doors of services.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn an_authorizer_ends_with_the_same_keys_on_both_sides() {
    for mode in MODES {
        let mut random = counting();
        let server = monitor(&mut random);
        let tickets = logged_in(&server, &mut random).tickets;
        let mut osd = Service::osd(&server, mode);
        let authorizer = tickets.authorizer(EntityType::Osd, NOW, &mut random).unwrap();
        let challenge = challenged(osd.take(&authorizer.request(), &mut random).unwrap());
        let answer = authorizer.on_challenge(&challenge).unwrap();
        let admitted = let_in(osd.take(&answer, &mut random).unwrap());
        let client = authorizer.on_done(&admitted.payload, mode).unwrap();
        assert_eq!(client.session_key, admitted.session_key);
        let secrets = (client.connection_secret.as_ref(), admitted.connection_secret.as_ref());
        assert!(agree(mode, secrets.0, secrets.1));
        assert_eq!((admitted.name, admitted.global_id), (admin(), 4242));
        assert_eq!((admitted.caps.allow_all, &*admitted.caps.text), (false, "allow osd"));
    }
}

#[test]
fn a_replayed_authorizer_meets_another_challenge() {
    let mut random = counting();
    let server = monitor(&mut random);
    let tickets = logged_in(&server, &mut random).tickets;
    let authorizer = tickets.authorizer(EntityType::Osd, NOW, &mut random).unwrap();
    let mut osd = Service::osd(&server, MODE_SECURE);
    let challenge = challenged(osd.take(&authorizer.request(), &mut random).unwrap());
    let overheard = authorizer.on_challenge(&challenge).unwrap();
    let_in(osd.take(&overheard, &mut random).unwrap());

    let refused = |osd: &mut Service<'_>, random: &mut dyn FnMut(&mut [u8])| {
        osd.take(&overheard, random).unwrap_err()
    };
    assert_eq!(
        refused(&mut osd, &mut random),
        CephxError::Challenge(admin()),
        "the same connection"
    );
    let mut other = Service::osd(&server, MODE_SECURE);
    assert_eq!(
        refused(&mut other, &mut random),
        CephxError::Challenge(admin()),
        "no challenge yet"
    );
    challenged(other.take(&authorizer.request(), &mut random).unwrap());
    let error = refused(&mut other, &mut random);
    assert_eq!(
        (&error, error.errno()),
        (&CephxError::Challenge(admin()), -13),
        "another challenge"
    );
    assert_eq!(
        refused(&mut other, &mut random),
        CephxError::Challenge(admin()),
        "one answer a challenge"
    );
}

#[test]
fn a_ticket_ends_and_its_secret_goes() {
    let mut random = counting();
    let mut server = monitor(&mut random);
    let tickets = logged_in(&server, &mut random).tickets;
    let authorizer = tickets.authorizer(EntityType::Osd, NOW, &mut random).unwrap().request();
    let at = |server: &LoginServer, now, random: &mut dyn FnMut(&mut [u8])| {
        Service { now, ..Service::osd(server, MODE_CRC) }.take(&authorizer, random)
    };
    challenged(at(&server, NOW + HOUR - Duration::from_nanos(1), &mut random).unwrap());
    let expired = CephxError::Expired { name: admin(), expires: NOW + HOUR, now: NOW + HOUR };
    assert_eq!(at(&server, NOW + HOUR, &mut random).unwrap_err(), expired);
    let refused = tickets.authorizer(EntityType::Osd, NOW + HOUR, &mut random).unwrap_err();
    assert_eq!(refused, CephxError::NoTicket(EntityType::Osd));

    server.rotate(NOW + 100 * HOUR, &mut random);
    let (service, secret_id) = (EntityType::Osd, 2);
    let unknown = CephxError::UnknownSecret { service, secret_id };
    assert_eq!(at(&server, NOW, &mut random).unwrap_err(), unknown);
}

#[test]
fn a_ticket_is_for_one_service_and_one_client() {
    let mut random = counting();
    let server = monitor(&mut random);
    let tickets = logged_in(&server, &mut random).tickets;
    let mds = tickets.authorizer(EntityType::Mds, NOW, &mut random).unwrap();
    let mut osd = Service::osd(&server, MODE_CRC);
    let refused = osd.take(&mds.request(), &mut random).unwrap_err();
    assert_eq!(refused, CephxError::WrongService { expected: EntityType::Osd, got: 2 });
    // Says it is for an OSD, but its ticket is not.
    let mut forged = mds.request();
    forged[9] = 4;
    let refused = osd.take(&forged, &mut random).unwrap_err();
    assert_eq!(refused, CephxError::NotOurs { what: "ticket" });

    let mut forged = tickets.authorizer(EntityType::Osd, NOW, &mut random).unwrap().request();
    forged[1..9].copy_from_slice(&77_u64.to_le_bytes());
    let refused = osd.take(&forged, &mut random).unwrap_err();
    assert_eq!(refused, CephxError::WrongGlobalId { name: admin(), claimed: 77, issued: 4242 });
}

#[test]
fn a_service_that_cannot_open_the_ticket_is_found_out() {
    let mut random = counting();
    let server = monitor(&mut random);
    let tickets = logged_in(&server, &mut random).tickets;
    let mut osd = Service::osd(&server, MODE_CRC);
    let mut reply = || {
        let authorizer = tickets.authorizer(EntityType::Osd, NOW, &mut random).unwrap();
        let challenge = challenged(osd.take(&authorizer.request(), &mut random).unwrap());
        let answer = authorizer.on_challenge(&challenge).unwrap();
        (authorizer, let_in(osd.take(&answer, &mut random).unwrap()).payload)
    };
    let (_, overheard) = reply();
    let (authorizer, _) = reply();
    assert_eq!(authorizer.on_done(&overheard, MODE_CRC).unwrap_err(), CephxError::Nonce);
    let (authorizer, without_secret) = reply();
    let refused = authorizer.on_done(&without_secret, MODE_SECURE).unwrap_err();
    assert_eq!(refused, CephxError::ConnectionSecret { len: 0, expected: 64 });
}
