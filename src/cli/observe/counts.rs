//! The pairs of the last hour as a table that a person reads.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::text::duration;
use crate::cli::table;
use crate::observe::{End, PairLine, Summary};

const COLUMNS: [&str; 12] = [
    "side",
    "source",
    "destination",
    "port",
    "what",
    "route",
    "verdict",
    "policy",
    "count",
    "unsuccessful",
    "p50",
    "p99",
];

pub(super) fn table(json: &str) -> anyhow::Result<String> {
    let summary: Summary = serde_json::from_str(json)?;
    let mut text = String::new();
    let mut pairs = summary.pairs;
    pairs.sort_by_key(|pair| std::cmp::Reverse(pair.count));
    write!(text, "{} pairs within the last hour on {}", pairs.len(), summary.node)?;
    match summary.evicted {
        0 => writeln!(text)?,
        evicted => writeln!(text, "; {evicted} were forgotten too early (setting observe.pairs)")?,
    }
    let rows: Vec<Value> = pairs.iter().map(row).collect();
    table::rows(&mut text, "PAIRS", &COLUMNS, &Value::Array(rows))?;
    Ok(text)
}

fn row(pair: &PairLine) -> Value {
    let time = |percent: f64| {
        let found = pair.latency.percentile(percent);
        found.map_or("-".to_owned(), |it: Duration| duration(it.as_secs_f64() * 1e3))
    };
    let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "side": &*pair.reporter,
        "source": end(&pair.source, ""),
        "destination": end(&pair.destination, &pair.service.host),
        "port": pair.port.to_string(),
        "what": if pair.method.is_empty() { "tcp" } else { &*pair.method },
        "route": known(&pair.route),
        "verdict": pair.verdict.as_str(),
        "policy": pair.policy,
        "count": pair.count.to_string(),
        "unsuccessful": pair.unsuccessful.to_string(),
        "p50": time(50.0),
        "p99": time(99.0),
    })
}

/// A workload; the service where none is known; `-` for what is outside of the mesh.
fn end(end: &End, host: &str) -> String {
    match (&*end.workload, host) {
        ("", "") => "-".to_owned(),
        ("", host) => host.to_owned(),
        (workload, _) => format!("{}/{workload}", end.namespace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Service;
    use crate::telemetry::Verdict;

    #[test]
    fn a_person_can_read_it() {
        let end = |namespace: &str, workload: &str| End {
            namespace: namespace.into(),
            workload: workload.into(),
            ..End::default()
        };
        let often = PairLine {
            reporter: "source".into(),
            source: end("shop", "web"),
            destination: end("bank", "ledger"),
            port: 80,
            method: "GET".into(),
            count: 40,
            ..PairLine::default()
        };
        let service = Service { host: "ledger.bank".into(), ..Service::default() };
        let seldom = PairLine {
            destination: End::default(),
            service,
            verdict: Verdict::Denied,
            policy: Some("bank/none".into()),
            count: 2,
            ..often.clone()
        };
        let summary = Summary {
            node: "node-a".into(),
            time: String::new(),
            evicted: 3,
            pairs: vec![seldom, often],
            open: Vec::new(),
        };
        let text = table(&serde_json::to_string(&summary).unwrap()).unwrap();
        assert!(
            text.starts_with("2 pairs within the last hour on node-a; 3 were forgotten"),
            "{text}"
        );
        let rows: Vec<Vec<&str>> =
            text.lines().skip(4).map(|it| it.split_whitespace().collect()).collect();
        assert_eq!(rows[0][..5], ["source", "shop/web", "bank/ledger", "80", "GET"], "{text}");
        assert_eq!(rows[1][2..8], ["ledger.bank", "80", "GET", "-", "denied", "bank/none"]);
    }
}
