//! `connectionPool`.

use super::reading::Reading;
use crate::source::objects::ConnectionPool;
use crate::traffic::{Keepalive, Limits, PerConnection};

const CLOSED: &str = "connections last as long as both sides use them";
const PROTOCOL: &str = "the version of HTTP follows the client's and the port's appProtocol";

impl Reading<'_, '_> {
    pub(super) fn pool(&mut self, within: &str, written: &ConnectionPool) -> Limits {
        let mut limits = Limits::default();
        let at = |field: &str| format!("{within}.{field}");
        let mut given: Vec<(&str, bool, &str)> = Vec::new();
        if let Some(tcp) = &written.tcp {
            given.extend([
                ("tcp.maxConnectionDuration", tcp.max_connection_duration.is_some(), CLOSED),
                ("tcp.idleTimeout", tcp.idle_timeout.is_some(), CLOSED),
            ]);
            limits.max_connections = limit(tcp.max_connections);
            let timeout = tcp.connect_timeout.as_deref();
            limits.connect_timeout = self.duration(&at("tcp.connectTimeout"), timeout);
            limits.keepalive = tcp.tcp_keepalive.as_ref().map(|it| Keepalive {
                probes: it.probes.filter(|probes| *probes > 0),
                time: self.duration(&at("tcp.tcpKeepalive.time"), it.time.as_deref()),
                interval: self.duration(&at("tcp.tcpKeepalive.interval"), it.interval.as_deref()),
            });
        }
        if let Some(http) = &written.http {
            let streams = "the application's own limit holds";
            given.extend([
                ("http.h2UpgradePolicy", http.h2_upgrade_policy.is_some(), PROTOCOL),
                ("http.useClientProtocol", http.use_client_protocol.is_some(), PROTOCOL),
                ("http.maxConcurrentStreams", http.max_concurrent_streams.is_some(), streams),
                (
                    "http.http2KeepAlive",
                    http.http2_keep_alive.is_some(),
                    "tunnels probe their peer",
                ),
            ]);
            limits.max_pending_requests = limit(http.http1_max_pending_requests);
            limits.max_requests = limit(http.http2_max_requests);
            limits.max_retries = limit(http.max_retries);
            limits.per_connection = PerConnection {
                max_requests: limit(http.max_requests_per_connection),
                idle_timeout: self.duration(&at("http.idleTimeout"), http.idle_timeout.as_deref()),
            };
        }
        for (field, is_given, instead) in given {
            if is_given {
                self.no_effect(&at(field), instead);
            }
        }
        limits
    }
}

/// As in Istio, 0 stands for no limit.
fn limit(written: Option<u32>) -> Option<u32> {
    written.filter(|limit| *limit > 0)
}
