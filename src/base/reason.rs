//! Why a connection or request failed, was rejected or was changed: one small value for the metric label, the log line and
//! the answer to the peer.

/// One row for each reason: its meaning, its response flag, and the advice for operators.
macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident: $flag:literal, $advice:literal;)*) => {
        /// The cause of a rejection or failure. The flags are ztunnel's and Envoy's response flags, so dashboards keep working.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum Reason {
            /// No failure.
            #[default]
            None,
            $($(#[$doc])* $reason,)*
        }

        impl Reason {
            /// Every reason, in the order of their documentation.
            pub const ALL: &[Reason] = &[Reason::None, $(Reason::$reason,)*];

            /// What happened and what to check, for operators.
            pub fn advice(self) -> &'static str {
                match self {
                    Reason::None => "All went well.",
                    $(Reason::$reason => $advice,)*
                }
            }

            /// The value of the label `response_flags`.
            pub fn flag(self) -> &'static str {
                match self {
                    Reason::None => "-",
                    $(Reason::$reason => $flag,)*
                }
            }

            /// The flags of a request that failed, and of which this is to be said besides, in Envoy's order. Other marks than
            /// those of retries are said of requests that do not fail.
            pub fn flag_beside(self, mark: Reason) -> &'static str {
                match (self, mark) {
                    $(
                        (Reason::$reason, Reason::RetryLimit) => concat!($flag, ",URX"),
                        (Reason::$reason, Reason::Overflow) => concat!($flag, ",UO"),
                    )*
                    (Reason::None, mark) => mark.flag(),
                    (reason, _) => reason.flag(),
                }
            }

            /// Every value of `response_flags`.
            pub fn all_flags() -> impl Iterator<Item = &'static str> {
                let beside = [Reason::None, Reason::RetryLimit, Reason::Overflow];
                Self::ALL.iter().flat_map(move |reason| beside.map(|it| reason.flag_beside(it)))
            }
        }
    };
}

