//! The layouts of captured exchanges with Ceph's daemons.

use super::super::crypt;
use super::*;
use crate::denc::{Reader, Writer};

/// A source of randomness that gives these bytes, then zeros.
fn given(bytes: Vec<u8>) -> impl FnMut(&mut [u8]) {
    let mut left = bytes.into_iter();
    move |out| out.fill_with(|| left.next().unwrap_or(0))
}

#[test]
fn a_login_is_asked_for_as_ceph_does() {
    let login = MonLogin::new(admin(), test_key(), Services::ALL);
    assert_eq!(login.request(), hex("0a 08000000 05000000 61646d696e 0000000000000000"));

    // Our proof is made with another key: all but it is as captured.
    let mut random = given(hex("e12db41e0eba01e6"));
    let answer = login.on_challenge(&hex("01 8525e004bc9c131f"), &mut random).unwrap();
    let proof = crypt::proof(&test_key(), 0x1f13_9cbc_04e0_2585, 0xe601_ba0e_1eb4_2de1);
    let expected = [
        &hex("0001 03 e12db41e0eba01e6")[..],
        &proof.to_le_bytes(),
        &hex("01 0000000000000000 00000000 37000000"),
    ];
    assert_eq!(answer, expected.concat());
    assert_eq!(answer.len(), 0x24);
}

#[test]
fn a_challenge_is_made_as_ceph_does() {
    let request = hex("0a 08000000 05000000 61646d696e 0000000000000000");
    let (pending, challenge) =
        LoginServer::begin(&request, &mut given(hex("8525e004bc9c131f"))).unwrap();
    assert_eq!(challenge, hex("01 8525e004bc9c131f"));
    assert_eq!(pending.name(), &admin());
    for refused in [&[][..], &[1], &[20; 64], &request[..10]] {
        let error = LoginServer::begin(refused, &mut given(vec![])).unwrap_err();
        assert_eq!(error.errno(), -13);
    }
}

#[test]
fn an_authorizer_is_as_long_as_ceph_s() {
    let mut random = counting();
    let mut server = monitor(&mut random);
    let mut principal = server.keyring.get(&admin()).unwrap().clone();
    principal.caps.insert("osd".into(), "allow *".into());
    server.keyring.insert(admin(), principal);
    let tickets = logged_in(&server, &mut random).tickets;
    let authorizer = tickets.authorizer(EntityType::Osd, NOW, &mut random).unwrap();
    let request = authorizer.request();
    assert_eq!(request.len(), 0xae);
    let head = "01 9210000000000000 04000000 01 0200000000000000 70000000";
    assert_eq!(request[..26], hex(head));
    assert_eq!(request[26 + 112..][..4], hex("20000000"));

    let mut osd = Service::osd(&server, MODE_CRC);
    let challenge = challenged(osd.take(&request, &mut random).unwrap());
    assert_eq!(challenge.len(), 32); // no length of its own in front
    let answer = authorizer.on_challenge(&challenge).unwrap();
    assert_eq!((answer.len(), &answer[..138]), (0xae, &request[..138]));
    let done = let_in(osd.take(&answer, &mut random).unwrap()).payload;
    assert_eq!((done.len(), &done[..4]), (0x24, &[0x20, 0, 0, 0][..]));
}

#[test]
fn a_reply_to_a_login_has_ceph_s_nesting() {
    let mut random = counting();
    let server = monitor(&mut random);
    let login = MonLogin::new(admin(), test_key(), Services::ALL);
    let (client, admitted) = log_in(login, &server, MODE_SECURE, NOW, &mut random).unwrap();
    let reader = &mut Reader::new(&admitted.payload);
    assert_eq!((reader.u16(), reader.i32()), (Ok(0x100), Ok(0)));
    assert_eq!((reader.u8(), reader.u32(), reader.u32()), (Ok(1), Ok(1), Ok(32)));
    assert_eq!(reader.u8(), Ok(1));
    let opened = crypt::open(&test_key(), reader.blob().unwrap(), "session key").unwrap();
    let mut expected = BytesMut::new();
    let mut writer = Writer::new(&mut expected);
    writer.u8(1);
    client.session_key.encode(&mut writer);
    writer.u32(72 * 3600);
    writer.u32(0);
    assert_eq!(opened.reader().bytes(expected.len()).unwrap(), &expected[..]);
    assert_eq!(reader.u8(), Ok(0));
    assert_eq!(Reader::new(reader.blob().unwrap()).u8(), Ok(1));

    let secret = Reader::new(reader.blob().unwrap()).blob().unwrap();
    let opened = crypt::open(&client.session_key, secret, "connection secret").unwrap();
    assert_eq!(opened.reader().blob().unwrap().len(), 64);
    let extra = &mut Reader::new(reader.blob().unwrap());
    assert_eq!((extra.u8(), extra.u32(), extra.u32()), (Ok(1), Ok(4), Ok(1)));
    assert_eq!(reader.remaining(), 0);
}

#[test]
fn old_clients_and_clients_that_want_nothing_get_their_auth_ticket_alone() {
    let mut random = counting();
    let server = monitor(&mut random);
    let login = MonLogin::new(admin(), test_key(), Services::ALL);
    for version in [1, 3] {
        let (pending, challenge) = LoginServer::begin(&login.request(), &mut random).unwrap();
        let mut answer = login.on_challenge(&challenge, &mut random).unwrap();
        let mask_at = answer.len() - 4;
        answer[2] = version;
        match version {
            1 => answer.truncate(mask_at),
            _ => answer[mask_at..].fill(0),
        }
        let admitted = pending.finish(&server, &answer, MODE_CRC, 7, NOW, &mut random).unwrap();
        let login = MonLogin::new(admin(), test_key(), Services::NONE);
        let client = login.on_done(7, MODE_CRC, &admitted.payload, NOW).unwrap();
        assert_eq!(client.session_key, admitted.session_key);
        let missing = client.tickets.due(Services::ALL, NOW);
        assert_eq!(missing, Services::ALL.without(Services::only(EntityType::Auth)));
    }
}
