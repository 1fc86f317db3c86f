//! Captured exchanges with Ceph's daemons: layouts, and whole ones with the keys of a test cluster
//! (16.2.15) that is gone.

use super::super::{RotatingSecrets, crypt};
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

/// What a monitor granted client.admin, who wanted to see an OSD, in secure mode.
const LOGIN_DONE: &str = "\
    0001000000000101000000200000000130000000acf4b5e457329ecdca0abbf3e5c0e3d7eacccaabf2291f42 \
    9fcbfbc3f44bad832b362480e122d3f5d8cc2d5b5989b49c006d00000001020000000000000060000000ba2b \
    c6abc58134157d840967849003f9050060d4bbe70341b4b798c82f8a9898bb3c4fb4af276ee1f0008c4f37ca \
    4bf050a71b482e8074093dd7f18be2d6ef0417cda666df74e6bff77a03ed26901a949b0510e4c30229d60816 \
    01e1e8f613915400000050000000694d9f4f644c60ccc22444aad09fcdd91ca4e1fea9042da13dc732b5e328 \
    27df8ebe09c0ae28a787b1c19fa254189a82019743bf01719ea0c264046594f13066d11f7cfc1a884e8e42ef \
    f4ee34efbe0fc00000000101000000040000000130000000a8522afc85b6155591b9c7e92ba3927fdb013bf8 \
    e96e43bff8542e84dbd586399ffe43528013fdc2c4fdc807b42f23a9007d0000000102000000000000007000 \
    00004724c271b29638f21324918a33e06164a9e160078d116cf03460645df596c16d5821ec214fae2fc4c798 \
    7f7364a692cd9e3ede2f88c4a271c8a99508de4ec4953e844a9bcb4a82156280462c9607d536885677a7c335 \
    841990b1adae2062b50f4b82b4d0e05c102478882b5f5af9f064";
/// The same monitor's reply to an osd.0 that asked for its secrets.
const ROTATING: &str = "\
    000400000000a0000000c1171f4886c947c906712ab0fafbf25bbc24bb1b930550aad2bafd8bbe9b406f5acd \
    5b0ed4519d77aea51ed13abf61d687a5faf725b0b9251ed7ad3b9b2d8f318c8941ba678cf31ecbf5b6d16283 \
    124ad7b5b847dc3540be9280657abc143dd058957b8ebf2aa61225453f615a0ac2f5ffd77ce6a22c9192cae6 \
    438a96c01b24cb7e976778b9ceaa7149a14476a52f39cd9723b53d2f9709d66803549add5eae";

/// The whole way with bytes of Ceph's: its tickets open with the secrets it gives its services.
#[test]
fn a_ticket_of_ceph_s_is_taken_by_us_as_a_client_and_as_a_service() {
    let now = Duration::from_secs(1_795_777_346);
    let key = "AQBZXglrey7mBRAA9xsmWJByAltCR1COvAE4IQ==".parse().unwrap();
    let login = MonLogin::new(admin(), key, Services::only(EntityType::Osd));
    let mut random = given(vec![0x5a; 8]);
    let answer = login.on_challenge(&hex("0173dcc9621165722c"), &mut random).unwrap();
    // The monitor took this proof.
    let head = "0001 03 5a5a5a5a5a5a5a5a 063b10e846392ea2";
    assert_eq!(answer, hex(&format!("{head} 01 0000000000000000 00000000 24000000")));
    let client = login.on_done(4126, MODE_SECURE, &hex(LOGIN_DONE), now).unwrap();
    assert!(client.connection_secret.is_some());
    let validity = |service| client.tickets.get(service).unwrap().expires() - now;
    assert_eq!(validity(EntityType::Auth), Duration::from_secs(72 * 3600));
    assert_eq!(validity(EntityType::Osd), Duration::from_secs(3600));

    let key = "AQBaXglrv1InBxAAaTD7kDsmSMVHjsM5fP20SQ==".parse().unwrap();
    let secrets = RotatingSecrets::from_reply(&hex(ROTATING), &key).unwrap();
    assert!(!secrets.due(now));
    assert_eq!(secrets.current().unwrap().0, 2); // the monitor sealed with it, too
    let mut random = counting();
    let mut verifier = AuthorizerVerifier::new(EntityType::Osd);
    let mut take = |authorizer: &[u8]| {
        verifier.on_authorizer(authorizer, MODE_SECURE, &secrets, now, &mut random).unwrap()
    };
    let authorizer = client.tickets.authorizer(EntityType::Osd, now, &mut counting()).unwrap();
    let challenge = challenged(take(&authorizer.request()));
    let admitted = let_in(take(&authorizer.on_challenge(&challenge).unwrap()));
    assert_eq!((admitted.name, admitted.global_id), (admin(), 4126));
    assert_eq!((admitted.caps.allow_all, &*admitted.caps.text), (false, "allow *"));
    authorizer.on_done(&admitted.payload, MODE_SECURE).unwrap();
}
