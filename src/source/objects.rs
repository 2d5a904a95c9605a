//! Typed objects, one kind a file. Core kinds are those of `k8s-openapi` and ignore fields that they do not know.
//! The kinds of Gateway API and Istio are our own types: every field that the API has is named, and one that it does
//! not have is an error, since a misspelt field of a policy or route would silently weaken it.

mod authorization_policy;
mod gateway;
mod grpc_route;
mod http_route;
mod node;
mod peer_authentication;
mod pod;
mod reference_grant;
mod request_authentication;
pub(super) mod schema;
mod selector;
mod service_entry;
mod strict;
mod traffic_policy;
mod unserved;

pub use authorization_policy::{
    AuthorizationPolicy, AuthorizationPolicySpec, PolicyAction, PolicyCondition, PolicyFrom,
    PolicyOperation, PolicyRule, PolicySource, PolicyTo, TargetRef, WorkloadSelector,
};
pub use gateway::{
    AllowedNamespaces, AllowedRoutes, Gateway, GatewayClass, GatewayClassSpec, GatewaySpec,
    Listener, NamespacesFrom,
};
pub use grpc_route::{GrpcRoute, GrpcRouteMatch, GrpcRouteRule, GrpcRouteSpec};
pub use http_route::{
    HttpRoute, HttpRouteRule, HttpRouteSpec, ParentRef, RawRetry, RawTimeouts, RouteBackendRef,
    RouteMatch, Unsupported, says_something,
};
pub use node::Node;
pub use peer_authentication::{MtlsMode, MutualTls, PeerAuthentication, PeerAuthenticationSpec};
pub use pod::{
    Container, ContainerPort, MIRROR, NEAR, Owner, Phase, Pod, PodIp, PodMetadata, PodStatus,
    PodTemplate,
};
pub use reference_grant::{GrantFrom, GrantTo, ReferenceGrant, ReferenceGrantSpec};
pub use request_authentication::{
    JwtHeader, JwtRule, RequestAuthentication, RequestAuthenticationSpec,
};
pub use selector::{LabelSelector, Operator, Requirement, selects};
pub use service_entry::{
    EntryPort, EntrySelector, ServiceEntry, ServiceEntrySpec, WorkloadEntry, WorkloadEntrySpec,
};
pub use traffic_policy::{TrafficPolicy, TrafficPolicySpec};
pub use unserved::{
    BackendTlsPolicy, DestinationRule, EnvoyFilter, TcpRoute, Telemetry, TlsRoute, VirtualService,
    WasmPlugin,
};

pub use k8s_openapi::api::core::v1::{Namespace, Service, ServiceAccount};
pub use k8s_openapi::api::discovery::v1::EndpointSlice;

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

pub use crate::base::schema::FieldError;

use crate::base::ObjectKey;

/// The namespace of a manifest that names none, as `kubectl apply` does.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The API group of Gateways, routes and grants.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// An object with a strict `spec`. `status` is written by controllers and is not read.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resource<S> {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    #[serde(default)]
    pub metadata: ObjectMeta,
    pub spec: S,
    #[serde(default, rename = "status")]
    _status: IgnoredAny,
}

/// What an `apiVersion` and `kind` mean to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognised {
    Kind(Kind),
    /// A kind of ours in a version that we do not read.
    OtherVersion(Kind),
    /// A kind of Gateway API or Istio that would change the mesh's behaviour, if it were supported.
    Unsupported,
    /// None of ours: Deployments, ConfigMaps, ...
    Foreign,
}

/// What all kinds share.
pub trait Typed: Sized + 'static {
    const KIND: Kind;
    fn of(object: &Object) -> Option<&Self>;
    /// `metadata.name`, where it is given.
    fn name(&self) -> Option<&str>;
}

/// Labels or annotations.
pub type Labels = BTreeMap<String, String>;

/// What has labels and annotations.
pub trait Labelled {
    fn labels(&self) -> Option<&Labels>;
    fn annotations(&self) -> Option<&Labels>;
}

impl Labelled for ObjectMeta {
    fn labels(&self) -> Option<&Labels> {
        self.labels.as_ref()
    }

    fn annotations(&self) -> Option<&Labels> {
        self.annotations.as_ref()
    }
}

