//! What the agent's metrics say: the age of its source, losses and queues.

use std::time::{SystemTime, UNIX_EPOCH};

use super::ports::get;
use super::{Outcome, Report};
use crate::config::Settings;

/// A directory is read every 30 s, and a watch hears from its server once a minute.
const STALE: f64 = 90.0;
/// What the agent has not done for somebody.
const LOSSES: [&str; 9] = [
    "isthmus_panics_total",
    "isthmus_uncaptured_connections_dropped_total",
    "isthmus_limited_connections_total",
    "isthmus_worker_limited_total",
    "isthmus_accept_failures_total",
    "isthmus_log_lines_dropped_total",
    "isthmus_spans_dropped_total",
    "isthmus_access_records_dropped_total",
    "isthmus_metrics_folded_total",
];
/// The part of a worker's bytes at which it is full before long.
const FULL: f64 = 0.8;

pub(super) fn look(report: &mut Report, settings: &Settings, agent: bool) {
    let page = match agent {
        true => get(settings.metrics.address, "/metrics").map_err(|error| error.to_string()),
        false => Err("the agent does not answer".to_owned()),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let mut add = |id: &str, judged: Result<Outcome, &String>| {
        let silent = |why| Outcome::Unknown(format!("{}: {why}", settings.metrics.address));
        report.add(id, judged.unwrap_or_else(silent));
    };
    add("source", page.as_ref().map(|page| source(page, now)));
    add("drops", page.as_ref().map(|page| losses(page)));
    add("queues", page.as_ref().map(|page| queues(page)));
}

/// The samples of a metric: labels and value.
fn samples<'a>(page: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> + Clone {
    page.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        let is_it = labels.is_empty() || labels.starts_with('{');
        Some((labels, value.trim().parse().ok()?)).filter(|_| is_it)
    })
}

fn source(page: &str, now: f64) -> Outcome {
    let read = samples(page, "isthmus_source_last_read_timestamp_seconds").next();
    let Some((_, read)) = read.filter(|(_, read)| *read > 0.0) else {
        return Outcome::Failure("the source has not been read yet".to_owned());
    };
    let age = now - read;
    match age > STALE {
        true => Outcome::Failure(format!("last read {age:.0} s ago: the state may be stale")),
        false => Outcome::Pass(format!("read {:.0} s ago", age.max(0.0))),
    }
}

fn losses(page: &str) -> Outcome {
    let sums =
        LOSSES.iter().map(|name| (*name, samples(page, name).map(|(_, value)| value).sum::<f64>()));
    let lost: Vec<(&str, f64)> = sums.filter(|(_, sum)| *sum > 0.0).collect();
    let told: Vec<String> = lost.iter().map(|(name, sum)| format!("{name} {sum}")).collect();
    match &lost[..] {
        [] => Outcome::Pass("none".to_owned()),
        lost if lost.iter().any(|(name, _)| *name == LOSSES[0]) => {
            Outcome::Failure(told.join(", "))
        }
        _ => Outcome::Warning(told.join(", ")),
    }
}

fn queues(page: &str) -> Outcome {
    let limits = samples(page, "isthmus_worker_buffered_bytes_limit");
    let full: Vec<String> = samples(page, "isthmus_worker_buffered_bytes")
        .filter_map(|(labels, bytes)| {
            let (_, limit) = limits.clone().find(|(of, _)| *of == labels)?;
            (bytes > FULL * limit).then(|| format!("{labels}: {bytes} of {limit} bytes"))
        })
        .collect();
    let waiting: f64 = samples(page, "isthmus_worker_waiting_connections").map(|(_, it)| it).sum();
    if !full.is_empty() {
        return Outcome::Warning(full.join(", "));
    }
    match waiting > 0.0 {
        true => Outcome::Warning(format!("{waiting} connections wait for a worker")),
        false => Outcome::Pass("nothing waits".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
isthmus_source_last_read_timestamp_seconds 1000.5
isthmus_panics_total 0
isthmus_log_lines_dropped_total 0
isthmus_worker_buffered_bytes{namespace=\"shop\"} 10
isthmus_worker_buffered_bytes_limit{namespace=\"shop\"} 100
isthmus_worker_waiting_connections{namespace=\"shop\"} 0
";

    #[test]
    fn a_page_without_losses_passes_and_each_loss_is_named() {
        assert!(matches!(source(PAGE, 1030.0), Outcome::Pass(_)));
        assert!(matches!(source(PAGE, 1200.0), Outcome::Failure(_)));
        assert!(matches!(source("", 1200.0), Outcome::Failure(_)));
        assert!(matches!(losses(PAGE), Outcome::Pass(_)));
        let dropped = PAGE.replace("lines_dropped_total 0", "lines_dropped_total 7");
        assert_eq!(losses(&dropped), Outcome::Warning("isthmus_log_lines_dropped_total 7".into()));
        let panicked = PAGE.replace("panics_total 0", "panics_total 1");
        assert!(matches!(losses(&panicked), Outcome::Failure(_)));
        assert!(matches!(queues(PAGE), Outcome::Pass(_)));
        assert!(matches!(queues(&PAGE.replace("} 10\n", "} 90\n")), Outcome::Warning(_)));
        assert!(matches!(queues(&PAGE.replace("} 0\n", "} 3\n")), Outcome::Warning(_)));
    }
}
