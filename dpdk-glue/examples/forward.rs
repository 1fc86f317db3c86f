//! Two ports, and every frame that arrives on one leaves by the other. The smallest proof that
//! packets move:
//!
//! ```text
//! cargo run --release -p dpdk-glue --example forward -- net_null0 net_null1
//! cargo run --release -p dpdk-glue --example forward -- net_tap0,iface=dt0 net_tap1,iface=dt1
//! ```
//! A third argument is the number of seconds to run; 5 without.

use std::env;
use std::error::Error;
use std::time::{Duration, Instant};

use dpdk_glue::{
    Burst, Eal, EalOptions, MemoryMode, Mempool, PoolConfig, Port, PortConfig, PortSource,
    QueuePair, RxQueue, TxQueue, free_burst,
};

const MEMORY_MB: u32 = 128;

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(env::var("RUST_LOG").unwrap_or_else(|_| "info".into()))
        .init();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [left, right, rest @ ..] = arguments.as_slice() else {
        return Err("usage: forward VDEV VDEV [SECONDS]".into());
    };
    let seconds = rest.first().map_or(Ok(5), |seconds| seconds.parse())?;

    let memory_mode = MemoryMode::best_for(MEMORY_MB);
    let eal =
        Eal::start(&EalOptions { memory_mb: MEMORY_MB, memory_mode, ..EalOptions::default() })?;
    eal.register_thread()?;
    let pool = Mempool::new(&eal, PoolConfig::default())?;
    let open = |device: &str| -> Result<QueuePair, Box<dyn Error>> {
        let source = PortSource::Vdev(device.parse()?);
        let (_port, mut queues) = Port::open(&eal, &source, &pool, &PortConfig::default())?;
        Ok(queues.remove(0))
    };
    let (mut left, mut right) = (open(left)?, open(right)?);

    let mut counters = Counters::default();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(seconds) {
        // A look at the clock costs more than a burst that finds nothing.
        for _ in 0..64 {
            forward(&mut left.rx, &mut right.tx, &mut counters);
            forward(&mut right.rx, &mut left.tx, &mut counters);
        }
    }
    let millions = counters.forwarded as f64 / begin.elapsed().as_secs_f64() / 1e6;
    println!("{counters:?}; {millions:.2} million frames a second");
    Ok(())
}

#[derive(Debug, Default)]
struct Counters {
    forwarded: u64,
    dropped: u64,
}

fn forward(from: &mut RxQueue, to: &mut TxQueue, counters: &mut Counters) {
    let mut burst = Burst::new();
    from.recv(&mut burst);
    counters.forwarded += to.send(&mut burst) as u64;
    counters.dropped += burst.len() as u64;
    free_burst(&mut burst);
}
