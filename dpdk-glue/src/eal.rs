//! EAL, DPDK's environment: started at most once in a process, cleaned up by its last owner.
//!
//! ```text
//!   fresh --start--> running --last Eal dropped--> ended      (no way back: DPDK refuses)
//!     \--start failed--------------------------------^
//! ```
//!
//! It is started on a thread made for that, so the caller keeps its affinity; EAL's own helper
//! threads may run on every CPU the process may use. Worker threads are ours: each makes itself
//! known by [`Eal::register_thread`].

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use dpdk_sys as sys;

mod options;
mod runtime_dir;

pub use options::{EalOptions, LogLevel, MemoryMode};

use crate::error::{Cause, Error, c_string, os_error};
use crate::log::{self, Mark};
use crate::mempool::{IdlePool, any_in_use};
use crate::signals::ignore_sigpipe;

/// Proof that EAL is up, and a share in keeping it so. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Eal(Arc<Running>);

/// Invariant: `rte_eal_init` succeeded in this process and `rte_eal_cleanup` was not called.
#[derive(Debug)]
struct Running {
    memory_mode: MemoryMode,
    runtime_dir: Option<PathBuf>,
    /// Pools without an owner. Their memory goes when EAL goes, not before: see [`IdlePool`].
    idle_pools: Mutex<Vec<IdlePool>>,
    /// Its memory stays until the process ends, see [`Eal::keep_memory`].
    keeps_memory: AtomicBool,
}

enum State {
    Fresh,
    Running { options: EalOptions, eal: Weak<Running> },
    Ended,
}

static STATE: Mutex<State> = Mutex::new(State::Fresh);

/// Serialises DPDK's control functions: they are not made for several threads at once, the log
/// lines of one must not become the cause of another, and signals are moved around some of them.
static CONTROL: Mutex<()> = Mutex::new(());

/// The right to call control functions, and the place in the log where it began.
pub(crate) fn control() -> (MutexGuard<'static, ()>, Mark) {
    let guard = CONTROL.lock().unwrap_or_else(PoisonError::into_inner);
    (guard, log::mark())
}

impl Eal {
    /// Starts EAL, or returns the one that runs if it was started with the same options.
    ///
    /// Blocks for 0.2 seconds, and 0.1 more per gigabyte of hugepages. Ignores `SIGPIPE` from now
    /// on, unless the program handles it.
    ///
    /// # Errors
    /// [`Error::EalStart`] with DPDK's words about it, typically a lack of hugepages;
    /// [`Error::EalRunsDifferently`] and [`Error::EalEnded`], because a process has one EAL in its
    /// life. A failed start uses it up too.
    pub fn start(options: &EalOptions) -> Result<Self, Error> {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Fresh => {}
            State::Running { options: present, .. } if present != options => {
                return Err(Error::EalRunsDifferently);
            }
            State::Running { eal, .. } => {
                return eal.upgrade().map(Self).ok_or(Error::EalEnded);
            }
            State::Ended => return Err(Error::EalEnded),
        }
        let arguments = options.arguments(&allowed_cpus()?);
        tracing::debug!(?arguments, "starting EAL");
        let arguments = arguments
            .iter()
            .map(|argument| c_string("EAL argument", argument))
            .collect::<Result<Vec<_>, _>>()?;
        ignore_sigpipe()?;
        log::capture()?;
        *state = State::Ended; // until it is known to run
        let runtime_dir = initialise(arguments, options)?;
        let eal = Self(Arc::new(Running {
            memory_mode: options.memory_mode,
            runtime_dir,
            idle_pools: Mutex::new(Vec::new()),
            keeps_memory: AtomicBool::new(false),
        }));
        *state = State::Running { options: options.clone(), eal: Arc::downgrade(&eal.0) };
        Ok(eal)
    }

    /// Makes the calling thread one DPDK knows, until it ends. That gives it a mempool cache of its
    /// own; a thread that bursts should be registered. A second call does nothing.
    ///
    /// The registered thread keeps EAL up.
    ///
    /// # Errors
    /// [`Error::Call`] when 127 threads are registered already.
    pub fn register_thread(&self) -> Result<(), Error> {
        REGISTRATION.with_borrow_mut(|registration| {
            if registration.is_none() {
                *registration = Some(Registration::new(self.clone())?);
            }
            Ok(())
        })
    }

    /// Where packet memory comes from.
    pub fn memory_mode(&self) -> MemoryMode {
        self.0.memory_mode
    }

    /// DPDK's release, as it names itself: `DPDK 22.11.11`.
    pub fn version() -> &'static str {
        // SAFETY: needs no EAL.
        let version = unsafe { sys::rte_version() };
        // SAFETY: it is a static string.
        unsafe { CStr::from_ptr(version) }.to_str().unwrap_or("DPDK")
    }

    /// Leaves EAL's memory where it is until the process ends: for drivers that go on in it from
    /// EAL's interrupt thread after their port was closed.
    pub(crate) fn keep_memory(&self) {
        self.0.keeps_memory.store(true, Ordering::Relaxed);
    }

    pub(crate) fn idle_pools(&self) -> MutexGuard<'_, Vec<IdlePool>> {
        self.0.idle_pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *STATE.lock().unwrap_or_else(PoisonError::into_inner) = State::Ended;
        let pools = self.idle_pools.get_mut().unwrap_or_else(PoisonError::into_inner);
        if any_in_use(pools) {
            // Safe code may hold on to its packets for ever; then their memory stays too.
            tracing::warn!("packets outlive EAL; their memory stays until the process ends");
        } else if !*self.keeps_memory.get_mut() {
            let (_control, _) = control();
            // SAFETY: EAL is up by the invariant, and nothing of it is in use: ports, pools and
            // registered threads hold an `Eal`, and the pools have all their packets back.
            let result = unsafe { sys::rte_eal_cleanup() };
            if result != 0 {
                tracing::warn!(result, "rte_eal_cleanup failed");
            }
        }
        if let Some(dir) = &self.runtime_dir {
            runtime_dir::remove(dir);
        }
    }
}

