//! Traces as a collector gets them: one request of Bookinfo over two nodes is one trace, with the right parents.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

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
        let mut all = self.0.lock().unwrap();
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

    /// The spans of one trace.
    fn trace(&self, id: &[u8]) -> Vec<Seen> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|seen| seen.span.trace_id == id).cloned().collect()
    }

    fn of(&self, service: &str) -> Vec<Seen> {
        let all = self.0.lock().unwrap();
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

fn traced(more: &str) -> Result<(Lab, Collector)> {
    let mut lab = bookinfo()?;
    let (collector, address) = Collector::start(&lab)?;
    lab.start_agents(&format!(
        "[tracing]\ncollector = \"{address}\"\nprotocol = \"http\"\n{more}"
    ))?;
    enrol(&mut lab)?;
    Ok((lab, collector))
}

fn with_waypoint(lab: &mut Lab) -> Result<()> {
    lab.manifests.apply(WAYPOINT)?;
    let label = ["istio.io/use-waypoint=waypoint"];
    lab.manifests.label(&Key::new("Namespace", "", "bookinfo"), &label)?;
    settle(lab, "curl", &[DETAILS], 200)?;
    Ok(())
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn one_request_of_bookinfo_is_one_trace_with_the_right_parents() -> Result<()> {
    let (mut lab, collector) = traced("per_mille = 0")?;
    with_waypoint(&mut lab)?;
    // The client samples it, whatever the rate is.
    let parent = format!("traceparent: 00-{TRACE}-b7ad6b7169203331-01");
    let spans = wait::until("a trace of the page, its details, reviews and ratings", || {
        settle(&lab, "curl", &["-H", &parent, "-H", "tracestate: a=1", PAGE], 200)?;
        std::thread::sleep(Duration::from_secs(2));
        let spans = collector.trace(&bytes(TRACE));
        let servers: BTreeSet<&str> = spans.iter().map(|seen| seen.service.as_str()).collect();
        let wanted =
            ["curl.default", "productpage.bookinfo", "details.bookinfo", "reviews.bookinfo"];
        Ok(wanted.iter().all(|name| servers.contains(name)).then_some(spans))
    })?;
    let by_id: HashMap<&[u8], &Seen> =
        spans.iter().map(|seen| (seen.span.span_id.as_slice(), seen)).collect();
    let root = bytes("b7ad6b7169203331");
    let mut seen_kinds = BTreeSet::new();
    for seen in &spans {
        let Seen { service, span } = seen;
        let parent = by_id.get(span.parent_span_id.as_slice());
        ensure!(span.trace_state == "a=1" || service != "curl.default", "{span:?}");
        let attribute = |name: &str| text(&span.attributes, name);
        ensure!(attribute("http.request.method") == "GET", "{span:?}");
        ensure!(attribute("http.response.status_code") == "200", "{span:?}");
        ensure!(attribute("url.path").starts_with('/'), "{span:?}");
        ensure!(attribute("server.port") == "9080", "{span:?}");
        ensure!(attribute("response_flags") == "-", "{span:?}");
        ensure!(attribute("guid:x-request-id").len() == 36, "{span:?}");
        let named = attribute("istio.canonical_service");
        ensure!(service.split('.').next() == Some(&named), "{service}: {span:?}");
        match (span.kind, parent) {
            // SERVER: its parent is the client half's span of the same call.
            (2, Some(parent)) => {
                ensure!(parent.span.kind == 3, "{span:?}");
                ensure!(
                    parent.span.name.starts_with(service.split('.').next().unwrap()),
                    "{service} under {}",
                    parent.span.name
                );
                seen_kinds.insert(format!("server {service}"));
            }
            // CLIENT: its parent is the server span of the application that sent it, or curl's own.
            (3, Some(parent)) => {
                ensure!(parent.span.kind == 2 && parent.service == *service, "{span:?}");
                seen_kinds.insert(format!("client {service}"));
            }
            (3, None) => {
                ensure!(service == "curl.default" && span.parent_span_id == root, "{span:?}");
                ensure!(span.name == "productpage.bookinfo.svc.cluster.local:9080/*", "{span:?}");
                let cluster = "outbound|9080||productpage.bookinfo.svc.cluster.local";
                ensure!(attribute("upstream_cluster") == cluster, "{span:?}");
                seen_kinds.insert("client curl.default".to_owned());
            }
            _ => anyhow::bail!("a span without a parent: {service}: {span:?}"),
        }
    }
    for wanted in [
        "client curl.default",
        "server productpage.bookinfo",
        "client productpage.bookinfo",
        "server details.bookinfo",
        "server reviews.bookinfo",
    ] {
        ensure!(seen_kinds.contains(wanted), "{wanted} is not among {seen_kinds:?}");
    }
    // Nothing else was sampled.
    let all = collector.0.lock().unwrap();
    ensure!(all.iter().all(|seen| seen.span.trace_id == bytes(TRACE)), "more was sampled");
    drop(all);
    // Metrics of what was exported.
    let metrics = lab.metrics()?;
    ensure!(metrics.sum("isthmus_spans_exported_total", &[]) >= spans.len() as f64);
    ensure!(metrics.sum("isthmus_spans_dropped_total", &[]) == 0.0);
    Ok(())
}

#[test]
fn connections_without_a_waypoint_have_a_span_each() -> Result<()> {
    let (lab, collector) = traced("per_mille = 1000")?;
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
    let node = lab.network().nodes().first().context("no node")?;
    let address = SocketAddr::new(node.addresses[0], 0);
    let listener = node.namespace.run(|| TcpListener::bind(address))??;
    let address = listener.local_addr()?;
    lab.start_agents(&format!(
        "[tracing]\ncollector = \"{address}\"\nprotocol = \"http\"\nper_mille = 1000\n"
    ))?;
    enrol(&mut lab)?;
    with_waypoint(&mut lab)?;
    let began = Instant::now();
    for _ in 0..20 {
        ensure!(lab.curl("curl", &[DETAILS])?.status == 200);
    }
    ensure!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    drop(listener);
    Ok(())
}
