//! What the Pod manifests say about where pods run and what runs in them, and what a cluster would add.

use std::net::IpAddr;

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use super::manifests::{Key, Manifests, child};

/// The node of a Pod whose manifest names none.
pub const NODE: &str = "isthmus.io/node";
pub const NETWORK_NAMESPACE: &str = "isthmus.io/network-namespace";

/// What a Pod's manifest asks for.
#[derive(Clone, Debug)]
pub struct Plan {
    pub key: Key,
    pub node: String,
    pub network_namespace: String,
    /// The command line; empty when the manifest has none.
    pub command: Vec<String>,
    /// The first port that the container declares.
    pub port: Option<u16>,
    pub service_account: String,
}

/// The plans of all Pods.
pub fn plans(manifests: &Manifests) -> Result<Vec<Plan>> {
    manifests.of_kind("Pod").into_iter().map(|(key, pod)| Plan::of(key, pod)).collect()
}

impl Plan {
    fn of(key: &Key, pod: &Value) -> Result<Self> {
        let annotation = |name: &str| {
            let value = pod["metadata"]["annotations"][name].as_str();
            value.map(str::to_owned).ok_or_else(|| anyhow!("{key}: no annotation {name}"))
        };
        let container = &pod["spec"]["containers"][0];
        let words = [&container["command"], &container["args"]];
        let words = words.into_iter().filter_map(Value::as_array).flatten();
        Ok(Self {
            key: key.clone(),
            node: annotation(NODE)?,
            network_namespace: annotation(NETWORK_NAMESPACE)?,
            command: words.filter_map(Value::as_str).map(str::to_owned).collect(),
            port: container["ports"][0]["containerPort"].as_u64().and_then(|it| it.try_into().ok()),
            service_account: pod["spec"]["serviceAccountName"]
                .as_str()
                .unwrap_or("default")
                .to_owned(),
        })
    }
}

/// Writes the addresses into the Pod's status, as a kubelet does.
pub fn set_addresses(manifests: &mut Manifests, plan: &Plan, addresses: &[IpAddr]) -> Result<()> {
    manifests.change(&plan.key, |pod| {
        let status = child(pod, "status")?;
        let all: Vec<Value> = addresses.iter().map(|address| json!({ "ip": address })).collect();
        status["podIPs"] = Value::from(all);
        status["podIP"] = json!(addresses.first());
        Ok(())
    })
}
