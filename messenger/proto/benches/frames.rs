//! How long a frame takes to be written and read again, in each form (case 41 of Ceph's tests):
//! header 41 bytes, front 250, data from none to 4 MiB. Nanoseconds a frame and gigabytes a second.
//!
//! `cargo bench -p messenger-proto --bench frames [-- ROUNDS]`; Ceph makes 100,000 rounds, here
//! large frames get fewer, so that a form moves about as many bytes at every size.

mod pass;

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use messenger_proto::ProtocolError;
use messenger_proto::v2::{
    Compression, ConnectionSecret, Decoder, Encoder, Method, Revision, Role, Wire,
};
use pass::pass;

const ROUNDS: u64 = 100_000;
/// Bytes after which a size has had enough rounds.
const BYTES_MAX: u64 = 4 << 30;
const ROUNDS_MIN: u64 = 10;
const HEADER_LEN: usize = 41;
const FRONT_LEN: usize = 250;
const DATA_LENS: [usize; 6] = [0, 512, 4 << 10, 32 << 10, 128 << 10, 4 << 20];

fn main() -> Result<(), ProtocolError> {
    let rounds = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(ROUNDS);
    let snappy = Compression { method: Method::Snappy, min_size: 1024 };
    println!("{:<22} {:>9} {:>12} {:>8}", "form", "data", "ns/frame", "GB/s");
    for revision in [Revision::Rev0, Revision::Rev1] {
        for (secure, compression) in
            [(false, None), (true, None), (false, Some(snappy)), (true, Some(snappy))]
        {
            let mode = if secure { "secure" } else { "crc" };
            let packed = if compression.is_some() { " snappy" } else { "" };
            for data_len in DATA_LENS {
                let len = (HEADER_LEN + FRONT_LEN + data_len) as u64;
                let rounds = rounds.min(BYTES_MAX / len).max(ROUNDS_MIN);
                let nanos = measure(revision, secure, compression, data_len, rounds)?;
                let (form, rate) = (format!("{revision:?} {mode}{packed}"), len as f64 / nanos);
                println!("{form:<22} {data_len:>9} {nanos:>12.0} {rate:>8.2}");
            }
        }
    }
    Ok(())
}

/// Nanoseconds a frame.
fn measure(
    revision: Revision,
    secure: bool,
    compression: Option<Compression>,
    data_len: usize,
    rounds: u64,
) -> Result<f64, ProtocolError> {
    let wire = Wire { revision, crc_data: true };
    let (mut encoder, mut decoder) = (Encoder::new(wire), Decoder::new(wire));
    if secure {
        let secret = ConnectionSecret::new(&std::array::from_fn::<u8, 64, _>(|at| at as u8))?;
        encoder.secure(secret.keys(Role::Client, revision)?.0);
        decoder.secure(secret.keys(Role::Server, revision)?.1);
    }
    encoder.compress(compression);
    decoder.decompress(compression);

    let part = |len: usize| (0..len).map(|at| (at * at / 7 % 13) as u8).collect::<Bytes>();
    let (header, front, middle, data) =
        (part(HEADER_LEN), part(FRONT_LEN), part(0), part(data_len));
    let mut out = BytesMut::new();
    let start = Instant::now();
    for _ in 0..rounds {
        pass(&mut encoder, &mut decoder, &header, [&front, &middle, &data], &mut out)?;
    }
    Ok(start.elapsed().as_nanos() as f64 / rounds as f64)
}
