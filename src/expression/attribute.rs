//! The attributes that expressions may name: Envoy's
//! (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/advanced/attributes>), as far as they exist here.

/// An attribute of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// With the query.
    Path,
    /// Without.
    UrlPath,
    Query,
    Host,
    Scheme,
    Method,
    Referer,
    UserAgent,
    RequestId,
    Protocol,
    /// Bytes of the body.
    RequestSize,
    /// Until the response has ended.
    Duration,
    /// By its place in the expression's list.
    RequestHeader(usize),
    ResponseHeader(usize),
    Code,
    CodeDetails,
    GrpcStatus,
    ResponseSize,
    /// Until the application's response began.
    BackendLatency,
    SourceAddress,
    SourcePort,
    DestinationAddress,
    DestinationPort,
    Mtls,
    /// Where there is mutual TLS.
    TlsVersion,
    /// The identity of the client.
    UriSan,
    /// The identity that the client has seen.
    UriSanLocal,
    RouteName,
    /// Of the workload that dialled.
    Client(PeerField),
    /// Of the workload that was dialled.
    Server(PeerField),
}

/// What is known of a workload, by Istio's names in `filter_state.downstream_peer` and `filter_state.upstream_peer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerField {
    /// The pod's.
    Name,
    Namespace,
    Workload,
    Cluster,
    CanonicalService,
    CanonicalRevision,
    App,
    Version,
    Identity,
}

const PEER_FIELDS: [(&str, PeerField); 9] = [
    ("name", PeerField::Name),
    ("namespace", PeerField::Namespace),
    ("workload", PeerField::Workload),
    ("cluster", PeerField::Cluster),
    ("service", PeerField::CanonicalService),
    ("revision", PeerField::CanonicalRevision),
    ("app", PeerField::App),
    ("version", PeerField::Version),
    ("identity", PeerField::Identity),
];

/// Those without a key, by their names.
const NAMES: [(&str, Attribute); 29] = [
    ("request.path", Attribute::Path),
    ("request.url_path", Attribute::UrlPath),
    ("request.query", Attribute::Query),
    ("request.host", Attribute::Host),
    ("request.scheme", Attribute::Scheme),
    ("request.method", Attribute::Method),
    ("request.referer", Attribute::Referer),
    ("request.useragent", Attribute::UserAgent),
    ("request.id", Attribute::RequestId),
    ("request.protocol", Attribute::Protocol),
    ("request.size", Attribute::RequestSize),
    ("request.duration", Attribute::Duration),
    ("response.code", Attribute::Code),
    ("response.code_details", Attribute::CodeDetails),
    ("response.grpc_status", Attribute::GrpcStatus),
    ("response.size", Attribute::ResponseSize),
    ("response.backend_latency", Attribute::BackendLatency),
    ("source.address", Attribute::SourceAddress),
    ("source.port", Attribute::SourcePort),
    ("destination.address", Attribute::DestinationAddress),
    ("destination.port", Attribute::DestinationPort),
    ("upstream.address", Attribute::DestinationAddress),
    ("upstream.port", Attribute::DestinationPort),
    ("connection.mtls", Attribute::Mtls),
    ("connection.tls_version", Attribute::TlsVersion),
    ("connection.uri_san_peer_certificate", Attribute::UriSan),
    ("connection.uri_san_local_certificate", Attribute::UriSanLocal),
    ("xds.route_name", Attribute::RouteName),
    ("route_name", Attribute::RouteName),
];

impl Attribute {
    /// Whether connections have it too.
    pub(super) fn is_of_connections(self) -> bool {
        matches!(
            self,
            Attribute::RequestSize
                | Attribute::ResponseSize
                | Attribute::Duration
                | Attribute::CodeDetails
                | Attribute::SourceAddress
                | Attribute::SourcePort
                | Attribute::DestinationAddress
                | Attribute::DestinationPort
                | Attribute::Mtls
                | Attribute::TlsVersion
                | Attribute::UriSan
                | Attribute::UriSanLocal
                | Attribute::Client(_)
                | Attribute::Server(_)
        )
    }

    /// The attribute of a dotted name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let of_peer = |side: &str| {
            let field = name.strip_prefix("filter_state.")?.strip_prefix(side)?;
            PEER_FIELDS.iter().find(|(known, _)| *known == field).map(|(_, field)| *field)
        };
        let known = NAMES.iter().find(|(known, _)| *known == name).map(|(_, attribute)| *attribute);
        known
            .or_else(|| of_peer("downstream_peer.").map(Attribute::Client))
            .or_else(|| of_peer("upstream_peer.").map(Attribute::Server))
    }
}
