//! `[layer4]` and `[pool]`: what connections and tunnels may hold, and how long they wait.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::check::{
    CONNECTIONS, DAY, GIB, MAX_BYTES, MIB, MINUTE, SECOND, THREADS, TIMEOUTS,
};

/// Enough for a few tunnels at least.
const BYTES: RangeInclusive<usize> = 4 * MIB..=MAX_BYTES;

/// The part of the processors that layer 4 takes: ztunnel's, so that applications keep the rest.
const PROCESSORS_PER_THREAD: usize = 4;

section! {
    /// `[layer4]`
    pub struct Layer4Settings in "layer4." {
        /// Threads for all connections of layer 4 and their tunnels.
        threads: usize = share(processors()),
            machine_number(THREADS, ("a quarter of the processors, rounded up", share(1))),
            because "ztunnel's quarter, so that applications keep the rest. One thread up to four processors: two threads that \
                     steal tasks wake each other for most messages, and were up to 28 % slower on two processors.";

        /// The most connections of one workload, in each direction; those in tunnels count individually, and tunnels
        /// separately. Further connections wait to be accepted, and in tunnels are rejected.
        max_connections: usize = 20_000, number(CONNECTIONS),
            because "Some 10 KiB each, so 200 MiB at the worst, and two descriptors each. ztunnel has no limit, so that one \
                     workload can take the memory and descriptors of its whole node.";

        /// The most connections of one client address to one workload, inside tunnels and outside; further ones are
        /// rejected.
        max_peer_connections: usize = 10_000, number(CONNECTIONS),
            because "Half of `max_connections`, so that no single peer can keep others out.";

        /// The most TLS connections of one client address to port 15008 of one workload; further ones are closed.
        max_peer_tunnels: usize = 500, number(CONNECTIONS),
            because "Half of what fits into `max_workload_bytes`. A pool needs one for 100 connections, and ztunnel's, which \
                     does not use a tunnel again that was full once, a few times as many.";

        /// The memory budget of all layer 4 connections and tunnels: 8 KiB for a connection, 256 KiB for a tunnel, and
        /// what they buffer. Beyond it, connections wait or are rejected.
        max_bytes: usize = GIB, number(BYTES),
            because "100,000 connections that carry little and 800 tunnels between them. Most hold far less than what is set \
                     aside for them.";

        /// The part of `max_bytes` for one workload's connections, in both directions.
        max_workload_bytes: usize = GIB / 4, number(BYTES),
            because "A quarter of `max_bytes`, so that no workload leaves the others nothing: `max_connections` and 350 \
                     tunnels.";

        /// The timeout of a connection to an application, an endpoint or another node.
        connect_timeout: Duration = 10 * SECOND, duration(TIMEOUTS),
            because "ztunnel's and Envoy's: longer than three retransmissions of a SYN (1 + 2 + 4 s).";
    }
}

section! {
    /// `[pool]`
    pub struct PoolSettings in "pool." {
        /// The most connections in one tunnel; the other node may allow fewer.
        max_streams: usize = 100, number(1..=1_000),
            because "ztunnel's and Go's (hyper 200, Envoy 2^31): more would share one TCP window.";

        /// The idle timeout of a tunnel.
        idle_timeout: Duration = 5 * MINUTE, duration(SECOND..=DAY),
            because "ztunnel's: long enough for a client that calls every minute, short enough to follow a deployment that \
                     shrinks.";
    }
}

/// The threads of layer 4 on a machine with so many processors.
fn share(processors: usize) -> usize {
    processors.div_ceil(PROCESSORS_PER_THREAD)
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_4_has_one_thread_up_to_four_processors_and_then_a_quarter() {
        for (processors, threads) in [(1, 1), (2, 1), (4, 1), (5, 2), (8, 2), (64, 16)] {
            assert_eq!(share(processors), threads, "{processors} processors");
        }
    }
}
