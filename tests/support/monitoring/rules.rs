//! Recording and alerting rules.

use std::fmt::Write;

/// The page that says of each alert what it means and what to do.
const RUNBOOK: &str = "https://github.com/isthmus-mesh/isthmus/blob/main/docs/monitoring.md";

/// A series that Prometheus computes.
pub struct Recording {
    pub record: &'static str,
    pub expression: &'static str,
}

/// Fires while `value` is beyond `bound`. They are apart so that a test can show that there is a value, whether or not it
/// is beyond.
pub struct Alert {
    pub group: &'static str,
    pub name: &'static str,
    pub value: &'static str,
    /// A comparison with a number.
    pub bound: &'static str,
    /// How long it has to last.
    pub lasts: &'static str,
    pub severity: Severity,
    /// One line, with `{{ $labels.x }}`.
    pub summary: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Traffic fails, or will within hours.
    Critical,
    /// Something does not do what it should.
    Warning,
    Info,
}

impl Severity {
    fn label(self) -> &'static str {
        match self {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
            Severity::Info => "info",
        }
    }
}

impl Alert {
    pub fn expression(&self) -> String {
        format!("{} {}", self.value, self.bound)
    }

    /// The heading in the page.
    pub fn anchor(&self) -> String {
        self.name.to_lowercase()
    }
}

pub fn recordings() -> Vec<Recording> {
    [
        (
            "destination_service:istio_requests:rate5m",
            "sum by (destination_service_namespace, destination_service_name) \
             (rate(istio_requests_total{reporter=\"waypoint\"}[5m]))",
        ),
        (
            "destination_service:istio_requests_failed:ratio_rate5m",
            "(sum by (destination_service_namespace, destination_service_name) \
             (rate(istio_requests_total{reporter=\"waypoint\",response_code=~\"5..\"}[5m])) or \
             destination_service:istio_requests:rate5m * 0) / destination_service:istio_requests:rate5m",
        ),
        (
            "destination_service:istio_request_duration_milliseconds:p50_rate5m",
            "histogram_quantile(0.5, sum by (le, destination_service_namespace, destination_service_name) \
             (rate(istio_request_duration_milliseconds_bucket{reporter=\"waypoint\"}[5m])))",
        ),
        (
            "destination_service:istio_request_duration_milliseconds:p99_rate5m",
            "histogram_quantile(0.99, sum by (le, destination_service_namespace, destination_service_name) \
             (rate(istio_request_duration_milliseconds_bucket{reporter=\"waypoint\"}[5m])))",
        ),
        (
            "destination_workload:istio_tcp_connections_opened:rate5m",
            "sum by (destination_workload_namespace, destination_workload, connection_security_policy) \
             (rate(istio_tcp_connections_opened_total{reporter=\"destination\"}[5m]))",
        ),
        (
            "pair:istio_tcp_connections_denied:rate5m",
            "sum by (source_workload_namespace, source_workload, destination_workload_namespace, destination_workload) \
             (rate(istio_tcp_connections_failed_total{response_flags=\"DENY\"}[5m]))",
        ),
    ]
    .into_iter()
    .map(|(record, expression)| Recording { record, expression })
    .collect()
}

/// Builds the alerts of a group.
fn group(group: &'static str, alerts: Vec<Alert>) -> Vec<Alert> {
    alerts.into_iter().map(|alert| Alert { group, ..alert }).collect()
}

