//! One workload: what it serves, and whom it calls.

use super::promql::{quantile, rate, rest, share, sum, sum_by, with};
use super::{Choice, Dashboard, Panel, Row, Variable};

const CLIENT: &str = "source_workload_namespace, source_workload";
const SERVICE: &str = "destination_service_namespace, destination_service_name";
const CLIENT_NAME: &str = "{{source_workload_namespace}}/{{source_workload}}";
const SERVICE_NAME: &str = "{{destination_service_name}}.{{destination_service_namespace}}";
const FAILED: &str = "response_code=~\"5..\"";

/// A metric of what the workload serves.
fn inbound(metric: &str, reporter: &str) -> String {
    format!(
        "{metric}{{reporter=\"{reporter}\",destination_workload_namespace=\"$namespace\",destination_workload=\"$workload\"}}"
    )
}

/// A metric of what the workload asks for.
fn outbound(metric: &str, reporter: &str) -> String {
    format!(
        "{metric}{{reporter=\"{reporter}\",source_workload_namespace=\"$namespace\",source_workload=\"$workload\"}}"
    )
}

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "workload",
        title: "Isthmus / Workload",
        description: "One workload, such as a Deployment: what it serves and to whom, and which services it calls.",
        variables: vec![
            Variable {
                name: "namespace",
                label: "Namespace",
                query: "label_values(istio_tcp_connections_opened_total, destination_workload_namespace)",
                regex: "",
                kind: Choice::One,
            },
            Variable {
                name: "workload",
                label: "Workload",
                query: "label_values(istio_tcp_connections_opened_total{destination_workload_namespace=\"$namespace\"}, \
                        destination_workload)",
                regex: "",
                kind: Choice::One,
            },
        ],
        rows: vec![served(), accepted(), called(), opened()],
    }
}

fn served() -> Row {
    let total = inbound("istio_requests_total", "waypoint");
    let duration = inbound("istio_request_duration_milliseconds_bucket", "waypoint");
    Row {
        title: "Requests that it serves",
        panels: vec![
            Panel::graph("Requests by client", "reqps", "Requests that waypoints sent to this workload, by their client.")
                .query(sum_by(CLIENT, &rate(&total)), CLIENT_NAME),
            Panel::graph("Success by client", "percentunit", "Requests without a 5xx response.")
                .query(rest(CLIENT, &with(&total, FAILED), &total), CLIENT_NAME),
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
            Panel::graph("p99 by client", "ms", "A client that is slow alone is far away, or asks for more.")
                .query(quantile(0.99, CLIENT, &duration), CLIENT_NAME),
        ],
    }
}

fn accepted() -> Row {
    let opened = inbound("istio_tcp_connections_opened_total", "destination");
    Row {
        title: "Connections that it accepts",
        panels: vec![
            Panel::graph("Connections by client", "cps", "Connections that the workload's node accepted for it.")
                .query(sum_by(CLIENT, &rate(&opened)), CLIENT_NAME),
            Panel::graph("Mutual TLS", "percentunit", "Accepted connections whose client proved its identity.")
                .query(
                    share("", &with(&opened, "connection_security_policy=\"mutual_tls\""), &opened),
                    "mutual TLS",
                ),
            Panel::graph("Bytes", "Bps", "What the workload answered and what clients sent it.")
                .query(sum(&rate(&inbound("istio_tcp_sent_bytes_total", "destination"))), "sent")
                .query(sum(&rate(&inbound("istio_tcp_received_bytes_total", "destination"))), "received"),
            Panel::graph(
                "Refused connections",
                "cps",
                "Connections to the workload that its node rejected, by client and flag. DENY: a policy; the node's log names it.",
            )
            .query(
                sum_by(
                    &format!("{CLIENT}, response_flags"),
                    &rate(&inbound("istio_tcp_connections_failed_total", "destination")),
                ),
                "{{response_flags}} {{source_workload_namespace}}/{{source_workload}}",
            ),
        ],
    }
}

fn called() -> Row {
    let total = outbound("istio_requests_total", "waypoint");
    let duration = outbound("istio_request_duration_milliseconds_bucket", "waypoint");
    Row {
        title: "Requests that it sends",
        panels: vec![
            Panel::graph("Requests by service", "reqps", "Which services the workload calls.")
                .query(sum_by(SERVICE, &rate(&total)), SERVICE_NAME),
            Panel::graph("Success by service", "percentunit", "Requests without a 5xx response.")
                .query(rest(SERVICE, &with(&total, FAILED), &total), SERVICE_NAME),
            Panel::graph(
                "p99 by service",
                "ms",
                "From a request's head to the end of its response, at this workload's node.",
            )
            .query(quantile(0.99, SERVICE, &duration), SERVICE_NAME),
        ],
    }
}

fn opened() -> Row {
    Row {
        title: "Connections that it opens",
        panels: vec![
            Panel::graph("Connections by service", "cps", "Connections that the workload opened.")
                .query(
                    sum_by(
                        SERVICE,
                        &rate(&outbound("istio_tcp_connections_opened_total", "source")),
                    ),
                    SERVICE_NAME,
                ),
            Panel::graph(
                "Bytes",
                "Bps",
                "What services answered, and what the workload sent them.",
            )
            .query(sum(&rate(&outbound("istio_tcp_sent_bytes_total", "source"))), "answered")
            .query(sum(&rate(&outbound("istio_tcp_received_bytes_total", "source"))), "sent"),
            Panel::graph(
                "Failed connections",
                "cps",
                "Connections of the workload that were rejected or failed, by service and flag.",
            )
            .query(
                sum_by(
                    &format!("{SERVICE}, response_flags"),
                    &rate(&outbound("istio_tcp_connections_failed_total", "source")),
                ),
                "{{response_flags}} {{destination_service_name}}.{{destination_service_namespace}}",
            ),
        ],
    }
}
