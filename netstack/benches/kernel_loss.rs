//! Goodput between the native stack and the kernel's TCP over a tap that loses frames: who sends
//! faster, and how long nothing arrives at worst.
//!
//! ```text
//!   cargo bench -p netstack --bench kernel_loss -- \
//!       [--seeds N] [--seconds S] [--only PERCENT] [--delay-us N] [--runs]
//! ```
//!
//! Needs root, for a network namespace and a tap. For each seed and each share of frames lost, in
//! both directions, the native stack sends to the kernel and then the kernel, with CUBIC, to it:
//! one connection, as much as goes through in the time. So a busy machine treats both alike. A
//! stall is the longest time in which the receiver got nothing. The worker polls, and a machine
//! that does something else meanwhile makes stalls too: its longest absence is shown beside, and
//! a run in which it was away for [`AWAY`] is done once more.

#![cfg_attr(
    feature = "dpdk",
    expect(clippy::unwrap_used, reason = "a benchmark ends when something fails")
)]

#[cfg(feature = "dpdk")]
#[path = "../tests/kernel/mod.rs"]
mod kernel;
#[cfg(feature = "dpdk")]
#[path = "../tests/namespace/mod.rs"]
mod namespace;

#[cfg(not(feature = "dpdk"))]
fn main() {
    println!("kernel_loss measures over a tap of DPDK: leave out --no-default-features");
}

#[cfg(feature = "dpdk")]
fn main() {
    if !rustix::process::geteuid().is_root() {
        println!("kernel_loss makes a network namespace and a tap and needs root: try sudo");
        return;
    }
    let options = bench::Options::parse();
    let namespace = namespace::Namespace::new("kernel-loss");
    namespace.inside(|| bench::run(&namespace, &options));
}

#[cfg(feature = "dpdk")]
mod bench {
    use std::time::Duration;

    use super::kernel::{Amount, Flow, Lab, Link, Sender};
    use super::namespace::Namespace;

    const LOSSES_PPM: [u32; 4] = [0, 1000, 10_000, 50_000];
    /// A worker that had no turn for so long was stopped.
    const AWAY: Duration = Duration::from_millis(100);
    /// Most attempts at one run.
    const ATTEMPTS: usize = 5;

    pub(super) struct Options {
        seeds: u64,
        time: Duration,
        only_ppm: Option<u32>,
        delay: Duration,
        shows_runs: bool,
    }

    impl Options {
        pub(super) fn parse() -> Self {
            let args: Vec<_> = std::env::args().skip(1).collect();
            let is_bench = args.iter().any(|arg| arg == "--bench");
            let value = |name: &str| -> Option<f64> {
                let at = args.iter().position(|arg| arg == name)?;
                Some(args.get(at + 1)?.parse().expect("a number"))
            };
            Self {
                seeds: value("--seeds").map_or(if is_bench { 20 } else { 1 }, |seeds| seeds as u64),
                time: Duration::from_secs_f64(value("--seconds").unwrap_or(if is_bench {
                    1.0
                } else {
                    0.1
                })),
                only_ppm: value("--only").map(|percent| (percent * 10_000.0).round() as u32),
                delay: Duration::from_micros(value("--delay-us").map_or(0, |us| us as u64)),
                shows_runs: args.iter().any(|arg| arg == "--runs"),
            }
        }
    }

    pub(super) fn run(namespace: &Namespace, options: &Options) {
        let mut lab = Lab::new(namespace);
        let mut cells: Vec<(u32, [Vec<Flow>; 2])> = LOSSES_PPM
            .into_iter()
            .filter(|ppm| options.only_ppm.is_none_or(|only| only == *ppm))
            .map(|ppm| (ppm, [Vec::new(), Vec::new()]))
            .collect();
        for seed in 1..=options.seeds {
            for (loss_ppm, flows) in &mut cells {
                let link = Link { seed, loss_ppm: *loss_ppm, delay: options.delay };
                for (sender, flows) in [Sender::Ours, Sender::Kernel].into_iter().zip(flows) {
                    let flow = undisturbed(&mut lab, sender, options.time, link);
                    if options.shows_runs {
                        println!("{seed} {loss_ppm} {sender:?} {flow:?}");
                    }
                    flows.push(flow);
                }
            }
        }
        print(&cells, options);
    }

    fn undisturbed(lab: &mut Lab, sender: Sender, time: Duration, link: Link) -> Flow {
        for _ in 1..ATTEMPTS {
            let flow = lab.run(sender, Amount::Time(time), link);
            if flow.absence < AWAY {
                return flow;
            }
        }
        lab.run(sender, Amount::Time(time), link)
    }

    fn print(cells: &[(u32, [Vec<Flow>; 2])], options: &Options) {
        let Options { seeds, time, delay, .. } = options;
        println!("{seeds} seeds, {time:?} each, round trip and {delay:?}");
        println!("goodput in Mb/s: median (least..most), longest stall (longest absence)");
        println!("  lost | ours to kernel | kernel to ours | ratio");
        for (loss_ppm, flows) in cells {
            let [ours, kernel] = flows.each_ref().map(|flows| median(flows));
            let [left, right] = flows.each_ref().map(|flows| cell(flows));
            let percent = f64::from(*loss_ppm) / 10_000.0;
            println!("{percent:4} % | {left} | {right} | {:.2}", ours / kernel);
        }
        println!("of ours as the sender: frames lost to and fro, resent, fast retransmissions,");
        println!("tail probes, timeouts");
        for (loss_ppm, [ours, _]) in cells {
            let sum = |of: fn(&Flow) -> u64| ours.iter().map(of).sum::<u64>();
            println!(
                "{:4} % | {} {} | {} | {} | {} | {}",
                f64::from(*loss_ppm) / 10_000.0,
                sum(|flow| flow.lost[1]),
                sum(|flow| flow.lost[0]),
                sum(|flow| flow.resent),
                sum(|flow| flow.fast_retransmits),
                sum(|flow| flow.probes),
                sum(|flow| flow.timeouts),
            );
        }
    }

    fn cell(flows: &[Flow]) -> String {
        let rates = rates(flows);
        let longest = |of: fn(&Flow) -> Duration| {
            1000.0 * flows.iter().map(of).max().unwrap_or_default().as_secs_f64()
        };
        format!(
            "{:.0} ({:.0}..{:.0}), {:.1} ms ({:.1})",
            median(flows),
            rates[0],
            rates[rates.len() - 1],
            longest(|flow| flow.stall),
            longest(|flow| flow.absence),
        )
    }

    fn rates(flows: &[Flow]) -> Vec<f64> {
        let mut rates: Vec<_> = flows.iter().map(|flow| flow.mbit_per_s).collect();
        rates.sort_by(f64::total_cmp);
        rates
    }

    fn median(flows: &[Flow]) -> f64 {
        let rates = rates(flows);
        (rates[(rates.len() - 1) / 2] + rates[rates.len() / 2]) / 2.0
    }
}
