//! The tables, in Markdown: for the terminal and for the page.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::case::{ALONE, CASES, Case, Layer, Side};
use super::figures::{Figures, Run, median, spread};
use super::targets::{self, Bound, Target};

/// A block of the page.
pub struct Block {
    pub name: &'static str,
    pub title: &'static str,
    pub text: String,
}

/// All blocks that have something to tell.
pub fn blocks(figures: &Figures) -> Vec<Block> {
    let seven = |case: &&Case| case.layer == Layer::Seven;
    let fast = |case: &&Case| case.layer == Layer::Seven && !case.is_latency();
    let four = |case: &&Case| case.layer == Layer::Four && !case.is_latency();
    let paced = |case: &&Case| case.is_latency();
    let block = |name, title, text| Block { name, title, text };
    vec![
        block("targets", "Targets", all_targets(figures)),
        block("requests", "Layer 7: requests/s", table(figures, fast, &["rate"])),
        block(
            "cpu",
            "Layer 7: processor seconds per 100,000 requests",
            table(figures, seven, &["cpu"]),
        ),
        block(
            "switches",
            "Layer 7: context switches of a request",
            table(figures, seven, &["switches"]),
        ),
        block(
            "calls",
            "System calls of a request, connection or MiB",
            table(figures, |_| true, &["calls"]),
        ),
        block(
            "latency",
            "Latency in microseconds: p50, p99",
            table(figures, paced, &["p50", "p99"]),
        ),
        block("layer4", "Layer 4", table(figures, four, &["rate"])),
        block("layer4-cpu", "Layer 4: processor seconds", table(figures, four, &["cpu"])),
        block("layer4-switches", "Layer 4: context switches", table(figures, four, &["switches"])),
        block("threads", "Processor seconds by thread", threads(figures)),
        block("alone", "Isthmus alone", alone(figures)),
        block("runs", "Runs", runs(figures)),
    ]
}

/// All of them with their titles.
pub fn all(figures: &Figures) -> String {
    let blocks = blocks(figures).into_iter().filter(|block| !block.text.is_empty());
    blocks.map(|block| format!("{}\n\n{}\n", block.title, block.text)).collect()
}

/// A row for each case that was measured, a column for each side.
fn table(figures: &Figures, wanted: impl Fn(&&Case) -> bool, metrics: &[&str]) -> String {
    let measured = |case: &Case, side: Side| {
        metrics.iter().any(|it| !figures.samples(case.name, side.name(), it).is_empty())
    };
    let cases = CASES.iter().filter(wanted);
    let cases: Vec<&Case> =
        cases.filter(|case| Side::ALL.iter().any(|side| measured(case, *side))).collect();
    let has_side = |side: &Side| cases.iter().any(|case| measured(case, *side));
    let sides: Vec<Side> = Side::ALL.into_iter().filter(has_side).collect();
    if cases.is_empty() {
        return String::new();
    }
    let titles: Vec<&str> = sides.iter().map(|side| side.title()).collect();
    let mut text = head(&[&["case"], &titles[..]].concat());
    for case in cases {
        let cells = sides.iter().map(|side| {
            let of = |metric: &&str| cell(figures.samples(case.name, side.name(), metric));
            metrics.iter().map(of).collect::<Vec<_>>().join(", ")
        });
        let cells: Vec<String> = cells.collect();
        let _ = writeln!(text, "| {} | {} |", row_title(case, metrics), cells.join(" | "));
    }
    text
}

/// With the unit where rows of one table differ in it.
fn row_title(case: &Case, metrics: &[&str]) -> String {
    if case.layer == Layer::Seven {
        return case.title.to_owned();
    }
    let place = case.place.title();
    let unit = match metrics {
        ["rate"] => case.unit(),
        ["cpu"] if case.work() == "GiB" => "per GiB",
        ["cpu"] => "per 100,000",
        _ => return format!("{place}: {}", case.title),
    };
    format!("{place}: {}; {unit}", case.title)
}

/// The median, and the spread of several rounds.
fn cell(samples: &[f64]) -> String {
    let Some(middle) = median(samples) else { return "–".to_owned() };
    match spread(samples) {
        Some((least, most)) if samples.len() > 1 => {
            format!("{} ({}–{})", number(middle), number(least), number(most))
        }
        _ => number(middle),
    }
}

/// With three digits, or all of those before the point.
pub fn number(figure: f64) -> String {
    let digits = match figure.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{figure:.digits$}");
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (at, digit) in whole.char_indices() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) && digit.is_ascii_digit() {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let grouped = grouped.replacen("-,", "-", 1);
    if rest.is_empty() { grouped } else { format!("{grouped}.{rest}") }
}

