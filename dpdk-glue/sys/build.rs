//! Finds DPDK, writes its bindings, proves their layout to the C compiler, builds the shim.
//!
//! ```text
//!   pkg-config --> version, cflags --> bindgen (libclang) --> bindings.rs
//!                        |                                        | sizes and offsets
//!                        +---------> shim.c (gcc) <-- layout.h <--+ as _Static_assert
//! ```
//!
//! Every way this can fail ends in one `cargo::error` line that says what to do about it.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Oldest DPDK whose functions and fields we use.
const OLDEST: (u32, u32) = (22, 11);
/// The release that made logging a library of its own.
const LOG_IS_A_LIBRARY: (u32, u32) = (23, 11);

/// What the shim and the bindings are linked with. Drivers are loaded by DPDK from its plugin
/// directory and need no mention here.
const LIBRARIES: [&str; 6] =
    ["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_ring", "rte_eal", "rte_bus_vdev"];

/// Functions of DPDK's stable ABI that `dpdk-glue` calls directly.
const FUNCTIONS: [&str; 41] = [
    "rte_eal_cleanup",
    "rte_eal_get_runtime_dir",
    "rte_eal_init",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_dev_close",
    "rte_eth_dev_configure",
    "rte_eth_dev_get_name_by_port",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_info_get",
    "rte_eth_dev_rss_hash_conf_get",
    "rte_eth_dev_rss_reta_query",
    "rte_eth_dev_rx_intr_ctl_q_get_fd",
    "rte_eth_dev_socket_id",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_find_next_owned_by",
    "rte_eth_macaddr_get",
    "rte_eth_allmulticast_enable",
    "rte_eth_rx_queue_setup",
    "rte_eth_stats_get",
    "rte_eth_tx_queue_setup",
    "rte_mempool_in_use_count",
    "rte_pktmbuf_pool_create",
    "rte_thread_register",
    "rte_thread_unregister",
    "rte_vdev_init",
    "rte_vdev_uninit",
    "rte_version",
    "shim_errno",
    "shim_foreign_frees",
    "shim_link_is_up",
    "shim_log_capture",
    "shim_mbuf_alloc",
    "shim_mbuf_alloc_bulk",
    "shim_mbuf_append",
    "shim_mbuf_bytes",
    "shim_mbuf_checksum",
    "shim_mbuf_free",
    "shim_mbuf_trim",
    "shim_rx_burst",
    "shim_tx_burst",
];

/// Constants, mostly of the shim: `RTE_BIT64` macros are not constants to libclang.
const CONSTANTS: [&str; 4] =
    ["shim_.*", "RTE_PKTMBUF_HEADROOM", "RTE_ETH_NAME_MAX_LEN", "RTE_ETH_RETA_GROUP_SIZE"];

/// The structures Rust reads or writes fields of; their layout is proved on both sides.
const LAYOUTS: [&str; 9] = [
    "rte_eth_conf",
    "rte_eth_dev_info",
    "rte_eth_rss_conf",
    "rte_eth_rss_reta_entry64",
    "rte_eth_rxconf",
    "rte_eth_stats",
    "rte_ether_addr",
    "shim_bytes",
    "shim_chains",
];

/// Structures Rust only holds pointers to. The mbuf's fields moved in 24.07, so Rust sees none.
const OPAQUE: [&str; 3] = ["rte_mbuf", "rte_mempool", "rte_device"];

type Failure = String;

fn main() {
    for file in ["build.rs", "shim.c", "shim.h"] {
        println!("cargo::rerun-if-changed={file}");
    }
    for variable in ["LIBCLANG_PATH", "PKG_CONFIG", "PKG_CONFIG_LIBDIR", "PKG_CONFIG_PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if let Err(failure) = build() {
        for line in failure.lines().filter(|line| !line.is_empty()) {
            println!("cargo::error={line}");
        }
    }
}

fn build() -> Result<(), Failure> {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let dpdk = Dpdk::find()?;
    let bindings = dpdk.bind()?;
    write(&out.join("bindings.rs"), &bindings)?;
    write(&out.join("layout.h"), &layout_assertions(&bindings)?)?;
    dpdk.compile_shim(&out)?;
    dpdk.link();
    Ok(())
}

/// A DPDK that `pkg-config` found and that is new enough.
struct Dpdk {
    version: (u32, u32),
    cflags: Vec<String>,
    link_paths: Vec<PathBuf>,
}

impl Dpdk {
    fn find() -> Result<Self, Failure> {
        let found =
            pkg_config::Config::new().cargo_metadata(false).probe("libdpdk").map_err(|error| {
                let cause = error.to_string();
                let cause = cause.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
                format!(
                    "DPDK was not found by pkg-config ({cause}).\n\
                     Install it: `make setup`, or `apt install libdpdk-dev pkg-config \
                     libclang-dev gcc`.\n\
                     Or build without it: `--no-default-features`."
                )
            })?;
        let version = parse_version(&found.version)
            .ok_or_else(|| format!("libdpdk has a version we cannot read: {}", found.version))?;
        if version < OLDEST {
            return Err(format!(
                "DPDK is too old: found {}, need >= {}.{}. Or build without it: \
                 `--no-default-features`.",
                found.version, OLDEST.0, OLDEST.1
            ));
        }
        Ok(Self { version, cflags: cflags()?, link_paths: found.link_paths })
    }

