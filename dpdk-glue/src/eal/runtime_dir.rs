//! The directory EAL makes for each process, and does not remove.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;

use dpdk_sys as sys;

/// The name of this process among DPDK processes.
pub(super) fn own_prefix(file_prefix: &str) -> String {
    format!("{file_prefix}-{}", process::id())
}

/// Where EAL put this process's files, if it came as far as that.
pub(super) fn present() -> Option<PathBuf> {
    // SAFETY: returns a static buffer, empty until EAL fills it in.
    let dir = unsafe { sys::rte_eal_get_runtime_dir() };
    // SAFETY: the buffer is a terminated string.
    let dir = unsafe { CStr::from_ptr(dir) }.to_str().ok()?;
    (!dir.is_empty()).then(|| PathBuf::from(dir))
}

/// Whether it is this process's: guards against removing what is not ours, should the arguments have changed the prefix.
pub(super) fn is_own(dir: &Path, file_prefix: &str) -> bool {
    dir.file_name().is_some_and(|name| name.to_str() == Some(&own_prefix(file_prefix)))
}

pub(super) fn remove(dir: &Path) {
    if let Err(error) = fs::remove_dir_all(dir)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(dir = %dir.display(), %error, "EAL's directory stays behind");
    }
}

/// Removes what processes of our naming left in `parent` when they were killed.
pub(super) fn sweep(parent: &Path, file_prefix: &str) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(file_prefix)?.strip_prefix('-')?.parse().ok());
        if pid.is_some_and(is_dead) {
            remove(&entry.path());
        }
    }
}

fn is_dead(pid: libc::pid_t) -> bool {
    // SAFETY: signal 0 is not sent; it only asks whether the process exists.
    let result = unsafe { libc::kill(pid, 0) };
    pid > 0 && result != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_dead_processes_are_swept_and_others_stay() {
        let parent = std::env::temp_dir().join(format!("dpdk-glue-sweep-{}", process::id()));
        let dead = libc::pid_t::MAX; // above every pid_max
        let names = [
            format!("a-{dead}"),
            format!("a-{}", process::id()),
            format!("b-{dead}"),
            "a-x".into(),
        ];
        for name in &names {
            fs::create_dir_all(parent.join(name)).unwrap();
        }
        sweep(&parent, "a");
        let stays: Vec<bool> = names.iter().map(|name| parent.join(name).exists()).collect();
        fs::remove_dir_all(&parent).unwrap();
        assert_eq!(stays, [false, true, true, true]);
    }
}
