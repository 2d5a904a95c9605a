//! The agents of nodes, and the controller: whether they work, and what they take.

use super::promql::{rate, sum_by};
use super::{Choice, Dashboard, Panel, Row, Variable};

const NODE: &str = "{{instance}}";

/// A metric of the selected agents.
fn of(metric: &str) -> String {
    format!("{metric}{{instance=~\"$node\"}}")
}

/// The same with more matchers.
fn of_with(metric: &str, matchers: &str) -> String {
    format!("{metric}{{instance=~\"$node\",{matchers}}}")
}

/// A counter of each selected agent.
fn counted(metric: &str) -> String {
    sum_by("instance", &rate(&of(metric)))
}

fn quantile(metric: &str) -> String {
    format!("histogram_quantile(0.99, {})", sum_by("le, instance", &rate(&of(metric))))
}

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "node-agent",
        title: "Isthmus / Node agent",
        description: "The agents of nodes: capture, certificates, tunnels, waypoint workers, what they take and what they \
                      drop; and the controller.",
        variables: vec![Variable {
            name: "node",
            label: "Node",
            // A controller applies no state of the mesh.
            query: "query_result(isthmus_world_generation > 0)",
            regex: "/instance=\"([^\"]+)\"/",
            kind: Choice::Many,
        }],
        rows: vec![
            health(),
            certificates(),
            resources(),
            tunnels(),
            workers(),
            losses(),
            names(),
            controller(),
            shared_limits(),
        ],
    }
}

fn health() -> Row {
    Row {
        title: "Health",
        panels: vec![
            Panel::graph("Captured workloads", "short", "Workloads of the node whose traffic the agent carries.")
                .query(of("workload_manager_active_proxy_count"), NODE),
            Panel::graph(
                "Waiting workloads",
                "short",
                "pending: wait to be captured, isthmus status says why. full: at their connection limit, further connections wait.",
            )
            .query(of("workload_manager_pending_proxy_count"), "{{instance}} pending")
            .query(of("isthmus_workloads_full"), "{{instance}} full"),
            Panel::graph("Starting and ending captures", "ops", "Workloads of the node whose capture started or ended.")
                .query(counted("workload_manager_proxies_started_total"), "{{instance}} started")
                .query(counted("workload_manager_proxies_stopped_total"), "{{instance}} stopped"),
            Panel::graph("Objects not in force", "short", "Complaints about objects; isthmus status names object and field.")
                .query(of("isthmus_source_complaints"), NODE),
            Panel::graph(
                "Age of the mesh's state",
                "s",
                "Since manifests or API server were last read without an error. It stays below two minutes.",
            )
            .query(format!("time() - ({} > 0)", of("isthmus_source_last_read_timestamp_seconds")), NODE),
        ],
    }
}

fn certificates() -> Row {
    Row {
        title: "Certificates and starting pods",
        panels: vec![
            Panel::graph(
                "Next certificate ends",
                "s",
                "Until the first certificate in use expires. Renewal starts at half of the lifetime (24 hours by default).",
            )
            .query(
                format!("({} > 0 < Inf) - time()", of("isthmus_certificate_soonest_expiry_timestamp_seconds")),
                NODE,
            ),
            Panel::graph(
                "Certificates",
                "short",
                "valid: identities with a certificate. failing: identities whose last request to the issuer failed.",
            )
            .query(of("isthmus_certificates"), "{{instance}} valid")
            .query(of("isthmus_certificates_failing"), "{{instance}} failing"),
            Panel::graph("Certificate requests", "ops", "Certificates that were issued, and requests that failed.")
                .query(counted("isthmus_certificates_issued_total"), "{{instance}} issued")
                .query(counted("isthmus_certificate_failures_total"), "{{instance}} failed"),
            Panel::graph(
                "Starting pods",
                "s",
                "How long 99 of 100 starting pods waited for capture and certificate, as the CNI plugin asked.",
            )
            .query(quantile("isthmus_cni_add_duration_seconds_bucket"), NODE),
            Panel::graph(
                "Requests of the CNI plugin",
                "ops",
                "unknown: the agent has not heard of the pod. refused: it could not be captured. Both keep a pod from starting.",
            )
            .query(
                sum_by("command, outcome", &rate(&of("isthmus_cni_requests_total"))),
                "{{command}} {{outcome}}",
            ),
        ],
    }
}