fn alert(
    severity: Severity,
    name: &'static str,
    [value, bound, lasts]: [&'static str; 3],
    summary: &'static str,
) -> Alert {
    Alert { group: "", name, value, bound, lasts, severity, summary }
}

pub fn alerts() -> Vec<Alert> {
    [
        group("isthmus-agents", agents()),
        group("isthmus-resources", resources()),
        group("isthmus-certificates", certificates()),
        group("isthmus-traffic", traffic()),
        group("isthmus-policies", policies()),
        group("isthmus-waypoints", waypoints()),
        group("isthmus-losses", losses()),
        group("isthmus-controller", controller()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn agents() -> Vec<Alert> {
    use Severity::{Critical, Warning};
    vec![
        alert(
            Critical,
            "IsthmusDown",
            ["up{job=~\"isthmus.*\"}", "== 0", "2m"],
            "{{ $labels.instance }} cannot be scraped.",
        ),
        alert(
            Critical,
            "IsthmusStateIsStale",
            ["time() - (isthmus_source_last_read_timestamp_seconds > 0)", "> 120", "1m"],
            "The agent {{ $labels.instance }} has not read the mesh's objects for {{ $value | humanizeDuration }}.",
        ),
        alert(
            Warning,
            "IsthmusObjectsNotInForce",
            ["max(isthmus_source_complaints)", "> 0", "10m"],
            "{{ $value }} objects are not in force as written.",
        ),
        alert(
            Critical,
            "IsthmusWorkloadsNotCaptured",
            ["workload_manager_pending_proxy_count", "> 0", "5m"],
            "{{ $value }} workloads of {{ $labels.instance }} are not captured.",
        ),
        alert(
            Critical,
            "IsthmusPodsDoNotStart",
            [
                "sum by (instance) (increase(isthmus_cni_requests_total{command=\"ADD\",outcome=~\"unknown|refused\"}[10m]))",
                "> 5",
                "0s",
            ],
            "The CNI plugin keeps pods of {{ $labels.instance }} from starting.",
        ),
        alert(
            Warning,
            "IsthmusWorkloadFull",
            ["isthmus_workloads_full", "> 0", "5m"],
            "{{ $value }} workloads of {{ $labels.instance }} are at their connection limit.",
        ),
    ]
}

fn resources() -> Vec<Alert> {
    use Severity::{Critical, Info, Warning};
    vec![
        alert(
            Critical,
            "IsthmusDataPathOverloaded",
            ["tokio_global_queue_depth{runtime=\"layer4\"}", "> 1000", "1m"],
            "{{ $value }} tasks of {{ $labels.instance }} wait for a thread of the data path.",
        ),
        alert(
            Warning,
            "IsthmusShortOfCpu",
            [
                "min by (instance) (rate(tokio_worker_total_busy_duration_seconds_total{runtime=\"layer4\"}[5m]))",
                "> 0.9",
                "10m",
            ],
            "Every thread of the data path of {{ $labels.instance }} is busy {{ $value | humanizePercentage }} of the time.",
        ),
        alert(
            Critical,
            "IsthmusFileDescriptorsRunOut",
            [
                "process_open_fds{job=~\"isthmus.*\"} / process_max_fds{job=~\"isthmus.*\"}",
                "> 0.8",
                "1m",
            ],
            "{{ $labels.instance }} has opened {{ $value | humanizePercentage }} of its file descriptors.",
        ),
        alert(
            Critical,
            "IsthmusCannotAccept",
            ["increase(isthmus_accept_failures_total[5m])", "> 0", "0s"],
            "{{ $labels.instance }} cannot accept connections: descriptors or memory ran out.",
        ),
        alert(
            Warning,
            "IsthmusPanicked",
            ["increase(isthmus_panics_total[1h])", "> 0", "0s"],
            "A task of {{ $labels.instance }} panicked.",
        ),
        alert(
            Info,
            "IsthmusVersionsDiffer",
            ["count(count by (tag) (istio_build{component=\"isthmus\"}))", "> 1", "6h"],
            "{{ $value }} versions of Isthmus run.",
        ),
    ]
}

fn certificates() -> Vec<Alert> {
    use Severity::{Critical, Warning};
    vec![
        alert(
            Critical,
            "IsthmusCertificatesFail",
            ["isthmus_certificates_failing", "> 0", "10m"],
            "The issuer does not renew {{ $value }} certificates of {{ $labels.instance }}.",
        ),
        alert(
            Critical,
            "IsthmusCertificateEndsSoon",
            [
                "(isthmus_certificate_soonest_expiry_timestamp_seconds > 0) - time()",
                "< 21600",
                "0s",
            ],
            "A certificate of {{ $labels.instance }} expires in {{ $value | humanizeDuration }}.",
        ),
        alert(
            Warning,
            "IsthmusTokenKeysNotFetched",
            [
                "sum by (instance) (increase(isthmus_jwks_fetches_total{result=~\"failed|refused\"}[10m]))",
                "> 0",
                "0s",
            ],
            "{{ $labels.instance }} cannot fetch the keys of an issuer of tokens.",
        ),
    ]
}

fn traffic() -> Vec<Alert> {
    use Severity::{Critical, Warning};
    vec![
        alert(
            Warning,
            "IsthmusRequestsFail",
            ["destination_service:istio_requests_failed:ratio_rate5m", "> 0.05", "10m"],
            "{{ $value | humanizePercentage }} of the requests to \
             {{ $labels.destination_service_name }}.{{ $labels.destination_service_namespace }} fail.",
        ),
        alert(
            Warning,
            "IsthmusConnectionsDenied",
            ["pair:istio_tcp_connections_denied:rate5m", "> 0.1", "10m"],
            "A policy denies {{ $labels.source_workload_namespace }}/{{ $labels.source_workload }} connections to \
             {{ $labels.destination_workload_namespace }}/{{ $labels.destination_workload }}.",
        ),
        alert(
            Critical,
            "IsthmusCaptureBypassed",
            [
                "sum by (instance) (increase(isthmus_uncaptured_connections_dropped_total[10m]))",
                "> 0",
                "0s",
            ],
            "Connections on {{ $labels.instance }} would have bypassed the capture and were dropped.",
        ),
        alert(
            Critical,
            "IsthmusProbesSpoofed",
            ["increase(isthmus_spoofed_probes_dropped_total[10m])", "> 0", "0s"],
            "Packets reached {{ $labels.instance }} from the address of its own probes.",
        ),
    ]
}

fn policies() -> Vec<Alert> {
    use Severity::{Critical, Warning};
    vec![
        alert(
            Critical,
            "IsthmusAuthorizerFails",
            [
                "sum by (instance) (rate(isthmus_external_authorizations_total{outcome=~\"failed|failed_open\"}[5m]))",
                "> 0",
                "5m",
            ],
            "{{ $labels.instance }} cannot ask a provider of external authorization.",
        ),
        alert(
            Warning,
            "IsthmusRateLimitServiceFails",
            [
                "sum by (instance) (rate(isthmus_rate_limits_total{outcome=~\"error|failure_mode_allowed\"}[5m]))",
                "> 0",
                "5m",
            ],
            "{{ $labels.instance }} cannot ask a rate limit service.",
        ),
        alert(
            Warning,
            "IsthmusSharedLimitsNotExchanged",
            ["isthmus_shared_limits_fallback", "> 0", "5m"],
            "{{ $labels.instance }} does not exchange the tokens of {{ $value }} shared rate limits.",
        ),
        alert(
            Warning,
            "IsthmusMirrorsFail",
            [
                "sum by (instance) (rate(isthmus_mirrored_requests_total{outcome!=\"answered\"}[5m]))",
                "> 0",
                "5m",
            ],
            "Mirrors do not get their copies from {{ $labels.instance }}.",
        ),
    ]
}

fn waypoints() -> Vec<Alert> {
    use Severity::Warning;
    vec![
        alert(
            Warning,
            "IsthmusWaypointRejectsClients",
            ["rate(isthmus_worker_limited_total[5m])", "> 0", "1m"],
            "Waypoint workers of {{ $labels.instance }} reject clients.",
        ),
        alert(
            Warning,
            "IsthmusWaypointNearlyFull",
            ["isthmus_worker_buffered_bytes / isthmus_worker_buffered_bytes_limit", "> 0.9", "5m"],
            "The waypoint worker of {{ $labels.namespace }} on {{ $labels.instance }} has reserved \
             {{ $value | humanizePercentage }} of its memory.",
        ),
        alert(
            Warning,
            "IsthmusSlowClients",
            [
                "sum by (instance) (rate(isthmus_worker_closed_total{cause=\"head_timeout\"}[5m]))",
                "> 1",
                "1m",
            ],
            "Clients on {{ $labels.instance }} send the heads of requests too slowly.",
        ),
    ]
}

fn losses() -> Vec<Alert> {
    use Severity::{Info, Warning};
    vec![
        alert(
            Warning,
            "IsthmusLogLinesLost",
            ["rate(isthmus_log_lines_dropped_total[5m])", "> 0", "1m"],
            "{{ $labels.instance }} loses lines of its log.",
        ),
        alert(
            Info,
            "IsthmusMetricsFolded",
            ["increase(isthmus_metrics_folded_total[1h])", "> 0", "0s"],
            "A namespace on {{ $labels.instance }} has as many series of metrics as it may.",
        ),
        alert(
            Warning,
            "IsthmusSpansDropped",
            ["sum by (instance) (rate(isthmus_spans_dropped_total[5m]))", "> 0", "10m"],
            "{{ $labels.instance }} drops spans.",
        ),
        alert(
            Warning,
            "IsthmusAccessRecordsDropped",
            ["sum by (instance) (rate(isthmus_access_records_dropped_total[5m]))", "> 0", "10m"],
            "{{ $labels.instance }} drops records of the access log for collectors.",
        ),
    ]
}

fn controller() -> Vec<Alert> {
    use Severity::{Critical, Warning};
    vec![
        alert(
            Critical,
            "IsthmusControllerHasNoLeader",
            // Only a controller has a CA: without controllers this is nothing.
            ["sum(isthmus_controller_leads and isthmus_controller_ca_end > 0)", "< 1", "5m"],
            "No replica of the controller leads: statuses are not written.",
        ),
        alert(
            Critical,
            "IsthmusCaEndsSoon",
            // The controller itself begins to replace it in the last tenth: a year before, by default.
            ["min((isthmus_controller_ca_end > 0) - time())", "< 2592000", "1h"],
            "The CA's signing certificate expires in {{ $value | humanizeDuration }}.",
        ),
        alert(
            Warning,
            "IsthmusSigningIsSlow",
            [
                "histogram_quantile(0.99, sum by (le) (rate(isthmus_controller_signing_duration_seconds_bucket[10m])))",
                "> 1",
                "10m",
            ],
            "One in a hundred certificate requests takes the controller {{ $value | humanizeDuration }} or longer.",
        ),
        alert(
            Warning,
            "IsthmusCertificateRequestsRefused",
            ["sum by (reason) (rate(isthmus_controller_refusals_total[10m]))", "> 0", "10m"],
            "The controller rejects certificate requests: {{ $labels.reason }}.",
        ),
        alert(
            Warning,
            "IsthmusStatusesNotWritten",
            [
                "sum by (instance) (rate(isthmus_controller_status_writes_total{outcome=\"failed\"}[10m]))",
                "> 0",
                "10m",
            ],
            "The controller {{ $labels.instance }} cannot write statuses.",
        ),
    ]
}

/// For the setting `rule_files` of Prometheus.
pub(super) fn file() -> String {
    format!(
        "# Recording and alerting rules for Prometheus (`rule_files`). docs/monitoring.md says what each alert means.\n\
         # Generated from tests/support/monitoring.\n{}",
        groups("")
    )
}

/// The same for the Prometheus operator.
pub(super) fn object() -> String {
    format!(
        "# Recording and alerting rules for the Prometheus operator. docs/monitoring.md says what each alert means.\n\
         # Generated from tests/support/monitoring.\n\
         apiVersion: monitoring.coreos.com/v1\n\
         kind: PrometheusRule\n\
         metadata:\n  name: isthmus\n  namespace: isthmus-system\n  labels:\n    app.kubernetes.io/part-of: isthmus\n\
         spec:\n{}",
        groups("  ")
    )
}

fn groups(indent: &str) -> String {
    let mut lines =
        vec!["groups:".to_owned(), "- name: isthmus-recordings".into(), "  rules:".into()];
    for rule in recordings() {
        lines.push(format!("  - record: {}", rule.record));
        lines.push(format!("    expr: {}", quoted(rule.expression)));
    }
    let mut last = "";
    for alert in alerts() {
        if last != alert.group {
            last = alert.group;
            lines.push(format!("- name: {last}"));
            lines.push("  rules:".into());
        }
        lines.push(format!("  - alert: {}", alert.name));
        lines.push(format!("    expr: {}", quoted(&alert.expression())));
        if alert.lasts != "0s" {
            lines.push(format!("    for: {}", alert.lasts));
        }
        lines.push("    labels:".into());
        lines.push(format!("      severity: {}", alert.severity.label()));
        lines.push("    annotations:".into());
        lines.push(format!("      summary: {}", quoted(alert.summary)));
        lines.push(format!("      runbook_url: {RUNBOOK}#{}", alert.anchor()));
    }
    lines.iter().fold(String::new(), |mut text, line| {
        // Into a text nothing fails.
        _ = writeln!(text, "{indent}{line}");
        text
    })
}

/// A scalar of YAML, in which nothing but its quote means something.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
