//! Metrics of the agent itself. Names are ztunnel's if it has one, otherwise `isthmus_`. What a layer 7 worker rejects is
//! counted in the metrics of traffic too, as failures and requests with the flag `UO`; `worker_limited` adds it up for the
//! node.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::Reporter;
use super::limits;
use super::panics::panics;
use crate::traffic::{self, attempts};

metrics! {
    /// Handles for the rooms that count; cheap to clone.
    pub struct AgentMetrics {
        /// Captured workloads of this node.
        pub active_workloads: Gauge = "workload_manager_active_proxy_count";
        /// Workloads of this node that wait to be captured.
        pub pending_workloads: Gauge = "workload_manager_pending_proxy_count";
        /// Identities with a valid certificate.
        pub certificates: Gauge = "isthmus_certificates";
        /// Expiry of the certificate in use that expires first, in seconds since 1970; infinite without any.
        pub certificate_soonest_expiry: Gauge<f64, AtomicU64> = "isthmus_certificate_soonest_expiry_timestamp_seconds";
        /// Issued certificates, including renewals.
        pub certificates_issued: Counter = "isthmus_certificates_issued";
        /// Failed attempts to obtain a certificate.
        pub certificate_failures: Counter = "isthmus_certificate_failures";
        /// Peers that were rejected, and tunnels that were cut, because a certificate is revoked (identity.crl).
        crl_rejections: Family<ReporterLabels, Counter> = "istio_crl_policy_rejections";
        /// Open tunnels to other workloads.
        pub pool_connections: Gauge = "isthmus_pool_connections";
        /// Connections between workloads of this node, which need no tunnel (same_node).
        pub in_process_connections: Counter = "isthmus_in_process_connections";
        /// Failures to accept connections because file descriptors or memory ran out.
        pub accept_failures: Counter = "isthmus_accept_failures";
        /// Connections that waited or were rejected because their workload or peer was at its limit (layer4).
        pub limited_connections: Counter = "isthmus_limited_connections";
        /// Connections and requests that waypoint workers rejected because a budget, or a client's or a namespace's
        /// share, was spent.
        pub worker_limited: Counter = "isthmus_worker_limited";
        /// Connections that waypoint workers closed: slow head, idle timeout, idle while slots were few.
        worker_closed: Family<ClosedLabels, Counter> = "isthmus_worker_closed";
        /// Complaints about objects that are not in force as written.
        pub source_complaints: Gauge = "isthmus_source_complaints";
    }
}

/// Why a waypoint worker closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The head of a request did not arrive in time.
    Head,
    /// The idle timeout passed.
    Idle,
    /// It was idle while slots were few.
    Pressure,
}

impl Closed {
    const ALL: [Closed; 3] = [Closed::Head, Closed::Idle, Closed::Pressure];