/// One row a kind: variant (also the name of the kind), type, API group, versions.
macro_rules! kinds {
    ($($kind:ident: $type:ty, $group:literal, $versions:expr;)*) => {
        /// The kinds that are understood.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        pub enum Kind { $($kind,)* }

        /// An object of one of these kinds.
        #[derive(Clone, Debug)]
        pub enum Object { $($kind(Box<$type>),)* }

        impl Kind {
            pub fn name(self) -> &'static str {
                match self { $(Kind::$kind => stringify!($kind),)* }
            }

            fn rows() -> impl Iterator<Item = (Kind, &'static str, &'static [&'static str])> {
                [$((Kind::$kind, $group, &$versions[..]),)*].into_iter()
            }

            /// Reads `value` as an object of this kind.
            pub fn read(self, value: &Value) -> Result<Object, FieldError> {
                match self {
                    $(Kind::$kind => read::<$type>(value).map(|it| Object::$kind(Box::new(it))),)*
                }
            }
        }

        impl Object {
            pub fn kind(&self) -> Kind {
                match self { $(Object::$kind(_) => Kind::$kind,)* }
            }

            /// The key, with the default namespace filled in.
            pub fn key(&self) -> ObjectKey {
                match self {
                    $(Object::$kind(object) => {
                        let metadata = &object.metadata;
                        key_of(Kind::$kind, metadata.namespace.as_deref(), metadata.name.as_deref())
                    })*
                }
            }
        }

        $(impl Typed for $type {
            const KIND: Kind = Kind::$kind;

            fn of(object: &Object) -> Option<&Self> {
                match object {
                    Object::$kind(object) => Some(object),
                    _ => None,
                }
            }

            fn name(&self) -> Option<&str> {
                self.metadata.name.as_deref()
            }
        })*
    };
}

kinds! {
    Namespace: Namespace, "", ["v1"];
    ServiceAccount: ServiceAccount, "", ["v1"];
    Pod: Pod, "", ["v1"];
    Service: Service, "", ["v1"];
    EndpointSlice: EndpointSlice, "discovery.k8s.io", ["v1"];
    Node: Node, "", ["v1"];
    GatewayClass: GatewayClass, "gateway.networking.k8s.io", ["v1", "v1beta1"];
    Gateway: Gateway, "gateway.networking.k8s.io", ["v1", "v1beta1"];
    HTTPRoute: HttpRoute, "gateway.networking.k8s.io", ["v1", "v1beta1"];
    GRPCRoute: GrpcRoute, "gateway.networking.k8s.io", ["v1"];
    ReferenceGrant: ReferenceGrant, "gateway.networking.k8s.io", ["v1", "v1beta1"];
    ServiceEntry: ServiceEntry, "networking.istio.io", ["v1", "v1beta1", "v1alpha3"];
    WorkloadEntry: WorkloadEntry, "networking.istio.io", ["v1", "v1beta1", "v1alpha3"];
    AuthorizationPolicy: AuthorizationPolicy, "security.istio.io", ["v1", "v1beta1"];
    PeerAuthentication: PeerAuthentication, "security.istio.io", ["v1", "v1beta1"];
    RequestAuthentication: RequestAuthentication, "security.istio.io", ["v1", "v1beta1"];
    DestinationRule: DestinationRule, "networking.istio.io", ["v1", "v1beta1", "v1alpha3"];
    BackendTLSPolicy: BackendTlsPolicy, "gateway.networking.k8s.io", ["v1", "v1alpha3"];
    VirtualService: VirtualService, "networking.istio.io", ["v1", "v1beta1", "v1alpha3"];
    EnvoyFilter: EnvoyFilter, "networking.istio.io", ["v1alpha3"];
    WasmPlugin: WasmPlugin, "extensions.istio.io", ["v1alpha1"];
    Telemetry: Telemetry, "telemetry.istio.io", ["v1", "v1alpha1"];
    TCPRoute: TcpRoute, "gateway.networking.k8s.io", ["v1", "v1alpha2"];
    TrafficPolicy: TrafficPolicy, "isthmus.io", ["v1alpha1"];
    TLSRoute: TlsRoute, "gateway.networking.k8s.io", ["v1", "v1alpha3", "v1alpha2"];
}

/// The API group of ServiceEntries.
pub const ISTIO_NETWORKING_GROUP: &str = "networking.istio.io";

/// API groups whose other kinds get a warning rather than a note.
const OUR_GROUPS: [&str; 7] = [
    "isthmus.io",
    "gateway.networking.k8s.io",
    "gateway.networking.x-k8s.io",
    "security.istio.io",
    "networking.istio.io",
    "telemetry.istio.io",
    "extensions.istio.io",
];

