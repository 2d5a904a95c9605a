//! One service: its clients, its versions, how well it answers.

use super::promql::{quantile, rate, rest, share, sum, sum_by, with};
use super::{Choice, Dashboard, Panel, Row, Variable};

const CLIENT: &str = "source_workload_namespace, source_workload";
const SERVER: &str = "destination_workload";
const FAILED: &str = "response_code=~\"5..\"";

/// A metric of requests to the service, each counted once, where it is routed.
fn requests(metric: &str) -> String {
    format!(
        "{metric}{{reporter=\"waypoint\",destination_service_namespace=\"$namespace\",destination_service_name=\"$service\"}}"
    )
}

/// A metric of connections to the service, as one end counts them.
fn connections(metric: &str, reporter: &str) -> String {
    format!(
        "{metric}{{reporter=\"{reporter}\",destination_service_namespace=\"$namespace\",destination_service_name=\"$service\"}}"
    )
}

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "service",
        title: "Isthmus / Service",
        description: "One service: its clients, its workloads, how well it answers, and what its policies do.",
        variables: vec![
            Variable {
                name: "namespace",
                label: "Namespace",
                query: "label_values(istio_tcp_connections_opened_total, destination_service_namespace)",
                regex: "",
                kind: Choice::One,
            },
            Variable {
                name: "service",
                label: "Service",
                query: "label_values({__name__=~\"istio_requests_total|istio_tcp_connections_opened_total\",\
                        destination_service_namespace=\"$namespace\"}, destination_service_name)",
                regex: "",
                kind: Choice::One,
            },
        ],
        rows: vec![overview(), by_ends(), sizes(), tcp(), policies()],
    }
}

fn overview() -> Row {
    let (total, duration) =
        (requests("istio_requests_total"), requests("istio_request_duration_milliseconds_bucket"));
    Row {
        title: "Requests",
        panels: vec![
            Panel::stat("Requests", "reqps", "HTTP and gRPC requests to the service.")
                .query(sum(&rate(&total)), ""),
            Panel::stat("Success", "percentunit", "Requests without a 5xx response.")
                .query(rest("", &with(&total, FAILED), &total), "")
                .red_below(0.95),
            Panel::stat("p50", "ms", "Half of the requests took no longer, at the client's node.")
                .query(quantile(0.5, "", &duration), ""),
            Panel::stat("p90", "ms", "Nine of ten requests took no longer, at the client's node.")
                .query(quantile(0.9, "", &duration), ""),
            Panel::stat("p99", "ms", "99 of 100 requests took no longer, at the client's node.")
                .query(quantile(0.99, "", &duration), ""),
            Panel::stat("Mutual TLS", "percentunit", "Requests whose client proved its identity.").query(
                share("", &with(&total, "connection_security_policy=\"mutual_tls\""), &total),
                "",
            ),
            Panel::graph("Latency", "ms", "From a request's head to the end of its response, at the client's node.")
                .quantiles(&duration),
            Panel::graph("Response codes", "reqps", "Code 0: the client was sent none, as after it went away.")
                .query(sum_by("response_code", &rate(&total)), "{{response_code}}"),
            Panel::graph(
                "Response flags",
                "reqps",
                "What the mesh says of requests that went wrong; docs/troubleshooting.md explains each flag. \"-\" is good.",
            )
            .query(sum_by("response_flags", &rate(&total)), "{{response_flags}}"),
        ],
    }
}

fn by_ends() -> Row {
    let (total, duration) =
        (requests("istio_requests_total"), requests("istio_request_duration_milliseconds_bucket"));
    const FROM: &str = "{{source_workload_namespace}}/{{source_workload}}";
    Row {
        title: "Clients and workloads",
        panels: vec![
            Panel::graph("Requests by client", "reqps", "Which workloads call the service.")
                .query(sum_by(CLIENT, &rate(&total)), FROM),
            Panel::graph("Success by client", "percentunit", "Requests of each client without a 5xx response.")
                .query(rest(CLIENT, &with(&total, FAILED), &total), FROM),
            Panel::graph("p99 by client", "ms", "A client that is slow alone is far away, or asks for more.")
                .query(quantile(0.99, CLIENT, &duration), FROM),
            Panel::graph(
                "Requests by workload",
                "reqps",
                "Which workloads answer: shows weights of routes. \"unknown\" are requests that reached none.",
            )
            .query(sum_by(SERVER, &rate(&total)), "{{destination_workload}}"),
            Panel::graph("Success by workload", "percentunit", "Requests that each workload answered without 5xx.")
                .query(rest(SERVER, &with(&total, FAILED), &total), "{{destination_workload}}"),
            Panel::graph("p99 by workload", "ms", "A version that is slower than the others stands out.")
                .query(quantile(0.99, SERVER, &duration), "{{destination_workload}}"),
        ],
    }
}

