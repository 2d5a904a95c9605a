//! What the mesh shall reach, as ratios to what it replaces and to plain proxies. A ratio is that of one round, whose sides were
//! measured seconds apart; what counts is the median of the rounds' ratios.

use super::case::{Case, Side};
use super::figures::Figures;

/// In bytes, of an agent for an idle connection.
const IDLE: f64 = 8192.0;

/// How a target compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    AtLeast,
    AtMost,
    /// Only told.
    None,
}

/// One target.
#[derive(Clone, Debug)]
pub struct Target {
    pub what: String,
    /// To what the ratio is.
    pub of: &'static str,
    /// Of each round; empty if one side was not measured.
    pub ratios: Vec<f64>,
    pub bound: Bound,
    pub wanted: f64,
}

/// All targets, in the order of the page.
pub fn all(figures: &Figures) -> Vec<Target> {
    let mut rows = Vec::new();
    for (case, path, envoy) in [
        ("h1-1", 3.0, 1.3),
        ("h1-32", 3.0, 1.3),
        ("h1-128", 3.0, 1.3),
        ("h1-64k", 3.0, 1.3),
        ("h2", 2.0, 1.0),
        ("h2-post", 2.0, 1.0),
    ] {
        rows.push(per_cpu(figures, case, Side::Path, path));
        rows.push(per_cpu(figures, case, Side::Envoy, envoy));
    }
    for case in ["rate-1k", "rate-10k"] {
        rows.extend(["p50", "p99"].map(|metric| added(figures, case, metric)));
    }
    rows.push(rate(figures, "l4-throughput-1", Side::Path, 1.3));
    rows.push(rate(figures, "l4-throughput-16", Side::Path, 1.3));
    rows.push(per_cpu(figures, "l4-requests", Side::Path, 1.5));
    rows.push(rate(figures, "l4-connections", Side::Path, 1.5));
    for case in ["node-throughput-1", "node-throughput-16"] {
        rows.push(rate(figures, case, Side::Path, 3.0));
        rows.push(rate(figures, case, Side::Direct, 0.7));
    }
    rows.extend(alone(figures));
    rows
}

/// Work for each processor second of all proxies.
fn per_cpu(figures: &Figures, case: &str, other: Side, wanted: f64) -> Target {
    let of = |side: Side| figures.samples(case, side.name(), "cpu");
    Target {
        what: format!("{}: work per processor second", title(case)),
        of: other.title(),
        ratios: ratios(of(other), of(Side::Isthmus)),
        bound: Bound::AtLeast,
        wanted,
    }
}

fn rate(figures: &Figures, case: &str, other: Side, wanted: f64) -> Target {
    let of = |side: Side| figures.samples(case, side.name(), "rate");
    let unit = Case::named(case).map_or("", Case::unit);
    Target {
        what: format!("{}: {unit}", title(case)),
        of: other.title(),
        ratios: ratios(of(Side::Isthmus), of(other)),
        bound: Bound::AtLeast,
        wanted,
    }
}

/// The latency that is added to that of no proxy.
fn added(figures: &Figures, case: &str, metric: &str) -> Target {
    let of = |side: Side| figures.samples(case, side.name(), metric);
    let more = |side: Side| -> Vec<f64> {
        of(side).iter().zip(of(Side::Direct)).map(|(with, without)| with - without).collect()
    };
    Target {
        what: format!("{}: added {metric}", title(case)),
        of: Side::Path.title(),
        ratios: ratios(&more(Side::Isthmus), &more(Side::Path)),
        bound: Bound::AtMost,
        wanted: 0.5,
    }
}

