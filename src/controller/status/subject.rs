//! The objects whose statuses Isthmus writes.

use std::fmt;

use crate::base::ObjectKey;
use crate::source::objects::Kind;

/// A kind of object whose status is ours to write, in part or as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SubjectKind {
    GatewayClass,
    XMesh,
    Gateway,
    HTTPRoute,
    GRPCRoute,
    Namespace,
    Service,
    ServiceEntry,
    AuthorizationPolicy,
    PeerAuthentication,
    RequestAuthentication,
    DestinationRule,
    BackendTLSPolicy,
    VirtualService,
    EnvoyFilter,
    WasmPlugin,
    Telemetry,
    TCPRoute,
    TLSRoute,
    TrafficPolicy,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    pub kind: SubjectKind,
    pub key: ObjectKey,
}

/// How a server-side apply must handle a kind's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lists {
    /// Entries of lists have separate owners; we apply ours (Kubernetes "Merge strategy", list type `map`).
    Merged,
    /// The list has one owner, so all entries must be applied: other controllers' unchanged (list type `atomic`).
    Whole,
}

impl SubjectKind {
    pub const ALL: [SubjectKind; 20] = [
        SubjectKind::GatewayClass,
        SubjectKind::XMesh,
        SubjectKind::Gateway,
        SubjectKind::HTTPRoute,
        SubjectKind::GRPCRoute,
        SubjectKind::Namespace,
        SubjectKind::Service,
        SubjectKind::ServiceEntry,
        SubjectKind::AuthorizationPolicy,
        SubjectKind::PeerAuthentication,
        SubjectKind::RequestAuthentication,
        SubjectKind::DestinationRule,
        SubjectKind::BackendTLSPolicy,
        SubjectKind::VirtualService,
        SubjectKind::EnvoyFilter,
        SubjectKind::WasmPlugin,
        SubjectKind::Telemetry,
        SubjectKind::TCPRoute,
        SubjectKind::TLSRoute,
        SubjectKind::TrafficPolicy,
    ];

    pub fn name(self) -> &'static str {
        match self {
            SubjectKind::GatewayClass => "GatewayClass",
            SubjectKind::XMesh => "XMesh",
            SubjectKind::Gateway => "Gateway",
            SubjectKind::HTTPRoute => "HTTPRoute",
            SubjectKind::GRPCRoute => "GRPCRoute",
            SubjectKind::Namespace => "Namespace",
            SubjectKind::Service => "Service",
            SubjectKind::ServiceEntry => "ServiceEntry",
            SubjectKind::AuthorizationPolicy => "AuthorizationPolicy",
            SubjectKind::PeerAuthentication => "PeerAuthentication",
            SubjectKind::RequestAuthentication => "RequestAuthentication",
            SubjectKind::DestinationRule => "DestinationRule",
            SubjectKind::BackendTLSPolicy => "BackendTLSPolicy",
            SubjectKind::VirtualService => "VirtualService",
            SubjectKind::EnvoyFilter => "EnvoyFilter",
            SubjectKind::WasmPlugin => "WasmPlugin",
            SubjectKind::Telemetry => "Telemetry",
            SubjectKind::TCPRoute => "TCPRoute",
            SubjectKind::TLSRoute => "TLSRoute",
            SubjectKind::TrafficPolicy => "TrafficPolicy",
        }
    }

    /// Its kind in the translation; `None` if the translation does not know it.
    pub fn kind(self) -> Option<Kind> {
        Kind::named(self.name())
    }

    /// Nothing of its objects' specs is needed beside the parsed object.
    pub fn is_read_without_spec(self) -> bool {
        match self {
            SubjectKind::Service | SubjectKind::ServiceEntry | SubjectKind::Namespace => true,
            // Their statuses have an entry for each parent or target.
            SubjectKind::TCPRoute | SubjectKind::TLSRoute | SubjectKind::BackendTLSPolicy => false,
            _ => self.kind().is_some_and(Kind::is_unserved),
        }
    }

    /// Whether an object of it must exist that Isthmus creates.
    pub fn is_made(self) -> bool {
        matches!(self, SubjectKind::GatewayClass | SubjectKind::XMesh)
    }

    /// The API group; empty for the core.
    pub fn group(self) -> &'static str {
        match self {
            SubjectKind::Namespace | SubjectKind::Service => "",
            SubjectKind::XMesh => "gateway.networking.x-k8s.io",
            SubjectKind::TrafficPolicy => "isthmus.io",
            SubjectKind::ServiceEntry
            | SubjectKind::DestinationRule
            | SubjectKind::VirtualService
            | SubjectKind::EnvoyFilter => "networking.istio.io",
            SubjectKind::WasmPlugin => "extensions.istio.io",
            SubjectKind::Telemetry => "telemetry.istio.io",
            SubjectKind::AuthorizationPolicy
            | SubjectKind::PeerAuthentication
            | SubjectKind::RequestAuthentication => "security.istio.io",
            _ => "gateway.networking.k8s.io",
        }
    }

    pub fn plural(self) -> &'static str {
        match self {
            SubjectKind::GatewayClass => "gatewayclasses",
            SubjectKind::XMesh => "xmeshes",
            SubjectKind::Gateway => "gateways",
            SubjectKind::HTTPRoute => "httproutes",
            SubjectKind::GRPCRoute => "grpcroutes",
            SubjectKind::Namespace => "namespaces",
            SubjectKind::Service => "services",
            SubjectKind::ServiceEntry => "serviceentries",
            SubjectKind::AuthorizationPolicy => "authorizationpolicies",
            SubjectKind::PeerAuthentication => "peerauthentications",
            SubjectKind::RequestAuthentication => "requestauthentications",
            SubjectKind::DestinationRule => "destinationrules",
            SubjectKind::BackendTLSPolicy => "backendtlspolicies",
            SubjectKind::VirtualService => "virtualservices",
            SubjectKind::EnvoyFilter => "envoyfilters",
            SubjectKind::WasmPlugin => "wasmplugins",
            SubjectKind::Telemetry => "telemetries",
            SubjectKind::TCPRoute => "tcproutes",
            SubjectKind::TLSRoute => "tlsroutes",
            SubjectKind::TrafficPolicy => "trafficpolicies",
        }
    }

    /// As in the kinds' definitions. Istio's say nothing of the list of conditions, which makes it atomic.
    pub fn lists(self) -> Lists {
        match self {
            SubjectKind::GatewayClass
            | SubjectKind::XMesh
            | SubjectKind::Gateway
            | SubjectKind::Namespace
            | SubjectKind::Service => Lists::Merged,
            _ => Lists::Whole,
        }
    }

    /// Whether the whole status is ours once the object is: earlier content is then taken over. Otherwise the
    /// conditions of a Service or policy may be another mesh's, which keeps them.
    pub fn is_all_ours(self) -> bool {
        matches!(self, SubjectKind::GatewayClass | SubjectKind::XMesh | SubjectKind::Gateway)
    }
}

impl Subject {
    pub fn new(kind: SubjectKind, key: ObjectKey) -> Self {
        Self { kind, key }
    }
}

/// `Kind namespace/name`
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.key)
    }
}