    fn label(self) -> &'static str {
        match self {
            Closed::Head => "head_timeout",
            Closed::Idle => "idle_timeout",
            Closed::Pressure => "pressure",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClosedLabels {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReporterLabels {
    reporter: &'static str,
}

impl AgentMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        self.register_rows(registry);
        for cause in Closed::ALL {
            // They exist from the start.
            _ = self.worker_closed.get_or_create(&ClosedLabels { cause: cause.label() });
        }
    }

    /// A waypoint worker closes a connection.
    pub fn worker_closed(&self, cause: Closed) {
        self.worker_closed.get_or_create(&ClosedLabels { cause: cause.label() }).inc();
    }

    /// A peer was rejected or cut: its certificate is revoked.
    pub fn crl_rejected(&self, reporter: Reporter) {
        let reporter = match reporter {
            Reporter::Source => "source",
            Reporter::Destination | Reporter::Waypoint => "destination",
        };
        let labels = ReporterLabels { reporter };
        self.crl_rejections.get_or_create(&labels).inc();
    }
}

/// The kernel's data about this process; read at each scrape.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counted = ConstCounter::new(panics());
        let help = "Panics, each of which ended one task";
        let kind = counted.metric_type();
        counted.encode(encoder.encode_descriptor("isthmus_panics", help, None, kind)?)?;
        outliers(&mut encoder)?;
        limits::encode(&mut encoder)?;
        retries(&mut encoder)?;
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            let open = i64::try_from(entries.count()).unwrap_or(i64::MAX);
            gauge(&mut encoder, "process_open_fds", "Open file descriptors", open)?;
        }
        if let Ok((soft, _)) =
            nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        {
            let limit = i64::try_from(soft).unwrap_or(i64::MAX);
            gauge(&mut encoder, "process_max_fds", "Limit of open file descriptors", limit)?;
        }
        if let Some(bytes) = resident_memory() {
            let name = "process_resident_memory_bytes";
            gauge(&mut encoder, name, "Resident memory", bytes)?;
        }
        if let Some(seconds) = processor_time() {
            let counter = ConstCounter::new(seconds);
            let (name, help) = ("process_cpu_seconds", "CPU time, user and kernel");
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutlierLabels {
    namespace: String,
    service: String,
    port: String,
}

impl OutlierLabels {
    fn of(port: &traffic::ServicePort) -> Self {
        let traffic::ServicePort { namespace, service, port } = port;
        let port = if *port == 0 { "other".to_owned() } else { port.to_string() };
        Self { namespace: namespace.to_string(), service: service.to_string(), port }
    }
}

/// Name, description and value of a counter.
type Described = (&'static str, &'static str, fn(&traffic::Totals) -> u64);

/// Ejections by DestinationRules, by service and port.
fn outliers(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let all = traffic::totals();
    let counters: [Described; 2] = [
        (
            "isthmus_outlier_ejections",
            "Endpoints that were ejected by the outlierDetection of a DestinationRule",
            |totals| totals.ejections,
        ),
        (
            "isthmus_outlier_ejections_overflow",
            "Endpoints that were not ejected because maxEjectionPercent of their service's were already",
            |totals| totals.overflows,
        ),
    ];
    for (name, help, count) in counters {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (port, totals) in &all {
            let labels = OutlierLabels::of(port);
            ConstCounter::new(count(totals)).encode(family.encode_family(&labels)?)?;
        }
    }
    let (name, help) =
        ("isthmus_outlier_ejected_endpoints", "Endpoints that are ejected at present");
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (port, totals) in &all {
        let labels = OutlierLabels::of(port);
        ConstGauge::new(totals.active).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// What became of attempts at endpoints, of all requests.
fn retries(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let attempts::Attempts {
        retries,
        successes,
        exhausted,
        overflows,
        hedges,
        hedges_won,
        hedges_overflowed,
    } = attempts::totals();
    for (name, help, count) in [
        ("isthmus_retries", "Requests that were sent again, each time", retries),
        (
            "isthmus_retries_success",
            "Requests that were sent again, and whose last response was good enough",
            successes,
        ),
        (
            "isthmus_retries_limit_exceeded",
            "Requests that were sent as often as their retry policy permits, and failed",
            exhausted,
        ),
        (
            "isthmus_retries_overflow",
            "Requests that were not sent again because of a retry budget or maxRetries",
            overflows,
        ),
        (
            "isthmus_hedged_requests",
            "Requests that were sent to another endpoint while they waited for an answer, each time",
            hedges,
        ),
        (
            "isthmus_hedged_requests_won",
            "Requests that were sent to another endpoint and answered there first",
            hedges_won,
        ),
        (
            "isthmus_hedged_requests_overflow",
            "Requests that were not sent to another endpoint because of a retry budget",
            hedges_overflowed,
        ),
    ] {
        let counter = ConstCounter::new(count);
        counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
    }
    Ok(())
}

/// The second number of the file, in pages (proc_pid_statm(5)).
fn resident_memory() -> Option<i64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split(' ').nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages.saturating_mul(page))
}

fn processor_time() -> Option<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).ok()?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Some(seconds(usage.user_time()) + seconds(usage.system_time()))
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}
