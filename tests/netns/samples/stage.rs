//! A lab with nothing but Istio's samples in it: what a cluster's controllers would make of their Deployments, and the
//! programs of their images.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use super::files;
use crate::captured_in;
use crate::support::lab::curl::Answer;
use crate::support::lab::manifests::placed_in;
use crate::support::lab::process::{Process, command};
use crate::support::lab::{Lab, Programs, private, wait};

/// Where everything is applied.
pub const NAMESPACE: &str = "samples";

/// In the mesh, with a waypoint, as `istioctl waypoint apply --enroll-namespace` leaves a namespace.
pub const WITH_WAYPOINT: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: samples, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: samples, labels: {istio.io/waypoint-for: service}}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
";

/// In the mesh, at layer 4 alone.
const WITHOUT: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: samples, labels: {istio.io/dataplane-mode: ambient}}
";

pub struct Stage {
    pub lab: Lab,
    processes: Vec<Process>,
}

/// The lab's nodes.
const NODES: [&str; 2] = ["node-a", "node-b"];

/// The Pods that a cluster makes of the Deployments of a text, a replica each, on one node after the other.
pub fn pods(text: &str, namespace: &str) -> Result<Vec<Value>> {
    let documents = placed_in(namespace, text)?;
    let deployments = documents.iter().filter(|it| it["kind"] == "Deployment");
    deployments.zip(NODES.iter().cycle()).map(|(it, node)| pod(it, node)).collect()
}

fn pod(deployment: &Value, node: &str) -> Result<Value> {
    let metadata = &deployment["metadata"];
    let name = metadata["name"].as_str().context("a Deployment without a name")?;
    let template = &deployment["spec"]["template"];
    let mut spec = template["spec"].clone();
    let container = &mut spec["containers"][0];
    if let Some(arguments) = bookinfo(container["image"].as_str().unwrap_or_default()) {
        container["command"] = json!(["bookinfo"]);
        container["args"] = json!(arguments);
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": template["metadata"]["labels"],
            "annotations": {"isthmus.io/node": node, "isthmus.io/network-namespace": name},
        },
        "spec": spec,
    }))
}

/// What the lab's Bookinfo is told to be one of Istio's images.
fn bookinfo(image: &str) -> Option<Vec<String>> {
    let (_, image) = image.rsplit_once("/examples-")?;
    let (image, _) = image.split_once(':')?;
    let (service, version) = image.trim_start_matches("bookinfo-").rsplit_once('-')?;
    // helloworld only has to tell its version, and to listen elsewhere.
    let (service, listen) = match service {
        "helloworld" => ("details", "[::]:5000"),
        other => (other, "[::]:9080"),
    };
    let words = ["--service", service, "--version", version, "--listen", listen];
    Some(words.map(str::to_owned).to_vec())
}

impl Stage {
    /// Applies these samples, and that of curl, in a namespace of the mesh.
    pub fn of(files: &[&str], waypoint: bool) -> Result<Self> {
        Self::with(files, waypoint, "")
    }

    /// The same, with other manifests.
    pub fn with(files: &[&str], waypoint: bool, more: &str) -> Result<Self> {
        let mut documents = vec![more.to_owned()];
        documents.push(if waypoint { WITH_WAYPOINT } else { WITHOUT }.to_owned());
        for file in ["curl/curl.yaml"].iter().chain(files) {
            let text = files::read(file)?;
            for object in placed_in(NAMESPACE, &text)?.into_iter().chain(pods(&text, NAMESPACE)?) {
                documents
                    .push(serde_saphyr::to_string(&object).map_err(|error| anyhow!("{error}"))?);
            }
        }
        // Before the lab's namespaces are entered: building needs the network.
        let programs = Images::of(&documents.join("---\n"))?;
        private::enter()?;
        let ours = Programs::beside(Path::new(env!("CARGO_BIN_EXE_isthmus")))?;
        let mut lab = Lab::build(&documents, &ours)?;
        let processes = programs.start(&lab)?;
        lab.start_agents("")?;
        captured_in(&lab, NAMESPACE)?;
        Ok(Self { lab, processes })
    }