fn head(titles: &[&str]) -> String {
    format!("| {} |\n|{}\n", titles.join(" | "), " --- |".repeat(titles.len()))
}

fn all_targets(figures: &Figures) -> String {
    let rows: Vec<Target> =
        targets::all(figures).into_iter().filter(|row| !row.ratios.is_empty()).collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut text = head(&["what", "compared with", "ratio", "target", "met"]);
    for row in rows {
        let bound = match row.bound {
            Bound::AtLeast => format!("at least {}", row.wanted),
            Bound::AtMost => format!("at most {}", row.wanted),
            Bound::None => String::new(),
        };
        let met = row.is_met().map_or("", |met| if met { "yes" } else { "no" });
        let ratio = cell(&row.ratios);
        let _ = writeln!(text, "| {} | {} | {ratio} | {bound} | {met} |", row.what, row.of);
    }
    text
}

/// Where Isthmus and the replaced path spend their time.
fn threads(figures: &Figures) -> String {
    let mut text = String::new();
    for case in &CASES {
        for side in [Side::Path, Side::Isthmus] {
            let of_side = figures.cases.get(case.name).and_then(|it| it.sides.get(side.name()));
            let mut threads: Vec<(&str, f64)> = (of_side.into_iter().flatten())
                .filter_map(|(metric, samples)| {
                    Some((metric.strip_prefix("cpu of ")?, median(samples)?))
                })
                .collect();
            threads.sort_by(|one, other| other.1.total_cmp(&one.1));
            let list: Vec<String> =
                threads.iter().map(|(name, time)| format!("{name} {}", number(*time))).collect();
            if !list.is_empty() {
                let title = row_title(case, &["cpu"]);
                let _ = writeln!(text, "| {title} | {} | {} |", side.title(), list.join(", "));
            }
        }
    }
    if text.is_empty() { text } else { head(&["case", "side", "threads"]) + &text }
}

fn alone(figures: &Figures) -> String {
    let mut text = String::new();
    for (name, title) in ALONE {
        let Some(measured) = figures.cases.get(name) else { continue };
        for (side, metrics) in &measured.sides {
            let metrics = metrics.iter().filter(|(metric, _)| !metric.starts_with("cpu of "));
            let list: Vec<String> =
                metrics.map(|(metric, samples)| format!("{metric} {}", cell(samples))).collect();
            let _ = writeln!(text, "| {title} | {side} | {} |", list.join("; "));
        }
    }
    if text.is_empty() { text } else { head(&["case", "with", "figures"]) + &text }
}

/// When and on what; one line for each run.
fn runs(figures: &Figures) -> String {
    let runs: BTreeSet<&Run> = figures.cases.values().map(|case| &case.run).collect();
    let mut text = String::new();
    for run in &runs {
        let cases = figures.cases.iter().filter(|(_, case)| case.run == **run);
        let cases: Vec<&str> = cases.map(|(name, _)| name.as_str()).collect();
        let which = if runs.len() == 1 { "All cases".to_owned() } else { cases.join(", ") };
        let note = if run.note.is_empty() { String::new() } else { format!("; {}", run.note) };
        let _ = writeln!(
            text,
            "- {which}: {}, at {}, on {}; {} rounds of {} s{note}.",
            run.date, run.commit, run.machine, run.rounds, run.seconds
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_as_many_digits_as_mean_something() {
        for (figure, text) in [
            (0.0, "0.00"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1234.0, "1,234"),
            (1_234_567.0, "1,234,567"),
            (-1234.0, "-1,234"),
            (-123.0, "-123"),
        ] {
            assert_eq!(number(figure), text);
        }
    }

    #[test]
    fn tables_have_only_what_was_measured() {
        let mut figures = Figures::default();
        let case = figures.cases.entry("h1-32".to_owned()).or_default();
        for rate in [100.0, 300.0, 200.0] {
            case.add("isthmus", [("rate".to_owned(), rate)]);
        }
        let shown: Vec<&str> = blocks(&figures)
            .iter()
            .filter(|block| !block.text.is_empty())
            .map(|block| block.name)
            .collect();
        assert_eq!(shown, ["requests", "runs"]);
        let table = &blocks(&figures)[1].text;
        let expected =
            "| case | Isthmus |\n| --- | --- |\n| HTTP/1.1, 32 connections | 200 (100–300) |\n";
        assert_eq!(table, expected);
    }
}