fn sizes() -> Row {
    let bytes = [requests("istio_request_bytes_bucket"), requests("istio_response_bytes_bucket")];
    let [asked, answered] = &bytes;
    Row {
        title: "Sizes and gRPC",
        panels: vec![
            Panel::graph("Request bodies", "bytes", "The sizes of request bodies.")
                .quantiles(asked),
            Panel::graph("Response bodies", "bytes", "The sizes of response bodies.")
                .quantiles(answered),
            Panel::graph(
                "gRPC messages",
                "ops",
                "Messages of gRPC calls, counted when the call ends.",
            )
            .query(sum(&rate(&requests("istio_request_messages_total"))), "of clients")
            .query(sum(&rate(&requests("istio_response_messages_total"))), "of the service"),
            Panel::graph("gRPC status", "reqps", "0 is success; grpc.io lists the others.").query(
                sum_by(
                    "grpc_response_status",
                    &rate(&with(&requests("istio_requests_total"), "request_protocol=\"grpc\"")),
                ),
                "{{grpc_response_status}}",
            ),
        ],
    }
}

fn tcp() -> Row {
    Row {
        title: "Connections",
        panels: vec![
            Panel::graph(
                "Connections by client",
                "cps",
                "Connections that clients opened to the service, as the client's node counts them; with a waypoint they carry requests.",
            )
            .query(
                sum_by(CLIENT, &rate(&connections("istio_tcp_connections_opened_total", "source"))),
                "{{source_workload_namespace}}/{{source_workload}}",
            ),
            Panel::graph("Opened and closed", "cps", "Connections to the service, as the client's node counts them.")
                .query(sum(&rate(&connections("istio_tcp_connections_opened_total", "source"))), "opened")
                .query(sum(&rate(&connections("istio_tcp_connections_closed_total", "source"))), "closed"),
            Panel::graph("Bytes", "Bps", "What the service answered and what clients sent, as the client's node counts it.")
                .query(sum(&rate(&connections("istio_tcp_sent_bytes_total", "source"))), "sent by the service")
                .query(
                    sum(&rate(&connections("istio_tcp_received_bytes_total", "source"))),
                    "received by the service",
                ),
            Panel::graph(
                "Failed connections",
                "cps",
                "Connections that were rejected or failed, by response flag; docs/troubleshooting.md explains each.",
            )
            .query(
                sum_by(
                    "reporter, response_flags",
                    &rate(
                        "istio_tcp_connections_failed_total{destination_service_namespace=\"$namespace\",\
                         destination_service_name=\"$service\"}",
                    ),
                ),
                "{{response_flags}} ({{reporter}})",
            ),
        ],
    }
}

fn policies() -> Row {
    const OF: &str = "{namespace=\"$namespace\",service=\"$service\"}";
    const LIMIT: &str = "{destination=~\"$namespace/$service:.*\"}";
    Row {
        title: "Policies of the service",
        panels: vec![
            Panel::graph(
                "Ejected endpoints",
                "short",
                "Endpoints that outlierDetection of a DestinationRule keeps requests from, as each node sees it.",
            )
            .query(format!("sum by (instance, port) (isthmus_outlier_ejected_endpoints{OF})"), "{{instance}} port {{port}}"),
            Panel::graph(
                "Ejections",
                "ops",
                "overflow: endpoints that were kept because maxEjectionPercent were ejected already.",
            )
            .query(sum(&rate(&format!("isthmus_outlier_ejections_total{OF}"))), "ejected")
            .query(sum(&rate(&format!("isthmus_outlier_ejections_overflow_total{OF}"))), "overflow"),
            Panel::graph("Concurrency limits", "short", "Requests that a concurrencyLimit permits to a pod at once, and those in progress.")
                .query(format!("sum by (pod) (isthmus_concurrency_limit{LIMIT})"), "{{pod}} limit")
                .query(format!("sum by (pod) (isthmus_concurrency_in_progress{LIMIT})"), "{{pod}} in progress"),
            Panel::graph("Shed requests", "reqps", "Requests that a concurrencyLimit did not let in, by cause.")
                .query(sum_by("cause", &rate(&format!("isthmus_concurrency_shed_total{LIMIT}"))), "{{cause}}"),
        ],
    }
}
