//! Two sides of several runs each, figure by figure.

use std::fmt::Write;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::bench::report::{Report, SCHEMA, markdown_table};
use crate::bench::statistics::{Ratio, Summary, Verdict};
use crate::report::{aligned, thousands};

/// What decides who is ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum By {
    /// Messages a second
    Rate,
    /// Median latency
    P50,
    /// 99th percentile
    P99,
    /// CPU time of both ends a message
    Cpu,
}

impl By {
    const ALL: [Self; 4] = [Self::Rate, Self::P50, Self::P99, Self::Cpu];

    fn name(self) -> &'static str {
        match self {
            Self::Rate => "msg/s",
            Self::P50 => "p50 us",
            Self::P99 => "p99 us",
            Self::Cpu => "CPU us/msg",
        }
    }

    fn of(self, report: &Report) -> f64 {
        match self {
            Self::Rate => report.messages_per_s,
            Self::P50 => report.latency_us.p50,
            Self::P99 => report.latency_us.p99,
            Self::Cpu => report.halves().map(|(_, half)| half.cpu_us_per_message).sum(),
        }
    }

    fn shown(self, value: f64) -> String {
        match self {
            Self::Rate => thousands(value),
            Self::P50 | Self::P99 => format!("{value:.1}"),
            Self::Cpu => format!("{value:.3}"),
        }
    }
}

/// The runs of one side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Side {
    pub(crate) name: String,
    pub(crate) runs: Vec<Report>,
}

/// One figure of both sides.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) by: By,
    pub(crate) a: Summary,
    pub(crate) b: Summary,
    pub(crate) a_over_b: Ratio,
    pub(crate) verdict: Verdict,
}

/// See the [module](self).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Comparison {
    pub(crate) schema: u32,
    /// Whether run `i` of one side was made beside run `i` of the other.
    pub(crate) interleaved: bool,
    pub(crate) a: Side,
    pub(crate) b: Side,
    pub(crate) figures: Vec<Figure>,
}

impl Comparison {
    pub(crate) fn new(a: Side, b: Side, interleaved: bool) -> Self {
        let figure = |by: By| {
            let values = |side: &Side| side.runs.iter().map(|run| by.of(run)).collect::<Vec<_>>();
            let (of_a, of_b) = (values(&a), values(&b));
            let ratio = if interleaved { Ratio::of_rounds } else { Ratio::of_runs };
            let a_over_b = ratio(&of_a, &of_b);
            let rounds = of_a.len().min(of_b.len());
            let verdict = a_over_b.verdict(rounds, by == By::Rate);
            Figure { by, a: Summary::of(&of_a), b: Summary::of(&of_b), a_over_b, verdict }
        };
        let figures = By::ALL.map(figure).into();
        Self { schema: SCHEMA, interleaved, a, b, figures }
    }

    pub(crate) fn verdict(&self, by: By) -> Verdict {
        let figure = self.figures.iter().find(|figure| figure.by == by);
        figure.map_or(Verdict::Undecided, |figure| figure.verdict)
    }

    pub(crate) fn text(&self) -> String {
        let mut out = self.heading();
        out.push_str(&aligned(&self.rows()));
        out.push_str("\nMedians of the runs (least .. most); ratios with 95 % intervals.\n");
        out
    }

    pub(crate) fn markdown(&self) -> String {
        self.heading() + &markdown_table(&self.rows())
    }

    fn heading(&self) -> String {
        let mut out = String::new();
        if let Some(run) = self.a.runs.first() {
            let _ = writeln!(out, "{}", run.load);
        }
        let Self { a, b, .. } = self;
        let runs = (a.runs.len(), b.runs.len());
        let how = if self.interleaved { "taking turns" } else { "not made together" };
        let _ =
            writeln!(out, "A: {}, B: {}; {} and {} runs, {how}\n", a.name, b.name, runs.0, runs.1);
        out
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let heading = ["", "A", "B", "A / B", "interval", "answer"];
        let row = |figure: &Figure| {
            let side = |summary: &Summary| {
                let [median, least, most] =
                    [summary.median, summary.least, summary.most].map(|v| figure.by.shown(v));
                format!("{median} ({least} .. {most})")
            };
            let Ratio { ratio, low, high } = figure.a_over_b;
            let answer = match figure.verdict {
                Verdict::AAhead => "A is ahead",
                Verdict::BAhead => "B is ahead",
                Verdict::NoDifference => "no difference",
                Verdict::Undecided => "too few runs",
            };
            vec![
                figure.by.name().to_owned(),
                side(&figure.a),
                side(&figure.b),
                format!("{ratio:.3}"),
                format!("{low:.3} .. {high:.3}"),
                answer.to_owned(),
            ]
        };
        let heading = heading.map(str::to_owned).to_vec();
        std::iter::once(heading).chain(self.figures.iter().map(row)).collect()
    }
}