fn resources() -> Row {
    Row {
        title: "Resources",
        panels: vec![
            Panel::graph("Memory", "bytes", "Resident memory. docs/observability.md says what bounds it.")
                .query(of("process_resident_memory_bytes"), NODE),
            Panel::graph("CPU", "none", "Cores in use, user and kernel.")
                .query(rate(&of("process_cpu_seconds_total")), NODE),
            Panel::graph("File descriptors", "percentunit", "Part of the limit that is open; two for each connection.")
                .query(format!("{} / {}", of("process_open_fds"), of("process_max_fds")), NODE),
            Panel::graph(
                "Busy threads",
                "percentunit",
                "Busiest and idlest thread of the data path. If all are near 1, the agent is short of CPU (layer4.threads).",
            )
            .query(
                format!(
                    "max by (instance) ({})",
                    rate(&of_with("tokio_worker_total_busy_duration_seconds_total", "runtime=\"layer4\""))
                ),
                "{{instance}} busiest",
            )
            .query(
                format!(
                    "min by (instance) ({})",
                    rate(&of_with("tokio_worker_total_busy_duration_seconds_total", "runtime=\"layer4\""))
                ),
                "{{instance}} idlest",
            ),
            Panel::graph("Tasks that wait for a thread", "short", "Global queue of the runtimes. Above 1000, the data path is overloaded.")
                .query(of("tokio_global_queue_depth"), "{{instance}} {{runtime}}"),
            Panel::graph("Tasks", "short", "Live tasks of the runtimes: they grow with connections.")
                .query(of("tokio_num_alive_tasks"), "{{instance}} {{runtime}}"),
            Panel::graph("Series of metrics", "short", "Series by labels that objects or peers choose, which [metrics] max_series bounds.")
                .query(of("isthmus_metrics_series"), NODE),
            Panel::graph("Changes of the mesh", "ops", "Applied changes: a controller that flaps shows here.")
                .query(format!("deriv({}[$__rate_interval])", of("isthmus_world_generation")), NODE),
            Panel::graph("Version", "short", "Processes by version; two for long mean an upgrade that got stuck.")
                .query("count by (tag) (istio_build{component=\"isthmus\"})", "{{tag}}"),
        ],
    }
}

fn tunnels() -> Row {
    Row {
        title: "Tunnels and connections",
        panels: vec![
            Panel::graph("Open tunnels", "short", "Pooled HBONE connections to other workloads.")
                .query(of("isthmus_pool_connections"), NODE),
            Panel::graph("Connections in tunnels", "short", "Streams inside of open tunnels.")
                .query(of("isthmus_pool_streams"), NODE),
            Panel::graph("Open connections", "short", "At this node's ends; waypoint: HTTP in a waypoint's worker.")
                .query(sum_by("instance, reporter", &of("istio_tcp_sockets_open")), "{{instance}} {{reporter}}"),
            Panel::graph("Connections within the node", "cps", "Connections between workloads of the node, which need no tunnel.")
                .query(counted("isthmus_in_process_connections_total"), NODE),
            Panel::graph(
                "TLS handshakes",
                "ops",
                "By the negotiated group: X25519MLKEM768 resists quantum computers. Many handshakes for few tunnels mean tunnels that break.",
            )
            .query(
                sum_by("purpose, role, group", &rate(&of("isthmus_tls_handshakes_total"))),
                "{{purpose}} {{role}} {{group}}",
            ),
            Panel::graph(
                "Limited connections",
                "cps",
                "Connections that waited or were rejected because their workload or peer was at its limit (layer4), and failures to \
                 accept because descriptors or memory ran out.",
            )
            .query(counted("isthmus_limited_connections_total"), "{{instance}} limited")
            .query(counted("isthmus_accept_failures_total"), "{{instance}} not accepted"),
            Panel::graph(
                "Dropped past the capture",
                "ops",
                "SYNs that would have bypassed a workload's agent, and packets that pretended to be the node's probes.",
            )
            .query(
                sum_by("instance, direction", &rate(&of("isthmus_uncaptured_connections_dropped_total"))),
                "{{instance}} {{direction}}",
            )
            .query(counted("isthmus_spoofed_probes_dropped_total"), "{{instance}} spoofed probes"),
        ],
    }
}

