//! Pods that ran before the first agent did: the container runtime, a real containerd, says where they are. An address does
//! not.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use http::uri::PathAndQuery;
use serde_json::json;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use crate::apiserver::ApiServer;
use crate::cluster::{begin_agent, is_captured, objects};
use crate::identity::{DETAILS, guarded, ip, served};
use crate::support::lab::curl::curl;
use crate::support::lab::netns::Namespace;
use crate::support::lab::process::{Process, command};
use crate::support::lab::{Lab, private, wait};

const IMAGE: &str = "localhost/pause:lab";
/// The one address that the runtime's network gives, in the range of node-a's pods.
const ADDRESS: &str = "10.10.1.242";

/// `RunPodSandboxRequest` of CRI, as far as it is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct RunRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<Config>,
}

/// `PodSandboxConfig`
#[derive(Clone, PartialEq, prost::Message)]
struct Config {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(message, optional, tag = "8")]
    linux: Option<Linux>,
}

/// `PodSandboxMetadata`
#[derive(Clone, PartialEq, prost::Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

/// `LinuxPodSandboxConfig`, whose defaults are a pod's.
#[derive(Clone, PartialEq, prost::Message)]
struct Linux {}

/// `RunPodSandboxResponse`
#[derive(Clone, PartialEq, prost::Message)]
struct RunResponse {
    #[prost(string, tag = "1")]
    id: String,
}

/// `StopPodSandboxRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct StopRequest {
    #[prost(string, tag = "1")]
    id: String,
}

/// containerd on node-a; its files are in the lab's private `/run`. What it started ends with it.
struct Containerd {
    socket: String,
    sandboxes: Vec<String>,
    _process: Process,
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for id in std::mem::take(&mut self.sandboxes) {
            let stopped: Result<()> = self.call("StopPodSandbox", StopRequest { id });
            if let Err(error) = stopped {
                eprintln!("a sandbox is left: {error:#}");
            }
        }
    }
}

impl Containerd {
    fn start(lab: &Lab) -> Result<Self> {
        let directory = Path::new(private::DIRECTORY).join("containerd");
        fs::create_dir_all(directory.join("net.d"))?;
        let own = directory.display();
        let network = json!({"cniVersion": "1.0.0", "name": "lab", "plugins": [{
            "type": "ptp", "ipMasq": false,
            "ipam": {"type": "host-local", "dataDir": directory.join("ipam"), "routes": [{"dst": "0.0.0.0/0"}],
                "ranges": [[{"subnet": "10.10.1.240/28", "rangeStart": ADDRESS, "rangeEnd": ADDRESS}]]},
        }]});
        fs::write(directory.join("net.d/10-lab.conflist"), network.to_string())?;
        let socket = format!("{own}/containerd.sock");
        let settings = format!(
            "version = 2\nroot = \"{own}/root\"\nstate = \"{own}/state\"\n[grpc]\naddress = \"{socket}\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\ndisable_cgroup = true\nrestrict_oom_score_adj = true\n\
             disable_apparmor = true\nsandbox_image = \"{IMAGE}\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = \"{own}/net.d\"\n"
        );
        fs::write(directory.join("config.toml"), settings)?;
        let namespace = &lab.node("node-a")?.namespace;
        let mut run = command(namespace, "containerd");
        run.arg("--config").arg(directory.join("config.toml"));
        let mut process = Process::start("containerd", namespace, run, lab.logs())?;
        wait::until("containerd to listen", || {
            process.must_run()?;
            Ok(Path::new(&socket).exists().then_some(()))
        })?;
        let it = Self { socket, sandboxes: Vec::new(), _process: process };
        it.import_image()?;
        Ok(it)
    }