    /// `kubectl apply -n samples -f FILE`.
    pub fn apply(&mut self, file: &str) -> Result<()> {
        let text = files::read(file)?;
        self.lab.manifests.apply_in(NAMESPACE, &text).map(drop).context(file.to_owned())
    }

    /// Runs the sample client.
    pub fn curl(&self, arguments: &[&str]) -> Result<Answer> {
        self.lab.curl("curl", arguments)
    }

    /// Repeats a request until its answer is as it has to be: a change takes effect in a moment.
    pub fn until(
        &self,
        what: &str,
        arguments: &[&str],
        is_it: impl Fn(&Answer) -> bool,
    ) -> Result<Answer> {
        let mut last = Answer::default();
        let found = wait::until(what, || {
            last = self.curl(arguments)?;
            Ok(is_it(&last).then(|| last.clone()))
        });
        found.with_context(|| format!("{last:?}"))
    }

    /// How often each of so many requests in a row was told which word; `None` once one fails.
    pub fn shares(
        &self,
        arguments: &[&str],
        count: usize,
        word: impl Fn(&Answer) -> String,
    ) -> Result<Option<BTreeMap<String, usize>>> {
        let mut shares = BTreeMap::new();
        for _ in 0..count {
            let answer = self.curl(arguments)?;
            if answer.status != 200 {
                return Ok(None);
            }
            *shares.entry(word(&answer)).or_default() += 1;
        }
        Ok(Some(shares))
    }

    /// Waits until so many requests in a row are shared among answers exactly so.
    pub fn until_shared(
        &self,
        arguments: &[&str],
        expected: &[(&str, usize)],
        word: impl Fn(&Answer) -> String,
    ) -> Result<()> {
        let expected: BTreeMap<String, usize> =
            expected.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect();
        let count = expected.values().sum();
        let mut last = None;
        let found = wait::until(&format!("shares {expected:?}"), || {
            last = self.shares(arguments, count, &word)?;
            Ok((last.as_ref() == Some(&expected)).then_some(()))
        });
        found.with_context(|| format!("{last:?}"))
    }

    /// What a pod's program has printed.
    pub fn log(&self, pod: &str) -> Result<String> {
        let process = self.processes.iter().find(|it| it.name() == pod);
        process.map(Process::log).with_context(|| format!("no process in {pod}"))
    }
}

/// What runs in pods besides Bookinfo: program, arguments and port.
struct Images(Vec<(String, std::path::PathBuf, Vec<String>, u16)>);

impl Images {
    fn of(text: &str) -> Result<Self> {
        let mut images = Vec::new();
        for object in placed_in(NAMESPACE, text)?.iter().filter(|it| it["kind"] == "Pod") {
            let container = &object["spec"]["containers"][0];
            let image = container["image"].as_str().unwrap_or_default();
            let words = container["args"].as_array().into_iter().flatten();
            let words = words.filter_map(Value::as_str).map(str::to_owned).collect();
            let (program, words, port) = if image.contains("/tcp-echo-server:") {
                ("tcp-echo", words, 9000)
            } else if image.contains("/go-httpbin:") {
                ("go-httpbin", words, 8080)
            } else {
                continue;
            };
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            images.push((name, files::program(program)?, words, port));
        }
        Ok(Self(images))
    }

    fn start(&self, lab: &Lab) -> Result<Vec<Process>> {
        let start =
            |(pod, program, words, port): &(String, std::path::PathBuf, Vec<String>, u16)| {
                let namespace = &lab.pod(pod)?.attachment.namespace;
                let mut command = command(namespace, program);
                command.args(words);
                let mut process = Process::start(pod, namespace, command, lab.logs())?;
                process.wait_for_port(*port)?;
                Ok(process)
            };
        self.0.iter().map(start).collect()
    }
}
