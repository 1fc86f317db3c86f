//! How EAL is started, and the command line that says so.

use std::fs;
use std::path::Path;

use super::runtime_dir::own_prefix;

/// Where the memory for packets comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryMode {
    /// Ordinary pages: works anywhere, costs software devices little, and no hardware NIC can use
    /// it without an IOMMU. All of it is taken at the start and it never grows.
    NoHuge,
    /// Hugepages without a file system: nothing is left behind, however the process ends.
    InMemory {
        /// One file for all pages instead of one for each; `net_virtio_user` needs it.
        single_file_segments: bool,
    },
}

impl MemoryMode {
    /// Hugepages if so many megabytes of them are free now, ordinary pages otherwise.
    pub fn best_for(memory_mb: u32) -> Self {
        let free_kb = free_hugepages_kb(Path::new("/sys/kernel/mm/hugepages"));
        if free_kb / 1024 >= u64::from(memory_mb) {
            Self::InMemory { single_file_segments: true }
        } else {
            Self::NoHuge
        }
    }
}

/// How much DPDK's own log tells. What it tells goes to `tracing`, target `dpdk`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// As each part of DPDK has it by default: mostly notices and worse.
    #[default]
    Default,
    /// Information of every part.
    Info,
    /// Everything, including each step of the drivers.
    Debug,
}

/// How EAL is started.
///
/// Always: no telemetry thread, no shared configuration (so no secondary processes), no PCI scan
/// unless devices are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EalOptions {
    /// Memory for packets, in megabytes.
    pub memory_mb: u32,
    /// Where it comes from.
    pub memory_mode: MemoryMode,
    /// PCI addresses (`0000:01:00.0`) of the devices to be probed. None: PCI is not even scanned,
    /// so the machine's own NIC is left alone.
    pub pci: Vec<String>,
    /// Beginning of the process's name among DPDK processes; the process id is appended.
    pub file_prefix: String,
    /// How much DPDK logs.
    pub log_level: LogLevel,
    /// Further arguments of EAL, last on its command line.
    pub extra_args: Vec<String>,
}

impl Default for EalOptions {
    fn default() -> Self {
        Self {
            memory_mb: 256,
            memory_mode: MemoryMode::NoHuge,
            pci: Vec::new(),
            file_prefix: "dpdk-glue".to_owned(),
            log_level: LogLevel::default(),
            extra_args: Vec::new(),
        }
    }
}

impl EalOptions {
    /// EAL's command line, program name first.
    pub(super) fn arguments(&self, cpus: &[usize]) -> Vec<String> {
        let list = cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut arguments = vec![
            "dpdk-glue".to_owned(),
            // One lcore of EAL's own that may float over all our CPUs: nothing gets pinned.
            format!("--lcores=0@({list})"),
            "--no-telemetry".to_owned(),
            format!("--file-prefix={}", own_prefix(&self.file_prefix)),
            format!("-m{}", self.memory_mb),
        ];
        match self.memory_mode {
            MemoryMode::NoHuge => {
                arguments.extend(["--no-huge", "--no-shconf"].map(str::to_owned));
            }
            MemoryMode::InMemory { single_file_segments } => {
                arguments.push("--in-memory".to_owned());
                if single_file_segments {
                    arguments.push("--single-file-segments".to_owned());
                }
            }
        }
        if self.pci.is_empty() {
            arguments.push("--no-pci".to_owned());
        }
        arguments.extend(self.pci.iter().map(|address| format!("--allow={address}")));
        match self.log_level {
            LogLevel::Default => {}
            LogLevel::Info => arguments.push("--log-level=*:info".to_owned()),
            LogLevel::Debug => arguments.push("--log-level=*:debug".to_owned()),
        }
        arguments.extend(self.extra_args.iter().cloned());
        arguments
    }
}

/// Kilobytes of hugepages, of all sizes, that nobody uses.
fn free_hugepages_kb(root: &Path) -> u64 {
    let Ok(sizes) = fs::read_dir(root) else {
        return 0;
    };
    let free = |size: fs::DirEntry| {
        let name = size.file_name();
        let kb = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?;
        let pages = fs::read_to_string(size.path().join("free_hugepages")).ok()?;
        Some(kb.parse::<u64>().ok()? * pages.trim().parse::<u64>().ok()?)
    };
    sizes.flatten().filter_map(free).sum()
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    #[test]
    fn the_command_line_says_what_the_options_say() {
        let options = EalOptions {
            memory_mode: MemoryMode::InMemory { single_file_segments: true },
            pci: vec!["0000:01:00.0".to_owned()],
            extra_args: vec!["--iova-mode=va".to_owned()],
            ..EalOptions::default()
        };
        let arguments = options.arguments(&[0, 2]);
        assert_eq!(
            arguments[1..],
            [
                "--lcores=0@(0,2)",
                "--no-telemetry",
                &format!("--file-prefix=dpdk-glue-{}", process::id()),
                "-m256",
                "--in-memory",
                "--single-file-segments",
                "--allow=0000:01:00.0",
                "--iova-mode=va",
            ]
        );
        let arguments = EalOptions::default().arguments(&[0]);
        assert!(arguments.contains(&"--no-pci".to_owned()));
        assert!(arguments.contains(&"--no-huge".to_owned()));
    }

    #[test]
    fn free_hugepages_of_all_sizes_count() {
        let root = std::env::temp_dir().join(format!("dpdk-glue-huge-{}", process::id()));
        for (size, free) in [("hugepages-2048kB", "3\n"), ("hugepages-1048576kB", "1\n")] {
            fs::create_dir_all(root.join(size)).unwrap();
            fs::write(root.join(size).join("free_hugepages"), free).unwrap();
        }
        let kb = free_hugepages_kb(&root);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(kb, 3 * 2048 + 1_048_576);
        assert_eq!(free_hugepages_kb(Path::new("/nonexistent")), 0);
    }
}