fn workers() -> Row {
    const WORKER: &str = "{{instance}} {{namespace}}";
    Row {
        title: "Waypoint workers",
        panels: vec![
            Panel::graph("Requests in flight", "short", "Of each namespace with a waypoint.")
                .query(of("isthmus_worker_requests"), WORKER),
            Panel::graph("Connections", "short", "Of each namespace's worker; waiting: not accepted yet.")
                .query(of("isthmus_worker_connections"), WORKER)
                .query(of("isthmus_worker_waiting_connections"), "{{instance}} {{namespace}} waiting"),
            Panel::graph(
                "Reserved memory",
                "percentunit",
                "Part of layer7.max_buffered_bytes that connections have reserved. Near 1, clients are rejected (UO).",
            )
            .query(
                format!("{} / {}", of("isthmus_worker_buffered_bytes"), of("isthmus_worker_buffered_bytes_limit")),
                WORKER,
            ),
            Panel::graph("Clients", "short", "Clients that share a worker's budgets.")
                .query(of("isthmus_worker_clients"), WORKER),
            Panel::graph("Rejected clients", "ops", "Connections and requests without room in a budget or a share; the log names whom.")
                .query(counted("isthmus_worker_limited_total"), NODE),
            Panel::graph(
                "Closed connections",
                "ops",
                "Connections that workers closed: head_timeout is a slow client, pressure makes room for others.",
            )
            .query(sum_by("cause", &rate(&of("isthmus_worker_closed_total"))), "{{cause}}"),
        ],
    }
}

fn losses() -> Row {
    Row {
        title: "Queues and losses",
        panels: vec![
            Panel::graph("Log", "short", "Lines that wait to be written. Traffic does not wait for the log: beyond 10,000 they are dropped.")
                .query(of("isthmus_log_lines_waiting"), NODE),
            Panel::graph("Lost lines of the log", "ops", "Lines that could not be written fast enough.")
                .query(counted("isthmus_log_lines_dropped_total"), NODE),
            Panel::graph("Folded samples", "ops", "Samples counted as \"other\", because a namespace has as many series as it may.")
                .query(counted("isthmus_metrics_folded_total"), NODE),
            Panel::graph("Spans", "ops", "Spans that collectors accepted, and that were dropped.")
                .query(counted("isthmus_spans_exported_total"), "{{instance}} exported")
                .query(
                    sum_by("instance, cause", &rate(&of("isthmus_spans_dropped_total"))),
                    "{{instance}} dropped ({{cause}})",
                ),
            Panel::graph("Access log for collectors", "ops", "Records that collectors accepted, and that were dropped.")
                .query(counted("isthmus_access_records_exported_total"), "{{instance}} exported")
                .query(
                    sum_by("instance, cause", &rate(&of("isthmus_access_records_dropped_total"))),
                    "{{instance}} dropped ({{cause}})",
                ),
            Panel::graph("Mirrored requests", "reqps", "Copies for mirrors, by what became of them.")
                .query(sum_by("outcome", &rate(&of("isthmus_mirrored_requests_total"))), "{{outcome}}"),
            Panel::graph("Panics", "short", "Bugs: each ended one task. Please report the line of the log.")
                .query(of("isthmus_panics_total"), NODE),
        ],
    }
}

