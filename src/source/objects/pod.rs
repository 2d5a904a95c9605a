//! Pod (core v1): the few fields that mean something to the mesh. An agent knows every pod of its cluster, and the
//! rest of one is twenty times as large.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: Option<PodSpec>,
    #[serde(default)]
    pub status: Option<PodStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    #[serde(default)]
    pub service_account_name: Option<String>,
    #[serde(default)]
    pub node_name: Option<String>,
    #[serde(default)]
    pub host_network: Option<bool>,
    #[serde(default)]
    pub hostname: Option<String>,
    #[serde(default)]
    pub subdomain: Option<String>,
    /// Those that name a port.
    #[serde(default, deserialize_with = "that_name_ports")]
    pub containers: Vec<Container>,
    /// Those that name a port.
    #[serde(default, deserialize_with = "that_name_ports")]
    pub init_containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// `Always` on an init container: it keeps running (Kubernetes "Sidecar Containers").
    #[serde(default)]
    pub restart_policy: Option<String>,
    #[serde(default)]
    pub ports: Option<Vec<ContainerPort>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
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
    pub phase: Option<String>,
    #[serde(default, rename = "podIP")]
    pub pod_ip: Option<String>,
    #[serde(default, rename = "podIPs")]
    pub pod_ips: Option<Vec<PodIp>>,
    /// Whether the condition `Ready` holds; `None` where no conditions are given.
    #[serde(default, rename = "conditions", deserialize_with = "is_ready")]
    pub ready: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct PodIp {
    #[serde(default)]
    pub ip: String,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
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

fn is_ready<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    let conditions = Option::<Vec<Condition>>::deserialize(from)?;
    Ok(conditions.map(|all| all.iter().any(|it| it.kind == "Ready" && it.status == "True")))
}
