//! How much memory this process has.

/// Kilobytes that are resident.
///
/// # Errors
/// If the system does not tell, in words for people.
pub fn rss_kb() -> Result<u64, String> {
    let status = std::fs::read_to_string("/proc/self/status");
    let status =
        status.map_err(|error| format!("/proc/self/status: {error}; is /proc mounted?"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kb.ok_or_else(|| String::from("/proc/self/status has no VmRSS: not a Linux system?"))
}
