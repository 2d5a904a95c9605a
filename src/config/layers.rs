//! `[layer4]` and `[layer7]`: what may be open at a time, how long agents wait, and what clients may upgrade to.

use std::ops::RangeInclusive;

use super::defaults as default;
use super::reader::{Field, Reader};
use super::sections::{DAY, MINUTE, SECOND, TIMEOUTS};
use super::{Layer4Settings, Layer7Settings};
use crate::base::Str;

/// More than any machine has; guards against a number meant for another key.
const THREADS: RangeInclusive<usize> = 1..=256;
/// The number of ports of one address bounds what one workload can use.
const CONNECTIONS: RangeInclusive<usize> = 1..=1_000_000;

pub(super) fn layer4(reader: &mut Reader<'_>) -> Layer4Settings {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads =
        (processors / default::LAYER4_PROCESSORS_DIVISOR).max(default::LAYER4_MIN_THREADS);
    Layer4Settings {
        threads: reader.machine_number(
            Field {
                key: "layer4.threads",
                default: threads,
                meaning: "Threads for all connections of layer 4 and all tunnels.",
            },
            THREADS,
            ("a quarter of the processors, at least 2", default::LAYER4_MIN_THREADS),
        ),
        max_connections: reader.number(
            Field {
                key: "layer4.max_connections",
                default: default::LAYER4_MAX_CONNECTIONS,
                meaning: "Connections of one workload at a time, of each direction; those in tunnels count one by \
                          one, and tunnels by themselves. More wait to be accepted, and in tunnels are refused.",
            },
            CONNECTIONS,
        ),
        max_peer_connections: reader.number(
            Field {
                key: "layer4.max_peer_connections",
                default: default::LAYER4_MAX_PEER_CONNECTIONS,
                meaning: "Connections of one client's address to one workload at a time, in tunnels and without; more \
                          are refused.",
            },
            CONNECTIONS,
        ),
        max_peer_tunnels: reader.number(
            Field {
                key: "layer4.max_peer_tunnels",
                default: default::LAYER4_MAX_PEER_TUNNELS,
                meaning: "TLS connections of one client's address to port 15008 of one workload at a time; more are \
                          closed.",
            },
            CONNECTIONS,
        ),
        connect_timeout: reader.duration(
            Field {
                key: "layer4.connect_timeout",
                default: default::CONNECT_TIMEOUT,
                meaning: "How long connecting to an application, an endpoint or another node may take.",
            },
            TIMEOUTS,
        ),
        detect_timeout: reader.duration(
            Field {
                key: "layer4.detect_timeout",
                default: default::DETECT_TIMEOUT,
                meaning: "How long to wait for a client's first bytes on a port whose protocol is not said; \
                          then the connection is carried as bytes.",
            },
            TIMEOUTS,
        ),
    }
}

pub(super) fn layer7(reader: &mut Reader<'_>) -> Layer7Settings {
    Layer7Settings {
        threads: threads(reader),
        max_connections: reader.number(
            Field {
                key: "layer7.max_connections",
                default: default::LAYER7_MAX_CONNECTIONS,
                meaning: "Connections of each waypoint worker at a time; more are refused.",
            },
            CONNECTIONS,
        ),
        max_requests: reader.number(
            Field {
                key: "layer7.max_requests",
                default: default::LAYER7_MAX_REQUESTS,
                meaning: "Requests in flight in each waypoint worker; more are answered 503.",
            },
            CONNECTIONS,
        ),
        max_buffered_bytes: max_buffered_bytes(reader),
        upgrades: upgrades(reader),
        tenant_share: share(
            reader,
            "layer7.tenant_share",
            default::LAYER7_TENANT_SHARE,
            "Percent of what others leave of each of these three that the clients of one namespace may \
                          hold together; clients without an identity count as one namespace. More is refused.",
        ),
        client_share: share(
            reader,
            "layer7.client_share",
            default::LAYER7_CLIENT_SHARE,
            "Percent of what the other clients of its namespace leave of that which one client, an \
                          identity at an address, may hold; without an identity it is an IPv4 address or an IPv6 \
                          network (/64). More connections are closed, more requests answered 503.",
        ),
        head_timeout: reader.duration(
            Field {
                key: "layer7.head_timeout",
                default: default::LAYER7_HEAD_TIMEOUT,
                meaning: "How long a client may take to send the head of a request: the first one from the beginning of \
                          the connection on a port that is HTTP by its name, any other from its first byte.",
            },
            SECOND..=60 * MINUTE,
        ),
        idle_timeout: reader.duration(
            Field {
                key: "layer7.idle_timeout",
                default: default::LAYER7_IDLE_TIMEOUT,
                meaning: "After how long without a request a client's connection is closed; when places become few, \
                          the idlest is closed sooner.",
            },
            SECOND..=DAY,
        ),
    }
}

fn threads(reader: &mut Reader<'_>) -> usize {
    let (key, default) = ("layer7.threads", default::LAYER7_THREADS);
    reader.number(Field { key, default, meaning: "Threads of each waypoint worker." }, THREADS)
}

fn max_buffered_bytes(reader: &mut Reader<'_>) -> usize {
    reader.number(
        Field {
            key: "layer7.max_buffered_bytes",
            default: default::LAYER7_MAX_BUFFERED_BYTES,
            meaning: "Bytes that the connections of each waypoint worker may buffer together.",
        },
        1024 * 1024..=1 << 40,
    )
}

/// A percentage.
fn share(
    reader: &mut Reader<'_>,
    key: &'static str,
    default: usize,
    meaning: &'static str,
) -> usize {
    reader.number(Field { key, default, meaning }, 1..=100)
}

fn upgrades(reader: &mut Reader<'_>) -> Vec<Str> {
    let read = reader.texts(
        Field {
            key: "layer7.upgrades",
            default: &default::LAYER7_UPGRADES,
            meaning: "Protocols that clients may upgrade an HTTP/1.1 connection to, where waypoints or policies parse it. \
                      A request for another goes on without its Upgrade header. Nothing judges what is sent after an \
                      upgrade; so h2c, which carries requests, is not possible.",
        },
        "protocol name",
        check_upgrade,
    );
    read.into_iter().map(|name| Str::from(name.to_ascii_lowercase())).collect()
}

/// A protocol of `Upgrade` (RFC 9110, 7.8) that is not HTTP.
fn check_upgrade(text: &str) -> Result<(), String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_token) {
        return Err(format!("{text:?} is not the name of a protocol, such as \"websocket\""));
    }
    let name = text.split('/').next().unwrap_or_default().to_ascii_lowercase();
    if matches!(name.as_str(), "h2c" | "h2" | "http") {
        return Err(format!("{text:?} carries further requests, which no policy would judge"));
    }
    Ok(())
}
