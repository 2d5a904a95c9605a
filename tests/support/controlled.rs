//! A mesh with a real controller, which asks a stand-in of the API server.

#![allow(dead_code, reason = "the suites use different parts")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::apiserver::{ApiServer, kubeconfig};
use crate::support::lab::process::{Process, command};
use crate::support::lab::{Lab, private, wait};

/// In which the controller runs; it is of no mesh.
pub const PLACE: &str = "outsider";
const CONTROLLER: &str = "isthmus-controller.isthmus-system.svc";

/// A file of the lab's own.
pub fn path(name: &str) -> String {
    Path::new(private::DIRECTORY).join(name).display().to_string()
}

/// What an API server says of the pods behind `reviews`; and that every account has a pod on every node.
pub fn objects() -> Vec<Value> {
    let endpoints = [("node-a", 1), ("node-b", 2), ("node-b", 3)].map(|(node, number)| {
        json!({"addresses": [format!("192.0.2.{number}")], "nodeName": node, "conditions": {"ready": true}})
    });
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any", "namespace": "bookinfo"}});
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": "reviews-1", "namespace": "bookinfo", "labels": {"kubernetes.io/service-name": "reviews"},
        },
        "endpoints": endpoints, "ports": [],
    });
    vec![pod, slice]
}

/// Starts a controller, which asks the stand-in that serves in its namespace.
pub fn start_controller(lab: &Lab) -> Result<Process> {
    let config = path("controller.toml");
    let text = format!(
        "node = \"controller-0\"\n[source]\nkind = \"kubernetes\"\nkubeconfig = \"{}\"\n[controller]\nnamespace = \
         \"isthmus-system\"\n",
        kubeconfig(Path::new(private::DIRECTORY))?.display()
    );
    fs::write(&config, text)?;
    let namespace = &lab.pod(PLACE)?.attachment.namespace;
    let mut run = command(namespace, &lab.programs().isthmus);
    run.args(["controller", "--config", &config]);
    run.env("RUST_LOG", "info");
    let mut controller = Process::start("controller", namespace, run, lab.logs())?;
    controller.wait_for_port(15012).with_context(|| controller.last_lines())?;
    Ok(controller)
}

/// Starts the stand-in, a controller, and agents that have it sign, with more settings.
pub fn start(lab: &mut Lab, more: impl Fn(&str) -> String) -> Result<(ApiServer, Process)> {
    let server = ApiServer::new(objects());
    server.serve_in(&lab.pod(PLACE)?.attachment.namespace)?;
    let controller = start_controller(lab)?;
    fs::write(path("roots.pem"), roots(&server)?)?;
    let mut hosts = File::options().append(true).open(path("hosts"))?;
    writeln!(hosts, "\n{} {CONTROLLER}", lab.address(PLACE)?)?;
    for node in ["node-a", "node-b"] {
        fs::write(path(&format!("{node}-token")), format!("agent-{node}"))?;
    }
    let (address, roots) = (format!("https://{CONTROLLER}:15012"), path("roots.pem"));
    lab.start_agents_each(|node| {
        let token = path(&format!("{node}-token"));
        format!(
            "[identity]\nissuer = \"controller\"\ncontroller_address = \"{address}\"\ncontroller_root = \"{roots}\"\n\
             controller_token_file = \"{token}\"\n{}",
            more(node)
        )
    })?;
    Ok((server, controller))
}

/// The roots that the controller publishes.
pub fn roots(server: &ApiServer) -> Result<String> {
    wait::until("the controller to publish its roots", || {
        let map = server.get("ConfigMap", "isthmus-system", "isthmus-ca-root");
        Ok(map.and_then(|map| map["data"]["root-cert.pem"].as_str().map(str::to_owned)))
    })
}