    /// An image of a program that sleeps, with what it is linked to.
    fn import_image(&self) -> Result<()> {
        let linked = Command::new("ldd").arg("/bin/sleep").output()?;
        let linked = String::from_utf8(linked.stdout)?;
        let libraries = linked.split_whitespace().filter(|word| word.starts_with('/'));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/image");
        let archive = Path::new(private::DIRECTORY).join("pause.tar");
        let mut image = Command::new(script);
        image.args(["--name", IMAGE, "/bin/sleep=/pause"]);
        image.args(libraries.map(|path| format!("{path}={path}")));
        image.args(["--", "/pause", "infinity"]).stdout(fs::File::create(&archive)?);
        ensure!(image.status()?.success(), "scripts/image");
        let mut ctr = Command::new("ctr");
        ctr.args(["-a", &self.socket, "-n", "k8s.io", "images", "import"]).arg(&archive);
        let imported = ctr.output()?;
        ensure!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        Ok(())
    }

    /// Starts the sandbox of a pod, as a kubelet does.
    fn run(&mut self, namespace: &str, name: &str, uid: &str) -> Result<()> {
        let metadata = Metadata { name: name.into(), uid: uid.into(), namespace: namespace.into() };
        let config = Config { metadata: Some(metadata), linux: Some(Linux {}) };
        let request = RunRequest { config: Some(config) };
        let answer: RunResponse = self.call("RunPodSandbox", request)?;
        self.sandboxes.push(answer.id);
        Ok(())
    }

    fn call<Q, A>(&self, method: &str, question: Q) -> Result<A>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{method}"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let endpoint = Endpoint::from_shared(format!("unix://{}", self.socket))?;
            let mut client = Grpc::new(endpoint.connect().await?);
            client.ready().await?;
            let codec: ProstCodec<Q, A> = ProstCodec::default();
            let answer = client.unary(tonic::Request::new(question), path, codec).await;
            answer
                .map(tonic::Response::into_inner)
                .map_err(|status| anyhow!("{method}: {status:?}"))
        })
    }
}

/// Which namespace of the node is new, and so that of the sandbox.
fn only_new(before: &[String]) -> Result<Namespace> {
    let new = names()?.into_iter().find(|name| !before.contains(name));
    Namespace::named(&new.context("containerd made no network namespace")?)
}

fn names() -> Result<Vec<String>> {
    let entries = fs::read_dir(private::NETWORK_NAMESPACES)?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

#[test]
fn a_pod_from_before_the_agent_is_where_the_runtime_says() -> Result<()> {
    let lab = guarded()?;
    let mut containerd = Containerd::start(&lab)?;
    let before = names()?;
    containerd.run("default", "early", "uid-of-early")?;
    let early = only_new(&before)?;
    // With the service account that may call.
    let pod = json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "early", "namespace": "default", "uid": "uid-of-early"},
        "spec": {"nodeName": "node-a", "serviceAccountName": "curl", "containers": [{"name": "c", "image": "x"}]},
        "status": {"phase": "Running", "podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}],
            "conditions": [{"type": "Ready", "status": "True"}]},
    });
    // Before there is any agent, so that nothing can be kept of anybody.
    ip("attacker", &format!("addr add {ADDRESS}/32 dev lo\n"))?;
    let server = ApiServer::new(objects(&lab).into_iter().chain([pod]));
    let mut agents = Vec::new();
    for node in lab.network().nodes() {
        server.serve_in(&node.namespace)?;
        let more = match node.name.as_str() {
            "node-a" => format!("[workloads]\nruntime_socket = \"{}\"\n", containerd.socket),
            _ => String::new(),
        };
        agents.push(begin_agent(&lab, &node.name, &more)?);
    }
    for agent in &mut agents {
        agent.wait_until_ready()?;
    }
    let agent = agents.iter().find(|it| it.node == "node-a").context("it runs")?;
    is_captured(agent, "early", true)?;
    wait::until("the pod to be served", || {
        Ok((curl(&early, &[DETAILS])?.status == 200).then_some(()))
    })?;
    // The runtime answers and does not know the others, so they are nobody, whatever their addresses.
    is_captured(agent, "attacker", false)?;
    ensure!(!served(&lab, "attacker")?, "the attacker is served");
    Ok(())
}
