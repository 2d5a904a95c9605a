//! From objects to the model: one pure function for every source, one file a kind.
//!
//! The same objects give the same mesh, except for the offsets at which routes start to split their traffic. What an object says and we cannot carry out is never dropped in silence: policies
//! deny, rules answer with an error, bindings refuse, and each says so in a complaint.

mod attachment;
mod authorization_policy;
mod by_host;
mod changes;
mod destination_rule;
mod egress;
mod encryption;
mod entries;
mod ext_authz;
mod frame;
mod grpc_route;
mod http_retry;
mod http_route;
mod labels;
mod meaningless;
mod mesh_config;
mod namespace;
mod peer_authentication;
mod revision;
mod roster;
mod route;
mod selected;
mod selectors;
mod service;
mod service_entry;
mod service_ports;
mod services;
mod slices;
mod sources;
mod tcp_route;
mod telemetry;
mod tls_route;
mod traffic_policy;
mod translator;
mod unserved;
mod virtual_service;
mod waypoint;
mod workload;

pub(super) use meaningless::meaningless;
pub use revision::{is_of_other_revision, other_revision_of_gateway};
pub use translator::Translator;
#[cfg(test)]
pub(crate) use virtual_service::tests::compiled as compiled_virtual_service;
pub use waypoint::{CLASS as WAYPOINT_CLASS, LAYER4_ALONE, Resolved, WaypointBindings};

use std::path::PathBuf;
use std::sync::Arc;

use super::objects::{ConfigMap, Kind, MESH_CONFIG, MeshConfig, Namespace, Typed, label};
use super::{Complaint, Condition, Objects, Severity, Topic};
use crate::base::{ObjectKey, Str, TrustDomains};
use crate::config::MissingWaypoint;
use crate::model::Mesh;
use crate::trace::Tracing;

/// Names that objects do not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranslateSettings {
    pub cluster: Str,
    pub trust_domains: TrustDomains,
    pub cluster_domain: Str,
    /// Where mesh-wide policies live.
    pub root_namespace: Str,
    /// Namespaces whose ServiceEntries clients of all namespaces see, besides the root namespace's; `*` for all.
    pub public_service_entries: Vec<Str>,
    /// Where files lie that DestinationRules name, in a folder for each namespace; `None`: they may name none.
    pub tls_directory: Option<PathBuf>,
    /// What Gateways and routes may have in the label `istio.io/rev` to be ours.
    pub revisions: Vec<Str>,
    pub missing_waypoint: MissingWaypoint,
    /// How everything is traced, where no object says otherwise.
    pub tracing: Arc<Tracing>,
}

/// What an empty file of settings gives ([`crate::config`]): the mesh of tests and benches. A test of `app` compares them.
impl Default for TranslateSettings {
    fn default() -> Self {
        Self {
            cluster: "Kubernetes".into(),
            trust_domains: TrustDomains::new("cluster.local".into(), &[]),
            cluster_domain: "cluster.local".into(),
            root_namespace: "istio-system".into(),
            public_service_entries: Vec::new(),
            tls_directory: None,
            revisions: vec!["default".into()],
            missing_waypoint: MissingWaypoint::Refuse,
            tracing: Arc::default(),
        }
    }
}

impl TranslateSettings {
    /// The host that an object of the namespace means in a DestinationRule or VirtualService: a name without dots is a Service of its
    /// own namespace.
    pub fn full_host(&self, namespace: &str, host: &str) -> String {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if host.contains('.') || host.starts_with('*') {
            return host;
        }
        format!("{host}.{namespace}.svc.{}", self.cluster_domain)
    }
}

/// The mesh, and what is wrong with the objects.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Translation {
    pub mesh: Mesh,
    /// Sorted by place and object, each once.
    pub complaints: Vec<Complaint>,
}

/// What every kind's translation reads, and where it complains.
struct Context<'a> {
    objects: &'a Objects,
    settings: &'a TranslateSettings,
    complaints: Vec<Complaint>,
}

