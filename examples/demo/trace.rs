//! A request as a trace, in an OpenTelemetry collector.

use anyhow::{Context, Result};

use crate::collector::{Collector, Seen};
use crate::plaintext::PAGE;
use crate::stage::Stage;
use crate::support::lab::wait;

/// The kinds of spans (OTLP, `Span.SpanKind`).
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

pub fn run(stage: &mut Stage) -> Result<()> {
    let (collector, address) = Collector::start(&stage.lab)?;
    stage.report.say(&format!("a collector listens at {address}"));
    stage.apply_with("tracing.yaml", |text| {
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        text.replace("ADDRESS", &ip).replace("PORT", &port)
    })?;
    let mut ids = 1_u128..;
    let spans = wait::until("a trace with both halves of a request", || {
        let id = ids.next().context("an id")?;
        let parent = format!("traceparent: 00-{id:032x}-00f067aa0ba902b7-01");
        stage.lab.curl("curl", &["-H", &parent, PAGE])?;
        // The agents export once a second.
        std::thread::sleep(std::time::Duration::from_millis(1500));
        let mut spans = collector.all();
        spans.retain(|seen| seen.span.trace_id == id.to_be_bytes());
        Ok(halves(&spans).is_some().then_some(spans))
    })?;
    stage.report.say(&format!("curl: curl -H traceparent: ... {PAGE}; its spans:"));
    for seen in &spans {
        let kind = if seen.span.kind == CLIENT { "client" } else { "server" };
        let took = seen.span.end_time_unix_nano.saturating_sub(seen.span.start_time_unix_nano);
        let took = took as f64 / 1e6;
        stage.report.evidence(&format!("{kind} {:<20} {took:.1} ms", seen.service));
    }
    let (client, server) = halves(&spans).context("both halves")?;
    let follows = server.span.parent_span_id == client.span.span_id;
    stage.check(follows, "the server's span does not follow from the client's")?;
    stage.figure("spans", spans.len());
    stage.delete("Telemetry", "istio-system", "mesh")?;
    stage.delete("ConfigMap", "istio-system", "istio")
}

/// The client's span of the request, and productpage's.
fn halves(spans: &[Seen]) -> Option<(&Seen, &Seen)> {
    let find = |service: &str, kind: i32| {
        spans.iter().find(|seen| seen.service == service && seen.span.kind == kind)
    };
    Some((find("curl.default", CLIENT)?, find("productpage.bookinfo", SERVER)?))
}
