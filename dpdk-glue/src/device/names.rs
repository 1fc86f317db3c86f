//! Ports by name: who has one, who may take one.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dpdk_sys as sys;

use crate::eal::control;
use crate::error::{Error, c_string};

/// Names of the ports that are open in this process.
static TAKEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn taken() -> MutexGuard<'static, Vec<String>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right to control the port of this name; nobody else in the process has it.
#[derive(Debug)]
pub(super) struct Claim(String);

impl Claim {
    pub(super) fn new(name: &str) -> Result<Self, Error> {
        let mut taken = taken();
        if taken.iter().any(|other| other == name) {
            return Err(Error::PortInUse { name: name.to_owned() });
        }
        taken.push(name.to_owned());
        Ok(Self(name.to_owned()))
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        taken().retain(|name| *name != self.0);
    }
}

/// The number of the port of this name. To be asked again after each plug.
pub(super) fn find_port(name: &str) -> Result<u16, Error> {
    let c_name = c_string("port name", name)?;
    let mut id = 0;
    // SAFETY: EAL is up; the name is a string, and `id` has room for the answer.
    match unsafe { sys::rte_eth_dev_get_port_by_name(c_name.as_ptr(), &raw mut id) } {
        0 => Ok(id),
        _ => Err(Error::NoSuchPort { name: name.to_owned(), available: port_names() }),
    }
}

/// The name of the only port.
pub(super) fn only_port() -> Result<String, Error> {
    let (_control, _) = control();
    let mut available = port_names();
    match available.pop() {
        Some(name) if available.is_empty() => Ok(name),
        Some(name) => {
            available.push(name);
            Err(Error::NotOnePort { available })
        }
        None => Err(Error::NotOnePort { available }),
    }
}

/// All ports nobody reserved for itself.
fn port_names() -> Vec<String> {
    const NO_OWNER: u64 = 0;
    const LEN: usize = sys::RTE_ETH_NAME_MAX_LEN as usize;
    let mut names = Vec::new();
    let mut next = 0;
    loop {
        // SAFETY: EAL is up.
        let found = unsafe { sys::rte_eth_find_next_owned_by(next, NO_OWNER) };
        // The number of ports is what it returns at the end; ports are numbered in 16 bits.
        let Some(id) = u16::try_from(found).ok().filter(|id| *id < u16::MAX) else {
            break;
        };
        let mut name = [0; LEN];
        // SAFETY: EAL is up, and names are shorter than this buffer.
        if unsafe { sys::rte_eth_dev_get_name_by_port(id, name.as_mut_ptr()) } != 0 {
            break;
        }
        // SAFETY: the call has terminated the string.
        names.push(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned());
        next = id + 1;
    }
    names
}

/// Removes the socket file of a server that was killed; the next one could not make its own. One
/// that somebody answers on stays.
pub(super) fn remove_stale_socket(path: &Path) {
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if UnixStream::connect(path).is_err_and(refused) {
        let result = fs::remove_file(path);
        tracing::info!(path = %path.display(), ?result, "removed the socket of a dead server");
    }
}