    /// The allow-listed bindings, as Rust source.
    fn bind(&self) -> Result<String, Failure> {
        require_libclang()?;
        let mut builder = bindgen::Builder::default()
            .header("shim.h")
            .clang_args(&self.cflags)
            .layout_tests(true)
            .derive_default(true)
            .generate_comments(false)
            .prepend_enum_name(false);
        for name in FUNCTIONS {
            builder = builder.allowlist_function(name);
        }
        for name in CONSTANTS {
            builder = builder.allowlist_var(name);
        }
        for name in OPAQUE {
            builder = builder
                .blocklist_type(format!("{name}(_.*)?"))
                .raw_line("#[repr(C)]")
                .raw_line(format!("pub struct {name} {{ _fields: [u8; 0] }}"));
        }
        let bindings = builder.generate().map_err(|error| {
            format!(
                "libclang cannot read DPDK's headers: {error}\n\
                 If it misses stddef.h: `apt install libclang-dev`."
            )
        })?;
        Ok(bindings.to_string())
    }

    fn compile_shim(&self, out: &Path) -> Result<(), Failure> {
        let mut compiler = cc::Build::new();
        compiler.file("shim.c").include(out).define("_GNU_SOURCE", None).warnings(false);
        // Optimised in debug builds too: these are the functions of the data path.
        compiler.opt_level(2);
        for flag in &self.cflags {
            compiler.flag(flag);
        }
        compiler.try_compile("dpdk_shim").map_err(|error| {
            format!("the C shim does not compile (is gcc installed? `apt install gcc`): {error}")
        })
    }

    fn link(&self) {
        for path in &self.link_paths {
            println!("cargo::rustc-link-search=native={}", path.display());
        }
        for library in LIBRARIES {
            println!("cargo::rustc-link-lib=dylib={library}");
        }
        if self.version >= LOG_IS_A_LIBRARY {
            println!("cargo::rustc-link-lib=dylib=rte_log");
        }
    }
}

/// All of `pkg-config --cflags`, as DPDK's headers need it: it holds `-include rte_config.h` and
/// the instruction set the inline functions are compiled for.
fn cflags() -> Result<Vec<String>, Failure> {
    let program = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let output = Command::new(program)
        .args(["--cflags", "libdpdk"])
        .output()
        .map_err(|error| format!("pkg-config cannot be run: {error}"))?;
    let text = String::from_utf8(output.stdout)
        .map_err(|_| "pkg-config printed flags that are not UTF-8".to_owned())?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

fn parse_version(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-']).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// bindgen panics when it cannot load libclang; asks it for something small first.
fn require_libclang() -> Result<(), Failure> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let version = panic::catch_unwind(bindgen::clang_version);
    panic::set_hook(hook);
    match version {
        Ok(_) => Ok(()),
        Err(_) => Err("libclang was not found; it reads DPDK's headers.\n\
             Install it: `make setup`, or `apt install libclang-dev` (or set LIBCLANG_PATH).\n\
             Or build without DPDK: `--no-default-features`."
            .to_owned()),
    }
}

/// Turns bindgen's own layout assertions, which compare Rust with libclang, into C ones, so the
/// compiler that builds the shim must agree too.
fn layout_assertions(bindings: &str) -> Result<String, Failure> {
    let mut header =
        String::from("/* Written by build.rs: what Rust believes of these types. */\n");
    for name in LAYOUTS {
        let size_of = format!("size_of::<{name}>() - ");
        let size = number_after(bindings, &size_of)
            .ok_or_else(|| format!("no layout of struct {name} in the bindings"))?;
        assert_c(&mut header, &format!("sizeof(struct {name}) == {size}"), name);
        let offset_of = format!("offset_of!({name}, ");
        for (at, _) in bindings.match_indices(&offset_of) {
            let rest = &bindings[at + offset_of.len()..];
            let Some((field, _)) = rest.split_once(')') else {
                continue;
            };
            let Some(offset) = number_after(rest, ") - ") else {
                continue;
            };
            // Names of bindgen's own making have no counterpart in C.
            if !field.contains("bindgen") && !field.starts_with('_') {
                let equation = format!("offsetof(struct {name}, {field}) == {offset}");
                assert_c(&mut header, &equation, name);
            }
        }
    }
    Ok(header)
}

fn assert_c(header: &mut String, equation: &str, name: &str) {
    writeln!(header, "_Static_assert({equation}, \"layout of {name}\");")
        .expect("writing to a String cannot fail");
}

/// The number that follows the first `marker` in `text`.
fn number_after(text: &str, marker: &str) -> Option<usize> {
    let digits = &text[text.find(marker)? + marker.len()..];
    let end = digits.find(|c: char| !c.is_ascii_digit())?;
    digits[..end].parse().ok()
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| format!("{} cannot be written: {error}", path.display()))
}
