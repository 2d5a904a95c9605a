//! Rates of edges and services, from two summaries of an agent.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use crate::observe::{End, Latency, Line, PairLine, Service, Summary};
use crate::telemetry::Verdict;

/// How many flows of a service, or of all, are looked through for those of an edge.
const LAST: &str = "1000";

/// Who calls, what is called, and how it went within the last interval.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Edge {
    /// `namespace/workload`, or `outside`.
    pub(super) source: String,
    /// The service, or the workload where none was called.
    pub(super) service: String,
    called: Called,
    pub(super) figures: Figures,
}

/// What can be asked for.
#[derive(Clone, Debug, Default, PartialEq)]
struct Called {
    service: Service,
    destination: End,
}

/// What came within an interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// Requests, and connections that ended, a second.
    pub(super) rate: f64,
    pub(super) denied_rate: f64,
    /// Bytes of both directions a second.
    pub(super) byte_rate: f64,
    /// Of all that came, those that were answered well, in percent.
    pub(super) success: Option<f64>,
    pub(super) latency: Latency,
    /// Connections that are open now.
    pub(super) open: u64,
    count: u64,
    unsuccessful: u64,
}

/// The edges, in order; with nothing but what is open, where there is no summary from before.
pub(super) fn edges(before: Option<(&Summary, f64)>, now: &Summary) -> Vec<Edge> {
    let old: HashMap<_, _> = before
        .iter()
        .flat_map(|(summary, _)| &summary.pairs)
        .map(|pair| (identity(pair), pair))
        .collect();
    let seconds = before.map_or(f64::INFINITY, |(_, seconds)| seconds.max(0.001));
    let mut edges = BTreeMap::<(String, String), [Option<Edge>; 2]>::new();
    for pair in &now.pairs {
        let figures = match before {
            Some(_) => Figures::of(pair, old.get(&identity(pair)).copied(), seconds),
            None => Figures::default(),
        };
        put(&mut edges, (&pair.source, &pair.destination, &pair.service), &pair.reporter, &figures);
    }
    for open in &now.open {
        let figures = Figures { open: open.count, ..Figures::default() };
        put(&mut edges, (&open.source, &open.destination, &open.service), &open.reporter, &figures);
    }
    // Where both halves are of this node, each tells of the same; the client's knows the service.
    edges.into_values().filter_map(|[source, destination]| source.or(destination)).collect()
}

/// The services, each with all that its clients do.
pub(super) fn services(edges: &[Edge]) -> Vec<Edge> {
    let mut services = BTreeMap::<&str, Edge>::new();
    for edge in edges {
        match services.get_mut(&*edge.service) {
            Some(service) => service.figures.add(&edge.figures),
            None => {
                services.insert(&edge.service, Edge { source: String::new(), ..edge.clone() });
            }
        }
    }
    services.into_values().collect()
}

/// All edges as JSON, in one line.
pub(super) fn json(node: &str, time: &str, edges: &[Edge]) -> String {
    let row = |edge: &Edge| -> Value {
        let figures = &edge.figures;
        json!({
            "source": edge.source,
            "service": edge.service,
            "requestsPerSecond": figures.rate,
            "successPercent": figures.success,
            "p50Ms": figures.percentile(50.0),
            "p99Ms": figures.percentile(99.0),
            "bytesPerSecond": figures.byte_rate,
            "open": figures.open,
            "deniedPerSecond": figures.denied_rate,
        })
    };
    let edges: Vec<Value> = edges.iter().map(row).collect();
    json!({"node": node, "time": time, "edges": edges}).to_string()
}

impl Figures {
    fn of(pair: &PairLine, before: Option<&PairLine>, seconds: f64) -> Self {
        // A pair that was forgotten meanwhile has begun anew.
        let before = before.filter(|before| before.total <= pair.total);
        let more = |now: u64, old: fn(&PairLine) -> u64| now.saturating_sub(before.map_or(0, old));
        let count = more(pair.total, |it| it.total);
        let bytes = more(pair.bytes_sent, |it| it.bytes_sent)
            + more(pair.bytes_received, |it| it.bytes_received);
        let denied = if pair.verdict == Verdict::Denied { count } else { 0 };
        let mut figures = Self {
            rate: count as f64 / seconds,
            denied_rate: denied as f64 / seconds,
            byte_rate: bytes as f64 / seconds,
            latency: match before {
                Some(before) => pair.latency.since(&before.latency),
                None => pair.latency.clone(),
            },
            count,
            unsuccessful: more(pair.unsuccessful, |it| it.unsuccessful),
            ..Self::default()
        };
        figures.judge();
        figures
    }

    fn add(&mut self, other: &Self) {
        self.rate += other.rate;
        self.denied_rate += other.denied_rate;
        self.byte_rate += other.byte_rate;
        self.latency.add(&other.latency);
        self.open += other.open;
        self.count += other.count;
        self.unsuccessful += other.unsuccessful;
        self.judge();
    }

    fn judge(&mut self) {
        let well = self.count.saturating_sub(self.unsuccessful);
        self.success = (self.count > 0).then(|| 100.0 * well as f64 / self.count as f64);
    }