/// One thread's registration; lives in a thread-local, so it ends with the thread.
#[derive(Debug)]
struct Registration {
    /// Dropped after the thread is unregistered.
    _eal: Eal,
}

thread_local! {
    static REGISTRATION: RefCell<Option<Registration>> = const { RefCell::new(None) };
}

impl Registration {
    fn new(eal: Eal) -> Result<Self, Error> {
        // SAFETY: `eal` proves that EAL is up.
        let result = unsafe { sys::rte_thread_register() };
        if result == 0 {
            return Ok(Self { _eal: eal });
        }
        // SAFETY: reads a variable of this thread.
        let code = unsafe { sys::shim_errno() };
        let name = thread::current().name().unwrap_or("thread").to_owned();
        Err(Error::call("rte_thread_register", &name, code, Cause::default()))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: `_eal` still lives, and this thread registered itself in `new`.
        unsafe { sys::rte_thread_unregister() };
    }
}

/// Runs `rte_eal_init` on a thread of its own; returns EAL's runtime directory.
fn initialise(arguments: Vec<CString>, options: &EalOptions) -> Result<Option<PathBuf>, Error> {
    let (_control, mark) = control();
    let result = thread::Builder::new()
        .name("eal-init".to_owned())
        .spawn(move || init_here(arguments))?
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread that starts EAL panicked")));
    let runtime_dir =
        runtime_dir::present().filter(|dir| runtime_dir::is_own(dir, &options.file_prefix));
    if let Some(parent) = runtime_dir.as_deref().and_then(Path::parent) {
        runtime_dir::sweep(parent, &options.file_prefix);
    }
    match result {
        Ok(()) => Ok(runtime_dir),
        Err(error) => {
            if let Some(dir) = &runtime_dir {
                runtime_dir::remove(dir);
            }
            Err(Error::EalStart { error, cause: log::since(mark) })
        }
    }
}

fn init_here(arguments: Vec<CString>) -> io::Result<()> {
    // EAL keeps pointers to the arguments and reorders the array: both are leaked, once.
    let argv: Vec<*mut c_char> = arguments.into_iter().map(CString::into_raw).collect();
    let argc = argv.len().try_into().expect("a command line is short");
    let argv = argv.leak().as_mut_ptr();
    // SAFETY: `argv` holds `argc` strings, all of them live for ever; `STATE` lets nobody call
    // this twice.
    if unsafe { sys::rte_eal_init(argc, argv) } >= 0 {
        return Ok(());
    }
    // SAFETY: reads a variable of this thread.
    let code = unsafe { sys::shim_errno() };
    Err(os_error(code))
}

/// The CPUs this thread may run on.
fn allowed_cpus() -> io::Result<Vec<usize>> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    let len = size_of::<libc::cpu_set_t>();
    // SAFETY: `set` has room for `len` bytes; 0 names the calling thread.
    if unsafe { libc::sched_getaffinity(0, len, set.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed, then filled in by the successful call.
    let set = unsafe { set.assume_init() };
    let cpus = 0..usize::try_from(libc::CPU_SETSIZE).unwrap_or_default();
    // SAFETY: every index is below CPU_SETSIZE.
    Ok(cpus.filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect())
}
