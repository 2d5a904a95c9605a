//! The ports and packet marks of Istio ambient, which Isthmus shares (ztunnel's ARCHITECTURE.md; Istio "Application
//! requirements / Ports used by Istio").

/// Outbound capture, in the workload's network namespace.
pub const OUTBOUND: u16 = 15001;
/// Plaintext inbound capture, in the workload's network namespace.
pub const INBOUND_PLAINTEXT: u16 = 15006;
/// HBONE, in the workload's network namespace.
pub const HBONE: u16 = 15008;
/// The DNS stub, in the workload's network namespace.
pub const DNS: u16 = 15053;
/// Status, dump and connections for istioctl: on loopback of the agent's namespace, and only if a setting enables it.
pub const ADMIN: u16 = 15000;
/// Prometheus metrics, in the agent's namespace.
pub const METRICS: u16 = 15020;
/// Readiness, in the agent's namespace.
pub const READINESS: u16 = 15021;

/// The controller's signing service: the port of istiod's.
pub const CA: u16 = 15012;

/// Every port with its place and purpose, for the documentation.
pub const ALL: [(u16, &str, &str); 8] = [
    (OUTBOUND, "each captured workload's namespace", "outbound TCP of the workload"),
    (INBOUND_PLAINTEXT, "each captured workload's namespace", "inbound plaintext"),
    (HBONE, "each captured workload's namespace", "inbound HBONE (HTTP/2 CONNECT over mutual TLS)"),
    (DNS, "each captured workload's namespace", "DNS, over UDP and TCP, on loopback"),
    (
        ADMIN,
        "the agent's namespace, loopback",
        "closed unless `admin.tcp` is on: status, dump and connections, read-only (HTTP, no authentication)",
    ),
    (METRICS, "the agent's namespace", "`/metrics` and `/stats/prometheus`"),
    (READINESS, "the agent's namespace", "`/healthz/ready`"),
    (CA, "the controller's namespace", "certificates for agents (gRPC over TLS)"),
];

/// Ports to which no connection may be forwarded: it would loop back to the agent.
pub const ILLEGAL: [u16; 3] = [OUTBOUND, INBOUND_PLAINTEXT, HBONE];

/// The mark of the agent's own sockets (ztunnel's 1337); the capture rules exempt them.
pub const SOCKET_MARK: u32 = 0x539;
/// The connection mark of a flow whose source address the agent borrowed from the client.
pub const CONNECTION_MARK: u32 = 0x111;
/// The bits of either mark that belong to Isthmus.
pub const MARK_MASK: u32 = 0xfff;
/// The routing table that delivers replies to borrowed addresses to the agent.
pub const ROUTE_TABLE: u32 = 100;
/// The priority of the rule that points to [`ROUTE_TABLE`].
pub const ROUTE_RULE_PRIORITY: u32 = 32764;
/// The source address of probes from the node, IPv4.
pub const PROBE_ADDRESS_V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 7, 127);
/// The source address of probes from the node, IPv6.
pub const PROBE_ADDRESS_V6: std::net::Ipv6Addr =
    std::net::Ipv6Addr::new(0xfd16, 0x9254, 0x7127, 0x1337, 0xffff, 0xffff, 0xffff, 0xffff);
