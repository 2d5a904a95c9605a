//! Metrics, access log and logs. This room knows labels as strings, not models.
//!
//! Each connection and each request is a record: created at its start, updated while it lasts, and counted and logged
//! exactly once, when it is dropped. Counting never waits and never locks: a connection looks its counters up once, a
//! request once at its end. A line that exceeds the capacity of the log's writer is dropped and counted.
//!
//! The names of metrics and labels, and the keys of the access log, are Istio's (ztunnel's for connections, Envoy's for
//! requests). `l4` and `l7` create the records, `admin` serves the metrics, `app` sets up the log. This room makes no
//! decisions.

#[macro_use]
mod table;

mod access;
mod agent;
mod authorizer;
mod budget;
mod clamp;
mod cni;
mod connection;
mod controller;
mod dns;
mod exemplars;
mod exposition;
mod facts;
mod flow;
mod handshakes;
mod health;
mod jwks;
mod labels;
mod limits;
mod live;
mod log;
mod metric_set;
mod metrics;
mod mirror;
mod notes;
mod observe;
mod panics;
mod rate_limits;
mod records;
mod request;
mod rules;
mod runtimes;
mod series;
mod shared_limits;
mod spans;
mod tagged;
mod tags;
#[cfg(test)]
mod tests;

pub use access::{AccessFormat, FormatError};
pub use agent::{AgentMetrics, Closed};
pub use authorizer::AuthorizerMetrics;
pub use budget::{SERIES_BYTES, SeriesLimits};
pub use clamp::query_type;
pub use cni::CniMetrics;
pub use connection::ConnectionRecord;
pub use controller::ControllerMetrics;
pub use dns::{DnsLabels, DnsMetrics, DnsQuestions};
pub use exposition::{Scrape, TextFormat};
pub use flow::{Flow, FlowSink, RequestFlow, Verdict};
pub use handshakes::{Handshake, count_handshake};
pub use health::{HealthMetrics, WorkerHealth};
pub use jwks::JwksMetrics;
pub use labels::names_a_side;
pub use live::{HttpConnection, OpenConnection};
pub use log::{
    AUDIT, LogError, LogFormat, Logs, MAX_FIELD, MAX_QUEUED_BYTES, check_levels, init_logs, rfc3339,
};
pub use metric_set::{Metric, MetricSet};
pub use mirror::MirrorMetrics;
pub use observe::ObserveMetrics;
pub use panics::report_panics;
pub use rate_limits::RateLimitMetrics;
pub use records::{LogRecord, RecordSink};
pub use request::RequestRecord;
pub use rules::{AccessRules, Rules, SpanTag};
pub use shared_limits::SharedLimitMetrics;
pub use spans::{ExportMetrics, is_attribute};
pub use tags::{TagChanges, TagRules};

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwapOption;
use prometheus_client::encoding::text;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;

use crate::base::{ObjectKey, PolicyNote, Reason, Str};
use crate::trace::{Outbox, Span, Spans};
use agent::ProcessCollector;
use budget::Budget;
use flow::Outlet;
use handshakes::HandshakesCollector;
use live::{Live, SocketsCollector};
use metrics::Traffic;
use notes::Notes;
use runtimes::Runtimes;
use spans::{RecordMetrics, SpanMetrics};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    Source,
    Destination,
    Waypoint,
}

/// One side of a connection, as labels. Empty means unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    pub workload: Str,
    /// The pod's own name, for the log.
    pub name: Str,
    pub namespace: Str,
    /// `spiffe://…`, only when proven by mutual TLS.
    pub principal: Str,
    pub canonical_service: Str,
    pub canonical_revision: Str,
    pub app: Str,
    pub version: Str,
    pub cluster: Str,
}

/// The addressed service as labels. Empty means unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceLabels {
    pub host: Str,
    pub name: Str,
    pub namespace: Str,
}

