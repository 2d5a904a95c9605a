//! Pod (core v1): the few fields that mean something to the mesh. An agent knows every pod of its cluster, and the
//! rest of one is twenty times as large.
//!
//! Of those few, most are the same in all pods of a template; they are held once for all that stand near each other
//! ([`Pod::share`]).

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Deserializer};

use super::{Labelled, Labels};
use crate::base::Str;

/// The annotation by which the kubelet marks what stands in the API for a static pod: the UID that the container runtime knows
/// that pod by (Kubernetes "Static Pods"). On any other pod it keeps the kubelet from running it.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// How far from each other two pods may stand, by name, to share what they have in common: those of a ReplicaSet, a
/// DaemonSet or a Job stand together, but the topology of their nodes, which labels tell, goes to and fro.
pub const NEAR: usize = 6;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "Wire")]
pub struct Pod {
    pub metadata: PodMetadata,
    pub node_name: Option<Str>,
    pub status: PodStatus,
    pub template: Arc<PodTemplate>,
}

/// What a pod has for itself.
#[derive(Clone, Debug, Default)]
pub struct PodMetadata {
    pub name: Option<Str>,
    pub namespace: Option<Str>,
    pub uid: Option<Str>,
    /// `deletionTimestamp` is set.
    pub deleting: bool,
}

/// What a pod most often has from its template.
#[derive(Debug, Default, PartialEq)]
pub struct PodTemplate {
    pub labels: Option<Labels>,
    pub annotations: Option<Labels>,
    /// The one that is its controller.
    pub owner: Option<Owner>,
    pub service_account_name: Option<String>,
    pub host_network: bool,
    pub hostname: Option<String>,
    pub subdomain: Option<String>,
    /// Those that name a port.
    pub containers: Vec<Container>,
    /// Those that name a port.
    pub init_containers: Vec<Container>,
}

/// An entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Owner {
    #[serde(default)]
    controller: Option<bool>,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// `Always` on an init container: it keeps running (Kubernetes "Sidecar Containers").
    #[serde(default)]
    pub restart_policy: Option<String>,
    #[serde(default)]
    pub ports: Option<Vec<ContainerPort>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    #[serde(default)]
    pub name: Option<String>,
    pub container_port: i32,
    #[serde(default)]
    pub protocol: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    #[serde(default)]
    pub phase: Phase,
    #[serde(default, rename = "podIP")]
    pub pod_ip: Option<Box<str>>,
    #[serde(default, rename = "podIPs")]
    pub pod_ips: Option<Box<[PodIp]>>,
    /// Whether the condition `Ready` holds; `None` where no conditions are given.
    #[serde(default, rename = "conditions", deserialize_with = "is_ready")]
    pub ready: Option<bool>,
}

/// `status.phase`, as far as it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Option<String>")]
pub enum Phase {
    /// `Succeeded` or `Failed`.
    Finished,
    #[default]
    Other,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct PodIp {
    #[serde(default)]
    pub ip: Box<str>,
}

impl Pod {
    /// Holds the template of `other`, where it says the same as its own; whether it does.
    pub fn share(&mut self, other: &Pod) -> bool {
        let same = self.template == other.template;
        if same {
            self.template = other.template.clone();
        }
        same
    }

    /// A pod without conditions, as a directory describes it, counts as ready.
    pub fn passes_readiness(&self) -> bool {
        self.status.ready.unwrap_or(true)
    }
}

impl Labelled for Pod {
    fn labels(&self) -> Option<&Labels> {
        self.template.labels.as_ref()
    }

    fn annotations(&self) -> Option<&Labels> {
        self.template.annotations.as_ref()
    }
}

impl From<Option<String>> for Phase {
    fn from(text: Option<String>) -> Self {
        match text.as_deref() {
            Some("Succeeded" | "Failed") => Phase::Finished,
            _ => Phase::Other,
        }
    }
}

/// As it is written.
#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    metadata: WireMetadata,
    #[serde(default)]
    spec: Option<WireSpec>,
    #[serde(default)]
    status: Option<PodStatus>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMetadata {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    uid: Option<String>,
    #[serde(default)]
    deletion_timestamp: Option<Time>,
    #[serde(default)]
    labels: Option<Labels>,
    #[serde(default)]
    annotations: Option<Labels>,
    #[serde(default)]
    owner_references: Option<Vec<Owner>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireSpec {
    #[serde(default)]
    service_account_name: Option<String>,
    #[serde(default)]
    node_name: Option<String>,
    #[serde(default)]
    host_network: Option<bool>,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    subdomain: Option<String>,
    #[serde(default, deserialize_with = "that_name_ports")]
    containers: Vec<Container>,
    #[serde(default, deserialize_with = "that_name_ports")]
    init_containers: Vec<Container>,
}

impl From<Wire> for Pod {
    fn from(Wire { metadata, spec, status }: Wire) -> Self {
        let spec = spec.unwrap_or_default();
        let mut owners = metadata.owner_references.into_iter().flatten();
        let template = PodTemplate {
            labels: metadata.labels,
            annotations: metadata.annotations.filter(|annotations| !annotations.is_empty()),
            owner: owners.find(|owner| owner.controller == Some(true)),
            service_account_name: spec.service_account_name,
            host_network: spec.host_network.unwrap_or(false),
            hostname: spec.hostname,
            subdomain: spec.subdomain,
            containers: spec.containers,
            init_containers: spec.init_containers,
        };
        Pod {
            metadata: PodMetadata {
                name: metadata.name.map(Str::from),
                namespace: metadata.namespace.map(Str::from),
                uid: metadata.uid.map(Str::from),
                deleting: metadata.deletion_timestamp.is_some(),
            },
            node_name: spec.node_name.map(Str::from),
            status: status.unwrap_or_default(),
            template: Arc::new(template),
        }
    }
}

fn that_name_ports<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Container>, D::Error> {
    let mut containers = Option::<Vec<Container>>::deserialize(from)?.unwrap_or_default();
    for container in &mut containers {
        let ports = container.ports.take().unwrap_or_default();
        let named: Vec<_> = ports.into_iter().filter(|port| port.name.is_some()).collect();
        container.ports = (!named.is_empty()).then_some(named);
    }
    containers.retain(|container| container.ports.is_some());
    containers.shrink_to_fit();
    Ok(containers)
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

fn is_ready<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    let conditions = Option::<Vec<Condition>>::deserialize(from)?;
    Ok(conditions.map(|all| all.iter().any(|it| it.kind == "Ready" && it.status == "True")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, version: &str) -> Pod {
        let value = json!({
            "metadata": {"name": name, "labels": {"version": version}},
            "spec": {"containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 80}]}]},
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn pods_of_a_template_share_it_and_others_do_not() {
        let (one, mut same, mut other) = (pod("a", "v1"), pod("b", "v1"), pod("c", "v2"));
        assert!(same.share(&one) && !other.share(&one));
        assert!(Arc::ptr_eq(&same.template, &one.template));
        assert!(!Arc::ptr_eq(&other.template, &one.template));
        assert_eq!(other.labels().unwrap()["version"], "v2");
    }

    #[test]
    fn only_a_controller_is_an_owner() {
        let owners = json!([
            {"kind": "X", "name": "x", "apiVersion": "v1", "uid": "1"},
            {"kind": "ReplicaSet", "name": "rs", "controller": true},
        ]);
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"ownerReferences": owners}})).unwrap();
        assert_eq!(pod.template.owner.as_ref().unwrap().name, "rs");
    }
}
