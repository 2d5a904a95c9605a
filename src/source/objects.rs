//! Typed objects, one kind a file. Core kinds are those of `k8s-openapi` and ignore fields that they do not know.
//! The kinds of Gateway API and Istio are our own types: every field that the API has is named, and one that it does
//! not have is an error, since a misspelt field of a policy or route would silently weaken it.

mod attachment;
mod authorization_policy;
mod backend_traffic_policy;
mod destination_rule;
mod gateway;
mod grpc_route;
mod http_retry;
mod http_route;
mod kind;
mod mesh_config;
mod node;
mod peer_authentication;
mod pod;
mod reference_grant;
mod request_authentication;
mod row;
pub(super) mod schema;
mod selector;
mod service_entry;
mod sidecar;
mod stream_route;
mod strict;
mod table;
mod telemetry;
mod telemetry_policy;
mod traffic_policy;
mod unserved;
mod virtual_service;

pub use attachment::{AttachedTo, TargetRef, WorkloadSelector};
pub use authorization_policy::{
    AuthorizationPolicy, AuthorizationPolicySpec, PolicyAction, PolicyCondition, PolicyFrom,
    PolicyOperation, PolicyProvider, PolicyRule, PolicySource, PolicyTo,
};
pub use backend_traffic_policy::{
    BackendTrafficPolicySpec, BudgetDetails, RequestRate, RetryConstraint, XBackendTrafficPolicy,
};
pub use destination_rule::{
    ClientTls, ConnectionPool, ConsistentHash, DestinationRule, DestinationRuleSpec, Distribute,
    HttpCookie, HttpSettings, LoadBalancer, LocalitySetting, PortTrafficPolicy, ProxyProtocol,
    RawOutlierDetection, RetryBudget, RuleTrafficPolicy, Subset, TcpSettings, Warmup,
};
pub use gateway::{
    AllowedNamespaces, AllowedRoutes, Gateway, GatewayClass, GatewayClassSpec, GatewaySpec,
    Listener, NamespacesFrom,
};
pub use grpc_route::{GrpcRoute, GrpcRouteMatch, GrpcRouteRule, GrpcRouteSpec};
pub use http_retry::HttpRetry;
pub use http_route::{
    HttpRoute, HttpRouteRule, HttpRouteSpec, ParentRef, RawRetry, RawTimeouts, RouteBackendRef,
    RouteMatch, Unsupported, says_something,
};
pub use kind::{Recognised, key_of};
pub use mesh_config::{
    AccessLogEncoding, CheckedBody, ConfigMap, DefaultConfig, DefaultProviders, DefaultTracing,
    DefaultTrafficPolicy, EntryVisibility, ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider,
    FileAccessLog, LogFormat, MESH_CONFIG, MeshConfig, OpenTelemetry, OtelAccessLog, OtlpHeader,
    OtlpHttp, OutboundTrafficPolicy, ServiceEntryVisibility, VisibilityPolicy,
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
pub use row::{Affects, CarriedOut, Definition, Guard, Guards, Row, Schema, Status};
pub use selector::{LabelSelector, Operator, Requirement, selects};
pub use service_entry::{
    EntryPort, EntrySelector, ServiceEntry, ServiceEntrySpec, WorkloadEntry, WorkloadEntrySpec,
};
pub use sidecar::{Sidecar, SidecarSpec};
pub use stream_route::{
    StreamBackendRef, StreamRule, TcpRoute, TcpRouteSpec, TlsRoute, TlsRouteSpec,
};
pub use telemetry::{
    AccessLogging, CustomTag, IstioMetric, LogFilter, MetricMatch, Metrics, MetricsOverride,
    ModeMatch, NamedValue, ProviderRef, TagOperation, TagOverride, Telemetry, TelemetrySpec,
    Tracing, WorkloadMode,
};
pub use telemetry_policy::{
    AttributeSource, ExportHeader, Fraction, GatewayTracing, ParentBasedSampling, PolicyMode,
    SpanAttribute, TelemetryPolicySpec, TracingProvider, XTelemetryPolicy,
};
pub use traffic_policy::{TrafficPolicy, TrafficPolicySpec};
pub use unserved::{BackendTlsPolicy, EnvoyFilter, WasmPlugin};
pub use virtual_service::{
    VirtualDelegate, VirtualDestination, VirtualHttpDestination, VirtualHttpMatch,
    VirtualHttpRoute, VirtualMirror, VirtualService, VirtualServiceSpec, VirtualStreamDestination,
    VirtualStreamMatch, VirtualTcpRoute, VirtualTlsMatch, VirtualTlsRoute,
};

pub use k8s_openapi::api::core::v1::{Namespace, Service, ServiceAccount};
pub use k8s_openapi::api::discovery::v1::EndpointSlice;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

pub use crate::base::schema::FieldError;

use crate::base::{MAX_WEIGHT, ObjectKey, Regexes, metered, regexes_so_far};
use crate::filter::{self, PolicySpec};
use schema::telemetry_policy::TELEMETRY_POLICY;
use schema::{gateway_api, istio};
use table::kinds;

/// The namespace of a manifest that names none, as `kubectl apply` does.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The API group of Gateways, routes and grants.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// The API group of what Gateway API experiments with.
pub const GATEWAY_X_GROUP: &str = "gateway.networking.x-k8s.io";

/// The API group of ServiceEntries.
pub const ISTIO_NETWORKING_GROUP: &str = "networking.istio.io";

/// The API group of Istio's policies.
pub const ISTIO_SECURITY_GROUP: &str = "security.istio.io";

/// Our own API group.
pub const ISTHMUS_GROUP: &str = "isthmus.io";

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
    #[serde(skip, default = "regexes_so_far")]
    regexes: Regexes,
}