/// Of cases of Isthmus alone.
fn alone(figures: &Figures) -> Vec<Target> {
    let of = |case: &str, side: &str, metric: &str| figures.samples(case, side, metric).to_vec();
    let row = |what: &str, of: &'static str, ratios: Vec<f64>, bound: Bound, wanted: f64| Target {
        what: what.to_owned(),
        of,
        ratios,
        bound,
        wanted,
    };
    let many = |what: &str, case: &str, wanted: f64| {
        let cost = ratios(&of(case, "many", "cpu"), &of(case, "one", "cpu"));
        row(what, "one", cost, Bound::AtMost, wanted)
    };
    let idle = |what: &str, side: &str, metric: &str| {
        let bytes = of("idle", side, metric).into_iter().map(|bytes| bytes / IDLE).collect();
        row(what, "8 KiB", bytes, Bound::AtMost, 1.0)
    };
    let disturbed = |name: &str| {
        let p99 = |how: &str| of("saturated", &format!("{name}, {how}"), "p99");
        ratios(&p99("disturbed"), &p99("undisturbed"))
    };
    let cores = |what: &str, case: &str| {
        let rate = |count: &str| of("cores", &format!("{case}, {count}"), "rate");
        row(what, "one processor", ratios(&rate("two"), &rate("one")), Bound::AtLeast, 1.8)
    };
    let saturated = "layer 4 p99 while another namespace's worker is saturated";
    vec![
        many("1,000 HTTPRoutes: processor time of a request", "many-routes", 1.2),
        many("1,000 policies: processor time of a request", "many-policies", 1.1),
        many("1,000 Services: processor time of a request", "many-services", 1.0),
        idle("idle connection, layer 4, client's agent", "layer 4", "client's agent"),
        idle("idle connection, layer 4, server's agent", "layer 4", "server's agent"),
        idle("idle connection, HTTP, client's agent", "HTTP", "client's agent"),
        idle("idle connection, HTTP, server's agent", "HTTP", "server's agent"),
        row(saturated, "undisturbed", disturbed("mesh"), Bound::AtMost, 1.2),
        row("the same past the mesh", "undisturbed", disturbed("past the mesh"), Bound::None, 0.0),
        cores("layer 7, two processors: requests/s", "h1-32"),
        cores("layer 4, two processors: requests/s", "l4-requests"),
    ]
}

fn title(case: &str) -> String {
    Case::named(case).map_or_else(|| case.to_owned(), Case::whole_title)
}

/// Of each round.
fn ratios(of: &[f64], to: &[f64]) -> Vec<f64> {
    let pairs = of.iter().zip(to).filter(|(_, to)| **to != 0.0);
    pairs.map(|(of, to)| of / to).collect()
}

impl Target {
    /// Whether the median reaches it, to two digits after the point; `None` without one, or unless both sides were measured.
    pub fn is_met(&self) -> Option<bool> {
        let median = super::figures::median(&self.ratios)?;
        match self.bound {
            Bound::AtLeast => Some(median > self.wanted - 0.005),
            Bound::AtMost => Some(median < self.wanted + 0.005),
            Bound::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(samples: &[(&str, &str, &str, &[f64])]) -> Figures {
        let mut figures = Figures::default();
        for (case, side, metric, samples) in samples {
            let case = figures.cases.entry((*case).to_owned()).or_default();
            samples.iter().for_each(|it| case.add(side, [((*metric).to_owned(), *it)]));
        }
        figures
    }

    fn met(figures: &Figures, what: &str, of: &str) -> Option<bool> {
        let rows = all(figures);
        let row = rows.iter().find(|row| row.what.starts_with(what) && row.of == of);
        row.expect("a row").is_met()
    }

    #[test]
    fn processor_time_is_compared_round_by_round() {
        let path: &[f64] = &[30.0, 60.0, 90.0];
        let figures = figures(&[
            ("h1-1", "path", "cpu", path),
            ("h1-1", "envoy", "cpu", &[10.0, 20.0, 30.0]),
            ("h1-1", "isthmus", "cpu", &[10.0, 20.0, 30.0]),
        ]);
        assert_eq!(met(&figures, "HTTP/1.1, 1 connection", "replaced path"), Some(true));
        assert_eq!(met(&figures, "HTTP/1.1, 1 connection", "Envoy, plain"), Some(false));
        assert_eq!(met(&figures, "HTTP/1.1, 32", "replaced path"), None);
    }

    #[test]
    fn latency_counts_beyond_that_of_no_proxy() {
        let of = |isthmus: f64| {
            figures(&[
                ("rate-1k", "direct", "p50", &[100.0]),
                ("rate-1k", "path", "p50", &[500.0]),
                ("rate-1k", "isthmus", "p50", &[isthmus]),
            ])
        };
        let what = "1,000 requests/s: added p50";
        assert_eq!(met(&of(300.0), what, "replaced path"), Some(true));
        assert_eq!(met(&of(310.0), what, "replaced path"), Some(false));
    }
}
