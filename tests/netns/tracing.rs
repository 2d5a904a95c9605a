//! Traces as a collector gets them: one request of Bookinfo over two nodes is one trace, with the right parents.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message;
use tokio::time::Instant;

use crate::support::lab::curl::curl;
use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, wait};
use crate::{WAYPOINT, bookinfo, enrol, settle};

const PAGE: &str = "http://productpage.bookinfo:9080/productpage";
const DETAILS: &str = "http://details.bookinfo:9080/details/0";

/// A span, and the attributes of its resource.
#[derive(Clone)]
struct Seen {
    service: String,
    span: Span,
}

/// A collector that receives OTLP over HTTP in a node's network namespace.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Seen>>>);

impl Collector {
    fn start(lab: &Lab) -> Result<(Self, SocketAddr)> {
        let node = lab.network().nodes().first().context("no node")?;
        let address = SocketAddr::new(node.addresses[0], 0);
        let listener = node.namespace.run(|| TcpListener::bind(address))??;
        let address = listener.local_addr()?;
        let collector = Self::default();
        let seen = collector.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = seen.clone();
                std::thread::spawn(move || seen.receive(stream));
            }
        });
        Ok((collector, address))
    }

    fn receive(&self, mut stream: TcpStream) -> Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let request = ExportTraceServiceRequest::decode(&*body)?;
        let mut all = self.0.lock();
        for resource in request.resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let service = text(&attributes, "service.name");
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                all.push(Seen { service: service.clone(), span });
            }
        }
        drop(all);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(())
    }

    /// The spans of one trace, once all services have sent some; `None` when they do not within a few seconds, because the waypoint
    /// does not serve all of them yet.
    fn complete(&self, id: u128) -> Result<Option<Vec<Seen>>> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(4) {
            let all = self.0.lock().clone();
            let spans = all.into_iter().filter(|seen| seen.span.trace_id == id.to_be_bytes());
            let spans: Vec<Seen> = spans.collect();
            let kinds: BTreeSet<(&str, i32)> =
                spans.iter().map(|seen| (seen.service.as_str(), seen.span.kind)).collect();
            if COMPLETE.iter().all(|wanted| kinds.contains(wanted)) {
                return Ok(Some(spans));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(None)
    }

    fn traces(&self) -> BTreeSet<u128> {
        let all = self.0.lock();
        all.iter()
            .filter_map(|seen| {
                Some(u128::from_be_bytes(seen.span.trace_id.as_slice().try_into().ok()?))
            })
            .collect()
    }

    fn of(&self, service: &str) -> Vec<Seen> {
        let all = self.0.lock();
        all.iter().filter(|seen| seen.service == service).cloned().collect()
    }
}

fn text(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|it| it.key == name);
    match found.and_then(|it| it.value.clone()).and_then(|it| it.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// Bookinfo with agents that trace, after `prepare` changed its manifests.
fn traced(more: &str, prepare: impl FnOnce(&mut Lab) -> Result<()>) -> Result<(Lab, Collector)> {
    let mut lab = bookinfo()?;
    prepare(&mut lab)?;
    let (collector, address) = Collector::start(&lab)?;
    let collects = format!("collector = \"{address}\"\nprotocol = \"http\"");
    lab.start_agents(&format!("[tracing]\n{collects}\n{more}"))?;
    enrol(&mut lab)?;
    Ok((lab, collector))
}

/// From the start, so that no connection is older than the waypoint.
fn add_waypoint(lab: &mut Lab) -> Result<()> {
    lab.manifests.apply(WAYPOINT)?;
    let label = ["istio.io/use-waypoint=waypoint"];
    lab.manifests.label(&Key::new("Namespace", "", "bookinfo"), &label)
}

/// Services, and the kinds of their spans (2 is SERVER, 3 is CLIENT), in the trace of a page.
const COMPLETE: [(&str, i32); 5] = [
    ("curl.default", 3),
    ("productpage.bookinfo", 2),
    ("productpage.bookinfo", 3),
    ("details.bookinfo", 2),
    ("reviews.bookinfo", 2),
];

/// Checks a span and its parent, and tells its side and service.
fn check(seen: &Seen, by_id: &HashMap<&[u8], &Seen>) -> Result<String> {
    let Seen { service, span } = seen;
    let application = service.split('.').next().unwrap_or_default();
    let attribute = |name: &str| text(&span.attributes, name);
    ensure!(span.trace_state == "a=1" || service != "curl.default", "{span:?}");
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("server.port", "9080"),
        ("response_flags", "-"),
        ("istio.canonical_service", application),
    ] {
        ensure!(attribute(name) == value, "{service}: {name}: {span:?}");
    }
    ensure!(attribute("url.path").starts_with('/'), "{span:?}");
    ensure!(attribute("guid:x-request-id").len() == 36, "{span:?}");
    match (span.kind, by_id.get(span.parent_span_id.as_slice())) {
        // SERVER: its parent is the client half's span of the same call.
        (2, Some(parent)) => {
            let caller = &parent.span;
            ensure!(
                caller.kind == 3 && caller.name.starts_with(application),
                "{caller:?}: {span:?}"
            );
            Ok(format!("server {service}"))
        }
        // CLIENT: its parent is the server span of the application that sent it.
        (3, Some(parent)) => {
            ensure!(parent.span.kind == 2 && parent.service == *service, "{span:?}");
            Ok(format!("client {service}"))
        }
        // The first one: its parent is what curl said.
        (3, None) => {
            let told = span.parent_span_id == 0xb7ad_6b71_6920_3331_u64.to_be_bytes();
            ensure!(service == "curl.default" && told, "{span:?}");
            ensure!(span.name == "productpage.bookinfo.svc.cluster.local:9080/*", "{span:?}");
            let cluster = "outbound|9080||productpage.bookinfo.svc.cluster.local";
            ensure!(attribute("upstream_cluster") == cluster, "{span:?}");
            Ok(format!("client {service}"))
        }
        _ => bail!("a span without a parent: {service}: {span:?}"),
    }
}