/// A kind of policy that is attached to objects after their translation. It may keep the state of its filters between
/// translations.
trait Attach: Send {
    /// Applies the policies to the objects that they are attached to. Runs in every translation.
    fn attach(&mut self, cx: &mut Context<'_>, mesh: &mut Mesh);
}

/// All of these kinds, in the order in which they are applied.
fn attachments() -> Vec<Box<dyn Attach>> {
    vec![
        Box::new(traffic_policy::Attachments::default()),
        Box::new(telemetry::Attachments::default()),
        Box::new(destination_rule::Targets),
    ]
}

/// Translates all objects.
pub fn translate(objects: &Objects, settings: &TranslateSettings) -> Translation {
    Translator::new(settings.clone()).translate(objects, None)
}

impl Translation {
    /// Whether both say the same, offsets aside.
    pub fn says_the_same_as(&self, other: &Translation) -> bool {
        self.complaints == other.complaints
            && self.mesh.workloads == other.mesh.workloads
            && self.mesh.services == other.mesh.services
            && self.mesh.waypoints == other.mesh.waypoints
            && self.mesh.policies == other.mesh.policies
            && self.mesh.access_log == other.mesh.access_log
            && self.mesh.observation == other.mesh.observation
            && self.mesh.retry == other.mesh.retry
            && self.mesh.routes.len() == other.mesh.routes.len()
            && self.mesh.routes.iter().zip(&other.mesh.routes).all(|(one, two)| same(one, two))
            && self.mesh.stream_routes.len() == other.mesh.stream_routes.len()
            && (self.mesh.stream_routes.iter())
                .zip(&other.mesh.stream_routes)
                .all(|(one, two)| same(one, two))
    }
}

/// Compared as they are dumped: regular expressions have no equality of their own.
fn same<R: serde::Serialize>(one: &Arc<R>, two: &Arc<R>) -> bool {
    if Arc::ptr_eq(one, two) {
        return true;
    }
    match (serde_json::to_value(one), serde_json::to_value(two)) {
        (Ok(one), Ok(two)) => one == two,
        _ => false,
    }
}

impl<'a> Context<'a> {
    fn error<T: Typed>(
        &mut self,
        key: &ObjectKey,
        field: impl Into<String>,
        reason: impl Into<String>,
    ) {
        self.complain(Severity::Error, T::KIND, key, field.into(), reason.into());
    }

    fn warn<T: Typed>(
        &mut self,
        key: &ObjectKey,
        field: impl Into<String>,
        reason: impl Into<String>,
    ) {
        self.complain(Severity::Warning, T::KIND, key, field.into(), reason.into());
    }

    /// An error that the route's status tells of.
    fn error_of(
        &mut self,
        kind: Kind,
        key: &ObjectKey,
        field: String,
        reason: String,
        condition: Condition,
    ) {
        self.complain(Severity::Error, kind, key, field, reason);
        if let Some(complaint) = self.complaints.last_mut() {
            complaint.condition = Some(condition);
        }
    }

    fn complain(
        &mut self,
        severity: Severity,
        kind: Kind,
        key: &ObjectKey,
        field: String,
        reason: String,
    ) {
        self.complaints.push(Complaint {
            origin: self.objects.origin(kind, key).cloned(),
            kind: kind.name().into(),
            object: Some(key.clone()),
            field,
            severity,
            reason,
            condition: None,
            topic: None,
        });
    }

    /// Says what the last complaint is about.
    fn about(&mut self, topic: Topic) {
        if let Some(complaint) = self.complaints.last_mut() {
            complaint.topic = Some(topic);
        }
    }

    /// MeshConfig, if there is one.
    fn mesh_config(&self) -> Option<&'a MeshConfig> {
        self.objects.get::<ConfigMap>(&self.mesh_config_key())?.mesh.as_deref()
    }

    fn mesh_config_key(&self) -> ObjectKey {
        ObjectKey::new(self.settings.root_namespace.clone(), MESH_CONFIG)
    }

    /// The names of the mesh's trust domain in policies. MeshConfig may add some: what a policy means is for objects to say. Whom
    /// agents trust is not, and only their settings say it.
    fn names_in_policies(&self) -> TrustDomains {
        let known = &self.settings.trust_domains;
        let more = self.mesh_config().map_or(&[][..], |mesh| &mesh.trust_domain_aliases);
        let names = known.names().cloned().chain(more.iter().map(|name| name.as_str().into()));
        let mut aliases: Vec<Str> = Vec::new();
        for name in names {
            if !name.is_empty() && !aliases.contains(&name) {
                aliases.push(name);
            }
        }
        TrustDomains::new(known.own().clone(), &aliases)
    }

    fn is_root(&self, namespace: &str) -> bool {
        self.settings.root_namespace == namespace
    }
}

/// The value of a namespace's label. Every namespace has the label `kubernetes.io/metadata.name`, also when it has no
/// object or the object does not list it (Kubernetes "Namespaces / Automatic labelling").
fn namespace_label<'a>(objects: &'a Objects, namespace: &'a str, name: &str) -> Option<&'a str> {
    if name == "kubernetes.io/metadata.name" {
        return Some(namespace);
    }
    let namespace = objects.get::<Namespace>(&ObjectKey::new("", namespace))?;
    label(&namespace.metadata, name)
}
