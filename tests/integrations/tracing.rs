//! A request of Bookinfo in Jaeger, by way of an OpenTelemetry Collector.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::programs::{ask, node, program, start};
use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, wait};
use crate::{WAYPOINT, bookinfo, enrol, settle};

const PAGE: &str = "http://productpage.bookinfo:9080/productpage";

/// Jaeger has OTLP's own port.
const COLLECTOR: u16 = 5317;
const JAEGER: u16 = 4317;
const QUERY: u16 = 16686;

/// Whose spans the trace of a page has, with their kinds.
const COMPLETE: [(&str, &str); 5] = [
    ("curl.default", "client"),
    ("productpage.bookinfo", "server"),
    ("productpage.bookinfo", "client"),
    ("details.bookinfo", "server"),
    ("reviews.bookinfo", "server"),
];

/// A span as Jaeger tells it.
struct Span {
    id: String,
    parent: Option<String>,
    service: String,
    kind: String,
}

fn collector_settings() -> Value {
    json!({
        "receivers": { "otlp": { "protocols": { "grpc": { "endpoint": format!("0.0.0.0:{COLLECTOR}") } } } },
        "exporters": {
            "otlp": { "endpoint": format!("127.0.0.1:{JAEGER}"), "tls": { "insecure": true } },
            "debug": { "verbosity": "detailed" },
        },
        "service": {
            "telemetry": { "metrics": { "level": "none" } },
            "pipelines": { "traces": { "receivers": ["otlp"], "exporters": ["otlp", "debug"] } },
        },
    })
}

/// The spans of a trace, if Jaeger knows it.
fn spans(lab: &Lab, id: &str) -> Result<Vec<Span>> {
    let url = format!("http://127.0.0.1:{QUERY}/api/traces/{id}");
    let Some(answer) = ask(lab, &url)? else { return Ok(Vec::new()) };
    let trace = &answer["data"][0];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let read = |span: &Value| {
        let tags = span["tags"].as_array()?;
        let kind = tags.iter().find(|tag| tag["key"] == "span.kind")?;
        Some(Span {
            id: text(&span["spanID"])?,
            parent: text(&span["references"][0]["spanID"]),
            service: text(&trace["processes"][span["processID"].as_str()?]["serviceName"])?,
            kind: text(&kind["value"])?,
        })
    };
    let all = trace["spans"].as_array().into_iter().flatten();
    all.map(|span| read(span).with_context(|| format!("an incomplete span: {span}"))).collect()
}

fn complete(spans: &[Span]) -> bool {
    let seen: BTreeSet<(&str, &str)> =
        spans.iter().map(|span| (span.service.as_str(), span.kind.as_str())).collect();
    COMPLETE.iter().all(|wanted| seen.contains(wanted))
}

#[test]
fn a_page_of_bookinfo_is_one_trace_in_jaeger() -> Result<()> {
    let mut lab = bookinfo()?;
    lab.manifests.apply(WAYPOINT)?;
    let label = ["istio.io/use-waypoint=waypoint"];
    lab.manifests.label(&Key::new("Namespace", "", "bookinfo"), &label)?;
    let _jaeger = start(&lab, &program("jaeger")?, &["--collector.otlp.enabled=true"], QUERY)?;
    let settings = lab.logs().join("collector.json");
    std::fs::write(&settings, collector_settings().to_string())?;
    let config = format!("--config={}", settings.display());
    let _collector = start(&lab, &program("collector")?, &[&config], COLLECTOR)?;
    let address = node(&lab)?.addresses[0];
    lab.start_agents(&format!("[tracing]\ncollector = \"{address}:{COLLECTOR}\"\nper_mille = 0"))?;
    enrol(&mut lab)?;

    let parent = "b7ad6b7169203331";
    let mut traces = 1_u32..;
    let spans = wait::until("the whole page in Jaeger", || {
        // Only a request that comes once the waypoint serves everything makes a complete trace.
        let id = format!("{:032x}", traces.next().context("an id")?);
        let header = format!("traceparent: 00-{id}-{parent}-01");
        settle(&lab, "curl", &["-H", &header, PAGE], 200)?;
        std::thread::sleep(std::time::Duration::from_secs(2));
        Ok(Some(spans(&lab, &id)?).filter(|spans| complete(spans)))
    })?;
    let by_id: HashMap<&str, &Span> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    for span in &spans {
        let above = span.parent.as_deref().and_then(|id| by_id.get(id));
        match (span.kind.as_str(), above) {
            ("server", Some(caller)) => ensure!(caller.kind == "client", "{}", span.service),
            ("client", Some(application)) => ensure!(application.service == span.service),
            ("client", None) => ensure!(span.service == "curl.default", "{}", span.service),
            (kind, _) => anyhow::bail!("{kind} {} has no parent", span.service),
        }
    }
    let first = spans.iter().filter(|span| span.service == "curl.default").count();
    ensure!(first == 1, "{first} spans of the client");
    Ok(())
}