    /// In milliseconds.
    pub(super) fn percentile(&self, percent: f64) -> Option<f64> {
        self.latency.percentile(percent).map(|time| time.as_secs_f64() * 1e3)
    }
}

impl Edge {
    /// The query for flows of it; those of other clients are among them.
    pub(super) fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("last", LAST);
        let (service, destination) = (&self.called.service, &self.called.destination);
        if !service.name.is_empty() {
            query.append_pair("service", &format!("{}/{}", service.namespace, service.name));
        } else if !destination.workload.is_empty() {
            let workload = format!("{}/{}", destination.namespace, destination.workload);
            query.append_pair("workload", &workload);
        }
        format!("/flows?{}", query.finish())
    }

    /// Whether a flow is one of it.
    pub(super) fn is_of(&self, line: &Line) -> bool {
        self.source == workload(&line.source)
            && self.service == called(&line.service, &line.destination)
    }
}

type Edges = BTreeMap<(String, String), [Option<Edge>; 2]>;

fn put(
    edges: &mut Edges,
    (source, destination, service): (&End, &End, &Service),
    reporter: &str,
    figures: &Figures,
) {
    let (source, name) = (workload(source), called(service, destination));
    let halves = edges.entry((source.clone(), name.clone())).or_default();
    let [client, server] = halves;
    let half = if reporter == "source" { client } else { server };
    match half {
        Some(edge) => edge.figures.add(figures),
        None => {
            let called = Called { service: service.clone(), destination: destination.clone() };
            *half = Some(Edge { source, service: name, called, figures: figures.clone() });
        }
    }
}

/// What makes a pair the same in two summaries.
fn identity(pair: &PairLine) -> impl Eq + std::hash::Hash + '_ {
    let (source, destination, service) = (&pair.source, &pair.destination, &pair.service);
    (
        (&*pair.reporter, &*source.namespace, &*source.workload, &*source.identity),
        (&*destination.namespace, &*destination.workload, &*service.namespace, &*service.name),
        (&*service.host, pair.port, &*pair.method, &*pair.route),
        (pair.verdict, pair.policy.as_deref(), &*pair.flags),
    )
}

fn workload(end: &End) -> String {
    match &*end.workload {
        "" => "outside".to_owned(),
        workload => format!("{}/{workload}", end.namespace),
    }
}

fn called(service: &Service, destination: &End) -> String {
    match (&*service.name, &*service.host) {
        ("", "") => workload(destination),
        ("", host) => host.to_owned(),
        (name, _) => format!("{}/{name}", service.namespace),
    }
}

#[cfg(test)]
mod tests {
    use super::super::screen::tests::{pair, summary};
    use super::*;

    #[test]
    fn rates_are_of_what_came_between() {
        let before = summary(vec![pair("web", "ledger", 100, 10)]);
        let mut denied = pair("web", "ledger", 4, 4);
        denied.verdict = Verdict::Denied;
        let now = summary(vec![pair("web", "ledger", 140, 14), denied]);
        let edges = edges(Some((&before, 2.0)), &now);
        assert_eq!(edges.len(), 1);
        let figures = &edges[0].figures;
        assert_eq!((figures.rate, figures.denied_rate), (22.0, 2.0));
        assert_eq!(figures.success.map(f64::round), Some(82.0), "36 of 44");
        assert_eq!((&*edges[0].source, &*edges[0].service), ("shop/web", "bank/ledger"));
        assert_eq!(edges[0].query(), "/flows?last=1000&service=bank%2Fledger");
    }

    #[test]
    fn two_halves_of_one_node_count_once() {
        let mut other = pair("web", "ledger", 50, 0);
        other.reporter = "destination".into();
        let before = summary(Vec::new());
        let now = summary(vec![other.clone(), pair("web", "ledger", 10, 0)]);
        let found = edges(Some((&before, 1.0)), &now);
        assert_eq!((found.len(), found[0].figures.rate), (1, 10.0), "the client's");
        let now = summary(vec![other]);
        assert_eq!(
            edges(Some((&before, 1.0)), &now)[0].figures.rate,
            50.0,
            "the server's, if alone"
        );
    }

    #[test]
    fn a_service_is_the_sum_of_its_edges_and_the_first_look_has_no_rates() {
        let before = summary(Vec::new());
        let now = summary(vec![pair("web", "ledger", 10, 0), pair("cart", "ledger", 30, 10)]);
        let all = edges(Some((&before, 1.0)), &now);
        let services = services(&all);
        assert_eq!((all.len(), services.len(), services[0].figures.rate), (2, 1, 40.0));
        assert_eq!(services[0].figures.success, Some(75.0));
        let first = edges(None, &now);
        assert!(
            first.iter().all(|edge| edge.figures.rate == 0.0 && edge.figures.success.is_none())
        );
        let line: serde_json::Value = serde_json::from_str(&json("node-a", "t", &all)).unwrap();
        assert_eq!(line["edges"][1]["requestsPerSecond"], 10.0, "{line:#}");
    }
}
