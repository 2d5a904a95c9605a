//! Traces as a collector gets them: one request of Bookinfo over two nodes is one trace, with the right parents.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use tokio::time::Instant;

use crate::collector::{Collector, LogCollector, Logged, Seen, listen, mesh_config, text};
use crate::support::lab::curl::curl;
use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, wait};
use crate::{WAYPOINT, bookinfo, enrol, settle};

const PAGE: &str = "http://productpage.bookinfo:9080/productpage";
const HEADERS: &str = "http://reviews.bookinfo:9080/headers";
const DETAILS: &str = "http://details.bookinfo:9080/details/0";

/// The spans of one trace, once all services have sent some; `None` when they do not within a few seconds, because the waypoint
/// does not serve all of them yet.
fn complete(collector: &Collector, id: u128) -> Result<Option<Vec<Seen>>> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        let all = collector.all();
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

/// The ids of all traces.
fn trace_ids(collector: &Collector) -> BTreeSet<u128> {
    let id =
        |seen: &Seen| Some(u128::from_be_bytes(seen.span.trace_id.as_slice().try_into().ok()?));
    collector.all().iter().filter_map(id).collect()
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
        complete(&collector, id)
    })?;
    let by_id: HashMap<&[u8], &Seen> =
        spans.iter().map(|seen| (seen.span.span_id.as_slice(), seen)).collect();
    let kinds = spans.iter().map(|seen| check(seen, &by_id)).collect::<Result<BTreeSet<_>>>()?;
    ensure!(kinds.len() >= COMPLETE.len(), "{kinds:?}");
    let sampled = 1..traces.next().context("an id")?;
    ensure!(trace_ids(&collector).iter().all(|id| sampled.contains(id)), "more was sampled");
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
    let (listener, address) = listen(&lab)?;
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

const TELEMETRY: &str = "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: shop, namespace: bookinfo}
spec:
  tracing:
  - providers: [{name: shop}]
    customTags:
      tier: {literal: {value: gold}}
      user: {header: {name: end-user, defaultValue: nobody}}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: quiet, namespace: bookinfo}
spec:
  targetRefs: [{group: '', kind: Service, name: ratings}]
  tracing: [{disableSpanReporting: true}]
";

/// No setting: MeshConfig and Telemetry alone.
#[test]
fn telemetry_objects_say_whose_spans_go_where() -> Result<()> {
    let mut lab = bookinfo()?;
    add_waypoint(&mut lab)?;
    let ((mesh, at), (shop, shop_at)) = (Collector::start(&lab)?, Collector::start(&lab)?);
    lab.manifests.apply(&mesh_config(&[("mesh", at), ("shop", shop_at)]))?;
    lab.manifests.apply(TELEMETRY)?;
    lab.start_agents("")?;
    enrol(&mut lab)?;
    let tagged = wait::until("spans with tags, and those of the client", || {
        settle(&lab, "curl", &["-H", "end-user: jason", PAGE], 200)?;
        let spans = shop.of("productpage.bookinfo");
        let is_tagged =
            |seen: &&Seen| seen.span.kind == 2 && text(&seen.span.attributes, "user") == "jason";
        let tagged = spans.iter().find(is_tagged).cloned();
        Ok(tagged.filter(|_| {
            !mesh.of("curl.default").is_empty() && !shop.of("reviews.bookinfo").is_empty()
        }))
    })?;
    ensure!(text(&tagged.span.attributes, "tier") == "gold", "{:?}", tagged.span);
    // Its parent is the client's span, which went to the mesh's collector, without the tags of another namespace.
    let parent = mesh
        .of("curl.default")
        .into_iter()
        .find(|seen| seen.span.span_id == tagged.span.parent_span_id);
    let parent = parent.context("the client's span of the same request")?;
    ensure!(parent.span.attributes.iter().all(|it| it.key != "tier"), "{:?}", parent.span);
    for (whose, collector, foreign) in [("mesh", &mesh, ".bookinfo"), ("shop", &shop, ".default")] {
        let wrong = collector.all().into_iter().find(|seen| seen.service.ends_with(foreign));
        ensure!(wrong.is_none(), "{whose}: {:?}", wrong.map(|seen| seen.service));
    }
    // The service whose spans are disabled has none; its client, in the same namespace, reports no call to it.
    ensure!(shop.of("ratings.bookinfo").is_empty());
    let to_ratings = shop.all().into_iter().find(|seen| seen.span.name.starts_with("ratings"));
    ensure!(to_ratings.is_none(), "{:?}", to_ratings.map(|seen| seen.span));
    Ok(())
}

/// A collector as a Service with this endpoint, and a policy of the waypoint that names it.
fn policy(address: SocketAddr) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: otel, namespace: bookinfo}}
spec: {{clusterIP: 10.96.55.1, ports: [{{name: otlp, port: 4318}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: otel-1, namespace: bookinfo, labels: {{kubernetes.io/service-name: otel}}}}
addressType: IPv4
ports: [{{name: otlp, port: {}, protocol: TCP}}]
endpoints: [{{addresses: ['{}'], conditions: {{ready: true}}}}]
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XTelemetryPolicy
metadata: {{name: traced, namespace: bookinfo}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}}]
  tracing:
    mode: Enabled
    provider: {{backendRef: {{name: otel, port: 4318}}}}
    samplingRate: {{numerator: 100}}
    parentBasedSampling: {{mode: Disabled}}
    serviceName: front
    spanName: one request
    attributes:
    - {{name: tier, sourceType: Literal, literalValue: gold}}
    - {{name: user, sourceType: Header, headerName: end-user}}
    - {{name: method, sourceType: Attribute, attributeKey: http.request.method}}
