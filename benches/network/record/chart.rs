//! Charts as small SVGs: groups of horizontal bars, each group with a scale of its own.

use std::fmt::Write;

use super::case::{CASES, Case, Layer, Side};
use super::figures::Figures;
use super::tables::number;

/// In pixels.
const WIDTH: usize = 760;
const LABEL: usize = 150;
const VALUE: usize = 80;
const BAR: usize = 15;
const GAP: usize = 3;
const GROUP: usize = 34;
const MARGIN: usize = 16;
const HEAD: usize = 40;

/// A group of bars, whose longest takes the whole width.
struct Group {
    title: String,
    bars: Vec<(Side, f64)>,
}

/// A chart: what it is called in the page, what it shows, and the SVG, unless there is nothing to show.
pub struct Chart {
    pub name: &'static str,
    pub title: &'static str,
    pub text: Option<String>,
}

pub fn all(figures: &Figures) -> [Chart; 3] {
    let group = |case: &Case, metric: &str, title: String| {
        let bar = |side: Side| Some((side, figures.median(case.name, side.name(), metric)?));
        Group { title, bars: Side::ALL.into_iter().filter_map(bar).collect() }
    };
    let groups = |wanted: fn(&Case) -> bool, metric: &str| -> Vec<Group> {
        let cases = CASES.iter().filter(|case| wanted(case));
        cases.map(|case| group(case, metric, title(case, metric))).collect()
    };
    let seven = |case: &Case| case.layer == Layer::Seven && !case.is_latency();
    let paced = |case: &Case| case.layer == Layer::Seven && case.is_latency();
    let four = |case: &Case| case.layer == Layer::Four && !case.is_latency();
    let mut latency = groups(paced, "p50");
    latency.extend(groups(paced, "p99"));
    let chart = |name, title, groups| Chart { name, title, text: draw(title, groups) };
    [
        chart("cpu", "Processor seconds of all proxies per 100,000 requests", groups(seven, "cpu")),
        chart("latency", "Latency of requests in microseconds", latency),
        chart("layer4", "Layer 4", groups(four, "rate")),
    ]
}

fn title(case: &Case, metric: &str) -> String {
    match (case.layer, metric) {
        (Layer::Four, _) => format!("{}, {}: {}", case.place.title(), case.title, case.unit()),
        (_, "cpu") => case.title.to_owned(),
        _ => format!("{}, {metric}", case.title),
    }
}

fn draw(title: &str, groups: Vec<Group>) -> Option<String> {
    let groups: Vec<Group> = groups.into_iter().filter(|group| !group.bars.is_empty()).collect();
    let bars: usize = groups.iter().map(|group| group.bars.len()).sum();
    if bars == 0 {
        return None;
    }
    let height = 2 * MARGIN + HEAD + groups.len() * GROUP + bars * (BAR + GAP);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{MARGIN}\" y=\"{}\" font-size=\"15\" font-weight=\"bold\">{title}</text>\n\
         <text x=\"{MARGIN}\" y=\"{}\" fill=\"#666666\">Medians; each group has a scale of its own.</text>\n",
        MARGIN + 12,
        MARGIN + 30
    );
    let mut y = MARGIN + HEAD;
    for group in groups {
        y += GROUP;
        let _ = writeln!(
            text,
            "<text x=\"{MARGIN}\" y=\"{}\" font-weight=\"bold\">{}</text>",
            y - 6,
            group.title
        );
        let most = group.bars.iter().map(|(_, figure)| *figure).fold(f64::MIN_POSITIVE, f64::max);
        for (side, figure) in group.bars {
            bar(&mut text, y, side, figure, figure / most);
            y += BAR + GAP;
        }
    }
    text += "</svg>\n";
    Some(text)
}

fn bar(text: &mut String, y: usize, side: Side, figure: f64, part: f64) {
    let left = MARGIN + LABEL;
    let width = (WIDTH - left - VALUE - MARGIN) as f64 * part;
    let base = y + BAR - 3;
    let _ = writeln!(
        text,
        "<text x=\"{}\" y=\"{base}\" text-anchor=\"end\">{}</text>\
         <rect x=\"{left}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{}\"/>\
         <text x=\"{:.1}\" y=\"{base}\">{}</text>",
        left - 6,
        side.title(),
        colour(side),
        left as f64 + width + 6.0,
        number(figure)
    );
}

/// Grey for what is no mesh.
fn colour(side: Side) -> &'static str {
    match side {
        Side::Direct => "#d8d8d8",
        Side::Rustls => "#c8c8c8",
        Side::Haproxy | Side::Nginx | Side::Envoy => "#a8b4c0",
        Side::Path => "#c98b5a",
        Side::IsthmusBare => "#8fb4dc",
        Side::Isthmus => "#4a78a8",
    }
}
