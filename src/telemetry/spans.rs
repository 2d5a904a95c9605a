//! Metrics of what is exported, and what the spans of requests and of connections have in common.

use std::time::SystemTime;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::{Peer, Telemetry};
use crate::base::Str;
use crate::trace::{Attribute, Finished, Span};

/// The first attribute of a resource.
const SERVICE_NAME: &str = "service.name";

/// Those of the semantic conventions that the spans of requests have.
pub(super) const ATTRIBUTES: [&str; 15] = [
    "client.address",
    "http.request.method",
    "http.response.status_code",
    "http.route",
    "network.peer.address",
    "network.peer.port",
    "network.protocol.name",
    "network.protocol.version",
    "rpc.grpc.status_code",
    "rpc.system",
    "server.address",
    "server.port",
    "url.path",
    "url.query",
    "url.scheme",
];

metrics! {
    struct SpanRows {
        /// Spans that collectors accepted.
        pub exported: Counter = "isthmus_spans_exported";
        /// Spans that were dropped, by cause: `queue` (more ended than are exported), `export` (the collector could not be
        /// reached, or did not answer in time), `rejected` (the collector did not accept them).
        dropped: Family<DroppedLabels, Counter> = "isthmus_spans_dropped";
    }
}

metrics! {
    struct RecordRows {
        /// Records of the access log that collectors accepted.
        pub exported: Counter = "isthmus_access_records_exported";
        /// Records of the access log for collectors that were dropped, by cause: `queue`, `export` or `rejected`, as for spans.
        dropped: Family<DroppedLabels, Counter> = "isthmus_access_records_dropped";
    }
}

/// Counters of what is exported, looked up once; cheap to clone.
#[derive(Clone)]
pub struct ExportMetrics {
    /// Accepted by a collector.
    pub exported: Counter,
    /// The queue was full.
    pub queue: Counter,
    /// The export failed.
    pub failed: Counter,
    /// The collector did not accept them.
    pub rejected: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DroppedLabels {
    cause: &'static str,
}

impl ExportMetrics {
    fn new(exported: &Counter, dropped: &Family<DroppedLabels, Counter>) -> Self {
        let dropped = |cause| dropped.get_or_create_owned(&DroppedLabels { cause });
        Self {
            exported: exported.clone(),
            queue: dropped("queue"),
            failed: dropped("export"),
            rejected: dropped("rejected"),
        }
    }
}

/// Counters of spans.
pub(super) struct SpanMetrics {
    pub(super) counters: ExportMetrics,
    rows: SpanRows,
}

/// Counters of records of the access log.
pub(super) struct RecordMetrics {
    pub(super) counters: ExportMetrics,
    rows: RecordRows,
}

impl Default for SpanMetrics {
    fn default() -> Self {
        let rows = SpanRows::default();
        Self { counters: ExportMetrics::new(&rows.exported, &rows.dropped), rows }
    }
}

impl Default for RecordMetrics {
    fn default() -> Self {
        let rows = RecordRows::default();
        Self { counters: ExportMetrics::new(&rows.exported, &rows.dropped), rows }
    }
}

impl SpanMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        self.rows.register_rows(registry);
    }
}

impl RecordMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        self.rows.register_rows(registry);
    }
}

/// Puts a span that has ended into the queue.
pub(super) fn offer(telemetry: &Telemetry, span: Box<Span>, parts: Parts<'_>) {
    let Parts { mut name, mut attributes, error, of } = parts;
    let attributes = {
        if !span.tracing.without_istio_tags {
            attributes.extend(istio_tags(of));
        }
        attributes.extend(span.tags.iter().cloned());
        attributes.extend(copies(&span.tracing.copies, &attributes));
        attributes
    };
    let (mut resource, ended) = (resource(of), SystemTime::now());
    if let Some(wanted) = &span.tracing.span_name {
        name = wanted.to_string();
    }
    if let (Some(wanted), Some(service)) = (&span.tracing.service_name, resource.first_mut()) {
        *service = Attribute::text(SERVICE_NAME, wanted);
    }
    let tenant = of.namespace.clone();
    let finished = Finished { span, name, ended, attributes, error, resource, tenant };
    if !telemetry.spans().offer(&of.namespace, Box::new(finished)) {
        telemetry.span_metrics().queue.inc();
    }
}

/// Attributes under the names that a policy wants. A span without such an attribute has none under the other name either.
fn copies(wanted: &[(Str, Str)], of: &[Attribute]) -> Vec<Attribute> {
    let copy = |(name, key): &(Str, Str)| {
        let value = of.iter().find(|it| it.name == *key)?.value.clone();
        Some(Attribute { name: name.clone(), value })
    };
    wanted.iter().filter_map(copy).collect()
}

/// Whether spans of requests may have an attribute, by the names of OpenTelemetry's semantic conventions.
pub fn is_attribute(name: &str) -> bool {
    ATTRIBUTES.contains(&name)
}

/// What a record says of its span.
pub(super) struct Parts<'a> {
    pub(super) name: String,
    pub(super) attributes: Vec<Attribute>,
    pub(super) error: Option<String>,
    /// The workload that the span is of.
    pub(super) of: &'a Peer,
}

/// An attribute where there is a text.
pub(super) fn known(attributes: &mut Vec<Attribute>, name: &str, text: &str) {
    if !text.is_empty() {
        attributes.push(Attribute::text(name, text));
    }
}

/// The tags that Istio's proxies add to each span.
fn istio_tags(of: &Peer) -> Vec<Attribute> {
    let mut tags = vec![Attribute::text("component", "proxy")];
    known(&mut tags, "istio.canonical_service", &of.canonical_service);
    known(&mut tags, "istio.canonical_revision", &of.canonical_revision);
    known(&mut tags, "istio.namespace", &of.namespace);
    known(&mut tags, "istio.cluster_id", &of.cluster);
    tags
}

/// The workload as OpenTelemetry's resource. The service's name is Istio's: application and namespace.
pub(super) fn resource(of: &Peer) -> Vec<Attribute> {
    let service = [&of.app, &of.canonical_service, &of.workload, &of.name];
    let service = service.into_iter().find(|name| !name.is_empty());
    let service = service.map_or("unknown", |name| name.as_str());
    let mut resource = vec![match of.namespace.as_str() {
        "" => Attribute::text(SERVICE_NAME, service),
        namespace => Attribute::text(SERVICE_NAME, &format!("{service}.{namespace}")),
    }];
    known(&mut resource, "service.namespace", &of.namespace);
    known(&mut resource, "service.version", &of.version);
    known(&mut resource, "service.instance.id", &of.name);
    known(&mut resource, "k8s.namespace.name", &of.namespace);
    known(&mut resource, "k8s.pod.name", &of.name);
    known(&mut resource, "k8s.cluster.name", &of.cluster);
    resource
}
