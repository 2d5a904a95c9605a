//! The defaults, each with its reason and unit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::base::ports;

/// Where `isthmus run` looks for its file when `--config` is not given.
pub const DEFAULT_FILE: &str = "/etc/isthmus/agent.toml";
/// Where `isthmus controller` looks for its own.
pub const CONTROLLER_FILE: &str = "/etc/isthmus/controller.toml";

/// Istio's `CLUSTER_ID`.
pub(super) const CLUSTER: &str = "Kubernetes";
/// Istio's `TRUST_DOMAIN`: another one would make every policy copied from a tutorial fail.
pub(super) const TRUST_DOMAIN: &str = "cluster.local";
/// Kubernetes' default domain of service names.
pub(super) const CLUSTER_DOMAIN: &str = "cluster.local";
/// Istio's default; mesh-wide policies are written for it.
pub(super) const ROOT_NAMESPACE: &str = "istio-system";

/// Configuration lies below `/etc` (FHS 3.0, 3.7).
pub(super) const DIRECTORY: &str = "/etc/isthmus/manifests";
/// What the agent keeps between runs lies below `/var/lib` (FHS 3.0, 5.8); the agents of one machine share it.
pub(super) const CA_DIRECTORY: &str = "/var/lib/isthmus/ca";
/// Istio's `SECRET_TTL`: with rotation at half life there are 12 hours to repair an issuer that fails.
pub(super) const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// ztunnel's `CA_ADDRESS`: the Service that every installation of Istio has.
pub(super) const ISTIO_ADDRESS: &str = "https://istiod.istio-system.svc:15012";
/// ztunnel's `CA_ROOT_CA`: where Istio's charts mount the ConfigMap istio-ca-root-cert.
pub(super) const ISTIO_CA_ROOT: &str = "/var/run/secrets/istio/root-cert.pem";
/// ztunnel's `AUTH_TOKEN`: where Istio's charts mount the projected token of audience istio-ca.
pub(super) const ISTIO_TOKEN_FILE: &str = "/var/run/secrets/tokens/istio-token";

/// The Service that the manifests under `config` install.
pub(super) const CONTROLLER_ADDRESS: &str = "https://isthmus-controller.isthmus-system.svc:15012";
/// Where they mount the ConfigMap isthmus-ca-root.
pub(super) const CONTROLLER_ROOT: &str = "/var/run/secrets/isthmus/ca/root-cert.pem";
/// Where they mount the projected token of audience istio-ca.
pub(super) const CONTROLLER_TOKEN_FILE: &str = "/var/run/secrets/tokens/istio-token";

/// Below [`TAKEOVER_DIRECTORY`], which others may look into; this one is root's alone.
pub(super) const ADMIN_DIRECTORY: &str = "/run/isthmus/admin";
/// Where `istioctl` asks. Loopback only, and only when asked for: every process of the node can read there.
pub(super) const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), ports::ADMIN);
/// All addresses, as ztunnel: Prometheus scrapes from another node.
pub(super) const METRICS: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), ports::METRICS);
/// All addresses, as ztunnel: the kubelet probes the node's address.
pub(super) const READINESS: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), ports::READINESS);

/// ztunnel's and Envoy's: a line per connection and request, none per chunk.
pub(super) const LOG_LEVEL: &str = "info";

