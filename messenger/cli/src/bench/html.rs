//! A report as one file: tables, and plots as inline SVG. It asks nothing of the network.

use std::fmt::Write;

use crate::bench::report::Report;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
/// Room for labels left and below, and what is left free right and above.
const LEFT: f64 = 70.0;
const BELOW: f64 = 36.0;
const MARGIN: f64 = 12.0;
/// Colours of the lines, used again from the start.
const COLOURS: [&str; 6] = ["#1b6ca8", "#c8553d", "#3c8d5a", "#7a4fa3", "#b58900", "#4d4d4d"];
/// Most labels on an axis.
const LABELS_MAX: f64 = 8.0;

const STYLE: &str = "body{font:14px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
td,th{padding:.15em .7em;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child{text-align:left}.bad{color:#b00020;font-weight:bold}\
pre{background:#f5f5f5;padding:.7em;overflow-x:auto}svg text{font-size:11px;fill:#444}";

/// A page about some runs, with a preface in plain text.
pub(crate) fn page(title: &str, runs: &[(&str, &Report)], preface: &str) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{0}</title>\
         <style>{STYLE}</style>\n<h1>{0}</h1>\n",
        escape(title)
    );
    if !preface.is_empty() {
        let _ = writeln!(out, "<pre>{}</pre>", escape(preface));
    }
    let curves = runs.iter().map(|(name, run)| (*name, tail(run))).collect::<Vec<_>>();
    out.push_str("<h2>Latency by percentile</h2>\n");
    out.push_str(&Plot::new(&curves, Scale::Tail, Scale::Log).svg("percentile", "us"));
    let rates = runs.iter().map(|(name, run)| (*name, seconds(run))).collect::<Vec<_>>();
    out.push_str("<h2>Messages a second</h2>\n");
    out.push_str(&Plot::new(&rates, Scale::Linear, Scale::Linear).svg("s", "msg/s"));
    for (name, run) in runs {
        about(&mut out, name, run);
    }
    out.push_str("</html>\n");
    out
}

/// The tables of one run.
fn about(out: &mut String, name: &str, run: &Report) {
    let _ = writeln!(out, "<h2>{}</h2>\n<p>{}</p>", escape(name), escape(&run.load.to_string()));
    for problem in &run.problems {
        let _ = writeln!(out, "<p class=\"bad\">Invalid: {}</p>", escape(problem));
    }
    table(out, &run.figures());
    if let Some(open) = &run.open {
        let _ =
            writeln!(out, "<p>The generator was late for {:.2} % of sends.</p>", open.late_percent);
    }
    for (end, half) in run.halves() {
        let _ = writeln!(out, "<p>{end}: {half}</p>");
    }
    if run.halves().any(|(_, half)| !half.workers.is_empty()) {
        table(out, &run.worker_rows());
    }
    for (end, worker, counter, count) in run.losses() {
        let _ = writeln!(out, "<p class=\"bad\">{end}, worker {worker}: {counter} {count}</p>");
    }
    let environment = serde_json::to_string_pretty(&run.environment).unwrap_or_default();
    let _ = writeln!(
        out,
        "<details><summary>Environment</summary><pre>{}</pre></details>",
        escape(&environment)
    );
}

fn table(out: &mut String, rows: &[Vec<String>]) {
    out.push_str("<table>\n");
    for (index, row) in rows.iter().enumerate() {
        let tag = if index == 0 { "th" } else { "td" };
        let cells = row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell)));
        let _ = writeln!(out, "<tr>{}</tr>", cells.collect::<String>());
    }
    out.push_str("</table>\n");
}

/// Nines before a percentile's first other digit, against microseconds.
fn tail(run: &Report) -> Vec<(f64, f64)> {
    let open = run.curve_us.iter().filter(|(quantile, _)| *quantile < 1.0);
    open.map(|(quantile, us)| (-(1.0 - quantile).log10(), *us)).collect()
}

