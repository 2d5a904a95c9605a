//! The model: the content of a mesh as plain data. Sources translate to it, and the data path reads it. This room knows
//! no Kubernetes objects, sockets or decisions.

mod encryption;
mod ext_authz;
mod policy;
mod retry;
mod route;
mod service;
mod stream_route;
mod string_match;
mod tables;
mod telemetry;
mod waypoint;
mod workload;

pub use encryption::{Demand, Encryption, SubsetWish, Wish};
pub use ext_authz::{CheckBody, CheckProtocol, ExtAuthz, HttpCheck, ProviderService};
pub use policy::{
    Action, AuthorizationPolicy, Cidr, ClaimHeader, Condition, ConditionKey, IssuerKeys, Mode,
    Operation, PeerAuthentication, PolicyTarget, Rule, Scope, Source, TokenPlace, TokenRule,
    TokenText, Values,
};
pub use retry::{DefaultRetry, Retry, RetryCondition, RetryOn};
pub use route::{
    Backend, Holds, HttpMatch, HttpRoute, HttpRule, MoreMatch, PathMatch, RouteKind, RouteParent,
    Timeouts, Without,
};
pub use service::{
    AppProtocol, Balancing, Canary, Endpoint, PortFilters, PortMapping, Preference, Resolution,
    Served, Service, ServicePort, Visibility,
};
pub use stream_route::{NameMatch, StreamKind, StreamMatch, StreamRoute, StreamRule, StreamRules};
pub use string_match::StringMatch;
pub use tables::{Tables, Viewer};
pub use telemetry::{Observation, Observed, Sides};
pub use waypoint::{Binding, Waypoint};
pub use workload::{Canonical, CaptureWishes, Locality, Workload};

use std::sync::Arc;

pub use crate::filter::{BackendRef, HeaderMatch, TextMatch};
use crate::telemetry::AccessFormat;

/// Everything that a source knows, translated. One value of this type is one consistent state of the mesh.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Mesh {
    pub workloads: Vec<Arc<Workload>>,
    pub services: Vec<Arc<Service>>,
    pub waypoints: Vec<Arc<Waypoint>>,
    pub routes: Vec<Arc<HttpRoute>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stream_routes: Vec<Arc<StreamRoute>>,
    pub policies: Vec<Arc<AuthorizationPolicy>>,
    /// The format of the access log of requests; `None` for our own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<Arc<AccessFormat>>,
    /// What is recorded of whom.
    #[serde(skip_serializing_if = "is_silent")]
    pub observation: Arc<Observation>,
    /// Holds where no rule of a route says how requests are retried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Arc<DefaultRetry>>,
}

/// Nothing is said anywhere.
fn is_silent(observation: &Arc<Observation>) -> bool {
    !observation.speaks
}
