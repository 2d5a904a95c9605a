//! Queries the container runtime over CRI: in which network namespace is a pod that is older than the first agent?
//!
//! The runtime created the sandboxes, so its answer is as reliable as CNI's. The path is in the verbose part of a
//! sandbox's status, the OCI specification with which containerd and CRI-O started it.

mod messages;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::Sought;
use messages::{
    Item, LIST, ListRequest, ListResponse, Metadata, READY, STATUS, StatusRequest, StatusResponse,
};

/// The default sockets of containerd, CRI-O, k3s and cri-dockerd.
const USUAL: [&str; 4] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/cri-dockerd.sock",
];
/// The timeout of one query: a list of some hundred sandboxes takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// The key under which both runtimes put the specification.
const INFO: &str = "info";

/// The runtime of this node.
#[derive(Clone, Debug)]
pub struct ContainerRuntime {
    socket: Option<PathBuf>,
}

/// The runtime's answer for one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The runtime's name of the sandbox.
    pub container: String,
    /// As the runtime sees it; `None`: it is on the host network, or the runtime does not report it.
    pub network_namespace: Option<String>,
    pub addresses: Vec<IpAddr>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("there is no socket of a container runtime at {0}")]
    Absent(String),
    #[error("the container runtime at {} does not answer: {cause}", socket.display())]
    Silent { socket: PathBuf, cause: String },
}

impl ContainerRuntime {
    /// `socket`: where it listens; `None`: one of the usual places.
    pub fn new(socket: Option<&Path>) -> Self {
        Self { socket: socket.map(Path::to_owned) }
    }

    /// The answers for those of these pods that it runs.
    ///
    /// # Errors
    /// There is no runtime, or it does not answer.
    pub async fn ask(&self, pods: &[Sought]) -> Result<Vec<(Sought, Said)>, RuntimeError> {
        let socket = self.socket()?;
        let silent = |cause: String| RuntimeError::Silent { socket: socket.clone(), cause };
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()));
        let endpoint = endpoint.map_err(|error| silent(error.to_string()))?;
        let channel = tokio::time::timeout(PATIENCE, endpoint.connect()).await;
        let channel = channel
            .map_err(|_| silent(format!("no connection within {PATIENCE:?}")))?
            .map_err(|error| silent(chain(&error)))?;
        let listed: ListResponse = call(&channel, LIST, ListRequest {})
            .await
            .map_err(|error| silent(error.to_string()))?;
        let mut said = Vec::new();
        for pod in pods {
            let Some(item) = sandbox_of(pod, &listed.items) else { continue };
            let request = StatusRequest { id: item.id.clone(), verbose: true };
            // A sandbox that ends meanwhile is skipped.
            let Ok(status) = call::<_, StatusResponse>(&channel, STATUS, request).await else {
                continue;
            };
            if status.status.as_ref().is_some_and(|it| it.state == READY) {
                said.push((pod.clone(), read(item, &status)));
            }
        }
        Ok(said)
    }

    fn socket(&self) -> Result<PathBuf, RuntimeError> {
        let usual = || USUAL.iter().map(PathBuf::from).collect();
        let places: Vec<PathBuf> = self.socket.clone().map_or_else(usual, |it| vec![it]);
        let found = places.iter().find(|path| path.exists()).cloned();
        found.ok_or_else(|| {
            let places: Vec<_> = places.iter().map(|it| it.display().to_string()).collect();
            RuntimeError::Absent(places.join(", "))
        })
    }
}

/// The newest running sandbox of exactly this generation of the pod.
fn sandbox_of<'a>(pod: &Sought, items: &'a [Item]) -> Option<&'a Item> {
    let is_its = |metadata: &Metadata| {
        metadata.uid == pod.pod && metadata.namespace == pod.namespace && metadata.name == pod.name
    };
    let its = items
        .iter()
        .filter(|item| item.state == READY && item.metadata.as_ref().is_some_and(is_its));
    its.max_by_key(|item| item.created_at)
}

