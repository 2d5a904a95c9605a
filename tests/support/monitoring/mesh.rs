//! The whole mesh: what is served, how well, how safely, and what is refused.

use super::promql::{quantile, rate, rest, share, sum, sum_by, top, with};
use super::{Choice, Dashboard, Panel, Row, Variable};

const SERVICE: &str = "destination_service_namespace, destination_service_name";
/// A request is counted once, where it is routed.
const REQUESTS: &str =
    "istio_requests_total{reporter=\"waypoint\",destination_service_namespace=~\"$namespace\"}";
const DURATION: &str = "istio_request_duration_milliseconds_bucket{reporter=\"waypoint\",destination_service_namespace=~\"$namespace\"}";
/// Class 5xx is that of codes that nobody has registered.
const FAILED: &str = "response_code=~\"5..\"";
/// Both ends count a connection; here it is the destination's.
const OPENED: &str = "istio_tcp_connections_opened_total{reporter=\"destination\",destination_workload_namespace=~\"$namespace\"}";
const REFUSED: &str =
    "istio_tcp_connections_failed_total{destination_workload_namespace=~\"$namespace\"}";

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "mesh",
        title: "Isthmus / Mesh",
        description: "What the mesh serves, how well, how safely, and what it refuses.",
        variables: vec![Variable {
            name: "namespace",
            label: "Namespace",
            query: "label_values(istio_tcp_connections_opened_total, destination_workload_namespace)",
            regex: "",
            kind: Choice::Many,
        }],
        rows: vec![overview(), requests(), connections(), policies()],
    }
}

fn overview() -> Row {
    Row {
        title: "At a glance",
        panels: vec![
            Panel::stat("Requests", "reqps", "HTTP and gRPC requests that waypoints routed, each counted once.")
                .query(sum(&rate(REQUESTS)), ""),
            Panel::stat("Success", "percentunit", "Requests without a 5xx response. See \"Services\" for who fails.")
                .query(rest("", &with(REQUESTS, FAILED), REQUESTS), "")
                .red_below(0.95),
            Panel::stat("p99 latency", "ms", "From a request's head to the end of its response, at the client's node.")
                .query(quantile(0.99, "", DURATION), ""),
            Panel::stat("Connections", "cps", "Connections that workloads of the mesh accepted, per second.")
                .query(sum(&rate(OPENED)), ""),
            Panel::stat(
                "Mutual TLS",
                "percentunit",
                "Accepted connections whose client proved its identity. The rest is plaintext from outside of the mesh.",
            )
            .query(share("", &with(OPENED, "connection_security_policy=\"mutual_tls\""), OPENED), ""),
            Panel::stat("Denied", "cps", "Connections that a policy denied. See \"Policies\" for whose.")
                .query(sum(&rate(&with(REFUSED, "response_flags=\"DENY\""))), "")
                .red_above(0.1),
            Panel::stat("Agents by version", "short", "Processes of Isthmus that are scraped, controllers included.")
                .query("count by (tag) (istio_build{component=\"isthmus\"})", "{{tag}}")
                .wide(),
            Panel::stat("Workloads not captured", "short", "Workloads that wait for their capture; isthmus status says why.")
                .query("sum(workload_manager_pending_proxy_count)", "")
                .red_above(1.0),
            Panel::stat(
                "Objects not in force",
                "short",
                "Complaints of the agent that has the most. isthmus status, or isthmus check, names object and field.",
            )
            .query("max(isthmus_source_complaints)", "")
            .red_above(1.0),
            Panel::stat(
                "Next certificate ends",
                "s",
                "Until the first certificate in use expires. Renewal starts at half of the lifetime, so this falls below a \
                 quarter of it (6 hours) only if renewals fail.",
            )
            .query("min(isthmus_certificate_soonest_expiry_timestamp_seconds > 0 < Inf) - time()", "")
            .red_below(21_600.0),
        ],
    }
}

fn requests() -> Row {
    Row {
        title: "Requests",
        panels: vec![
            Panel::table("Services", "Requests of each service, with the part without a 5xx response, and their latency.")
                .column(sum_by(SERVICE, &rate(REQUESTS)), "Requests", "reqps")
                .column(rest(SERVICE, &with(REQUESTS, FAILED), REQUESTS), "Success", "percentunit")
                .column(quantile(0.5, SERVICE, DURATION), "p50", "ms")
                .column(quantile(0.99, SERVICE, DURATION), "p99", "ms"),
            Panel::graph("Requests by service", "reqps", "The twenty services with the most requests.").query(
                top(20, &sum_by(SERVICE, &rate(REQUESTS))),
                "{{destination_service_name}}.{{destination_service_namespace}}",
            ),
            Panel::graph(
                "Failed requests by service",
                "reqps",
                "Requests with a 5xx response, of the twenty services with the most.",
            )
            .query(
                top(20, &sum_by(SERVICE, &rate(&with(REQUESTS, FAILED)))),
                "{{destination_service_name}}.{{destination_service_namespace}}",
            ),
            Panel::graph("Latency", "ms", "From a request's head to the end of its response, at the client's node.")
                .quantiles(DURATION),
            Panel::graph(
                "Requests by response code",
                "reqps",
                "Code 0: the client was sent none, as after it went away.",
            )
            .query(sum_by("response_code", &rate(REQUESTS)), "{{response_code}}"),
            Panel::graph(
                "Requests by response flag",
                "reqps",
                "What the mesh says of requests that went wrong; docs/troubleshooting.md explains each flag. \"-\" is good.",
            )
            .query(sum_by("response_flags", &rate(REQUESTS)), "{{response_flags}}"),
            Panel::graph("Retries", "ops", "Requests that were sent again, and those that no budget was left for.")
                .query(sum(&rate("isthmus_retries_total")), "sent again")
                .query(sum(&rate("isthmus_retries_success_total")), "successful")
                .query(sum(&rate("isthmus_retries_overflow_total")), "without budget")
                .query(sum(&rate("isthmus_retries_limit_exceeded_total")), "failed at last"),
            Panel::graph("Hedged requests", "ops", "Requests that were sent to another endpoint while they waited for an answer.")
                .query(sum(&rate("isthmus_hedged_requests_total")), "sent")
                .query(sum(&rate("isthmus_hedged_requests_won_total")), "answered there first")
                .query(sum(&rate("isthmus_hedged_requests_overflow_total")), "without budget"),
        ],
    }
}