fn seconds(run: &Report) -> Vec<(f64, f64)> {
    run.seconds.iter().map(|second| (second.until_s, second.messages_per_s)).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scale {
    Linear,
    Log,
    /// Whole numbers of nines, told as percentiles.
    Tail,
}

impl Scale {
    fn place(self, value: f64) -> f64 {
        if self == Self::Log { value.max(1e-3).log10() } else { value }
    }

    /// The ends of an axis for values from `low` to `high`.
    fn span(self, low: f64, high: f64) -> (f64, f64) {
        let (low, high) = match self {
            Self::Log => (self.place(low).floor(), self.place(high).ceil()),
            Self::Linear | Self::Tail => (0.0, high),
        };
        (low, if high > low { high } else { low + 1.0 })
    }

    fn label(self, place: f64) -> String {
        match self {
            Self::Linear if place >= 1e4 => format!("{:.0}k", place / 1e3),
            Self::Linear => format!("{place:.0}"),
            Self::Log => format!("{}", 10_f64.powf(place)),
            Self::Tail => format!(
                "{:.*}",
                (place as usize).saturating_sub(2),
                100.0 - 100.0 / 10_f64.powf(place)
            ),
        }
    }
}

/// Lines in a frame.
struct Plot<'a> {
    lines: &'a [(&'a str, Vec<(f64, f64)>)],
    scales: (Scale, Scale),
    x: (f64, f64),
    y: (f64, f64),
}

impl<'a> Plot<'a> {
    fn new(lines: &'a [(&'a str, Vec<(f64, f64)>)], x: Scale, y: Scale) -> Self {
        let points = || lines.iter().flat_map(|(_, points)| points);
        let span = |scale: Scale, of: fn(&(f64, f64)) -> f64| {
            let low = points().map(of).fold(f64::INFINITY, f64::min);
            let high = points().map(of).fold(0.0, f64::max);
            scale.span(low.min(high), high)
        };
        Self { lines, scales: (x, y), x: span(x, |p| p.0), y: span(y, |p| p.1) }
    }

    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let share = |place: f64, (low, high): (f64, f64)| (place - low) / (high - low);
        (
            LEFT + share(x, self.x) * (WIDTH - LEFT - MARGIN),
            HEIGHT - BELOW - share(y, self.y) * (HEIGHT - BELOW - MARGIN),
        )
    }

    fn svg(&self, x_name: &str, y_name: &str) -> String {
        let mut out = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             role=\"img\">\n"
        );
        for place in ticks(self.x) {
            let (x, y) = self.at((place, self.y.0));
            let label = self.scales.0.label(place);
            let _ = writeln!(
                out,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{MARGIN}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                y + 14.0
            );
        }
        for place in ticks(self.y) {
            let (x, y) = self.at((self.x.0, place));
            let label = self.scales.1.label(place);
            let _ = writeln!(
                out,
                "<line x1=\"{x:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                WIDTH - MARGIN,
                x - 6.0,
                y + 4.0
            );
        }
        for (index, (name, points)) in self.lines.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let place = |(x, y): &(f64, f64)| (self.scales.0.place(*x), self.scales.1.place(*y));
            let path = points.iter().map(|point| {
                let (x, y) = self.at(place(point));
                format!("{x:.1},{y:.1} ")
            });
            let _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\">\
                 <title>{1}</title></polyline><text x=\"{2:.1}\" y=\"{3:.1}\" \
                 style=\"fill:{colour}\">{1}</text>",
                path.collect::<String>(),
                escape(name),
                LEFT + 8.0,
                MARGIN + 12.0 + 13.0 * index as f64
            );
        }
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{x_name}</text>\
             <text x=\"4\" y=\"{:.1}\">{y_name}</text></svg>",
            WIDTH - MARGIN,
            HEIGHT - 6.0,
            MARGIN + 4.0
        );
        out
    }
}

/// Round places on an axis.
fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    let rough = (high - low) / LABELS_MAX;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(rough).max(if high - low <= LABELS_MAX {
        1.0_f64.min(high - low)
    } else {
        0.0
    });
    let count = ((high - low) / step).floor() as usize;
    (0..=count).map(|index| low + step * index as f64).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_labels() {
        assert_eq!(ticks((0.0, 5.0)), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(ticks((0.0, 100_000.0)).len(), 6);
        let labels: Vec<_> = ticks((0.0, 4.0)).into_iter().map(|t| Scale::Tail.label(t)).collect();
        assert_eq!(labels, ["0", "90", "99", "99.9", "99.99"]);
        assert_eq!(Scale::Log.label(3.0), "1000");
        assert_eq!(Scale::Linear.label(200_000.0), "200k");
    }

    #[test]
    fn lines_stay_in_their_frame_and_names_are_escaped() {
        let lines = [("<a>", vec![(0.0, 1.0), (2.0, 1000.0)]), ("empty", Vec::new())];
        let svg = Plot::new(&lines, Scale::Tail, Scale::Log).svg("x", "y");
        assert!(svg.contains("70.0,264.0 748.0,12.0"), "{svg}");
        assert!(svg.contains("&lt;a&gt;") && !svg.contains("<a>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
