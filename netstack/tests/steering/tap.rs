//! The kernel's side of a tap, in a network namespace of its own.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::node::{CHUNK, PATIENCE, pattern};

/// Longer than the kernel remembers on which queue of a tap it heard of a flow: 3 s.
const SILENCE: Duration = Duration::from_secs(5);

/// A network namespace, gone at the end.
pub(crate) struct Namespace(String);

impl Namespace {
    pub(crate) fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes a network namespace and a tap device and needs root: sudo make test"
        );
        let namespace = Self(format!("netstack-steering-{}", std::process::id()));
        ip(&["netns", "add", &namespace.0]);
        namespace
    }

    /// Runs `ip` inside.
    pub(crate) fn ip(&self, args: &[&str]) {
        ip(&[&["-n", self.0.as_str()], args].concat());
    }

    /// Runs `body` in a thread that lives inside, and so do the threads it starts.
    pub(crate) fn inside(&self, body: impl FnOnce() + Send) {
        let enter = || {
            let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(file.as_fd(), kind).unwrap();
        };
        let run = || {
            enter();
            body();
        };
        if let Err(panic) = std::thread::scope(|scope| scope.spawn(run).join()) {
            std::panic::resume_unwind(panic);
        }
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

/// What the kernel's side does: lets `dialled` connections of the stack speak, opens `dialling`
/// and speaks on them, is silent, speaks first on all, and closes all.
pub(crate) fn talk(
    listener: &TcpListener,
    stack: SocketAddr,
    dialled: usize,
    dialling: usize,
) -> io::Result<()> {
    let mut streams = Vec::new();
    let mut bytes = [0; CHUNK];
    for _ in 0..dialled {
        let mut stream = accept(listener)?;
        stream.read_exact(&mut bytes)?;
        stream.write_all(&bytes)?;
        streams.push(stream);
    }
    for number in 0..dialling {
        let stream = prepared(TcpStream::connect_timeout(&stack, PATIENCE)?)?;
        ask(&stream, number)?;
        streams.push(stream);
    }
    std::thread::sleep(SILENCE);
    for (number, stream) in streams.iter().enumerate() {
        ask(stream, number + 1000)?;
    }
    for mut stream in streams {
        stream.shutdown(std::net::Shutdown::Write)?;
        if stream.read(&mut bytes)? > 0 {
            return Err(io::Error::other("bytes nobody asked for"));
        }
    }
    Ok(())
}

/// Takes a connection from a listener that does not block.
fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let end = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => return prepared(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Says something, which must come back.
fn ask(mut stream: &TcpStream, number: usize) -> io::Result<()> {
    let question = pattern(number, 0, CHUNK);
    let mut answer = [0; CHUNK];
    stream.write_all(&question)?;
    stream.read_exact(&mut answer)?;
    if question == answer { Ok(()) } else { Err(io::Error::other("other bytes came back")) }
}
