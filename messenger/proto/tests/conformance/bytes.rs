//! Ceph's primitive encodings, written by hand: nothing here asks the code under test how anything
//! looks, so a mistake of its own cannot hide.

use messenger_proto::EntityAddr;

/// Numbers and structures, one behind the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Out(pub(crate) Vec<u8>);

impl Out {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u8(self, value: u8) -> Self {
        self.raw(&[value])
    }

    pub(crate) fn u16(self, value: u16) -> Self {
        self.raw(&value.to_le_bytes())
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.raw(&value.to_le_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.raw(&value.to_le_bytes())
    }

    pub(crate) fn zeros(self, count: usize) -> Self {
        self.raw(&vec![0; count])
    }

    pub(crate) fn blob(self, bytes: &[u8]) -> Self {
        self.u32(bytes.len() as u32).raw(bytes)
    }

    pub(crate) fn list(self, numbers: &[u32]) -> Self {
        let count = self.u32(numbers.len() as u32);
        numbers.iter().fold(count, |out, number| out.u32(*number))
    }

    /// `EntityName` of a client.
    pub(crate) fn client(self, id: &str) -> Self {
        self.u32(8).blob(id.as_bytes())
    }

    /// A new-form address.
    pub(crate) fn addr(self, addr: Addr) -> Self {
        self.u8(1)
            .u8(1)
            .u8(1)
            .u32(28)
            .u32(addr.kind)
            .u32(addr.nonce)
            .u32(16)
            .u16(2)
            .raw(&addr.port.to_be_bytes())
            .raw(&addr.ip)
            .zeros(8)
    }

    pub(crate) fn addrs(self, addrs: &[Addr]) -> Self {
        let count = self.u8(2).u32(addrs.len() as u32);
        addrs.iter().fold(count, |out, addr| out.addr(*addr))
    }

    /// An address as msgr1 has it.
    pub(crate) fn legacy_addr(self, addr: Addr) -> Self {
        self.u32(0)
            .u32(addr.nonce)
            .raw(&2_u16.to_be_bytes())
            .raw(&addr.port.to_be_bytes())
            .raw(&addr.ip)
            .zeros(120)
    }
}

/// An IPv4 address of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addr {
    pub(crate) kind: u32,
    pub(crate) nonce: u32,
    pub(crate) ip: [u8; 4],
    pub(crate) port: u16,
}

impl Addr {
    pub(crate) const fn v1(ip: [u8; 4], port: u16, nonce: u32) -> Self {
        Self { kind: 1, nonce, ip, port }
    }

    pub(crate) const fn v2(ip: [u8; 4], port: u16, nonce: u32) -> Self {
        Self { kind: 2, nonce, ip, port }
    }

    /// Of a client that listens nowhere.
    pub(crate) const fn any(ip: [u8; 4], nonce: u32) -> Self {
        Self { kind: 3, nonce, ip, port: 0 }
    }

    /// As the code under test has it.
    pub(crate) fn known(self) -> EntityAddr {
        let kind = ["none", "v1", "v2", "any"][self.kind as usize];
        let [a, b, c, d] = self.ip;
        format!("{kind}:{a}.{b}.{c}.{d}:{}/{}", self.port, self.nonce).parse().unwrap()
    }
}

/// Reads what [`Out`] writes; running out of bytes fails the test.
#[derive(Debug)]
pub(crate) struct In<'a>(pub(crate) &'a [u8]);

impl<'a> In<'a> {
    pub(crate) fn raw(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        head
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        self.raw(N).try_into().unwrap()
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn i32(&mut self) -> i32 {
        i32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    pub(crate) fn blob(&mut self) -> &'a [u8] {
        let len = self.u32();
        self.raw(len as usize)
    }

    pub(crate) fn list(&mut self) -> Vec<u32> {
        (0..self.u32()).map(|_| self.u32()).collect()
    }

    pub(crate) fn addr(&mut self) -> Addr {
        assert_eq!([self.u8(), self.u8(), self.u8()], [1, 1, 1]);
        assert_eq!(self.u32(), 28);
        let (kind, nonce) = (self.u32(), self.u32());
        assert_eq!((self.u32(), self.u16()), (16, 2));
        let (port, ip) = (u16::from_be_bytes(self.array()), self.array());
        assert_eq!(self.raw(8), [0; 8]);
        Addr { kind, nonce, ip, port }
    }

    pub(crate) fn addrs(&mut self) -> Vec<Addr> {
        assert_eq!(self.u8(), 2);
        (0..self.u32()).map(|_| self.addr()).collect()
    }
}

/// Castagnoli's checksum as Ceph computes it, bit by bit: the register is preset to `seed`, and not
/// inverted at the end.
pub(crate) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| match crc & 1 {
            1 => (crc >> 1) ^ 0x82f6_3b78,
            _ => crc >> 1,
        })
    })
}

#[test]
fn the_checksum_is_the_reference_s() {
    assert_eq!(crc32c(u32::MAX, b"123456789"), 0x1cf9_6d7c);
    assert_eq!(crc32c(0, b"123456789"), 0x58e3_fa20);
    assert_eq!((crc32c(u32::MAX, b""), crc32c(0, b"")), (u32::MAX, 0));
}