/// What is known of a connection when it starts.
#[derive(Clone, Debug)]
pub struct ConnectionStart {
    pub reporter: Reporter,
    pub source: Peer,
    pub destination: Peer,
    pub service: ServiceLabels,
    pub mutual_tls: bool,
    pub source_address: SocketAddr,
    /// As dialled on the wire (`…:15008` for a tunnel).
    pub destination_address: SocketAddr,
    /// As the client dialled it: the service's address, where it is still known.
    pub dialled: SocketAddr,
    /// The authority of the tunnel's request.
    pub hbone_authority: Option<SocketAddr>,
    /// The server that the client named in TLS, where that decided anything.
    pub server_name: Option<Str>,
    /// The waypoint whose policies were passed.
    pub waypoint_principal: Option<Str>,
    /// The policy that allowed it, or of one that was refused, that refused it; where one did.
    pub policy: Option<ObjectKey>,
    /// What AUDIT and dry-run policies have to say of it.
    pub notes: Vec<PolicyNote>,
    /// Between workloads of one node, and so without a tunnel.
    pub in_process: bool,
    /// What Telemetry objects say of it, where one says something.
    pub rules: Option<Arc<Rules>>,
}

impl ConnectionStart {
    /// The address of the application that it leads to, as far as it is known.
    fn application(&self) -> SocketAddr {
        self.hbone_authority.unwrap_or(self.destination_address)
    }
}

/// What is known of a request when it starts.
#[derive(Clone, Debug)]
pub struct RequestStart {
    /// Whether the metrics are this half's to record (one half does).
    pub count: bool,
    /// `source` or `destination` half, for the log's `direction`.
    pub outbound: bool,
    pub source: Arc<Peer>,
    pub service: Arc<ServiceLabels>,
    pub mutual_tls: bool,
    pub source_address: SocketAddr,
    pub method: http::Method,
    pub path: Str,
    pub authority: Str,
    pub protocol: &'static str,
    pub grpc: bool,
    pub waypoint_principal: Option<Str>,
    /// The policy that decided, as far as it is known.
    pub policy: Option<ObjectKey>,
    /// What it came over, which counts it too.
    pub connection: Option<HttpConnection>,
}

/// The metrics and the access log; cheap to clone.
#[derive(Clone)]
pub struct Telemetry(Arc<Shared>);

struct Shared {
    logs: Arc<Logs>,
    registry: Registry,
    budget: Arc<Budget>,
    traffic: Traffic,
    notes: Notes,
    live: Arc<Live>,
    agent: AgentMetrics,
    health: HealthMetrics,
    runtimes: Runtimes,
    dns: DnsMetrics,
    controller: ControllerMetrics,
    shared_limits: SharedLimitMetrics,
    cni: CniMetrics,
    mirror: MirrorMetrics,
    spans: Spans,
    span_metrics: SpanMetrics,
    records: Outbox<LogRecord>,
    record_metrics: RecordMetrics,
    authorizer: AuthorizerMetrics,
    jwks: JwksMetrics,
    rate_limits: RateLimitMetrics,
    observe: ObserveMetrics,
    flows: Outlet,
    access_format: ArcSwapOption<AccessFormat>,
}

impl Telemetry {
    /// The access log goes to `logs`.
    pub fn new(logs: Arc<Logs>) -> Self {
        Self::with_limits(logs, SeriesLimits::default())
    }

