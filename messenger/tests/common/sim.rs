//! Two hosts with our own TCP, joined by a simulated cable, in real time on real threads.

use super::{End, Net};
use messenger::{Config, EntityName, Messenger, Workers, WorkersOptions};
use netstack::IpCidr;
use netstack::device::sim::{SimDevice, SimNet, SimPort, Spread, WhenFull};
use netstack::native::{IdlePolicy, NativeConfig, NativeStack};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

const SEED: u64 = 20_08;

/// The workers of both hosts. The cable loses nothing: what breaks is what a test breaks.
pub struct Sim {
    workers: [Arc<Workers>; 2],
}

impl Sim {
    /// A cable of so many queues, and as many workers on each end.
    pub fn new(queues: u16) -> Self {
        let (_, mut devices) = SimNet::new(SEED, &ports(queues));
        let clients = devices.pop().map(|devices| start(End::Client, devices));
        let servers = devices.pop().map(|devices| start(End::Server, devices));
        Self { workers: [servers, clients].map(|workers| workers.expect("two ports were made")) }
    }
}

impl Net for Sim {
    fn messenger(&self, end: End, name: EntityName, config: Config) -> Messenger {
        Messenger::with_workers(name, config, Arc::clone(&self.workers[end as usize])).unwrap()
    }
    fn ip(&self, end: End) -> IpAddr {
        ip(end)
    }
}

/// The two ends of a cable of so many queues, the server's first.
pub fn ports(queues: u16) -> [SimPort; 2] {
    [End::Server, End::Client].map(|end| SimPort {
        queues,
        // By flow, and both stacks know: a session moves to the worker its peer comes back to.
        spread: Spread::FlowHash { announced: true },
        when_full: WhenFull::Wait,
        ..SimPort::new(host(end))
    })
}

fn start(end: End, devices: Vec<SimDevice>) -> Arc<Workers> {
    let name = format!("sim-{end:?}").to_lowercase();
    let options = WorkersOptions { name, ..WorkersOptions::default() };
    let stack = NativeStack::new(devices, native_config(end));
    Workers::start(stack, &options).expect("a simulated port always starts")
}

/// Our own TCP for two hosts that share the cores of this machine.
pub fn native_config(end: End) -> NativeConfig {
    NativeConfig {
        addrs: vec![IpCidr::new(ip(end).into(), 24)],
        time_wait: Duration::from_millis(100),
        clock_multiplier: 20, // both ends acknowledge at once
        idle: IdlePolicy::Adaptive { spin: Duration::ZERO, nap: Duration::from_micros(100) },
        ..NativeConfig::default()
    }
}

pub fn ip(end: End) -> IpAddr {
    Ipv4Addr::new(10, 99, 0, host(end)).into()
}

fn host(end: End) -> u8 {
    end as u8 + 1
}