/// What the regular expressions of one object may weigh, in bytes. Every agent holds those of all objects.
const REGEXES_OF_OBJECT: usize = 16 * MAX_WEIGHT;

/// What all kinds share.
pub trait Typed: Sized + 'static {
    const KIND: Kind;
    fn of(object: &Object) -> Option<&Self>;
    /// `metadata.name`, where it is given.
    fn name(&self) -> Option<&str>;
}

/// A question about the type of a spec.
pub trait OfSpec {
    type Answer;
    fn of<S: DeserializeOwned>(self) -> Self::Answer;
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

impl<S> Labelled for Resource<S> {
    fn labels(&self) -> Option<&Labels> {
        self.metadata.labels()
    }

    fn annotations(&self) -> Option<&Labels> {
        self.metadata.annotations()
    }
}

/// Types without a generic implementation.
macro_rules! labelled {
    ($($type:ty)*) => {
        $(impl Labelled for $type {
            fn labels(&self) -> Option<&Labels> {
                self.metadata.labels()
            }

            fn annotations(&self) -> Option<&Labels> {
                self.metadata.annotations()
            }
        })*
    };
}

labelled! { Namespace ServiceAccount Service EndpointSlice Node }

/// Texts of `docs/resources.md` that several kinds share.
const BELOW: &str = "see below";
const STREAM_ROUTES: &str = "[on their own page](stream-routes.md)";
const NOTHING: &str = "nothing; the status of each object says so, [see below](#unsupported-kinds)";

/// Effects of several kinds that are not carried out.
const NO_ENVOY: &str = "is not carried out: there is no Envoy here that it could extend; what it would check or change is neither \
                        checked nor changed";

kinds! {
    Namespace: Namespace = Row {
        plural: "namespaces",
        namespaced: false,
        affects: Affects::Namespace,
        status: Status::WaypointBound,
        used: "labels",
        ..Row::of("", &["v1"])
    };
    ServiceAccount: ServiceAccount = Row {
        plural: "serviceaccounts",
        carried_out: CarriedOut::Unread,
        used: "nothing yet; manifests may contain it",
        ..Row::of("", &["v1"])
    };
    Pod: Pod = Row {
        plural: "pods",
        affects: Affects::Pod,
        schema: Schema::Object(&schema::core::POD),
        used: "labels, annotations, `spec.serviceAccountName`, `spec.nodeName`, `spec.hostNetwork`, `spec.hostname` and \
               `spec.subdomain`, ports, `status.podIPs`, phase and conditions",
        ..Row::of("", &["v1"])
    };
    Service: Service = Row {
        plural: "services",
        affects: Affects::Service,
        status: Status::WaypointBound,
        schema: Schema::Spec(&schema::core::SERVICE),
        used: "selector, TCP ports, `clusterIPs`, `appProtocol`, `internalTrafficPolicy`, `sessionAffinity`, \
               `trafficDistribution`, `publishNotReadyAddresses`; not `ExternalName`",
        ..Row::of("", &["v1"])
    };
    EndpointSlice: EndpointSlice = Row {
        plural: "endpointslices",
        affects: Affects::EndpointSlice,
        schema: Schema::Object(&schema::core::ENDPOINT_SLICE),
        used: "endpoints of services without a selector, with their conditions, node and zone; `targetRef` if that pod has \
               the address. A slice of a Service with a selector is ignored, with a warning unless the label \
               `endpointslice.kubernetes.io/managed-by` names a Kubernetes controller. In a directory, `Endpoints` (v1) are \
               read as slices; a cluster mirrors them into slices",
        ..Row::of("discovery.k8s.io", &["v1"])
    };
    Node: Node = Row {
        plural: "nodes",
        namespaced: false,
        affects: Affects::Node,
        used: "the labels for region and zone, for pods without their own",
        ..Row::of("", &["v1"])
    };
    ConfigMap: ConfigMap = Row {
        plural: "configmaps",
        only: Some(MESH_CONFIG),
        affects: Affects::Frame,
        used: "the key `mesh` of `istio` in the root namespace, [see below](#meshconfig); in a directory, `ca.crt` of those that a \
               [BackendTLSPolicy](tls-origination.md#backendtlspolicy) names",
        ..Row::of("", &["v1"])
    };
    GatewayClass: GatewayClass = Row {
        plural: "gatewayclasses",
        namespaced: false,
        affects: Affects::Frame,
        status: Status::Class,
        used: "the controller of each class, for statuses; for `istio-waypoint`, the annotation \
               `ambient.istio.io/xfcc-include-client-identity`, for Gateways without it",
        ..Row::of(GATEWAY_GROUP, &["v1", "v1beta1"])
    };
    Gateway: Gateway = Row {
        plural: "gateways",
        guards: Guards::Limits,
        affects: Affects::Gateway,
        status: Status::Gateway,
        schema: Schema::Spec(&gateway_api::GATEWAY),
        used: "class `istio-waypoint`: a listener of protocol HBONE on port 15008 and its `allowedRoutes.namespaces` (Same, \
               All, Selector); the annotation `ambient.istio.io/xfcc-include-client-identity`",
        ..Row::of(GATEWAY_GROUP, &["v1", "v1beta1"])
    };
    HTTPRoute: HttpRoute = Row {
        plural: "httproutes",
        affects: Affects::Route,
        status: Status::Parents,
        schema: Schema::Spec(&gateway_api::HTTP_ROUTE),
        used: "[see below](#routes)",
        ..Row::of(GATEWAY_GROUP, &["v1", "v1beta1"])
    };
    GRPCRoute: GrpcRoute = Row {
        plural: "grpcroutes",
        affects: Affects::Route,
        status: Status::Parents,
        schema: Schema::Spec(&gateway_api::GRPC_ROUTE),
        used: "[see below](#routes)",
        ..Row::of(GATEWAY_GROUP, &["v1"])
    };
    ReferenceGrant: ReferenceGrant = Row {
        plural: "referencegrants",
        used: "permits XTelemetryPolicies to name collectors of other namespaces; routes of the mesh need none",
        ..Row::of(GATEWAY_GROUP, &["v1", "v1beta1"])
    };
    ServiceEntry: ServiceEntry, spec ServiceEntrySpec = Row {
        plural: "serviceentries",
        affects: Affects::ServiceEntry,
        status: Status::WaypointBound,
        schema: Schema::Spec(&istio::SERVICE_ENTRY),
        definition: Some(Definition {
            short: "se",
            description: "Services by name, address and network besides those of Kubernetes: \
                          https://istio.io/docs/reference/config/networking/service-entry.html",
            columns: &[
                ("Hosts", ".spec.hosts", "The names of the service."),
                ("Location", ".spec.location", "MESH_EXTERNAL or MESH_INTERNAL."),
                ("Resolution", ".spec.resolution", "How endpoints are found."),
            ],
        }),
        used: BELOW,
        ..Row::of(ISTIO_NETWORKING_GROUP, &["v1", "v1beta1", "v1alpha3"])
    };
    WorkloadEntry: WorkloadEntry, spec WorkloadEntrySpec = Row {
        plural: "workloadentries",
        affects: Affects::WorkloadEntry,
        schema: Schema::Spec(&istio::WORKLOAD_ENTRY),
        definition: Some(Definition {
            short: "we",
            description: "Endpoints of ServiceEntries that are not pods: \
                          https://istio.io/docs/reference/config/networking/workload-entry.html",
            columns: &[("Address", ".spec.address", "The address of the endpoint.")],
        }),
        used: "`address`, `ports`, `labels`, `locality`, `weight`, as an endpoint of Services and ServiceEntries that select it",
        ..Row::of(ISTIO_NETWORKING_GROUP, &["v1", "v1beta1", "v1alpha3"])
    };
    Sidecar: Sidecar, spec SidecarSpec = Row {
        plural: "sidecars",
        guards: Guards::Limits,
        affects: Affects::Frame,
        status: Status::Accepted,
        schema: Schema::Spec(&istio::SIDECAR),
        definition: Some(Definition {
            short: "sidecar",
            description: "Where workloads may connect to outside of the mesh (outboundTrafficPolicy): \
                          https://istio.io/docs/reference/config/networking/sidecar.html",
            columns: &[("Outbound", ".spec.outboundTrafficPolicy.mode", "REGISTRY_ONLY or ALLOW_ANY.")],
        }),
        used: "`outboundTrafficPolicy.mode`, for the workloads of `workloadSelector` or of the namespace, \
               [see below](#outbound-traffic)",
        ..Row::of(ISTIO_NETWORKING_GROUP, &["v1", "v1beta1", "v1alpha3"])
    };
    AuthorizationPolicy: AuthorizationPolicy, spec AuthorizationPolicySpec = Row {
        plural: "authorizationpolicies",
        guards: Guards::Denies(Guard::Requests),
        affects: Affects::Frame,
        status: Status::Enforced,
        schema: Schema::Spec(&istio::AUTHORIZATION_POLICY),
        definition: Some(Definition {
            short: "ap",
            description: "Authorization at layer 4 and layer 7: \
                          https://istio.io/docs/reference/config/security/authorization-policy.html",
            columns: &[("Action", ".spec.action", "The operation to take.")],
        }),
        used: BELOW,
        ..Row::of(ISTIO_SECURITY_GROUP, &["v1", "v1beta1"])
    };
    PeerAuthentication: PeerAuthentication, spec PeerAuthenticationSpec = Row {
        plural: "peerauthentications",
        guards: Guards::Denies(Guard::Plaintext),
        affects: Affects::Frame,
        status: Status::Accepted,
        schema: Schema::Spec(&istio::PEER_AUTHENTICATION),
        definition: Some(Definition {
            short: "pa",
            description: "Whether workloads accept plaintext: \
                          https://istio.io/docs/reference/config/security/peer_authentication.html",
            columns: &[("Mode", ".spec.mtls.mode", "The mode of mutual TLS.")],
        }),
        used: "`selector`, `mtls.mode`, `portLevelMtls`; DISABLE is ignored",
        ..Row::of(ISTIO_SECURITY_GROUP, &["v1", "v1beta1"])
    };
    RequestAuthentication: RequestAuthentication, spec RequestAuthenticationSpec = Row {
        plural: "requestauthentications",
        guards: Guards::Denies(Guard::Requests),
        affects: Affects::Frame,
        status: Status::Accepted,
        schema: Schema::Spec(&istio::REQUEST_AUTHENTICATION),
        definition: Some(Definition {
            short: "ra",
            description: "Which tokens say who the user is: \
                          https://istio.io/docs/reference/config/security/request_authentication.html",
            columns: &[],
        }),
        used: "verifies tokens by the keys in `jwks` or at `jwksUri`, [see below](#requestauthentications)",
        ..Row::of(ISTIO_SECURITY_GROUP, &["v1", "v1beta1"])
    };
    TrafficPolicy: TrafficPolicy, spec PolicySpec = Row {
        plural: "trafficpolicies",
        guards: Guards::Limits,
        status: Status::Ancestors,
        schema: Schema::Check(filter::judge_spec),
        definition: Some(Definition {
            short: "tp",
            description: "Rate limits, faults and hedging of requests (docs/traffic-policy.md).",
            columns: &[],
        }),
        used: "rate limits, faults and hedging, [on its own page](traffic-policy.md)",
        ..Row::of(ISTHMUS_GROUP, &["v1alpha1"])
    };
    DestinationRule: DestinationRule, spec DestinationRuleSpec = Row {
        plural: "destinationrules",
        guards: Guards::Limits,
        affects: Affects::Frame,
        status: Status::Accepted,
        definition: Some(Definition {
            short: "dr",
            description: "Load balancing and outlier detection of connections to a host: \
                          https://istio.io/docs/reference/config/networking/destination-rule.html",
            columns: &[("Host", ".spec.host", "The name of the service.")],
        }),
        used: "[on its own page](destination-rules.md)",
        ..Row::of(ISTIO_NETWORKING_GROUP, &["v1", "v1beta1", "v1alpha3"])
    };
    XBackendTrafficPolicy: XBackendTrafficPolicy = Row {
        plural: "xbackendtrafficpolicies",
        guards: Guards::Limits,
        affects: Affects::Frame,
        status: Status::Ancestors,
        schema: Schema::Spec(&gateway_api::BACKEND_TRAFFIC_POLICY),
        used: "`retryConstraint` for Services ([retries](retries.md#retry-budgets))",
        ..Row::of(GATEWAY_X_GROUP, &["v1alpha1"])
    };
    BackendTLSPolicy: BackendTlsPolicy = Row {
        plural: "backendtlspolicies",
        guards: Guards::Limits,
        affects: Affects::Frame,
        status: Status::Ancestors,
        used: "TLS to its targets, [on its own page](tls-origination.md#backendtlspolicy)",
        ..Row::of(GATEWAY_GROUP, &["v1", "v1alpha3"])
    };
    VirtualService: VirtualService, spec VirtualServiceSpec = Row {
        plural: "virtualservices",
        affects: Affects::VirtualService,
        status: Status::Accepted,
        schema: Schema::Check(istio::judge_virtual_service),
        definition: Some(Definition {
            short: "vs",
            description: "Routes of requests to hosts: \
                          https://istio.io/docs/reference/config/networking/virtual-service.html",
            columns: &[
                ("Gateways", ".spec.gateways", "The gateways for which it holds; none: the mesh."),
                ("Hosts", ".spec.hosts", "The names of the services."),
            ],
        }),
        used: "[on its own page](virtual-services.md)",
        ..Row::of(ISTIO_NETWORKING_GROUP, &["v1", "v1beta1", "v1alpha3"])
    };
    EnvoyFilter: EnvoyFilter = Row {
        plural: "envoyfilters",
        carried_out: CarriedOut::No { instead: NO_ENVOY, denies: false },
        status: Status::NotCarriedOut,
        used: NOTHING,
        ..Row::of(ISTIO_NETWORKING_GROUP, &["v1alpha3"])
    };
    WasmPlugin: WasmPlugin = Row {
        plural: "wasmplugins",
        carried_out: CarriedOut::No { instead: NO_ENVOY, denies: false },
        status: Status::NotCarriedOut,
        used: NOTHING,
        ..Row::of("extensions.istio.io", &["v1alpha1"])
    };
    Telemetry: Telemetry, spec TelemetrySpec = Row {
        plural: "telemetries",
        status: Status::Accepted,
        schema: Schema::Spec(&istio::TELEMETRY),
        definition: Some(Definition {
            short: "telemetry",
            description: "What is recorded of requests and connections: \
                          https://istio.io/docs/reference/config/telemetry.html",
            columns: &[],
        }),
        used: "`tracing` ([tracing](tracing.md)), `accessLogging` and `metrics` ([observability](observability.md#telemetry))",
        ..Row::of("telemetry.istio.io", &["v1", "v1alpha1"])
    };
    XTelemetryPolicy: XTelemetryPolicy = Row {
        plural: "xtelemetrypolicies",
        status: Status::Ancestors,
        schema: Schema::Spec(&TELEMETRY_POLICY),
        used: "`tracing` of the services of waypoints ([tracing](tracing.md#xtelemetrypolicy))",
        ..Row::of(GATEWAY_X_GROUP, &["v1alpha1"])
    };
    TCPRoute: TcpRoute = Row {
        plural: "tcproutes",
        affects: Affects::Route,
        status: Status::Parents,
        schema: Schema::Spec(&gateway_api::TCP_ROUTE),
        used: STREAM_ROUTES,
        ..Row::of(GATEWAY_GROUP, &["v1", "v1alpha2"])
    };
    TLSRoute: TlsRoute = Row {
        plural: "tlsroutes",
        affects: Affects::Route,
        status: Status::Parents,
        schema: Schema::Spec(&gateway_api::TLS_ROUTE),
        used: STREAM_ROUTES,
        ..Row::of(GATEWAY_GROUP, &["v1", "v1alpha3", "v1alpha2"])
    };
}

/// Kinds whose objects may have regular expressions.
pub const WITH_REGEXES: [Kind; 5] =
    [Kind::HTTPRoute, Kind::GRPCRoute, Kind::TrafficPolicy, Kind::VirtualService, Kind::Telemetry];

impl Object {
    /// Its regular expressions, and when it was created; `None` for a kind without such.
    pub fn regexes(&self) -> Option<(&Regexes, i64)> {
        let (regexes, metadata) = match self {
            Object::HTTPRoute(it) => (&it.regexes, &it.metadata),
            Object::GRPCRoute(it) => (&it.regexes, &it.metadata),
            Object::TrafficPolicy(it) => (&it.regexes, &it.metadata),
            Object::VirtualService(it) => (&it.regexes, &it.metadata),
            Object::Telemetry(it) => (&it.regexes, &it.metadata),
            _ => return None,
        };
        Some((regexes, created(metadata)))
    }

    /// What they weigh, in bytes.
    pub fn weight(&self) -> usize {
        self.regexes().map_or(0, |(regexes, _)| regexes.weight())
    }
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