    /// The same with so many series at the most.
    pub fn with_limits(logs: Arc<Logs>, limits: SeriesLimits) -> Self {
        let mut registry = Registry::default();
        let budget = Arc::new(Budget::new(limits));
        budget.register(&mut registry);
        let live = Arc::new(Live::default());
        registry.register_collector(Box::new(SocketsCollector(live.clone())));
        let agent = AgentMetrics::default();
        agent.register(&mut registry);
        let (health, runtimes) = (HealthMetrics::default(), Runtimes::default());
        health.register(&mut registry);
        registry.register_collector(Box::new(runtimes.clone()));
        let (controller, shared_limits) =
            (ControllerMetrics::default(), SharedLimitMetrics::default());
        let (cni, mirror) = (CniMetrics::default(), MirrorMetrics::default());
        controller.register(&mut registry);
        shared_limits.register(&mut registry);
        cni.register(&mut registry);
        mirror.register(&mut registry);
        let (span_metrics, record_metrics) = (SpanMetrics::default(), RecordMetrics::default());
        span_metrics.register(&mut registry);
        record_metrics.register(&mut registry);
        let (authorizer, jwks) = (AuthorizerMetrics::default(), JwksMetrics::default());
        let (rate_limits, observe) = (RateLimitMetrics::default(), ObserveMetrics::default());
        authorizer.register(&mut registry);
        jwks.register(&mut registry);
        rate_limits.register(&mut registry);
        observe.register(&mut registry);
        logs.metrics().register(&mut registry);
        register_build(&mut registry);
        registry.register_collector(Box::new(HandshakesCollector));
        registry.register_collector(Box::new(ProcessCollector));
        Self(Arc::new(Shared {
            logs,
            registry,
            traffic: Traffic::new(&budget),
            notes: Notes::new(&budget),
            dns: DnsMetrics::new(&budget),
            budget,
            live,
            agent,
            health,
            runtimes,
            controller,
            shared_limits,
            cni,
            mirror,
            spans: Spans::default(),
            span_metrics,
            records: Outbox::default(),
            record_metrics,
            authorizer,
            jwks,
            rate_limits,
            observe,
            flows: Outlet::default(),
            access_format: ArcSwapOption::empty(),
        }))
    }

    /// Counts, and logs nothing: for tests.
    pub fn without_log() -> Self {
        Self::new(Logs::discard())
    }

    /// Begins the record of a connection that will carry bytes.
    pub fn connection(&self, start: ConnectionStart) -> ConnectionRecord {
        ConnectionRecord::new(self.clone(), start)
    }

    /// Shows a connection whose requests are recorded one by one among those that are open.
    pub fn http_connection(&self, start: ConnectionStart) -> HttpConnection {
        self.0.live.http(start)
    }

    /// The open connections that are wanted, the oldest first.
    pub fn open_connections(
        &self,
        wanted: impl Fn(&ConnectionStart) -> bool,
    ) -> Vec<OpenConnection> {
        self.0.live.find(wanted)
    }

    /// A connection that was refused or failed before it carried bytes.
    pub fn refused(&self, start: ConnectionStart, reason: Reason, why: &str) {
        connection::refused(self, &start, reason, why);
    }

    /// The same, with the span of a connection that is traced.
    pub fn refused_traced(
        &self,
        start: ConnectionStart,
        reason: Reason,
        why: &str,
        span: Option<Box<Span>>,
    ) {
        if let Some(span) = span {
            connection::end_refused(self, span, &start, (reason, why));
        }
        self.refused(start, reason, why);
    }

    /// Begins the record of a request.
    pub fn request(&self, start: RequestStart) -> RequestRecord {
        RequestRecord::new(self.clone(), start)
    }

    /// Metrics about the agent itself, for the rooms that know them.
    pub fn agent(&self) -> &AgentMetrics {
        &self.0.agent
    }

    /// Metrics about the agent's health, for the rooms that know them.
    pub fn health(&self) -> &HealthMetrics {
        &self.0.health
    }

    /// Shows a runtime that lasts as long as the agent in the metrics.
    pub fn watch_runtimes(&self, name: &'static str, runtimes: &[Handle]) {
        self.0.runtimes.watch(name, runtimes);
    }

    /// Metrics of the DNS stub.
    pub fn dns(&self) -> &DnsMetrics {
        &self.0.dns
    }

    /// Metrics of the CNI plugin's questions.
    pub fn cni(&self) -> &CniMetrics {
        &self.0.cni
    }

    /// Metrics of external authorization.
    pub fn authorizer(&self) -> &AuthorizerMetrics {
        &self.0.authorizer
    }

    /// Metrics of rate limits.
    pub fn rate_limits(&self) -> &RateLimitMetrics {
        &self.0.rate_limits
    }

