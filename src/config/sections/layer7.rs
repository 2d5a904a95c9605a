//! `[layer7]`: the budget of each waypoint worker, and how long it waits.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::base::{MAX_FIELDS, Str};
use crate::config::check::{
    self, CONNECTIONS, DAY, HOUR, MAX_BYTES, MIB, PERCENT, SECOND, THREADS, TIMEOUTS,
};

/// Few requests have fewer, and none may have more over HTTP/2.
const HEADERS: RangeInclusive<usize> = 16..=MAX_FIELDS as usize;
/// What the setting of HTTP/2 can say (RFC 9113, 6.5.2), but 0.
const STREAMS: RangeInclusive<usize> = 1..=(1 << 31) - 1;

section! {
    /// `[layer7]`: the budget of each waypoint worker.
    pub struct Layer7Settings in "layer7." {
        /// Threads of each waypoint worker. With more, one namespace's requests use more processors, and each request costs more
        /// processor time.
        threads: usize = 1, number(THREADS),
            because "Each namespace has a worker, so that several namespaces use several processors. A second thread that steals \
                     tasks costs 13 to 34 % more processor time per request.";

        /// The most connections of each waypoint worker; further ones are rejected.
        max_connections: usize = 4_096, number(CONNECTIONS),
            because "The buffers of so many idle HTTP/1 connections fit into `max_buffered_bytes`.";

        /// The most requests in flight in each waypoint worker; further ones get a 503.
        max_requests: usize = 8_192, number(CONNECTIONS),
            because "Envoy's circuit breaker has 1024 per cluster; a worker serves many services.";

        /// The memory budget of all connections of each waypoint worker, in bytes.
        max_buffered_bytes: usize = 512 * MIB, number(MIB..=MAX_BYTES),
            because "Half of what Istio grants a waypoint's pod (1 GiB).";

        /// The most fields in the head of a request or response; a request with more gets a 431, a response with more
        /// becomes a 502. A head has at most 60 KiB in any case.
        max_headers: usize = 100, number(HEADERS),
            because "Envoy's, Istio's, Apache's and hyper's number.";

        /// The most concurrent requests on one HTTP/2 connection of a client, announced to it; `max_requests` and the
        /// shares also apply.
        max_http2_streams: usize = 1 << 30, number(STREAMS),
            because "What Istio tells Envoy. What a worker may have in flight, and its clients' shares, are the bound.";

        /// Protocols to which clients may upgrade an HTTP/1.1 connection, where waypoints or policies parse it. A
        /// request for another protocol continues without its Upgrade header. Policies do not see what is sent after an
        /// upgrade; therefore h2c, which carries requests, is not allowed.
        upgrades: Vec<Str> = &["websocket"], lower_case_texts("protocol name", check::upgrade),
            because "What Istio enables: the only protocol that browsers upgrade to.";

        /// The percentage of each max_ budget, of what other namespaces leave, that the clients of one namespace may
        /// hold; clients without an identity count as one namespace. Beyond it, they are rejected.
        tenant_share: usize = 80, number(PERCENT),
            because "A worker that serves one namespace alone gives it four fifths, and one namespace that takes all it can \
                     leaves to the next as much as 800 connections.";

        /// The percentage, of what the other clients of its namespace leave, that one client may hold. A client is an
        /// identity at an address; without an identity, an IPv4 address or an IPv6 network (/64). Beyond it,
        /// connections are closed, and requests get a 503.
        client_share: usize = 80, number(PERCENT),
            because "64 % of the whole for a client that is alone, as an ingress gateway may be: 2600 connections and 5200 \
                     requests in flight from one pod.";

        /// The timeout of a request's head: for the first one it starts with the connection on a port that is named
        /// HTTP, for any other one with its first byte.
        head_timeout: Duration = 10 * SECOND, duration(SECOND..=HOUR),
            because "Clients write it at once, and three retransmissions (1 + 2 + 4 s) fit into it. nginx and Node wait 60 s, \
                     Apache 20 s; an attacker holds its place for so long.";

        /// The idle timeout of a client's connection; when slots become few, the longest idle connections are closed
        /// sooner.
        idle_timeout: Duration = HOUR, duration(SECOND..=DAY),
            because "Envoy's and Istio's idle timeout of HTTP connections. Idle ones give way when places become few, so this \
                     needs not be short.";

        /// How long to wait for a client's first bytes on a port whose protocol is not said; then the connection is carried
        /// as bytes.
        detect_timeout: Duration = 5 * SECOND, duration(TIMEOUTS),
            because "Envoy's listeners in a sidecar waited as long; a server that speaks first waits so long, where its port \
                     is not named.";
    }
}