",
        address.port(),
        address.ip()
    )
}

#[test]
fn a_policy_of_the_waypoint_says_how_its_services_are_traced() -> Result<()> {
    let mut lab = bookinfo()?;
    add_waypoint(&mut lab)?;
    let (collector, address) = Collector::start(&lab)?;
    lab.manifests.apply(&policy(address))?;
    lab.start_agents("")?;
    enrol(&mut lab)?;
    let seen = wait::until("the span of a server", || {
        // Not recorded, as the client has it, which does not count here.
        let parent = format!("traceparent: 00-{:032x}-b7ad6b7169203331-00", 7);
        settle(&lab, "curl", &["-H", "end-user: jason", "-H", &parent, HEADERS], 200)?;
        Ok(collector.of("front").into_iter().find(|seen| seen.span.kind == 2))
    })?;
    ensure!(seen.span.name == "one request", "{:?}", seen.span);
    ensure!(seen.span.trace_id == 7_u128.to_be_bytes(), "{:?}", seen.span);
    for (name, value) in [("tier", "gold"), ("user", "jason"), ("method", "GET")] {
        ensure!(text(&seen.span.attributes, name) == value, "{name}: {:?}", seen.span);
    }
    // The client is of another namespace, which has asked for nothing.
    ensure!(collector.all().iter().all(|seen| seen.span.kind == 2 || seen.service == "front"));
    ensure!(collector.of("curl.default").is_empty());
    Ok(())
}

/// Of the destination's namespace: its clients still tell, and its applications hear nothing of it.
const ENDS: &str = "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: ends, namespace: bookinfo}
spec: {tracing: [{disableContextPropagation: true}]}
";

#[test]
fn the_context_of_a_trace_ends_where_telemetry_says_so() -> Result<()> {
    let (mut lab, collector) = traced("per_mille = 0", add_waypoint)?;
    let parent = |id: u128| format!("traceparent: 00-{id:032x}-b7ad6b7169203331-01");
    let heard = |lab: &Lab, id: u128| -> Result<String> {
        let headers = ["-H", &parent(id), "-H", "tracestate: a=1", "-H", "x-b3-sampled: 1"];
        settle(lab, "curl", &[&headers[..], &["-H", "baggage: k=v", HEADERS]].concat(), 200)?;
        Ok(lab.curl("curl", &[&headers[..], &["-H", "baggage: k=v", HEADERS]].concat())?.body)
    };
    let before = heard(&lab, 1)?.to_lowercase();
    ensure!(before.contains(&format!("{:032x}", 1)), "{before}");
    lab.manifests.apply(ENDS)?;
    let after = wait::until("a request without the headers of a trace", || {
        let heard = heard(&lab, 2)?.to_lowercase();
        Ok((!heard.contains("traceparent")).then_some(heard))
    })?;
    for gone in ["traceparent", "tracestate", "x-b3-"] {
        ensure!(!after.contains(gone), "{gone}: {after}");
    }
    ensure!(after.contains("baggage"), "{after}");
    // Both halves still report their spans, as one trace.
    wait::until("the spans of both halves", || {
        let all = collector.all();
        let of_trace = all.iter().filter(|it| it.span.trace_id == 2_u128.to_be_bytes());
        let kinds: BTreeSet<i32> = of_trace.map(|it| it.span.kind).collect();
        Ok((kinds == BTreeSet::from([2, 3])).then_some(()))
    })
}

/// What MeshConfig and Telemetry say of records for a collector.
fn exported(address: SocketAddr) -> String {
    format!(
        "
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data:
  mesh: |
    extensionProviders:
    - name: als
      envoyOtelAls:
        service: {}
        port: {}
        logFormat: {{text: \"%REQ(:METHOD)% %RESPONSE_CODE%\", labels: {{user: \"%REQ(END-USER)%\", bytes: \"%BYTES_SENT%\"}}}}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {{name: exported, namespace: default}}
spec: {{accessLogging: [{{providers: [{{name: als}}]}}]}}
",
        address.ip(),
        address.port()
    )
}

/// Of a client of a namespace that names a collector: its connections without a waypoint, its requests with one, and of no other.
#[test]
fn records_of_the_access_log_are_exported() -> Result<()> {
    let mut lab = bookinfo()?;
    let (collector, address) = LogCollector::start(&lab)?;
    lab.manifests.apply(&exported(address))?;
    lab.start_agents("")?;
    enrol(&mut lab)?;
    let of = |lab: &Lab, what: &dyn Fn(&Logged) -> bool| {
        wait::until("a record of the client", || {
            settle(lab, "curl", &["-H", "end-user: jason", PAGE], 200)?;
            Ok(collector.all().into_iter().find(what))
        })
    };
    let connection = of(&lab, &|it| text(&it.record.attributes, "user") == "-")?;
    ensure!(body(&connection) == "- 0", "{:?}", connection.record);
    ensure!(text(&connection.record.attributes, "bytes").parse::<u64>()? > 0);
    ensure!(connection.service == "curl.default", "{}", connection.service);
    add_waypoint(&mut lab)?;
    let request = of(&lab, &|it| text(&it.record.attributes, "user") == "jason")?;
    ensure!(body(&request) == "GET 200", "{:?}", request.record);
    let foreign = collector.all().into_iter().find(|it| it.service != "curl.default");
    ensure!(foreign.is_none(), "{:?}", foreign.map(|it| it.service));
    let accepted = lab.metrics()?.sum("isthmus_access_records_exported_total", &[]);
    ensure!(accepted > 0.0, "{accepted}");
    Ok(())
}

fn body(logged: &Logged) -> String {
    match logged.record.body.as_ref().and_then(|body| body.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    }
}