/// The part of the machine's processors that layer 4 takes, rounded up: ztunnel's quarter, so that applications keep the
/// rest. One thread up to four processors: two that steal tasks from each other wake each other for most messages, and on
/// two processors were up to 28 % slower at 32 connections.
pub(super) const LAYER4_PROCESSORS_DIVISOR: usize = 4;
/// What the example in `config/agent.toml` shows.
pub(super) const LAYER4_THREADS_EXAMPLE: usize = 1;
/// Connections of one workload in one direction: some 10 KiB each, so 200 MiB at the worst, and two descriptors each.
/// ztunnel has no limit, so that one workload can take the memory and descriptors of its whole node.
pub(super) const LAYER4_MAX_CONNECTIONS: usize = 20_000;
/// Of these, those of one peer: half, so that no peer alone can keep the others out.
pub(super) const LAYER4_MAX_PEER_CONNECTIONS: usize = 10_000;
/// Tunnels of one peer: half of what fits into [`LAYER4_MAX_WORKLOAD_BYTES`]. A pool needs one for 100 connections, and
/// ztunnel's, which does not use a tunnel again that was full once, a few times as many.
pub(super) const LAYER4_MAX_PEER_TUNNELS: usize = 500;
/// What connections hold together: 100,000 that carry little and 800 tunnels between them. Most hold far less than what
/// is set aside for them.
pub(super) const LAYER4_MAX_BYTES: usize = 1024 * 1024 * 1024;
/// A quarter of it, so that no workload leaves the others nothing: [`LAYER4_MAX_CONNECTIONS`] and 350 tunnels.
pub(super) const LAYER4_MAX_WORKLOAD_BYTES: usize = LAYER4_MAX_BYTES / 4;
/// ztunnel's and Envoy's 10 s: longer than three retransmissions of a SYN (1 + 2 + 4 s).
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Envoy's listeners in a sidecar waited 5 s; a server that speaks first waits so long, where its port is not named.
pub(super) const DETECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Threads of each waypoint worker. Each namespace has a worker, so that several use several processors. Within one, a second
/// thread that steals tasks costs 13 to 34 % more processor time per request.
pub(super) const LAYER7_THREADS: usize = 1;
/// Connections of one worker: the buffers of so many fit into [`LAYER7_MAX_BUFFERED_BYTES`] when they are idle HTTP/1.
pub(super) const LAYER7_MAX_CONNECTIONS: usize = 4_096;
/// Requests in flight in one worker. Envoy's circuit breaker has 1024 per cluster; a worker serves many services.
pub(super) const LAYER7_MAX_REQUESTS: usize = 8_192;
/// Bytes that the connections of one worker may buffer together: half of what Istio grants a waypoint's pod (1 GiB).
pub(super) const LAYER7_MAX_BUFFERED_BYTES: usize = 512 * 1024 * 1024;
/// Fields in the head of a message: Envoy's, Istio's, Apache's and hyper's number.
pub(super) const LAYER7_MAX_HEADERS: usize = 100;
/// Requests at once on one HTTP/2 connection of a client: what Istio tells Envoy (2^30). What a worker may have in flight,
/// and its clients' shares, are the bound.
pub(super) const LAYER7_MAX_STREAMS: usize = 1 << 30;
/// What Istio enables: the only protocol that browsers upgrade to.
pub(super) const LAYER7_UPGRADES: [&str; 1] = ["websocket"];
/// What the clients of one namespace may hold of what others leave, in percent: a worker that serves one namespace alone
/// gives it four fifths, and one namespace that takes all it can leaves to the next as much as 800 connections.
pub(super) const LAYER7_TENANT_SHARE: usize = 80;
/// What one client may hold of what the others of its namespace leave, in percent: 64 % of the whole while it is alone,
/// as an ingress gateway may be, which is 2600 connections and 5200 requests in flight from one pod.
pub(super) const LAYER7_CLIENT_SHARE: usize = 80;
/// For the head of a request: clients write it at once, and three retransmissions (1 + 2 + 4 s) fit into it. nginx and
/// Node wait 60 s, Apache 20 s; an attacker holds its place for so long.
pub(super) const LAYER7_HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Envoy's and Istio's idle timeout of HTTP connections. Whoever rests gives way when places become few, so this
/// needs not be short.
pub(super) const LAYER7_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Streams in one tunnel: ztunnel's and Go's 100 (hyper 200, Envoy 2^31): more would share one TCP window.
pub(super) const MAX_STREAMS: usize = 100;
/// ztunnel's: long enough for a client that calls every minute, short enough to follow a deployment that shrinks.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// ztunnel's: connections that have not ended by themselves after it seldom do.
pub(super) const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// Gone with the machine's next start, as what waits there is.
pub(super) const TAKEOVER_DIRECTORY: &str = "/run/isthmus";

/// As [`TAKEOVER_DIRECTORY`]: sandboxes do not outlive the machine's run either.
pub(super) const WORKLOADS_DIRECTORY: &str = "/run/isthmus/sandboxes";

/// Where containerd and CRI-O look by default (CNI's own defaults).
pub(super) const CNI_CONF_DIRECTORY: &str = "/etc/cni/net.d";
pub(super) const CNI_BIN_DIRECTORY: &str = "/opt/cni/bin";
/// As [`TAKEOVER_DIRECTORY`].
pub(super) const CNI_SOCKET: &str = "/run/isthmus/cni.sock";

/// resolv.conf(5)
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";