impl Kind {
    /// Looks a kind up by the texts of a manifest.
    pub fn recognise(api_version: &str, kind: &str) -> Recognised {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let row = Kind::rows().find(|(row, of_group, _)| *of_group == group && row.name() == kind);
        match row {
            Some((row, _, versions)) if versions.contains(&version) => Recognised::Kind(row),
            Some((row, ..)) => Recognised::OtherVersion(row),
            None if OUR_GROUPS.contains(&group) => Recognised::Unsupported,
            None => Recognised::Foreign,
        }
    }

    /// The kind of this name in whatever group and version.
    pub fn named(name: &str) -> Option<Kind> {
        Kind::rows().map(|(kind, ..)| kind).find(|kind| kind.name() == name)
    }

    /// The mesh depends on it. A pod names its account itself, and routes of the mesh need no grants (GEP-1294).
    pub fn is_translated(self) -> bool {
        !matches!(self, Kind::ServiceAccount | Kind::ReferenceGrant)
    }

    /// Without one of these something is let past that should be denied.
    pub fn is_security(self) -> bool {
        matches!(
            self,
            Kind::AuthorizationPolicy | Kind::PeerAuthentication | Kind::RequestAuthentication
        )
    }

    /// Without one of these something is let past that should be denied, limited or go through a waypoint, or sent in the clear
    /// that should be encrypted.
    pub fn restricts(self) -> bool {
        self.is_security()
            || matches!(
                self,
                Kind::Gateway
                    | Kind::DestinationRule
                    | Kind::BackendTLSPolicy
                    | Kind::TrafficPolicy
            )
    }

    /// Is watched only to say that it is not carried out; what it would have encrypted is refused.
    pub fn is_unserved(self) -> bool {
        matches!(
            self,
            Kind::DestinationRule
                | Kind::BackendTLSPolicy
                | Kind::VirtualService
                | Kind::EnvoyFilter
                | Kind::WasmPlugin
                | Kind::Telemetry
                | Kind::TCPRoute
                | Kind::TLSRoute
        )
    }

    /// Has a status with conditions per parent (Gateway API, RouteStatus).
    pub fn is_route(self) -> bool {
        matches!(self, Kind::HTTPRoute | Kind::GRPCRoute)
    }

    /// Lives in a namespace.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Kind::Namespace | Kind::Node | Kind::GatewayClass)
    }

    /// The API group; empty for the core.
    pub fn group(self) -> &'static str {
        Kind::rows().find(|(row, ..)| *row == self).map_or("", |(_, group, _)| group)
    }

    /// The versions that can be read, the best one first.
    pub fn versions(self) -> &'static [&'static str] {
        Kind::rows().find(|(row, ..)| *row == self).map_or(&[], |(_, _, versions)| versions)
    }

    /// All kinds.
    pub fn all() -> impl Iterator<Item = Kind> {
        Kind::rows().map(|(kind, ..)| kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The key by what the object's metadata say, with the default namespace filled in.
pub fn key_of(kind: Kind, namespace: Option<&str>, name: Option<&str>) -> ObjectKey {
    let name = name.unwrap_or_default();
    if !kind.is_namespaced() {
        return ObjectKey::new("", name);
    }
    let namespace = namespace.filter(|text| !text.is_empty());
    ObjectKey::new(namespace.unwrap_or(DEFAULT_NAMESPACE), name)
}

/// `metadata.creationTimestamp` in seconds since the epoch; 0 when not given, as in most files.
pub fn created(metadata: &ObjectMeta) -> i64 {
    metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second())
}

/// The value of a label.
pub fn label<'a>(of: &'a impl Labelled, name: &str) -> Option<&'a str> {
    of.labels()?.get(name).map(String::as_str)
}

/// The value of an annotation.
pub fn annotation<'a>(of: &'a impl Labelled, name: &str) -> Option<&'a str> {
    of.annotations()?.get(name).map(String::as_str)
}

fn read<T: for<'de> Deserialize<'de> + Typed>(value: &Value) -> Result<T, FieldError> {
    let object: T = read_as(value)?;
    if object.name().is_none_or(str::is_empty) {
        let reason = "is missing: every object needs a name".to_owned();
        return Err(FieldError { field: "metadata.name".into(), reason });
    }
    Ok(object)
}

/// Reads a value as this type, and tells which field is wrong.
pub(super) fn read_as<T: for<'de> Deserialize<'de>>(value: &Value) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(strict::Strict(value)).map_err(|error| {
        let field = error.path().to_string();
        FieldError {
            field: if field == "." { String::new() } else { field },
            reason: error.inner().to_string(),
        }
    })
}
