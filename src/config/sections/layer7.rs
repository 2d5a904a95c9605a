//! `[layer7]`: the budget of each waypoint worker, and how long it waits.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::base::{MAX_FIELDS, Str};
use crate::config::check::{
    self, CONNECTIONS, DAY, HOUR, MAX_BYTES, MIB, PERCENT, SECOND, THREADS,
};

/// Few requests have fewer, and none may have more over HTTP/2.
const HEADERS: RangeInclusive<usize> = 16..=MAX_FIELDS as usize;
/// What the setting of HTTP/2 can say (RFC 9113, 6.5.2), but 0.
const STREAMS: RangeInclusive<usize> = 1..=(1 << 31) - 1;

section! {
    /// `[layer7]`: the budget of each waypoint worker.
    pub struct Layer7Settings in "layer7." {
        /// Threads of each waypoint worker.
        threads: usize = 2, number(THREADS),
            because "The two that Istio gives a waypoint's Envoy.";

        /// Connections of each waypoint worker at a time; more are refused.
        max_connections: usize = 4_096, number(CONNECTIONS),
            because "The buffers of so many fit into `max_buffered_bytes` when they are idle HTTP/1.";

        /// Requests in flight in each waypoint worker; more are answered 503.
        max_requests: usize = 8_192, number(CONNECTIONS),
            because "Envoy's circuit breaker has 1024 per cluster; a worker serves many services.";

        /// Bytes that the connections of each waypoint worker may buffer together.
        max_buffered_bytes: usize = 512 * MIB, number(MIB..=MAX_BYTES),
            because "Half of what Istio grants a waypoint's pod (1 GiB).";

        /// Fields in the head of a request, and of a response; a request with more is answered 431, one whose response has
        /// more 502. A head has at most 60 KiB in any case.
        max_headers: usize = 100, number(HEADERS),
            because "Envoy's, Istio's, Apache's and hyper's number.";

        /// Requests at once on one HTTP/2 connection of a client, as it is told; `max_requests` and the shares bound them as
        /// well.
        max_http2_streams: usize = 1 << 30, number(STREAMS),
            because "What Istio tells Envoy. What a worker may have in flight, and its clients' shares, are the bound.";

        /// Protocols that clients may upgrade an HTTP/1.1 connection to, where waypoints or policies parse it. A request for
        /// another goes on without its Upgrade header. Nothing judges what is sent after an upgrade; so h2c, which carries
        /// requests, is not possible.
        upgrades: Vec<Str> = &["websocket"], lower_case_texts("protocol name", check::upgrade),
            because "What Istio enables: the only protocol that browsers upgrade to.";

        /// Percent of what others leave of each max_ budget that the clients of one namespace may hold together; clients
        /// without an identity count as one namespace. More is refused.
        tenant_share: usize = 80, number(PERCENT),
            because "A worker that serves one namespace alone gives it four fifths, and one namespace that takes all it can \
                     leaves to the next as much as 800 connections.";

        /// Percent of what the other clients of its namespace leave of that which one client, an identity at an address, may
        /// hold; without an identity it is an IPv4 address or an IPv6 network (/64). More connections are closed, more
        /// requests answered 503.
        client_share: usize = 80, number(PERCENT),
            because "64 % of the whole for a client that is alone, as an ingress gateway may be: 2600 connections and 5200 \
                     requests in flight from one pod.";

        /// How long a client may take to send the head of a request: the first one from the beginning of the connection on a
        /// port that is HTTP by its name, any other from its first byte.
        head_timeout: Duration = 10 * SECOND, duration(SECOND..=HOUR),
            because "Clients write it at once, and three retransmissions (1 + 2 + 4 s) fit into it. nginx and Node wait 60 s, \
                     Apache 20 s; an attacker holds its place for so long.";

        /// After how long without a request a client's connection is closed; when places become few, the idlest is closed
        /// sooner.
        idle_timeout: Duration = HOUR, duration(SECOND..=DAY),
            because "Envoy's and Istio's idle timeout of HTTP connections. Idle ones give way when places become few, so this \
                     needs not be short.";
    }
}
