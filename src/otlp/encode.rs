//! Spans as OTLP's messages: one resource for each workload.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use crate::trace::{Attribute, Context, Finished, Kind, Value};

/// The flags that are known of a parent: whether it is another process's (`SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK`).
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
/// W3C's flags, which are the lowest byte.
const SAMPLED: u32 = 1;
const RANDOM: u32 = 2;

pub(super) fn request(batch: &[Arc<Finished>]) -> ExportTraceServiceRequest {
    let mut resources: Vec<(&[Attribute], Vec<Span>)> = Vec::new();
    for finished in batch {
        let span = span(finished);
        match resources.iter_mut().find(|(resource, _)| *resource == finished.resource) {
            Some((_, spans)) => spans.push(span),
            None => resources.push((&finished.resource, vec![span])),
        }
    }
    let resource_spans = resources.into_iter().map(|(resource, spans)| ResourceSpans {
        resource: Some(Resource { attributes: attributes(resource), ..Resource::default() }),
        scope_spans: vec![ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}

pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn span(finished: &Finished) -> Span {
    let Finished { span, name, ended, attributes: own, error, .. } = finished;
    let Context { trace, span: id, random, .. } = &span.context;
    let parent = span.parent.map(|parent| parent.0.to_be_bytes().to_vec());
    let remote = if parent.is_some() { HAS_IS_REMOTE | IS_REMOTE } else { HAS_IS_REMOTE };
    let status = error
        .as_ref()
        .map(|message| Status { message: message.clone(), code: StatusCode::Error.into() });
    Span {
        trace_id: trace.0.to_be_bytes().to_vec(),
        span_id: id.0.to_be_bytes().to_vec(),
        trace_state: span.state.clone(),
        parent_span_id: parent.unwrap_or_default(),
        flags: SAMPLED | if *random { RANDOM } else { 0 } | remote,
        name: name.clone(),
        kind: match span.kind {
            Kind::Client => SpanKind::Client,
            Kind::Server => SpanKind::Server,
        }
        .into(),
        start_time_unix_nano: nanoseconds(span.started),
        end_time_unix_nano: nanoseconds(*ended).max(nanoseconds(span.started)),
        attributes: attributes(own),
        status,
        ..Span::default()
    }
}

pub(super) fn attributes(attributes: &[Attribute]) -> Vec<KeyValue> {
    let one = |Attribute { name, value }: &Attribute| {
        let value = match value {
            Value::Text(text) => Any::StringValue(text.to_string()),
            Value::Number(number) => Any::IntValue(*number),
            Value::Switch(on) => Any::BoolValue(*on),
        };
        let value = Some(AnyValue { value: Some(value) });
        KeyValue { key: name.to_string(), value, ..KeyValue::default() }
    };
    attributes.iter().map(one).collect()
}

pub(super) fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