fn names() -> Row {
    Row {
        title: "DNS",
        panels: vec![
            Panel::graph(
                "Queries",
                "ops",
                "Queries of workloads, and those that were forwarded to their resolvers.",
            )
            .query(counted("istio_dns_requests_total"), "{{instance}} asked")
            .query(counted("istio_dns_upstream_requests_total"), "{{instance}} forwarded"),
            Panel::graph("Failures", "ops", "Queries that no resolver answered.")
                .query(counted("istio_dns_upstream_failures_total"), NODE),
            Panel::graph("Duration", "s", "99 of 100 forwarded queries took no longer.")
                .query(quantile("istio_dns_upstream_request_duration_seconds_bucket"), NODE),
        ],
    }
}

/// Agents have these metrics too, with the values of something that does not happen; only a controller has a CA.
fn controller() -> Row {
    Row {
        title: "Controller",
        panels: vec![
            Panel::graph("Leader", "short", "The replica with 1 writes statuses; every replica signs.")
                .query("isthmus_controller_leads and isthmus_controller_ca_end > 0", NODE),
            Panel::graph("Signed certificates", "ops", "Certificates that each replica signed.")
                .query(sum_by("instance", &rate("isthmus_controller_certificates_signed_total")), NODE),
            Panel::graph("Signing", "s", "Duration of granted certificate requests, with the API server's answers.")
                .query(
                    "histogram_quantile(0.5, sum by (le) (rate(isthmus_controller_signing_duration_seconds_bucket[$__rate_interval])))",
                    "p50",
                )
                .query(
                    "histogram_quantile(0.99, sum by (le) (rate(isthmus_controller_signing_duration_seconds_bucket[$__rate_interval])))",
                    "p99",
                ),
            Panel::graph("Rejected requests", "ops", "Certificate requests that were rejected, by reason; the controller's log names whose.")
                .query(sum_by("reason", &rate("isthmus_controller_refusals_total")), "{{reason}}"),
            Panel::graph(
                "Written statuses",
                "ops",
                "outdated: the object had changed, and its status is written again. failed: the API server rejected it.",
            )
            .query(sum_by("outcome", &rate("isthmus_controller_status_writes_total")), "{{outcome}}"),
            Panel::graph("CA ends", "s", "Until the CA's signing certificate expires. The controller replaces it in the last tenth of its lifetime.")
                .query("min((isthmus_controller_ca_end > 0) - time())", "end"),
        ],
    }
}

fn shared_limits() -> Row {
    Row {
        title: "Shared rate limits",
        panels: vec![
            Panel::graph(
                "Limits",
                "short",
                "Shared rate limits of Services with pods on the node. fallback: their tokens are not exchanged, so that the node has its part only.",
            )
            .query(of("isthmus_shared_limits"), NODE)
            .query(of("isthmus_shared_limits_fallback"), "{{instance}} fallback"),
            Panel::graph("Broker away", "s", "How long a broker, through which tokens are exchanged, has not been reached.")
                .query(of("isthmus_shared_limits_away_seconds"), NODE),
            Panel::graph("Tokens", "ops", "Tokens that nodes received and gave; discarded ones were not used in time.")
                .query(sum_by("what", &rate(&of("isthmus_shared_limits_tokens_total"))), "{{what}}"),
            Panel::graph("Exchange at controllers", "short", "Agents that exchange tokens through a controller, their limits, and keys that a node lacks tokens of.")
                .query("sum(isthmus_controller_exchange_nodes)", "agents")
                .query("sum(isthmus_controller_exchange_limits)", "limits")
                .query("sum(isthmus_controller_exchange_keys)", "keys"),
        ],
    }
}
