//! `[admin]`, `[metrics]`, `[readiness]` and `[log]`: where and how operators see an agent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::base::{Str, ports};
use crate::config::check::{GIB, KIB};
use crate::config::reader::Reader;
use crate::telemetry::{self, LogFormat, SeriesLimits};

/// A few for each namespace; more than Prometheus takes from one target.
const SERIES: RangeInclusive<usize> = 100..=10_000_000;

/// A port on all addresses of the machine.
pub(super) const fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}

section! {
    /// `[admin]`
    pub struct AdminSettings in "admin." {
        /// The directory of the admin socket, `<node>.sock`: status, dump, log levels, profiles, shutdown. It is
        /// created if it is missing, for root (the agent's user) only; a directory that others may access is rejected.
        directory: PathBuf = "/run/isthmus/admin", path(),
            because "Below `takeover.directory`, which others may read; only root may access this one.";

        /// Whether `admin.address` also serves status, dump, connections and log levels, for `istioctl ztunnel-config`:
        /// read-only and without authentication, to every process and every host-network pod of the node.
        tcp: bool = false, switch(),
            because "Every process of the node could read it.";

        /// The address of `admin.tcp`: loopback only.
        address: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), ports::ADMIN), address(),
            because "The port that `istioctl` queries.";
    }
}

section! {
    /// `[metrics]`
    pub struct MetricsSettings in "metrics." {
        /// The address of /metrics and /stats/prometheus.
        address: SocketAddr = everywhere(ports::METRICS), address(),
            because "All addresses, as ztunnel: Prometheus scrapes from another node.";

        /// The most series of traffic, DNS and policies; beyond it, new samples count with the label `other`.
        max_series: usize = SeriesLimits::default().total, number(SERIES),
            because "Some 4 KiB each with the longest labels, so 80 MiB at the worst; most take a quarter of that.";

        /// The part of `max_series` for one namespace's workloads; a quarter of it for traffic with any one other
        /// namespace.
        max_namespace_series: usize = SeriesLimits::default().namespace, number(SERIES),
            because "A namespace with 20 services that are called from 10 others with 5 outcomes has 1,000.";
    }
}

section! {
    /// `[readiness]`
    pub struct ReadinessSettings in "readiness." {
        /// The address of /healthz/ready.
        address: SocketAddr = everywhere(ports::READINESS), address(),
            because "All addresses, as ztunnel: the kubelet probes the node's address.";

        /// A file that exists while the agent is ready, for the probe `isthmus ready FILE`: during an upgrade two
        /// agents of one node share the port.
        file: Option<PathBuf> = "", optional_path(),
            because "Only a cluster's probe needs it; the chart sets it.";
    }
}

section! {
    /// `[log]`
    pub struct LogSettings in "log." {
        /// A level (error, warn, info, debug, trace, off), then exceptions by target, such as "info,access=off" or
        /// "info,isthmus::l4=debug". The access log is the target `access`.
        level: Str = "info", text("levels", |text| telemetry::check_levels(text).map_err(|error| error.to_string())),
            because "ztunnel's and Envoy's: a line per connection and request, none per chunk.";

        /// The format of log lines on standard output.
        format: LogFormat = LogFormat::Text, choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]),
            because "Istio's default; people read it first.";

        /// The most bytes of lines that wait to be written; at most 10000 lines wait in any case. Further lines are
        /// dropped and counted.
        max_queued_bytes: usize = telemetry::MAX_QUEUED_BYTES, number(64 * KIB..=GIB),
            because "10,000 lines of typical length.";
    }
}

/// What one row cannot say: the port of administration is the machine's alone, and two servers cannot listen on one port.
pub(super) fn check_together(
    reader: &mut Reader<'_>,
    admin: &AdminSettings,
    servers: &[(&str, SocketAddr)],
) {
    if !admin.address.ip().is_loopback() {
        let reason = format!(
            "{} is not a loopback address; whoever reaches this port can read everything that the agent knows",
            admin.address.ip()
        );
        reader.complain("admin.address", reason);
    }
    for (index, (key, address)) in servers.iter().enumerate() {
        let earlier = servers.iter().take(index).find(|(_, other)| overlap(*address, *other));
        if let Some((other_key, other)) = earlier {
            let reason =
                format!("{address} conflicts with {other} of {other_key}; give another port");
            reader.complain(key, reason);
        }
    }
}

/// `[::]` takes the IPv4 addresses too.
fn overlap(left: SocketAddr, right: SocketAddr) -> bool {
    let takes_all = |address: SocketAddr, other: SocketAddr| {
        address.ip().is_unspecified() && (address.is_ipv6() || other.is_ipv4())
    };
    // The kernel chooses another port for each server that asks for port 0.
    left.port() == right.port()
        && left.port() != 0
        && (left.ip() == right.ip() || takes_all(left, right) || takes_all(right, left))
}
