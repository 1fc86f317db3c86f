//! What only holds of a messenger with threads of its own. One test, for it looks at all threads
//! of the process.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod common;

use common::*;

/// Threads of messengers in this process, by name.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| {
        // One may end while it is looked at.
        let name = std::fs::read_to_string(task.ok()?.path().join("comm")).ok()?;
        name.starts_with("ms_").then(|| name.trim().to_owned())
    });
    names.collect()
}

#[test]
fn no_thread_is_left_when_a_messenger_has_ended() {
    let net = Simple::new("127.0.0.1");
    let server = server(&net, Recorder::queued().echoing());
    let client = client(&net, Recorder::queued());
    for round in 0..20 {
        let connection = client.connect(&server);
        send(&connection, ping(round));
        client.recorder.wait_for(&Saw::Queued(round));
        connection.mark_down();
    }
    send(&client.connect(&server), ping(100));
    client.recorder.wait_for(&Saw::Queued(100));
    eventually("only the last connection has threads", || {
        let readers = threads().iter().filter(|name| *name == "ms_pipe_read").count();
        let writers = threads().iter().filter(|name| *name == "ms_pipe_write").count();
        (readers, writers) == (2, 2)
    });
    client.end();
    server.end();
    // The kernel lists a thread a moment longer than a join takes.
    eventually("no thread is left", || threads().is_empty());
}
