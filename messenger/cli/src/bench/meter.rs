//! What an end of a run spends: CPU time, and each worker's counters.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use messenger::{MessengerCounters, WorkerCounters};
use perf_event::events::{Event, Hardware};
use perf_event::{Builder, Counter};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Counters that should stay at zero; others mark a table.
const LOSSES: [&str; 9] = [
    "segments_resent",
    "out_of_order_segments",
    "resets_sent",
    "tx_queue_full_drops",
    "handover_full_drops",
    "frame_alloc_failures",
    "connections_timed_out",
    "msgr_protocol_errors",
    "dpdk_receive_bad_checksum_errors",
];

/// Frames that were never for us: a kernel's side of a tap sends some.
const STRANGE: [&str; 4] =
    ["drop_ethernet_", "drop_other_vlan", "drop_ether_type", "drop_not_unicast"];

/// One end of a run: client or server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Half {
    /// The time that these figures are of.
    pub(crate) elapsed_s: f64,
    /// Messages that this end sent (client) or received (server).
    pub(crate) messages: u64,
    /// Bytes of payload of them.
    pub(crate) bytes: u64,
    /// CPU time of the whole process, polling included.
    pub(crate) cpu_s: f64,
    pub(crate) cpu_us_per_message: f64,
    /// Of the processor, the kernel's share included; none where they cannot be counted, as in most
    /// virtual machines.
    pub(crate) cycles_per_message: Option<f64>,
    pub(crate) workers: Vec<Worker>,
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu_s, elapsed_s, cpu_us_per_message: us, .. } = self;
        write!(f, "{cpu_s:.2} s of CPU in {elapsed_s:.2} s, {us:.3} us a message")?;
        let cycles = self.cycles_per_message;
        cycles.map_or(Ok(()), |cycles| write!(f, ", {cycles:.0} cycles"))
    }
}

/// What one worker counted in that time; zeros are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Worker {
    pub(crate) worker: usize,
    pub(crate) counters: BTreeMap<String, u64>,
}

impl Worker {
    pub(crate) fn get(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    /// Frames dropped, for whatever reason.
    pub(crate) fn drops(&self) -> u64 {
        let drops = self.losses().filter(|(name, _)| name.contains("drop"));
        drops.map(|(_, count)| count).sum()
    }

    /// Frames dropped and lost, by counter.
    pub(crate) fn losses(&self) -> impl Iterator<Item = (&str, u64)> {
        let is_strange = |name: &str| STRANGE.iter().any(|start| name.starts_with(start));
        let is_loss = move |name: &str| {
            LOSSES.contains(&name) || name.starts_with("drop_") && !is_strange(name)
        };
        let all = self.counters.iter().map(|(name, count)| (name.as_str(), *count));
        all.filter(move |(name, _)| is_loss(name))
    }
}

/// Counts the cycles of this process, of threads that start later too.
#[derive(Debug)]
pub(crate) struct Cycles(Option<Mutex<Counter>>);

impl Cycles {
    pub(crate) fn count() -> Self {
        Self::count_event(Hardware::CPU_CYCLES)
    }

    fn count_event(event: impl Event) -> Self {
        let mut builder = Builder::new(event);
        builder.observe_self().any_cpu().inherit(true).include_kernel();
        let counter = builder.build().and_then(|mut counter| {
            counter.enable()?;
            Ok(counter)
        });
        Self(counter.ok().map(Mutex::new))
    }

    fn read(&self) -> Option<u64> {
        let counter = self.0.as_ref()?;
        counter.lock().unwrap_or_else(PoisonError::into_inner).read().ok()
    }
}

/// The state of one end at the start of what is measured.
#[derive(Debug)]
pub(crate) struct Meter {
    at: Instant,
    cpu: Duration,
    cycles: Option<u64>,
    workers: Vec<WorkerCounters>,
}

impl Meter {
    /// From now; an end without a messenger has no counters.
    pub(crate) fn start(cycles: &Cycles, counters: Option<MessengerCounters>) -> Self {
        let (at, cpu) = (Instant::now(), cpu_time());
        Self { at, cpu, cycles: cycles.read(), workers: workers(counters) }
    }

    /// What was spent since the start, on so many messages and bytes.
    pub(crate) fn read(
        &self,
        messages: u64,
        bytes: u64,
        cycles: &Cycles,
        counters: Option<MessengerCounters>,
    ) -> Half {
        let cpu_s = cpu_time().saturating_sub(self.cpu).as_secs_f64();
        let cycles = self.cycles.zip(cycles.read()).map(|(then, now)| now.saturating_sub(then));
        let before = |index| self.workers.iter().find(|worker| worker.worker == index);
        let since = |now: &WorkerCounters| Worker {
            worker: now.worker,
            counters: difference(before(now.worker), now),
        };
        Half {
            elapsed_s: self.at.elapsed().as_secs_f64(),
            messages,
            bytes,
            cpu_s,
            cpu_us_per_message: cpu_s * 1e6 / messages.max(1) as f64,
            cycles_per_message: cycles.map(|cycles| cycles as f64 / messages.max(1) as f64),
            workers: workers(counters).iter().map(since).collect(),
        }
    }
}

fn workers(counters: Option<MessengerCounters>) -> Vec<WorkerCounters> {
    counters.map_or_else(Vec::new, |counters| counters.workers)
}

fn difference(before: Option<&WorkerCounters>, now: &WorkerCounters) -> BTreeMap<String, u64> {
    let all = now.messenger.iter().chain(&now.transport);
    let since = all.map(|(name, value)| {
        let start = before.map_or(0, |before| before.get(name));
        ((*name).to_owned(), value.saturating_sub(start))
    });
    since.filter(|(name, value)| *value > 0 && !is_gauge(name)).collect()
}

/// Whether a counter says what is, and not what has happened.
fn is_gauge(name: &str) -> bool {
    let endings = ["_in_use", "_last_bunch", "_queue_length", "_active_connections", "neighbors"];
    endings.iter().any(|ending| name.ends_with(ending))
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use perf_event::events::Software;

    #[test]
    fn what_is_counted_includes_threads_that_start_later() {
        // Virtual machines have no cycles to count, but every kernel has this one, in nanoseconds.
        let clock = Cycles::count_event(Software::TASK_CLOCK);
        let meter = Meter::start(&clock, None);
        let spin = || {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(20) {}
        };
        std::thread::spawn(spin).join().unwrap();
        let half = meter.read(10, 640, &clock, None);
        assert_eq!((half.messages, half.bytes), (10, 640));
        assert!(half.cpu_us_per_message > 0.0, "{half:?}");
        assert!(half.cycles_per_message.is_none_or(|ns| ns > 1000.0), "{half:?}");
    }

    #[test]
    fn counters_are_those_since_the_start_and_losses_stand_out() {
        let counters = |packets, drops, held| WorkerCounters {
            worker: 0,
            messenger: vec![("worker_turns", 7)],
            transport: vec![
                ("dpdk_receive_packets", packets),
                ("drop_tcp_checksum", drops),
                ("drop_ethernet_not_ours", drops),
                ("frames_in_use", held),
            ],
        };
        let since = difference(Some(&counters(5, 1, 0)), &counters(9, 4, 8));
        let worker = Worker { worker: 0, counters: since };
        assert_eq!(worker.get("dpdk_receive_packets"), 4);
        assert_eq!((worker.get("worker_turns"), worker.get("frames_in_use")), (0, 0));
        assert_eq!(worker.losses().collect::<Vec<_>>(), [("drop_tcp_checksum", 3)]);
        assert_eq!(worker.drops(), 3);
    }
}
