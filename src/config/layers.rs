//! `[layer4]`, `[layer7]` and `[pool]`: what the data path may hold, and how long it waits.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::defaults as default;
use super::reader::{Field, Reader};
use super::sections::{CONNECTIONS, DAY, MINUTE, PERCENT, SECOND, THREADS, TIMEOUTS};
use super::{Layer4Settings, Layer7Settings, PoolSettings};
use crate::base::{MAX_FIELDS, Str};

/// Enough for a few tunnels, and more than any node has.
const BYTES: RangeInclusive<usize> = 4 * 1024 * 1024..=1 << 40;

pub(super) fn layer4(reader: &mut Reader<'_>) -> Layer4Settings {
    Layer4Settings {
        threads: layer4_threads(reader),
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
        max_bytes: layer4_bytes(reader),
        max_workload_bytes: layer4_workload_bytes(reader),
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

fn layer4_threads(reader: &mut Reader<'_>) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = layer4_share(processors);
    reader.machine_number(
        Field {
            key: "layer4.threads",
            default: threads,
            meaning: "Threads for all connections of layer 4 and all tunnels.",
        },
        THREADS,
        ("a quarter of the processors, rounded up", default::LAYER4_THREADS_EXAMPLE),
    )
}

/// The threads of layer 4 on a machine with so many processors.
fn layer4_share(processors: usize) -> usize {
    processors.div_ceil(default::LAYER4_PROCESSORS_DIVISOR)
}

fn layer4_bytes(reader: &mut Reader<'_>) -> usize {
    reader.number(
            Field {
                key: "layer4.max_bytes",
                default: default::LAYER4_MAX_BYTES,
                meaning: "Bytes that connections and tunnels of layer 4 may hold together: 8 KiB for a connection, \
                          256 KiB for a tunnel, and what they buffer. More connections wait or are refused.",
            },
            BYTES,
        )
}

fn layer4_workload_bytes(reader: &mut Reader<'_>) -> usize {
    reader.number(
        Field {
            key: "layer4.max_workload_bytes",
            default: default::LAYER4_MAX_WORKLOAD_BYTES,
            meaning: "Of these, those of one workload's connections, of both directions.",
        },
        BYTES,
    )
}

pub(super) fn layer7(reader: &mut Reader<'_>) -> Layer7Settings {
    Layer7Settings {
        threads: reader.number(
            Field {
                key: "layer7.threads",
                default: default::LAYER7_THREADS,
                meaning: "Threads of each waypoint worker. With more, one namespace's requests use more processors, and each \
                          request costs more processor time.",
            },
            THREADS,
        ),
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
        max_buffered_bytes: reader.number(
            Field {
                key: "layer7.max_buffered_bytes",
                default: default::LAYER7_MAX_BUFFERED_BYTES,
                meaning: "Bytes that the connections of each waypoint worker may buffer together.",
            },
            1024 * 1024..=1 << 40,
        ),
        max_headers: max_headers(reader),
        max_streams: max_streams(reader),
        upgrades: upgrades(reader),
        tenant_share: tenant_share(reader),
        client_share: client_share(reader),
        head_timeout: head_timeout(reader),
        idle_timeout: idle_timeout(reader),
    }
}

/// Few requests have fewer, and none may have more over HTTP/2.
const HEADERS: RangeInclusive<usize> = 16..=MAX_FIELDS as usize;
/// What the setting of HTTP/2 can say (RFC 9113, 6.5.2), but 0.
const STREAMS: RangeInclusive<usize> = 1..=(1 << 31) - 1;

fn max_headers(reader: &mut Reader<'_>) -> usize {
    reader.number(
        Field {
            key: "layer7.max_headers",
            default: default::LAYER7_MAX_HEADERS,
            meaning: "Fields in the head of a request, and of a response; a request with more is answered 431, one whose \
                      response has more 502. A head has at most 60 KiB in any case.",
        },
        HEADERS,
    )
}

fn max_streams(reader: &mut Reader<'_>) -> usize {
    reader.number(
        Field {
            key: "layer7.max_http2_streams",
            default: default::LAYER7_MAX_STREAMS,
            meaning: "Requests at once on one HTTP/2 connection of a client, as it is told; `max_requests` and the \
                      shares bound them as well.",
        },
        STREAMS,
    )
}

fn tenant_share(reader: &mut Reader<'_>) -> usize {
    reader.number(
        Field {
            key: "layer7.tenant_share",
            default: default::LAYER7_TENANT_SHARE,
            meaning: "Percent of what others leave of each max_ budget that the clients of one namespace may \
                      hold together; clients without an identity count as one namespace. More is refused.",
        },
        PERCENT,
    )
}

fn client_share(reader: &mut Reader<'_>) -> usize {
    reader.number(
        Field {
            key: "layer7.client_share",
            default: default::LAYER7_CLIENT_SHARE,
            meaning: "Percent of what the other clients of its namespace leave of that which one client, an \
                      identity at an address, may hold; without an identity it is an IPv4 address or an IPv6 \
                      network (/64). More connections are closed, more requests answered 503.",
        },
        PERCENT,
    )
}

fn head_timeout(reader: &mut Reader<'_>) -> Duration {
    reader.duration(
        Field {
            key: "layer7.head_timeout",
            default: default::LAYER7_HEAD_TIMEOUT,
            meaning: "How long a client may take to send the head of a request: the first one from the beginning of \
                      the connection on a port that is HTTP by its name, any other from its first byte.",
        },
        SECOND..=60 * MINUTE,
    )
}

fn idle_timeout(reader: &mut Reader<'_>) -> Duration {
    reader.duration(
        Field {
            key: "layer7.idle_timeout",
            default: default::LAYER7_IDLE_TIMEOUT,
            meaning: "After how long without a request a client's connection is closed; when places become few, \
                      the idlest is closed sooner.",
        },
        SECOND..=DAY,
    )
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

pub(super) fn pool(reader: &mut Reader<'_>) -> PoolSettings {
    PoolSettings {
        max_streams: reader.number(
            Field {
                key: "pool.max_streams",
                default: default::MAX_STREAMS,
                meaning: "Connections that share one tunnel; the other node may allow fewer.",
            },
            1..=1_000,
        ),
        idle_timeout: reader.duration(
            Field {
                key: "pool.idle_timeout",
                default: default::IDLE_TIMEOUT,
                meaning: "After how long an unused tunnel is closed.",
            },
            SECOND..=DAY,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_4_has_one_thread_up_to_four_processors_and_then_a_quarter() {
        for (processors, threads) in [(1, 1), (2, 1), (4, 1), (5, 2), (8, 2), (64, 16)] {
            assert_eq!(layer4_share(processors), threads, "{processors} processors");
        }
    }
}