fn read(item: &Item, status: &StatusResponse) -> Said {
    let network = status.status.as_ref().and_then(|it| it.network.as_ref());
    let addresses = network.into_iter().flat_map(|network| {
        let more = network.additional.iter().map(|it| it.ip.as_str());
        std::iter::once(network.ip.as_str()).chain(more)
    });
    Said {
        container: item.id.clone(),
        network_namespace: status.info.get(INFO).and_then(|info| path_in(info)),
        addresses: addresses.filter_map(|it| it.parse().ok()).collect(),
    }
}

/// The network namespace in an OCI specification (runtime-spec, "Namespaces").
fn path_in(info: &str) -> Option<String> {
    let info: serde_json::Value = serde_json::from_str(info).ok()?;
    let namespaces = info.get("runtimeSpec")?.get("linux")?.get("namespaces")?.as_array()?;
    let network = namespaces.iter().find(|it| it["type"] == "network")?;
    let path = network.get("path")?.as_str()?;
    (!path.is_empty()).then(|| path.to_owned())
}

/// Why one call brought nothing.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("{}", chain(.0))]
    Connection(#[from] tonic::transport::Error),
    #[error("{}", .0.message())]
    Refused(#[from] tonic::Status),
    #[error("no answer within {PATIENCE:?}")]
    Late,
}

async fn call<Q, A>(channel: &Channel, path: &'static str, question: Q) -> Result<A, CallError>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let asking = async {
        let mut client = Grpc::new(channel.clone());
        client.ready().await?;
        let request = tonic::Request::new(question);
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        let answer = client.unary(request, PathAndQuery::from_static(path), codec).await;
        Ok(answer?.into_inner())
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await;
    answer.map_err(|_| CallError::Late)?
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |it| it.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(id: &str, uid: &str, state: i32, created_at: i64) -> Item {
        let metadata =
            Metadata { name: "billing".into(), uid: uid.into(), namespace: "shop".into() };
        Item { id: id.into(), metadata: Some(metadata), state, created_at }
    }

    fn pod(uid: &str) -> Sought {
        Sought {
            uid: "w".into(),
            pod: uid.into(),
            namespace: "shop".into(),
            name: "billing".into(),
            addresses: Vec::new(),
        }
    }

    #[test]
    fn a_sandbox_is_that_of_its_generation_of_a_pod() {
        let items = [
            item("of another generation", "u0", READY, 9),
            item("old", "u1", READY, 1),
            item("new", "u1", READY, 3),
            item("ended", "u1", 1, 4),
            Item { metadata: None, ..item("nameless", "u1", READY, 5) },
        ];
        assert_eq!(sandbox_of(&pod("u1"), &items).unwrap().id, "new");
        assert!(sandbox_of(&pod("u2"), &items).is_none());
        let elsewhere = Sought { namespace: "evil".into(), ..pod("u1") };
        assert!(sandbox_of(&elsewhere, &items).is_none());
    }

    #[test]
    fn the_specification_tells_the_namespace() {
        let spec = |namespaces: &str| {
            path_in(&format!(
                r#"{{"pid": 7, "runtimeSpec": {{"linux": {{"namespaces": {namespaces}}}}}}}"#
            ))
        };
        let both = r#"[{"type": "pid"}, {"type": "network", "path": "/var/run/netns/cni-1"}]"#;
        assert_eq!(spec(both).as_deref(), Some("/var/run/netns/cni-1"));
        for namespaces in [r#"[{"type": "pid"}]"#, r#"[{"type": "network"}]"#, "{}", "[7]"] {
            assert_eq!(spec(namespaces), None, "{namespaces}");
        }
    }

    #[tokio::test]
    async fn a_runtime_that_is_not_there_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cri.sock");
        let runtime = ContainerRuntime::new(Some(&path));
        assert!(matches!(runtime.ask(&[]).await, Err(RuntimeError::Absent(_))));
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let error = runtime.ask(&[]).await.unwrap_err();
        assert!(matches!(error, RuntimeError::Silent { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn nothing_that_it_says_is_a_panic(text in ".*", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            _ = path_in(&text);
            _ = <ListResponse as prost::Message>::decode(bytes.as_slice());
            _ = <StatusResponse as prost::Message>::decode(bytes.as_slice());
        }
    }
}
