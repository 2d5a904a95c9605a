//! How much memory an agent may come to hold: a number that follows from its settings, and stands in
//! `docs/observability.md` for the defaults.
//!
//! What is bounded is what peers, applications and tenants can make an agent hold. The state of the mesh itself is as
//! large as the API server's objects, and is not: the allowance for it is a large cluster's.

use super::Settings;
use crate::base::{FIELD_BYTES, UNSEEN_FIELDS};
use crate::observe::{FLOW_BYTES, MAX_OBSERVERS, PAIR_BYTES, QUEUE};
use crate::telemetry::SERIES_BYTES;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The program, its threads, TLS and certificates, the state of a mesh with some thousand pods.
const BASE: usize = 96 * MIB;
/// Connections of operators and scrapers: 64 on each of three ports, with hyper's buffers.
const OPERATORS: usize = 3 * 64 * 128 * KIB;
/// What a scrape lists of each series, for each of four at a time, in bytes.
const SCRAPE: usize = 4 * 6 * 16;
/// A connection of a worker: its task, the fields of a few heads that were just read, and a chunk of 16 KiB each way where
/// it is copied as bytes.
const WORKER_CONNECTION: usize = 64 * KIB;
/// A request of a worker besides what it reserves: its task, its record, and a head; and a sixteenth more for those that are
/// refused.
const WORKER_REQUEST: usize = 17 * KIB;
/// Heads that a worker may have read before it looks at them, and what each of its threads may read beyond that at once.
const WORKER_HEADS: usize = UNSEEN_FIELDS * FIELD_BYTES;
/// What the allocator holds besides what it was asked for: classes of sizes, and pages that it has not given back yet.
const ALLOCATOR: (usize, usize) = (5, 4);

/// The most that an agent may come to hold, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryBound {
    /// Without waypoint workers.
    pub agent: Vec<MemoryPart>,
    /// For each namespace with a waypoint whose worker runs on this node.
    pub worker: Vec<MemoryPart>,
}

/// A part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPart {
    pub what: &'static str,
    /// How it follows from the settings.
    pub formula: &'static str,
    pub bytes: usize,
}

impl MemoryBound {
    /// With so many workers, in bytes.
    pub fn total(&self, workers: usize) -> usize {
        let sum = |parts: &[MemoryPart]| {
            parts.iter().fold(0, |sum: usize, it| sum.saturating_add(it.bytes))
        };
        let all = sum(&self.agent).saturating_add(sum(&self.worker).saturating_mul(workers));
        (all / ALLOCATOR.1).saturating_mul(ALLOCATOR.0)
    }
}

impl Settings {
    /// The most that an agent with these settings may come to hold, whatever its peers and tenants do.
    pub fn memory_bound(&self) -> MemoryBound {
        MemoryBound { agent: self.agent_memory().into(), worker: self.worker_memory().into() }
    }

    fn agent_memory(&self) -> [MemoryPart; 6] {
        let part = |what, formula, bytes| MemoryPart { what, formula, bytes };
        [
            part("program and mesh", "96 MiB", BASE),
            part(
                "connections, tunnels, windows, chunks and DNS of layer 4",
                "`layer4.max_bytes`",
                self.layer4.max_bytes,
            ),
            part(
                "series of metrics, and scrapes",
                "`metrics.max_series` x (4 KiB + 384)",
                self.metrics.max_series.saturating_mul(SERIES_BYTES + SCRAPE),
            ),
            part(
                "lines of the log that wait",
                "`log.max_queued_bytes` + 1 MiB",
                self.log.max_queued_bytes.saturating_add(MIB),
            ),
            part(
                "recent flows, flows that wait for observers, and pairs of the last hour",
                "(`observe.flows` + 8 x 512) x 2.5 KiB + `observe.pairs` x 3 KiB",
                self.observe_memory(),
            ),
            part("operators and scrapers", "3 ports x 64 x 128 KiB", OPERATORS),
        ]
    }

    fn observe_memory(&self) -> usize {
        let flows = self.observe.flows.saturating_add(MAX_OBSERVERS * QUEUE);
        let pairs = self.observe.pairs.saturating_mul(PAIR_BYTES);
        flows.saturating_mul(FLOW_BYTES).saturating_add(pairs)
    }

    fn worker_memory(&self) -> [MemoryPart; 4] {
        let part = |what, formula, bytes| MemoryPart { what, formula, bytes };
        let settings = &self.layer7;
        [
            part(
                "what its connections and requests reserve",
                "`layer7.max_buffered_bytes`",
                settings.max_buffered_bytes,
            ),
            part(
                "its connections",
                "`layer7.max_connections` x 64 KiB",
                settings.max_connections.saturating_mul(WORKER_CONNECTION),
            ),
            part(
                "its requests",
                "`layer7.max_requests` x 17 KiB",
                settings.max_requests.saturating_mul(WORKER_REQUEST),
            ),
            part(
                "heads that were just read",
                "(`layer7.threads` + 1) x 4 MiB",
                settings.threads.saturating_add(1).saturating_mul(WORKER_HEADS),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Overrides, Settings};
    use super::*;

    fn bound(text: &str) -> MemoryBound {
        Settings::parse(text, &Overrides::default()).expect("settings").memory_bound()
    }

    #[test]
    fn the_bound_follows_the_settings() {
        let default = bound("");
        let less = bound("[layer4]\nmax_bytes = 67108864\nmax_workload_bytes = 33554432\n");
        assert_eq!(default.total(0) - less.total(0), (1024 - 64) * MIB / 4 * 5);
        let less = bound("[log]\nmax_queued_bytes = 1048576\n");
        assert_eq!(default.total(0) - less.total(0), 7 * MIB / 4 * 5);
        let less = bound("[metrics]\nmax_series = 1000\n");
        assert_eq!(default.total(0) - less.total(0), 19_000 * (4096 + 384) / 4 * 5);
        let less = bound("[observe]\nflows = 0\npairs = 0\n");
        assert_eq!(default.total(0) - less.total(0), (4_096 * 5 / 2 + 2_048 * 3) * KIB / 4 * 5);
        let workers = default.total(3) - default.total(0);
        assert!(workers >= 3 * 512 * MIB, "{workers}");
        let huge = bound("[layer7]\nmax_buffered_bytes = 1099511627776\n");
        assert!(huge.total(usize::MAX) > default.total(1), "no overflow");
    }
}