fn connections() -> Row {
    const SENT: &str = "istio_tcp_sent_bytes_total{reporter=\"destination\",destination_workload_namespace=~\"$namespace\"}";
    const RECEIVED: &str = "istio_tcp_received_bytes_total{reporter=\"destination\",destination_workload_namespace=~\"$namespace\"}";
    const WORKLOAD: &str = "destination_workload_namespace, destination_workload";
    Row {
        title: "Connections",
        panels: vec![
            Panel::graph("Connections by workload", "cps", "Accepted connections, of the twenty workloads with the most.")
                .query(
                    top(20, &sum_by(WORKLOAD, &rate(OPENED))),
                    "{{destination_workload_namespace}}/{{destination_workload}}",
                ),
            Panel::graph("Bytes", "Bps", "What workloads answered (sent) and what clients sent them (received), as they accept it.")
                .query(sum(&rate(SENT)), "sent by servers")
                .query(sum(&rate(RECEIVED)), "received by servers"),
            Panel::graph(
                "Security of connections",
                "cps",
                "mutual_tls: both ends proved their identity, in a tunnel or in one node's agent. Others are plaintext.",
            )
            .query(sum_by("connection_security_policy", &rate(OPENED)), "{{connection_security_policy}}"),
            Panel::graph(
                "Failed connections by flag",
                "cps",
                "Connections that were rejected or failed, as both ends count them; docs/troubleshooting.md explains each flag.",
            )
            .query(sum_by("reporter, response_flags", &rate(REFUSED)), "{{response_flags}} ({{reporter}})"),
            Panel::graph(
                "Open connections",
                "short",
                "Connections that are open now, at either end; waypoint: HTTP in a waypoint's worker.",
            )
            .query("sum by (reporter) (istio_tcp_sockets_open)", "{{reporter}}"),
            Panel::graph(
                "Tunnels",
                "short",
                "Open tunnels between nodes' workloads, and the connections inside of them. Connections of one node need none.",
            )
            .query("sum(isthmus_pool_connections)", "tunnels")
            .query("sum(isthmus_pool_streams)", "connections inside"),
        ],
    }
}

fn policies() -> Row {
    const PAIR: &str = "source_workload_namespace, source_workload, destination_workload_namespace, destination_workload";
    Row {
        title: "Policies",
        panels: vec![
            Panel::graph(
                "Denied connections",
                "cps",
                "Connections that an AuthorizationPolicy or PeerAuthentication denied, of the twenty pairs with the most. The \
                 destination node's log names the policy.",
            )
            .query(
                top(20, &sum_by(PAIR, &rate(&with(REFUSED, "response_flags=\"DENY\"")))),
                "{{source_workload_namespace}}/{{source_workload}} to {{destination_workload_namespace}}/{{destination_workload}}",
            ),
            Panel::graph(
                "Refused requests",
                "reqps",
                "403: an AuthorizationPolicy or an external authorizer. 401: a token. 429: a rate limit. Applications may answer so, \
                 too: the destination node's log has the flag, the policy and the reason.",
            )
            .query(
                sum_by(
                    &format!("{SERVICE}, response_code"),
                    &rate(&with(REQUESTS, "response_code=~\"401|403|429\"")),
                ),
                "{{response_code}} {{destination_service_name}}.{{destination_service_namespace}}",
            ),
            Panel::graph(
                "Policies in dry-run and audit",
                "ops",
                "What AUDIT and dry-run policies matched and rate limits in shadow mode would have refused, by what they would have done.",
            )
            .query(
                sum_by("policy_namespace, policy_name, effect", &rate("isthmus_policy_notes_total")),
                "{{policy_namespace}}/{{policy_name}} {{effect}}",
            ),
            Panel::graph(
                "External authorization",
                "reqps",
                "Requests that a provider was asked about. failed: it could not be asked, and the request was refused; failed_open: \
                 it passed.",
            )
            .query(sum_by("outcome", &rate("isthmus_external_authorizations_total")), "{{outcome}}"),
            Panel::graph(
                "Rate limits",
                "reqps",
                "What rate limits of TrafficPolicies decided. error and failure_mode_allowed: the rate limit service could not be asked.",
            )
            .query(sum_by("limit, outcome", &rate("isthmus_rate_limits_total")), "{{limit}} {{outcome}}"),
            Panel::graph(
                "Keys of issuers of tokens",
                "ops",
                "Fetches of jwksUri. failed: the server did not answer well; refused: its address is one that agents do not connect to.",
            )
            .query(sum_by("result", &rate("isthmus_jwks_fetches_total")), "{{result}}")
            .query(sum(&rate("isthmus_jwks_limited_total")), "requests that did not wait"),
        ],
    }
}
