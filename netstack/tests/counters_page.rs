//! The page of counters tells what the workers of both stacks report.

use netstack::device::sim::{SimNet, SimPort};
use netstack::native::{NativeConfig, NativeStack};
use netstack::posix::{PosixConfig, PosixStack};
use netstack::stack::{NetworkStack, Worker};

mod page;

fn reported<S: NetworkStack>(stack: S) -> Vec<&'static str> {
    let workers = stack.into_workers().expect("the stack makes its workers");
    workers[0].counters().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn the_page_tells_every_counter_of_the_native_worker() {
    let (_net, mut devices) = SimNet::new(1, &[SimPort::new(1)]);
    let addrs = vec!["10.0.0.1/24".parse().unwrap()];
    let config = NativeConfig { addrs, ..NativeConfig::default() };
    let stack = NativeStack::new(devices.remove(0), config);
    page::assert_tells("transport-N: native", &reported(stack));
}

#[test]
fn the_page_tells_every_counter_of_the_posix_worker() {
    let stack = PosixStack::new(PosixConfig::default());
    page::assert_tells("transport-N: posix", &reported(stack));
}