    /// Metrics of fetched keys.
    pub fn jwks(&self) -> &JwksMetrics {
        &self.0.jwks
    }

    /// Metrics of what is observed.
    pub fn observe(&self) -> &ObserveMetrics {
        &self.0.observe
    }

    /// Whether flows are made: whoever takes them says so here.
    pub fn wants_flows(&self) -> Arc<AtomicBool> {
        self.0.flows.wanted()
    }

    /// Flows go there from now on, while they are wanted. Only the first sink counts.
    pub fn give_flows_to(&self, sink: Arc<dyn FlowSink>) -> bool {
        self.0.flows.lead_to(sink)
    }

    /// Metrics of mirrored requests.
    pub fn mirror(&self) -> &MirrorMetrics {
        &self.0.mirror
    }

    /// Spans that have ended, for whoever exports them.
    pub fn spans(&self) -> &Spans {
        &self.0.spans
    }

    /// Metrics of spans.
    pub fn span_metrics(&self) -> &ExportMetrics {
        &self.0.span_metrics.counters
    }

    /// Records of the access log for collectors.
    pub fn records(&self) -> &Outbox<LogRecord> {
        &self.0.records
    }

    /// Metrics of these records.
    pub fn record_metrics(&self) -> &ExportMetrics {
        &self.0.record_metrics.counters
    }

    /// Metrics of shared rate limits.
    pub fn shared_limits(&self) -> &SharedLimitMetrics {
        &self.0.shared_limits
    }

    /// Metrics of the controller.
    pub fn controller(&self) -> &ControllerMetrics {
        &self.0.controller
    }

    /// All metrics in the text format of OpenMetrics 1.0, part by part. Without exemplars Prometheus' own parser reads it too.
    pub fn scrape_in_parts(&self, format: TextFormat) -> Result<Scrape, std::fmt::Error> {
        self.sweep();
        let shared = &*self.0;
        let mut head = String::new();
        text::encode_registry(&mut head, &shared.registry)?;
        let families = shared.dns.families().into_iter().chain(shared.notes.families());
        let head = exposition::head(head, format);
        Ok(Scrape::new(format, head, families.chain(shared.traffic.families())))
    }

    /// The same in one text.
    pub fn scrape(&self) -> Result<String, std::fmt::Error> {
        let bytes = self.scrape_in_parts(TextFormat::Prometheus)?.flatten().collect();
        String::from_utf8(bytes).map_err(|_| std::fmt::Error)
    }

    /// Forgets series that have been idle for an hour.
    pub fn sweep(&self) {
        let Shared { traffic, notes, dns, budget, .. } = &*self.0;
        traffic.sweep();
        notes.sweep();
        dns.sweep();
        budget.tidy();
    }

    /// The access log of requests has this format from now on; with `None` our own.
    pub fn set_access_format(&self, format: Option<Arc<AccessFormat>>) {
        self.0.access_format.store(format);
    }

    fn access_format(&self) -> Option<Arc<AccessFormat>> {
        let format = self.0.access_format.load();
        format.as_ref().map(Arc::clone)
    }

    fn note(&self, notes: &[PolicyNote]) {
        self.0.notes.note(notes);
    }

    fn logs(&self) -> &Logs {
        &self.0.logs
    }

    fn flows(&self) -> &Outlet {
        &self.0.flows
    }

    fn live(&self) -> &Arc<Live> {
        &self.0.live
    }

    fn traffic(&self) -> &Traffic {
        &self.0.traffic
    }
}

fn register_build(registry: &mut Registry) {
    let build: Family<[(&str, &str); 2], Gauge> = Family::default();
    build.get_or_create_owned(&BUILD).set(1);
    let help = "Component and version, as Istio's dashboards show it";
    registry.register("istio_build", help, build);
}

/// The labels of `istio_build`.
const BUILD: [(&str, &str); 2] = [("component", "isthmus"), ("tag", env!("CARGO_PKG_VERSION"))];
