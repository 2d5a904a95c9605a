//! Why a connection or request did not simply succeed: one small value for the metric label, the log line
//! and the answer to the peer.

/// The cause of a refusal or failure. The label texts are ztunnel's and Envoy's response flags, so dashboards
/// keep working.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reason {
    /// All went well.
    #[default]
    None,
    /// A policy refused.
    Denied,
    /// The destination could not be connected.
    ConnectFailure,
    /// The peer's certificate, or ours, did not pass.
    TlsFailure,
    /// HTTP/2 could not be established in the tunnel.
    Http2Failure,
    /// Port 15008 did not answer in time: a NetworkPolicy or firewall may block it.
    NetworkPolicy,
    /// No certificate for the workload.
    IdentityFailure,
    /// No endpoint that is ready.
    NoHealthyUpstream,
    /// No route matched.
    NoRoute,
    /// A budget was spent: connections, requests or bytes.
    Overflow,
    /// The peer broke off.
    PeerReset,
    /// A deadline passed.
    Timeout,
    /// What the peer sent could not be understood or may not be asked for.
    BadRequest,
    /// The waypoint that is named cannot be used.
    WaypointUnusable,
    /// The agent is shutting down.
    Draining,
}

impl Reason {
    /// The value of the label `response_flags`.
    pub fn flag(self) -> &'static str {
        match self {
            Reason::None => "-",
            Reason::Denied => "DENY",
            Reason::ConnectFailure => "CONNECT",
            Reason::TlsFailure => "TLS_FAILURE",
            Reason::Http2Failure => "H2_HANDSHAKE_FAILURE",
            Reason::NetworkPolicy => "NETWORK_POLICY",
            Reason::IdentityFailure => "IDENTITY_ERROR",
            Reason::NoHealthyUpstream => "UH",
            Reason::NoRoute => "NR",
            Reason::Overflow => "UO",
            Reason::PeerReset => "UC",
            Reason::Timeout => "UT",
            Reason::BadRequest => "DPE",
            Reason::WaypointUnusable => "WAYPOINT",
            Reason::Draining => "DRAIN",
        }
    }
}
