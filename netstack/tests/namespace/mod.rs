//! A network namespace of our own, for the kernel's side of a tap.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace, gone at the end.
pub(crate) struct Namespace(String);

impl Namespace {
    pub(crate) fn new(name: &str) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "a network namespace and a tap device are made only by root: try sudo"
        );
        let namespace = Self(format!("netstack-{name}-{}", std::process::id()));
        ip(&["netns", "add", &namespace.0]);
        namespace
    }

    /// Runs `ip` inside.
    pub(crate) fn ip(&self, args: &[&str]) {
        ip(&[&["-n", self.0.as_str()], args].concat());
    }

    /// Runs a program inside, with the `/sys` of the namespace.
    #[allow(dead_code, reason = "not all tests do")]
    pub(crate) fn run(&self, program: &[&str]) {
        ip(&[&["netns", "exec", self.0.as_str()], program].concat());
    }

    /// What `ip` calls it.
    #[allow(dead_code, reason = "for cables between two")]
    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// Runs `body` in a thread that lives inside, and so do the threads it starts.
    pub(crate) fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(file.as_fd(), kind).unwrap();
        };
        let run = || {
            enter();
            body()
        };
        let outcome = std::thread::scope(|scope| scope.spawn(run).join());
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn ip(args: &[&str]) {
    let status = Command::new("ip").args(args).status().expect("ip, of the package iproute2");
    assert!(status.success(), "ip {args:?}");
}
