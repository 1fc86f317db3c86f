//! Mempools: a fixed number of packet buffers, lent as [`Mbuf`]s.
//!
//! An [`Mbuf`] does not count a reference to its pool, which would cost every packet two shared
//! atomics. Instead the pool's memory is never returned while EAL runs: a pool without owner is
//! *idle*, waits to be taken again by a request of the same shape, and goes with EAL, which in its
//! turn stays mapped if any packet is still out. So a packet's memory is always there.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use dpdk_sys as sys;

use crate::eal::{Eal, control};
use crate::error::{Error, c_string};
use crate::log;
use crate::mbuf::{Burst, Mbuf, fill_rest};

/// Bytes of headroom before the data of each buffer.
const HEADROOM: usize = sys::RTE_PKTMBUF_HEADROOM as usize;

/// What a mempool is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Number of buffers. DPDK likes a power of two minus one best.
    pub mbufs: u32,
    /// Bytes of data each takes, at most 65,407; the longest frame.
    pub room: usize,
    /// Buffers each registered thread may keep to itself, so most calls touch nothing shared. At
    /// most 512, and two thirds of `mbufs`.
    pub cache: u32,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { mbufs: 8191, room: 2048, cache: 256 }
    }
}

/// A share in a pool of packet buffers. Cheap to clone; any thread may use it.
#[derive(Clone, Debug)]
pub struct Mempool(Arc<Pool>);

/// Invariant: `raw` is a live packet pool made with `config`, and no other `Pool` has it.
#[derive(Debug)]
struct Pool {
    raw: NonNull<sys::rte_mempool>,
    config: PoolConfig,
    eal: Eal,
}

// SAFETY: DPDK's pool functions may be called by any thread, several at once; the ring inside is
// made for multiple producers and consumers.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

/// A pool nobody owns. Packets of it may still be out, and come home by themselves.
///
/// Invariant: as [`Pool`]'s.
#[derive(Debug)]
pub(crate) struct IdlePool {
    raw: NonNull<sys::rte_mempool>,
    config: PoolConfig,
}

// SAFETY: as for `Pool`.
unsafe impl Send for IdlePool {}

impl Mempool {
    /// Makes a pool, or takes an idle one of the same shape.
    ///
    /// # Errors
    /// [`Error::Call`], typically when EAL's memory does not suffice.
    pub fn new(eal: &Eal, config: PoolConfig) -> Result<Self, Error> {
        let raw = match take_idle(eal, config) {
            Some(raw) => raw,
            None => create(config)?,
        };
        Ok(Self(Arc::new(Pool { raw, config, eal: eal.clone() })))
    }

    /// A packet of `len` bytes whose contents are not defined: whatever the buffer held before.
    /// `None`: the pool is empty, or `len` is more than the buffers' room.
    pub fn alloc(&self, len: usize) -> Option<Mbuf> {
        let len = u16::try_from(len).ok()?;
        // SAFETY: the pool is live by the invariant; the shim checks `len` against its room.
        let raw = unsafe { sys::shim_mbuf_alloc(self.raw(), len) };
        // SAFETY: the new mbuf has one segment, and nobody else knows it.
        NonNull::new(raw).map(|raw| unsafe { Mbuf::from_raw(raw) })
    }

    /// Fills the rest of `burst` with packets of `len` bytes, all or none of them; says whether it
    /// did. Cheaper than one by one.
    pub fn alloc_burst(&self, len: usize, burst: &mut Burst) -> bool {
        let Ok(len) = u16::try_from(len) else {
            return false;
        };
        let alloc = |slots, count| {
            // SAFETY: the pool is live, and `slots` has room for `count` pointers.
            unsafe { sys::shim_mbuf_alloc_bulk(self.raw(), slots, count, len) }
        };
        // SAFETY: what was allocated has one segment each, and nobody else knows it.
        unsafe { fill_rest(burst, alloc) > 0 }
    }

    /// Buffers that are out, wherever they are: with the application, in a device's rings. Looks
    /// into every thread's cache, so not for every packet; while others use the pool the number is
    /// approximate.
    pub fn in_use(&self) -> u64 {
        in_use(self.0.raw)
    }

    /// What the pool was made with.
    pub fn config(&self) -> PoolConfig {
        self.0.config
    }

    pub(crate) fn raw(&self) -> *mut sys::rte_mempool {
        self.0.raw.as_ptr()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.eal.idle_pools().push(IdlePool { raw: self.raw, config: self.config });
    }
}

/// An idle pool of this shape that has all its packets.
fn take_idle(eal: &Eal, config: PoolConfig) -> Option<NonNull<sys::rte_mempool>> {
    let mut idle = eal.idle_pools();
    let at = idle.iter().position(|pool| pool.config == config && in_use(pool.raw) == 0)?;
    Some(idle.swap_remove(at).raw)
}

fn create(config: PoolConfig) -> Result<NonNull<sys::rte_mempool>, Error> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("mbufs-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let c_name = c_string("mempool", &name)?;
    let room = u16::try_from(config.room.saturating_add(HEADROOM)).map_err(|_| {
        let reason = "a buffer takes at most 65,407 bytes";
        Error::Argument { what: "mempool room", text: config.room.to_string(), reason }
    })?;
    let (_control, mark) = control();
    // SAFETY: the caller's `Eal` proves that EAL is up; the name is a string; all else is numbers
    // that DPDK checks.
    let raw = unsafe {
        sys::rte_pktmbuf_pool_create(
            c_name.as_ptr(),
            config.mbufs,
            config.cache,
            0,
            room,
            sys::shim_socket_any,
        )
    };
    NonNull::new(raw).ok_or_else(|| {
        // SAFETY: reads a variable of this thread.
        let code = unsafe { sys::shim_errno() };
        Error::call("rte_pktmbuf_pool_create", &name, code, log::since(mark))
    })
}

fn in_use(raw: NonNull<sys::rte_mempool>) -> u64 {
    // SAFETY: pools live as long as EAL, and whoever holds one holds EAL.
    u64::from(unsafe { sys::rte_mempool_in_use_count(raw.as_ptr()) })
}

/// Whether packets of any of these pools are still out. When not, then no thread is inside a call
/// that returns one either: registered threads keep EAL up, so there are none at the time this is
/// asked, and the others are counted and waited for.
pub(crate) fn any_in_use(pools: &[IdlePool]) -> bool {
    if pools.iter().any(|pool| in_use(pool.raw) > 0) {
        return true;
    }
    // SAFETY: reads a counter.
    while unsafe { sys::shim_foreign_frees() } > 0 {
        thread::yield_now();
    }
    false
}
