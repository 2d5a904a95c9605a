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
    /// The identity of the client.
    UriSan,
    RouteName,
}

/// Those without a key, by their names.
const NAMES: [(&str, Attribute); 27] = [
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
    ("connection.uri_san_peer_certificate", Attribute::UriSan),
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
                | Attribute::UriSan
        )
    }

    /// The attribute of a dotted name.
    pub(super) fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, attribute)| *attribute)
    }
}
