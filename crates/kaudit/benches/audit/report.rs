//! Medians and ratios.

use std::collections::BTreeMap;
use std::fmt::Write;

/// One benchmark's figures over the rounds.
#[derive(Default)]
struct Figures {
    nanos: Vec<f64>,
    allocations: Vec<f64>,
}

type Table = BTreeMap<String, Figures>;

/// What the figures of the rows that begin so should be, the most particular first: ratios to upstream's
/// figure of the same run, since machines differ; at level None nanoseconds.
const GOALS: [(&str, Goal); 9] = [
    // 200 ns where upstream takes 2650.
    ("Evaluate/rules100", Goal::Ratio(0.075)),
    ("Encode", Goal::Ratio(0.125)),
    ("RequestInfo/get", Goal::Ratio(0.25)),
    ("RequestInfo/list", Goal::Ratio(0.25)),
    ("RequestInfo/watch", Goal::Ratio(0.25)),
    (ADDED[0].1, Goal::Nanos(300.0)),
    (ADDED[1].1, Goal::Ratio(0.2)),
    (ADDED[2].1, Goal::Ratio(0.2)),
    ("Backend", Goal::Ratio(0.33)),
];

/// The levels, and the rows that say what auditing adds at them.
const ADDED: [(&str, &str); 3] = [
    ("Chain/None", "added by auditing at None"),
    ("Chain/Metadata", "added by auditing at Metadata"),
    ("Chain/RequestResponse", "added by auditing at RequestResponse"),
];

#[derive(Clone, Copy)]
enum Goal {
    /// At most this ratio to upstream's figure.
    Ratio(f64),
    /// At most so many nanoseconds.
    Nanos(f64),
}

/// The goal of a row, and whether it is reached.
fn goal(row: &str, nanos: f64, ratio: Option<f64>) -> String {
    let Some((_, goal)) = GOALS.iter().find(|(name, _)| row.starts_with(name)) else {
        return String::new();
    };
    let (text, figure, most) = match *goal {
        Goal::Ratio(most) => (format!("{most}"), ratio, most),
        Goal::Nanos(most) => (format!("{most} ns"), Some(nanos), most),
    };
    let verdict = match figure {
        None => "",
        Some(figure) if figure <= most => ", reached",
        Some(_) => ", missed",
    };
    format!("<= {text}{verdict}")
}

/// A Markdown table: kaudit's median, upstream's, their ratio and its goal, the spread and both allocation
/// counts.
pub(crate) fn table(rust: &str, go: &str) -> String {
    let (rust, go) = (rust_lines(rust), go_lines(go));
    let mut table = String::from(
        "| benchmark | kaudit ns | kube-apiserver ns | kaudit / kube | goal | spread % (k, g) | allocs (k, g) |\n\
         | --- | ---: | ---: | ---: | --- | ---: | ---: |\n",
    );
    for (name, ours) in &rust {
        let theirs = go.get(name);
        let nanos = median(&ours.nanos);
        let ratio = theirs.map(|theirs| nanos / median(&theirs.nanos));
        let row = format!(
            "| {name} | {nanos:.0} | {} | {} | {} | {:.0}, {} | {:.0}, {} |",
            theirs.map_or_else(
                || "-".to_owned(),
                |theirs| format!("{:.0}", median(&theirs.nanos))
            ),
            ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}")),
            goal(name, nanos, ratio),
            spread(&ours.nanos),
            theirs.map_or_else(
                || "-".to_owned(),
                |theirs| format!("{:.0}", spread(&theirs.nanos))
            ),
            median(&ours.allocations),
            theirs.map_or_else(
                || "-".to_owned(),
                |theirs| format!("{:.0}", median(&theirs.allocations))
            ),
        );
        writeln!(table, "{row}").expect("a string takes everything");
    }
    added(&rust, &go, &mut table);
    table
}

/// What auditing adds to a request: a level's figure less the bare chain's.
fn added(rust: &Table, go: &Table, table: &mut String) {
    for (level, row) in ADDED {
        let adds = |figures: &Table| {
            let with = figures.get(level)?;
            Some(median(&with.nanos) - median(&figures.get("Chain/bare")?.nanos))
        };
        let (ours, theirs) = (adds(rust), adds(go));
        let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"));
        let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs);
        writeln!(
            table,
            "| {row} | {} | {} | {} | {} | | |",
            cell(ours),
            cell(theirs),
            ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}")),
            ours.map_or_else(String::new, |ours| goal(row, ours, ratio)),
        )
        .expect("a string takes everything");
    }
}

fn rust_lines(text: &str) -> Table {
    let mut table = Table::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let [name, nanos, allocations] = words.as_slice() {
            let figures = table.entry((*name).to_owned()).or_default();
            figures.nanos.extend(nanos.parse::<f64>());
            figures.allocations.extend(allocations.parse::<f64>());
        }
    }
    table
}

fn go_lines(text: &str) -> Table {
    let mut table = Table::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("Benchmark")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let before = |unit: &str| {
            let at = words.iter().position(|word| *word == unit)?;
            words.get(at.checked_sub(1)?)?.parse::<f64>().ok()
        };
        let Some((name, _processors)) = words.first().and_then(|name| name.rsplit_once('-')) else {
            continue;
        };
        let figures = table.entry(name.to_owned()).or_default();
        figures.nanos.extend(before("ns/op"));
        figures.allocations.extend(before("allocs/op"));
    }
    table
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Half the range of the rounds, in percent of the median.
fn spread(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::MIN, f64::max);
    let smallest = values.iter().copied().fold(f64::MAX, f64::min);
    (largest - smallest) / 2.0 / median(values) * 100.0
}
