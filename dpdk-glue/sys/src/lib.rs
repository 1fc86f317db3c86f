//! DPDK's C interface, cut down to what `dpdk-glue` calls: raw, unsafe, and without documentation.
//!
//! ```text
//!   libdpdk (22.11 ... 24.11)  <--  shim.c: inline functions by the burst, mbuf fields, constants
//!                 ^                    ^
//!                 +--- bindings.rs ----+    written by bindgen from an allow-list in build.rs
//! ```
//!
//! Two rules keep one source building against several releases: Rust sees no field of `rte_mbuf`
//! (its layout moved in 24.07), and every flag that DPDK spells with a 64-bit macro comes as a
//! constant of the shim, so a missing one is a C error that names it. The layout of the structures
//! Rust does fill in is asserted three ways: Rust against libclang in the bindings, and both
//! against the C compiler in the shim.
//!
//! No function marked experimental is used; the shim would not compile with one.

pub use bindings::*;

#[allow(
    clippy::all,
    clippy::multiple_unsafe_ops_per_block,
    clippy::semicolon_if_nothing_returned,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    missing_debug_implementations,
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    unnecessary_transmutes,
    unsafe_op_in_unsafe_fn,
    unused_qualifications,
    reason = "generated code follows C's customs"
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn the_library_that_runs_is_of_the_release_that_was_compiled_for() {
        // SAFETY: needs no EAL.
        let version = unsafe { rte_version() };
        // SAFETY: it returns a static string.
        let version = unsafe { CStr::from_ptr(version) };
        let version = version.to_str().unwrap();
        // SAFETY: a constant.
        let compiled = unsafe { shim_version };
        let expected = format!("DPDK {}.{:02}", compiled >> 24, (compiled >> 16) & 0xff);
        assert!(version.starts_with(&expected), "{version} is not {expected}");
    }
}
