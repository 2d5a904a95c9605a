//! `connectionPool` and `proxyProtocol`.

use std::time::Duration;

use super::reading::Reading;
use crate::source::objects::{ConnectionPool, HttpSettings, ProxyProtocol, TcpSettings};
use crate::traffic::{self, HttpVersion, Keepalive, Limits, PerConnection, Pings};

/// How long an answer to a PING may take, where the rule does not say it: hyper's.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

impl Reading<'_, '_> {
    pub(super) fn pool(&mut self, within: &str, written: &ConnectionPool) -> Limits {
        let mut limits = Limits::default();
        if let Some(tcp) = &written.tcp {
            self.tcp(&format!("{within}.tcp"), tcp, &mut limits);
        }
        if let Some(http) = &written.http {
            self.http(&format!("{within}.http"), http, &mut limits);
        }
        limits
    }

    fn tcp(&mut self, within: &str, tcp: &TcpSettings, limits: &mut Limits) {
        let at = |field: &str| format!("{within}.{field}");
        limits.max_connections = limit(tcp.max_connections);
        limits.connect_timeout =
            self.duration(&at("connectTimeout"), tcp.connect_timeout.as_deref());
        limits.keepalive = tcp.tcp_keepalive.as_ref().map(|it| Keepalive {
            probes: it.probes.filter(|probes| *probes > 0),
            time: self.duration(&at("tcpKeepalive.time"), it.time.as_deref()),
            interval: self.duration(&at("tcpKeepalive.interval"), it.interval.as_deref()),
        });
        let longest = tcp.max_connection_duration.as_deref();
        limits.max_duration = self.duration(&at("maxConnectionDuration"), longest);
        limits.per_connection.max_duration = limits.max_duration;
        // As in Istio, 0 stands for no timeout.
        let idle = tcp.idle_timeout.as_deref().filter(|text| *text != "0s");
        limits.idle_timeout = self.duration(&at("idleTimeout"), idle);
    }

    fn http(&mut self, within: &str, http: &HttpSettings, limits: &mut Limits) {
        let at = |field: &str| format!("{within}.{field}");
        limits.max_pending_requests = limit(http.http1_max_pending_requests);
        limits.max_requests = limit(http.http2_max_requests);
        limits.max_retries = limit(http.max_retries);
        limits.http_version = match http.h2_upgrade_policy.as_deref() {
            // The upgrade has no effect beside it (Istio).
            _ if http.use_client_protocol == Some(true) => HttpVersion::OfClient,
            Some("UPGRADE") => HttpVersion::Http2,
            None | Some("DEFAULT" | "DO_NOT_UPGRADE") => HttpVersion::OfPort,
            Some(other) => {
                let reason = format!(
                    "{other:?} is none of DEFAULT, DO_NOT_UPGRADE and UPGRADE; it is left out"
                );
                self.error(&at("h2UpgradePolicy"), reason);
                HttpVersion::OfPort
            }
        };
        let pings = http.http2_keep_alive.as_ref();
        let pings = pings.and_then(|it| {
            let interval = self.duration(&at("http2KeepAlive.interval"), it.interval.as_deref());
            let timeout = self.duration(&at("http2KeepAlive.timeout"), it.timeout.as_deref());
            Some(Pings { interval: interval?, timeout: timeout.unwrap_or(PING_TIMEOUT) })
        });
        limits.per_connection = PerConnection {
            max_requests: limit(http.max_requests_per_connection),
            idle_timeout: self.duration(&at("idleTimeout"), http.idle_timeout.as_deref()),
            max_streams: limit(http.max_concurrent_streams),
            pings,
            ..limits.per_connection
        };
    }

    /// V1, unless the rule says another version (Istio).
    pub(super) fn proxy_protocol(
        &mut self,
        within: &str,
        written: &ProxyProtocol,
    ) -> Option<traffic::ProxyProtocol> {
        match written.version.as_deref() {
            None | Some("V1") => Some(traffic::ProxyProtocol::V1),
            Some("V2") => Some(traffic::ProxyProtocol::V2),
            Some(other) => {
                let reason = format!("{other:?} is neither V1 nor V2; no header is sent");
                self.error(&format!("{within}.version"), reason);
                None
            }
        }
    }
}

/// As in Istio, 0 stands for no limit.
fn limit(written: Option<u32>) -> Option<u32> {
    written.filter(|limit| *limit > 0)
}
