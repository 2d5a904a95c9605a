//! How agents read the API server: kinds that come later and go again, objects that cannot be understood, labels of
//! nodes; as the agents' own dumps show it.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::cluster::{administer, apply, apply_file, delete, get, kubectl, pod, root, until};
use crate::guide::application;

const DEFINITION: &str = "workloadentries.networking.istio.io";
const DEFINITION_FILE: &str = "config/crds/workloadentries.networking.istio.io.yaml";

/// Fields of a later version of Istio: the server accepts fields that this version does not know.
const LAX_DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: workloadentries.networking.istio.io}
spec:
  group: networking.istio.io
  scope: Namespaced
  names: {kind: WorkloadEntry, plural: workloadentries, singular: workloadentry}
  versions:
  - name: v1beta1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

/// Our own definitions come with an admission policy that turns such objects away; Istio's do not.
const ADMISSION_FILE: &str = "config/crds/unknown-fields.yaml";

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: machines, namespace: default}
spec: {selector: {app: machine}, ports: [{name: http, port: 80}]}
";

fn entry(name: &str, address: &str, more: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {{name: {name}, namespace: default}}
spec: {{address: {address}, labels: {{app: machine}}{more}}}
---
"
    )
}

fn asked(node: &str, path: &str) -> Result<Value> {
    Ok(serde_json::from_str(&administer(node, &[], path)?)?)
}

/// The addresses of the endpoints of `machines`, as node1's agent knows them.
fn machines() -> Result<Vec<String>> {
    let dump = asked("node1", "config_dump")?;
    let services = dump["services"].as_array().cloned().unwrap_or_default();
    let found = services.iter().find(|it| it["name"] == "machines" && it["namespace"] == "default");
    let endpoints = found.and_then(|it| it["endpoints"].as_object()).cloned().unwrap_or_default();
    let mut addresses: Vec<_> =
        endpoints.keys().map(|key| key.trim_start_matches(":/").to_owned()).collect();
    addresses.sort();
    Ok(addresses)
}

fn leads_to(wanted: &[&str]) -> Result<()> {
    until(&format!("node1's agent to know the machines {wanted:?}"), || {
        Ok((machines()? == wanted).then_some(()))
    })
}

fn complaints() -> Result<Vec<String>> {
    let status = asked("node1", "status")?;
    let all = status["complaints"].as_array().cloned().unwrap_or_default();
    Ok(all.iter().filter_map(|it| Some(it["complaint"].as_str()?.to_owned())).collect())
}

#[test]
fn kinds_come_and_go_and_what_cannot_be_understood_is_refused_alone() -> Result<()> {
    let admission = root().join(ADMISSION_FILE).display().to_string();
    kubectl(&["delete", "-f", &admission, "--ignore-not-found", "--wait"])?;
    kubectl(&["delete", "crd", DEFINITION, "--ignore-not-found", "--wait"])?;
    apply(SERVICE)?;
    leads_to(&[])?;
    let done = follow_entries();
    // Whatever came of it, the next test finds what the installation left.
    kubectl(&["delete", "crd", DEFINITION, "--ignore-not-found", "--wait"])?;
    done.and(leads_to(&[]))?;
    apply_file(DEFINITION_FILE)?;
    apply_file(ADMISSION_FILE)?;
    delete(SERVICE)
}

/// From the definition that comes later to entries that are mended.
fn follow_entries() -> Result<()> {
    apply(LAX_DEFINITION)?;
    kubectl(&["wait", "--for=condition=Established", "crd", DEFINITION, "--timeout=60s"])?;
    let good = entry("good", "192.0.2.1", "");
    until("the new kind to be taken", || Ok(apply(&good).ok()))?;
    leads_to(&["192.0.2.1"])?;
    let odd = entry("odd", "192.0.2.2", ", novelty: true");
    until("the admission policy to be gone", || Ok(apply(&odd).ok()))?;
    until("the complaint on the odd entry", || {
        let about = |it: &String| it.starts_with("WorkloadEntry default/odd: spec.novelty");
        Ok(complaints()?.into_iter().find(about))
    })?;
    leads_to(&["192.0.2.1"])?;
    // The last good version stays in force, and what is mended takes effect.
    apply(&entry("good", "192.0.2.9", ", novelty: true"))?;
    until("the complaint on the entry that was good", || {
        let kept = |it: &String| it.contains("default/good") && it.contains("last good version");
        Ok(complaints()?.into_iter().find(kept))
    })?;
    ensure!(machines()? == ["192.0.2.1"], "{:?}", machines()?);
    apply(&(entry("good", "192.0.2.9", "") + &entry("odd", "192.0.2.2", "")))?;
    leads_to(&["192.0.2.2", "192.0.2.9"])?;
    until("no complaint", || {
        Ok((!complaints()?.iter().any(|it| it.contains("WorkloadEntry"))).then_some(()))
    })
}

#[test]
fn pods_are_where_their_node_is() -> Result<()> {
    application()?;
    let node = get(&["node", "node2"])?;
    ensure!(node["metadata"]["labels"]["topology.kubernetes.io/zone"].is_null(), "there is a zone");
    let far = pod("default", "app=far")?["metadata"]["name"].clone();
    let zone = |wanted: &str| {
        until(&format!("node1's agent to know the zone {wanted:?} of {far}"), || {
            let dump = asked("node1", "config_dump")?;
            let workloads = dump["workloads"].as_array().cloned().unwrap_or_default();
            let found = workloads.iter().find(|it| it["name"] == far);
            Ok(found.filter(|it| it["locality"]["zone"] == wanted).map(|_| ()))
        })
    };
    kubectl(&["label", "node", "node2", "topology.kubernetes.io/zone=west"])?;
    let seen = zone("west");
    kubectl(&["label", "node", "node2", "topology.kubernetes.io/zone-"])?;
    seen.and(zone(""))
}
