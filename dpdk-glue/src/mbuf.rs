//! Packets: one [`Mbuf`] is one packet in one buffer, owned.

use std::fmt;
use std::ptr::{self, NonNull};
use std::slice;

use arrayvec::ArrayVec;
use dpdk_sys as sys;

/// Most packets of one burst. `net_memif` breaks with more before DPDK 24.03.
pub const BURST_MAX: usize = 32;

/// What a device says of a received packet's checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// It did not look, or cannot prove what it says.
    Unknown,
    /// It verified the IP header's (if there is one) and TCP's.
    Good,
    /// It found one wrong.
    Bad,
}

/// One packet, owned, in one buffer. Dropping it returns it to its mempool, on any thread.
///
/// Invariant: the pointer is a live mbuf of one segment whose data bytes are initialised memory,
/// and no other `Mbuf` or device has it.
#[repr(transparent)]
pub struct Mbuf(NonNull<sys::rte_mbuf>);

// SAFETY: the invariant makes us the only user, and mbufs are bound to no thread.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// # Safety
    /// `raw` must fulfil the type's invariant.
    pub(crate) unsafe fn from_raw(raw: NonNull<sys::rte_mbuf>) -> Self {
        Self(raw)
    }

    /// The packet's bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        let bytes = self.extent();
        // SAFETY: by the invariant these bytes lie in one live buffer, initialised (pools are made
        // of zeroed pages), and `&self` keeps writers away.
        unsafe { slice::from_raw_parts(bytes.start, bytes.len as usize) }
    }

    /// The packet's bytes, to be changed.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let bytes = self.extent();
        // SAFETY: as in `bytes`, and `&mut self` keeps everybody else away.
        unsafe { slice::from_raw_parts_mut(bytes.start, bytes.len as usize) }
    }

    /// Length of the packet in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.extent().len as usize
    }

    /// Whether the packet has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Cuts the packet to its first `len` bytes; does nothing if it is shorter.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            let len = u16::try_from(len).expect("shorter than a packet, whose length is 16 bits");
            // SAFETY: the mbuf is live, and `len` is less than its data.
            unsafe { sys::shim_mbuf_trim(self.0.as_ptr(), len) };
        }
    }

    /// Makes the packet longer by `len` bytes of undefined contents, if the buffer has room;
    /// otherwise changes nothing and says `false`.
    #[inline]
    #[must_use]
    pub fn append(&mut self, len: usize) -> bool {
        let Ok(len) = u16::try_from(len) else {
            return false;
        };
        // SAFETY: the mbuf is live; the shim checks the room.
        unsafe { sys::shim_mbuf_append(self.0.as_ptr(), len) != 0 }
    }

    /// What the device said of the checksums.
    #[inline]
    pub fn checksum(&self) -> Checksum {
        // SAFETY: the mbuf is live.
        match unsafe { sys::shim_mbuf_checksum(self.0.as_ptr()) } {
            sys::SHIM_CHECKSUM_GOOD => Checksum::Good,
            sys::SHIM_CHECKSUM_BAD => Checksum::Bad,
            _ => Checksum::Unknown,
        }
    }

    #[inline]
    fn extent(&self) -> sys::shim_bytes {
        // SAFETY: the mbuf is live.
        unsafe { sys::shim_mbuf_bytes(self.0.as_ptr()) }
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        let mut raw = self.0.as_ptr();
        // SAFETY: the mbuf is live and ours alone, and nobody uses it after this.
        unsafe { sys::shim_mbuf_free(&raw mut raw, 1) };
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// A burst of packets, the oldest first, without a heap.
pub type Burst = ArrayVec<Mbuf, BURST_MAX>;

/// Drops all packets of `burst` at once, cheaper than one by one.
pub fn free_burst(burst: &mut Burst) {
    let free = |mbufs, count| {
        // SAFETY: the `count` mbufs are live and ours to give back.
        unsafe { sys::shim_mbuf_free(mbufs, count) };
        count
    };
    // SAFETY: all were given back, and the burst forgets them.
    unsafe { take_front(burst, free) };
}

/// Offers the free slots behind the packets of `burst` to `fill`, which says how many it filled.
///
/// # Safety
/// `fill` gets a place for `count` pointers; the ones it says it filled, from the front, must be
/// mbufs that fulfil the invariant of [`Mbuf`].
#[inline]
pub(crate) unsafe fn fill_rest(
    burst: &mut Burst,
    fill: impl FnOnce(*mut *mut sys::rte_mbuf, u16) -> u16,
) -> usize {
    let len = burst.len();
    let free = burst.remaining_capacity();
    // SAFETY: the first `len` slots are in use, so this is within or just behind the array.
    let slots = unsafe { burst.as_mut_ptr().add(len) };
    let filled = usize::from(fill(slots.cast(), count(free)));
    debug_assert!(filled <= free);
    // SAFETY: the caller vouches for the filled slots, whose pointers are laid out as `Mbuf`s are.
    unsafe { burst.set_len(len + filled) };
    filled
}

/// Offers the packets of `burst` to `take`, which says how many it took from the front; the rest
/// moves up.
///
/// # Safety
/// Those that `take` says it took are its own from then on, the others are not touched.
#[inline]
pub(crate) unsafe fn take_front(
    burst: &mut Burst,
    take: impl FnOnce(*mut *mut sys::rte_mbuf, u16) -> u16,
) -> usize {
    let len = burst.len();
    let front = burst.as_mut_ptr();
    let taken = usize::from(take(front.cast(), count(len)));
    debug_assert!(taken <= len);
    // SAFETY: at most `len` were taken, so this is within or just behind the array.
    let rest = unsafe { front.add(taken) };
    // SAFETY: the rest lies inside the array; the slots it moves over hold nothing of ours.
    unsafe { ptr::copy(rest, front, len - taken) };
    // SAFETY: so many packets are left, at the front.
    unsafe { burst.set_len(len - taken) };
    taken
}

/// A number of packets as DPDK counts them.
#[expect(clippy::cast_possible_truncation, reason = "no burst is longer than BURST_MAX")]
fn count(packets: usize) -> u16 {
    const { assert!(BURST_MAX <= u16::MAX as usize) };
    packets as u16
}

const _: () = assert!(size_of::<Mbuf>() == size_of::<*mut sys::rte_mbuf>());