reasons! {
    /// A policy denied it.
    Denied: "DENY",
        "A policy refused. `error` or `response_code_details` names it; for plaintext, check PeerAuthentication and \
         whether the client is enrolled.";
    /// External authorization denied it, or could not be asked.
    Unauthorized: "UAEX",
        "A provider of external authorization refused, or could not be asked; `response_code_details` says which. Check the \
         provider's log, and its entry in the MeshConfig's `extensionProviders`.";
    /// The connection to the destination failed.
    ConnectFailure: "CONNECT",
        "The destination could not be connected. Check that the application runs and listens on the port, on the pod's \
         address and not only on loopback.";
    /// One side rejected the other's certificate.
    TlsFailure: "TLS_FAILURE",
        "A certificate did not pass. Check that both agents use the same CA and trust domain, and the clocks of both \
         nodes.";
    /// The peer's certificate is revoked.
    CertRevoked: "CERT_REVOKED",
        "The certificate of one side stands on a revocation list (`identity.crl`); `error` says whose. Check whether that \
         was meant; if so, the workload needs a new certificate from a CA that still trusts its node.";
    /// The HTTP/2 handshake in the tunnel failed.
    Http2Failure: "H2_HANDSHAKE_FAILURE",
        "HTTP/2 could not be established in the tunnel. Check that an agent, and not the application, answers on port \
         15008.";
    /// Port 15008 did not answer in time: a NetworkPolicy or firewall may block it.
    NetworkPolicy: "NETWORK_POLICY",
        "Port 15008 of the destination did not answer in time. Check that no NetworkPolicy or firewall blocks it, and \
         that the destination's agent runs.";
    /// The workload has no certificate.
    IdentityFailure: "IDENTITY_ERROR",
        "There is no certificate for the workload. Check the issuer: the local CA's directory and files, or, for istiod, \
         what the agent's log names.";
    /// The service has no ready endpoint.
    NoHealthyUpstream: "UH",
        "No endpoint is ready, or the service has no such port. Check the service's selector and target port, and the \
         readiness of its pods; for a ServiceEntry, whether the client's resolvers know its endpoints (`error` names the \
         one that they do not).";
    /// A name below a wildcard could not be resolved, or leads nowhere that may be connected to.
    DnsFailure: "DF",
        "A ServiceEntry with the resolution DYNAMIC_DNS is reached by the name that the client asks for, and that name has no \
         address that may be connected to; `error` or `response_code_details` says why. Check the name, the client's resolvers, and \
         whether its addresses are public ones.";
    /// No rule of a route matched.
    NoRoute: "NR",
        "No route's rule matches the request, or the one that does cannot be carried out. Check their matches, that a \
         rule for everything else exists if it should, and what `isthmus check` says of the route.";
    /// A limit was reached: of connections, requests or bytes.
    Overflow: "UO",
        "A budget was spent: connections of a workload or of one of its peers (`[layer4]` in the settings), \
         connections, requests or buffered bytes of a waypoint worker (`[layer7]`), a limit in the `connectionPool` of a \
         DestinationRule, or the `concurrencyLimit` of a TrafficPolicy. `error` or `response_code_details` says which; check who opens so many.";
    /// The peer reset or closed the connection.
    PeerReset: "UC",
        "One side broke off. Usually the application's own doing: check its log.";
    /// A timeout expired.
    Timeout: "UT",
        "A deadline passed. Check how long the destination takes.";
    /// The connection lasted as long as a policy lets it.
    TooOld: "DT",
        "A connection reached `tcp.maxConnectionDuration` of a DestinationRule, as it says. Clients connect again.";
    /// The connection carried nothing for as long as a policy lets it.
    TooIdle: "SI",
        "A connection carried nothing for `tcp.idleTimeout` of a DestinationRule, as it says. Clients connect again.";
    /// The time that the client gave one attempt passed before its response had ended.
    StreamDuration: "UMSDR",
        "The time passed that the client gives one attempt, with all of its response, in the header \
         `x-envoy-upstream-stream-duration-ms`.";
    /// The peer's request is malformed or not permitted.
    BadRequest: "DPE",
        "The peer asked for something that could not be understood or may not be asked for: a port of the agent's own, an \
         address of another workload, a malformed request (`docs/http.md`).";
    /// The application's response is malformed or exceeds a limit.
    BadResponse: "UPE",
        "What the application answered breaks the rules of HTTP or exceeds what a head may hold. `response_code_details` \
         says what; check the application, and `[layer7] max_headers`.";
    /// The object's waypoint does not exist or cannot be used.
    WaypointUnusable: "WAYPOINT",
        "A waypoint is named that does not exist or may not be used from here; traffic is refused rather than let past \
         it. Check the label `istio.io/use-waypoint`, the Gateway, and its `allowedRoutes`.";
    /// The client may connect to what the registry has only, and the destination is not in it.
    NotRegistered: "BLACKHOLE",
        "The client's `outboundTrafficPolicy` is REGISTRY_ONLY, and no Service, ServiceEntry or pod that it sees has the address \
         and port. Add a ServiceEntry that it sees (`exportTo`), dial the name rather than an address, or set ALLOW_ANY in \
         MeshConfig or a Sidecar.";
    /// An object requires encryption that cannot be had.
    Unencrypted: "NO_TLS",
        "A DestinationRule or BackendTLSPolicy (`error` names it) wants TLS to the destination, and its certificates, keys or \
         names cannot be used, or no tunnel leads there (ISTIO_MUTUAL); traffic is refused rather than sent without it. Check \
         what `isthmus status` and the object's status say of it.";
    /// The TLS handshake with an application, or a server outside of the mesh, failed.
    ApplicationTls: "TLS_ORIGINATION",
        "The destination did not agree on TLS as a DestinationRule or BackendTLSPolicy wants it; `error` or \
         `response_code_details` says why. Check the server's certificate against the object's CA and names, and whether it \
         speaks the protocol (ALPN).";
    /// The request was retried as often as its policy permits, and the last attempt failed as well.
    RetryLimit: "URX",
        "A request was sent as often as the retry policy of its route or of the mesh permits, and no response was good enough. \
         The one that the client got is the last; check the application.";
    /// A policy's rate limit was reached.
    RateLimited: "RL",
        "A TrafficPolicy's rate limit was reached; `response_code_details`, or `error` of a connection, names it. Check which \
         clients send so many requests, and the limit.";
    /// A rate limit service could not be asked.
    RateLimitServiceError: "RLSE",
        "The rate limit service of a TrafficPolicy could not be asked; `response_code_details` names it. Check that it runs \
         and that its AuthorizationPolicies admit the workloads that ask; `failOpen` says what becomes of requests meanwhile.";
    /// A policy injected an abort instead of forwarding the request.
    FaultInjected: "FI",
        "A TrafficPolicy injected a failure; `response_code_details` names it. Delete its `fault` when the trial is over.";
    /// A policy injected a delay before forwarding the request.
    DelayInjected: "DI",
        "A TrafficPolicy delayed the request; `response_code_details` names it. Delete its `fault` when the trial is over.";
    /// The agent is shutting down.
    Draining: "DRAIN",
        "The agent, or the workload, is shutting down.";
}
