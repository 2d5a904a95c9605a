//! Has the mesh been removed? An agent that is told to end, with an API server that refuses, errs, is silent or says that there
//! is no such DaemonSet: every pod stays closed and the plugin stays installed. Only where the deletion was seen everything is
//! put back, whatever the API server says afterwards.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::apiserver::{ApiServer, Trouble};
use crate::application;
use crate::cluster::{begin_agent, directory, is_captured, objects};
use crate::support::lab::{Lab, wait};

/// What happens on a node before its agent is told to end.
type Before = fn(&ApiServer);

/// Every way is tried on a node of its own, all at once: an agent that does not know waits for a successor first.
const NODES: [(&str, Before, bool); 13] = [
    ("says-401", |server| refuse(server, Trouble::Status(401)), false),
    ("says-403", |server| refuse(server, Trouble::Status(403)), false),
    ("says-404", |server| refuse(server, Trouble::Status(404)), false),
    ("says-500", |server| refuse(server, Trouble::Status(500)), false),
    ("closes", |server| refuse(server, Trouble::Close), false),
    ("is-silent", |server| refuse(server, Trouble::Silent), false),
    ("stands", |_| (), false),
    ("orphaned", orphan, false),
    (
        "replaced",
        |server| {
            server.delete("DaemonSet", SYSTEM, "isthmus");
            server.put(daemon_set(json!({})));
        },
        false,
    ),
    ("deleted", |server| server.delete("DaemonSet", SYSTEM, "isthmus"), true),
    ("going", |server| server.put(daemon_set(json!({"deletionTimestamp": WHEN}))), true),
    ("namespace-going", |server| server.put(namespace(json!({"deletionTimestamp": WHEN}))), true),
    (
        "deleted-then-403",
        |server| {
            server.delete("DaemonSet", SYSTEM, "isthmus");
            refuse(server, Trouble::Status(403));
        },
        true,
    ),
];

const SYSTEM: &str = "isthmus-system";
const WHEN: &str = "2026-01-01T00:00:00Z";
/// Longer than an agent that does not know waits for its successor.
const ENDED: Duration = Duration::from_secs(45);

fn refuse(server: &ApiServer, trouble: Trouble) {
    server.trouble("daemonsets", trouble);
    server.trouble("namespaces/isthmus-system", trouble);
}

/// `kubectl delete daemonset --cascade=orphan`
fn orphan(server: &ApiServer) {
    server.put(daemon_set(json!({"deletionTimestamp": WHEN, "finalizers": ["orphan"]})));
    server.put(daemon_set(json!({"deletionTimestamp": WHEN})));
    server.delete("DaemonSet", SYSTEM, "isthmus");
}

fn with(mut object: Value, more: Value) -> Value {
    for (field, value) in more.as_object().into_iter().flatten() {
        object["metadata"][field] = value.clone();
    }
    object
}

fn daemon_set(more: Value) -> Value {
    let metadata = json!({"name": "isthmus", "namespace": SYSTEM, "uid": "set"});
    with(json!({"kind": "DaemonSet", "apiVersion": "apps/v1", "metadata": metadata}), more)
}

fn namespace(more: Value) -> Value {
    with(json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": SYSTEM}}), more)
}

/// A pod on each node, which nobody may call.
fn manifests() -> Result<String> {
    let mut text = String::new();
    for (node, ..) in NODES {
        write!(
            text,
            r#"
---
apiVersion: v1
kind: Pod
metadata:
  name: vault-{node}
  namespace: shop
  labels: {{app: vault}}
  annotations: {{isthmus.io/node: {node}, isthmus.io/network-namespace: vault-{node}}}
spec:
  serviceAccountName: vault
  containers: [{{name: vault, image: bookinfo, command: [bookinfo], args: [--service, details, --version, v1]}}]
"#
        )?;
    }
    Ok(text)
}

const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: shop}
spec: {}
"#;

/// The plugin and the rules are in place, and the pod is closed; or everything is as before the mesh.
fn node_is(lab: &Lab, node: &str, freed: bool) -> Result<()> {
    let pod = format!("vault-{node}");
    let list = fs::read_to_string(directory(node, "net.d").join("10-lab.conflist"))?;
    let url = format!("http://{}:9080/details/0", lab.address(&pod)?);
    let status = lab.curl("outsider", &["--max-time", "4", &url])?.status;
    let found = (!list.contains("\"isthmus\""), lab.rules(&pod)?.is_empty(), status == 200);
    ensure!(found == (freed, freed, freed), "(plugin gone, rules gone, open): {found:?}");
    Ok(())
}

#[test]
fn only_a_removal_that_was_seen_frees_a_node() -> Result<()> {
    let mut lab = application(&[SHOP, &manifests()?])?;
    lab.environment.push(("POD_NAMESPACE".to_owned(), SYSTEM.to_owned()));
    let mut nodes = Vec::new();
    for (node, before, freed) in NODES {
        let own = [daemon_set(json!({})), namespace(json!({}))];
        let server = ApiServer::new(objects(&lab).into_iter().chain(own));
        server.serve_in(&lab.node(node)?.namespace)?;
        nodes.push((node, server, before, freed, begin_agent(&lab, node, "")?));
    }
    for (node, .., agent) in &mut nodes {
        agent.wait_until_ready()?;
        is_captured(agent, &format!("vault-{node}"), true)?;
        node_is(&lab, node, false).context(*node)?;
    }
    for (_, server, before, ..) in &nodes {
        before(server);
    }
    // What a watch tells takes a moment.
    std::thread::sleep(Duration::from_millis(500));
    for (.., agent) in &mut nodes {
        agent.process().signal(Signal::SIGTERM)?;
    }
    let mut wrong = Vec::new();
    for (node, .., freed, agent) in &mut nodes {
        wait::within(ENDED, &format!("the agent of {node} to end"), || {
            Ok(agent.process().must_run().is_err().then_some(()))
        })?;
        if let Err(error) = node_is(&lab, node, *freed) {
            wrong.push(format!("{node}, freed: {freed}: {error:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}
