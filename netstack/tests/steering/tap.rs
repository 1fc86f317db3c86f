//! The kernel's side of a tap.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::node::{CHUNK, PATIENCE, pattern};

/// Longer than the kernel remembers on which queue of a tap it heard of a flow: 3 s.
const SILENCE: Duration = Duration::from_secs(5);

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