#[test]
fn one_request_of_bookinfo_is_one_trace_with_the_right_parents() -> Result<()> {
    let (lab, collector) = traced("per_mille = 0", add_waypoint)?;
    // The client samples them, whatever the rate is.
    let mut traces = 1_u128..;
    let spans = wait::until("a trace of the page, its details and reviews", || {
        let id = traces.next().context("an id")?;
        let parent = format!("traceparent: 00-{id:032x}-b7ad6b7169203331-01");
        settle(&lab, "curl", &["-H", &parent, "-H", "tracestate: a=1", PAGE], 200)?;
        collector.complete(id)
    })?;
    let by_id: HashMap<&[u8], &Seen> =
        spans.iter().map(|seen| (seen.span.span_id.as_slice(), seen)).collect();
    let kinds = spans.iter().map(|seen| check(seen, &by_id)).collect::<Result<BTreeSet<_>>>()?;
    ensure!(kinds.len() >= COMPLETE.len(), "{kinds:?}");
    let sampled = 1..traces.next().context("an id")?;
    ensure!(collector.traces().iter().all(|id| sampled.contains(id)), "more was sampled");
    // Metrics of what was exported.
    let metrics = lab.metrics()?;
    ensure!(metrics.sum("isthmus_spans_exported_total", &[]) >= spans.len() as f64);
    ensure!(metrics.sum("isthmus_spans_dropped_total", &[]) == 0.0);
    // A scraper that knows exemplars gets traces with the durations.
    let mut scraped = String::new();
    for node in lab.network().nodes() {
        let accept = ["--header", "accept: application/openmetrics-text; version=1.0.0"];
        let url = "http://127.0.0.1:15020/metrics";
        scraped += &curl(&node.namespace, &[&accept[..], &[url]].concat())?.body;
    }
    let exemplar = |id: u128| format!("# {{trace_id=\"{id:032x}\"}}");
    ensure!(sampled.into_iter().any(|id| scraped.contains(&exemplar(id))), "{scraped}");
    Ok(())
}

#[test]
fn connections_without_a_waypoint_have_a_span_each() -> Result<()> {
    let (lab, collector) = traced("per_mille = 1000", |_| Ok(()))?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let seen = wait::until("the span of a connection", || {
        let seen = collector.of("curl.default");
        Ok(seen.into_iter().find(|seen| seen.span.name.starts_with("details.bookinfo")))
    })?;
    let attribute = |name: &str| text(&seen.span.attributes, name);
    ensure!(seen.span.name == "details.bookinfo.svc.cluster.local:9080", "{:?}", seen.span);
    ensure!(seen.span.kind == 3 && seen.span.parent_span_id.is_empty(), "{:?}", seen.span);
    ensure!(attribute("network.transport") == "tcp", "{:?}", seen.span);
    ensure!(attribute("response_size").parse::<u64>()? > 20, "{:?}", seen.span);
    Ok(())
}

/// A collector that accepts connections and never answers.
#[test]
fn a_collector_that_hangs_costs_requests_nothing() -> Result<()> {
    let mut lab = bookinfo()?;
    add_waypoint(&mut lab)?;
    let node = lab.network().nodes().first().context("no node")?;
    let address = SocketAddr::new(node.addresses[0], 0);
    let listener = node.namespace.run(|| TcpListener::bind(address))??;
    let address = listener.local_addr()?;
    lab.start_agents(&format!(
        "[tracing]\ncollector = \"{address}\"\nprotocol = \"http\"\nper_mille = 1000\n"
    ))?;
    enrol(&mut lab)?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let began = Instant::now();
    for _ in 0..20 {
        ensure!(lab.curl("curl", &[DETAILS])?.status == 200);
    }
    ensure!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    drop(listener);
    Ok(())
}
