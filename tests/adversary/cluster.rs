//! Bookinfo and the attacker as a cluster has them: agents read an API server (a stand-in), and no manifest says where a pod
//! is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::apiserver::{ApiServer, kubeconfig};
use crate::support::lab::agents::{Agent, Shared};
use crate::support::lab::{Lab, private, wait};

/// Every object of a lab's manifests, as an API server has it: scheduled, with UIDs, and without what only a directory
/// knows.
pub fn objects(lab: &Lab) -> Vec<Value> {
    let kinds = ["Namespace", "Service", "AuthorizationPolicy", "PeerAuthentication", "Pod"];
    let all = kinds.iter().flat_map(|kind| lab.manifests.of_kind(kind));
    let all = all.map(|(key, object)| {
        let mut object = object.clone();
        if key.kind == "Pod" {
            object["metadata"]["uid"] = json!(uid(&key.name));
            object["spec"]["nodeName"] =
                object["metadata"]["annotations"]["isthmus.io/node"].clone();
            object["status"]["phase"] = json!("Running");
            object["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        }
        object
    });
    let nodes = lab.network().nodes().iter();
    let nodes = nodes
        .map(|node| json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": node.name}}));
    all.chain(nodes).collect()
}

/// The UID of the lab's pod of that name.
pub fn uid(pod: &str) -> String {
    format!("uid-of-{pod}")
}

/// In the lab's private world.
pub fn directory(node: &str, what: &str) -> PathBuf {
    Path::new(private::DIRECTORY).join(format!("{node}-{what}"))
}

/// The settings of a node's agent that reads the API server of its own node, with a CNI plugin.
pub fn settings(node: &str) -> Result<String> {
    for what in ["net.d", "bin"] {
        std::fs::create_dir_all(directory(node, what))?;
    }
    let list = directory(node, "net.d").join("10-lab.conflist");
    if !list.exists() {
        std::fs::write(&list, r#"{"cniVersion":"1.0.0","name":"lab","plugins":[{"type":"ptp"}]}"#)?;
    }
    let config = kubeconfig(Path::new(private::DIRECTORY))?;
    let path = |what| directory(node, what).display().to_string();
    Ok(format!(
        "[source]\nkind = \"kubernetes\"\nkubeconfig = \"{}\"\n[takeover]\ndirectory = \"{}\"\n[cni]\nenabled = \"on\"\n\
         conf_directory = \"{}\"\nbin_directory = \"{}\"\nsocket = \"{}\"\n",
        config.display(),
        private::DIRECTORY,
        path("net.d"),
        path("bin"),
        path("cni.sock"),
    ))
}

/// Another agent for a node beside the one that may run, with `more` settings.
pub fn begin_agent(lab: &Lab, node: &str, more: &str) -> Result<Agent> {
    let shared = Shared {
        program: &lab.programs().isthmus,
        directory: Path::new(private::DIRECTORY),
        manifests: lab.manifests.directory(),
        environment: &lab.environment,
    };
    Agent::begin(lab.node(node)?, &shared, &(settings(node)? + more), lab.logs())
}

/// An API server with the lab's objects on every node, and an agent that reads it.
pub fn start_agents(lab: &Lab) -> Result<(ApiServer, Vec<Agent>)> {
    let server = ApiServer::new(objects(lab));
    let mut agents = Vec::new();
    for node in lab.network().nodes() {
        server.serve_in(&node.namespace)?;
        agents.push(begin_agent(lab, &node.name, "")?);
    }
    for agent in &mut agents {
        agent.wait_until_ready()?;
    }
    Ok((server, agents))
}

/// Gives the namespaces of all pods names at random, as a container runtime does; returns the name of each pod's.
pub fn rename_namespaces(lab: &Lab) -> Result<Vec<(String, String)>> {
    let mut names = Vec::new();
    for (number, (pod, _)) in lab.pods().enumerate() {
        let name = format!("cni-{number:04x}");
        let path = |name: &str| Path::new(private::NETWORK_NAMESPACES).join(name);
        std::fs::write(path(&name), "")?;
        let (old, new) = (path(pod), path(&name));
        for (program, arguments) in [
            ("mount", vec!["--bind".as_ref(), old.as_os_str(), new.as_os_str()]),
            ("umount", vec!["--lazy".as_ref(), old.as_os_str()]),
        ] {
            ensure!(Command::new(program).args(arguments).status()?.success(), "{program} {pod}");
        }
        std::fs::remove_file(&old)?;
        names.push((pod.clone(), name));
    }
    Ok(names)
}

/// Waits until an agent has settled what it does with a pod: `captured` or not.
pub fn is_captured(agent: &Agent, pod: &str, captured: bool) -> Result<()> {
    wait::until(&format!("{pod} to be captured: {captured}"), || {
        let state = agent.dump()?;
        let workloads = state["workloadState"].as_object().cloned().unwrap_or_default();
        let its = workloads.iter().find(|(uid, _)| uid.ends_with(&format!("/{pod}")));
        Ok(its.filter(|(_, it)| (it["state"] == "Up") == captured).map(drop))
    })
}
