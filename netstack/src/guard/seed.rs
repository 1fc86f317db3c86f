//! How smoltcp is brought to take a sequence number of our choice.
//!
//! It draws them from a generator of its interface, which is seeded when the interface is made and
//! can be computed backwards: for each number there are seeds after which it is the first one drawn.
//! An interface has no state worth keeping, so one is made for each connection that begins. That
//! this is still so is shown by a test; smoltcp's version is pinned.

/// sPCG32: a step multiplies and adds, and an output is the part of the state from a bit that its
/// top three bits tell.
const FACTOR: u64 = 0xbb2e_fcec_3c39_611d;
const SUMMAND: u64 = 0x7590_ef39;
/// What undoes the multiplication.
const INVERSE: u64 = inverse(FACTOR);

const _: () = assert!(FACTOR.wrapping_mul(INVERSE) == 1);

/// Newton's iteration: each step doubles the bits that are right, of which an odd number is three
/// to begin with.
const fn inverse(odd: u64) -> u64 {
    let mut result = odd;
    let mut bits = 3;
    while bits < 64 {
        result = result.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(result)));
        bits *= 2;
    }
    result
}

/// A seed for an interface that draws `number` first.
pub(crate) fn seed_for(number: u32) -> u64 {
    let mut low = 0;
    loop {
        // The top three bits are 0: an output from bit 29 on.
        let drawn = u64::from(number) << 29 | low;
        let made = step_back(drawn);
        // Making the interface takes one output for its IPv4 identification, and another should
        // this be 0.
        let output = (made >> (29 - (made >> 61))) as u32;
        if (output ^ output >> 16) as u16 != 0 {
            return step_back(made);
        }
        low += 1;
    }
}

fn step_back(state: u64) -> u64 {
    state.wrapping_sub(SUMMAND).wrapping_mul(INVERSE)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;
    use smoltcp::iface::{Config, Interface, SocketSet};
    use smoltcp::phy::{Loopback, Medium};
    use smoltcp::socket::tcp::{Socket, SocketBuffer};
    use smoltcp::time::Instant;
    use smoltcp::wire::{HardwareAddress, Ipv4Packet, TcpPacket};

    use super::*;

    /// The sequence number of the SYN of an interface's first socket.
    fn drawn(seed: u64) -> u32 {
        let mut device = Loopback::new(Medium::Ip);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut iface = Interface::new(config, &mut device, Instant::ZERO);
        iface.set_any_ip(true);
        let buffer = || SocketBuffer::new(vec![0; 64]);
        let mut sockets = SocketSet::new(Vec::new());
        let mut socket = Socket::new(buffer(), buffer());
        let remote = (Ipv4Addr::new(127, 0, 0, 2), 1);
        socket.connect(iface.context(), remote, (Ipv4Addr::LOCALHOST, 2)).unwrap();
        sockets.add(socket);
        iface.poll_egress(Instant::ZERO, &mut device, &mut sockets);
        let (rx, _) = smoltcp::phy::Device::receive(&mut device, Instant::ZERO).unwrap();
        smoltcp::phy::RxToken::consume(rx, |packet| {
            let ip = Ipv4Packet::new_checked(packet).unwrap();
            TcpPacket::new_checked(ip.payload()).unwrap().seq_number().0 as u32
        })
    }

    #[test]
    fn the_extremes_are_drawn() {
        for number in [0, 1, i32::MAX as u32, 1 << 31, u32::MAX] {
            assert_eq!(drawn(seed_for(number)), number);
        }
    }

    proptest! {
        #[test]
        fn any_number_is_drawn(number: u32) {
            prop_assert_eq!(drawn(seed_for(number)), number);
        }
    }
}
