use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::cni::outcome::UNSUPPORTED_VERSION;
use crate::cni::server::{Pods, serve};

/// Answers by the pod's name.
struct Known;

impl Pods for Known {
    async fn add(&self, pod: Pod, _patience: Duration) -> Answer {
        assert_eq!(pod.addresses, ["10.244.1.7".parse::<std::net::IpAddr>().unwrap()]);
        match pod.name.as_str() {
            "captured" => Answer::Done,
            "outside" => Answer::NotEnrolled,
            "late" => Answer::Unknown("it is not known".to_owned()),
            _ => Answer::Refused("it has no certificate".to_owned()),
        }
    }

    async fn delete(&self, _pod: Pod) -> Answer {
        Answer::Done
    }

    async fn check(&self, pod: Pod) -> Answer {
        self.add(Pod { addresses: vec!["10.244.1.7".parse().unwrap()], ..pod }, ABSENT).await
    }
}

/// An agent behind a socket, until dropped.
struct Agent {
    directory: tempfile::TempDir,
    cancel: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Agent {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (path, cancel) =
            (directory.path().join("below").join("cni.sock"), CancellationToken::new());
        let (until, at) = (cancel.clone(), path.clone());
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                serve(&at, Arc::new(Known), until).await.unwrap();
            });
        });
        while !path.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { directory, cancel, thread: Some(thread) }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("below").join("cni.sock")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn previous() -> Value {
    json!({"cniVersion": "1.0.0", "zeta": 1, "ips": [{"address": "10.244.1.7/24"}], "dns": {}})
}

fn call(
    command: &str,
    namespace: &str,
    name: &str,
    socket: &Path,
) -> Result<Option<Value>, Failure> {
    let config = json!({
        "cniVersion": "1.0.0", "name": "lab", "type": "isthmus", "socket": socket,
        "exclude_namespaces": ["kube-system"], "prevResult": previous(),
    });
    let arguments = format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_UID=u");
    let variable = |asked: &str| match asked {
        "CNI_COMMAND" => Some(command.to_owned()),
        "CNI_ARGS" => Some(arguments.clone()),
        "CNI_CONTAINERID" => Some("c".to_owned()),
        _ => None,
    };
    run(variable, config.to_string().as_bytes()).map_err(|(version, failure)| {
        assert_eq!(version, "1.0.0");
        failure
    })
}

#[test]
fn the_agents_answer_decides() {
    let agent = Agent::start();
    let socket = agent.socket();
    for name in ["captured", "outside"] {
        let output = call("ADD", "shop", name, &socket).unwrap().unwrap();
        assert_eq!(output.to_string(), previous().to_string(), "{name}: unchanged");
    }
    let late = call("ADD", "shop", "late", &socket).unwrap_err();
    assert_eq!(late.code, TRY_AGAIN);
    let refused = call("ADD", "shop", "web", &socket).unwrap_err();
    assert_eq!(refused.code, NOT_CAPTURED);
    assert_eq!(refused.message, "pod shop/web cannot be captured");
    assert_eq!(refused.details, "it has no certificate");
    // An excluded namespace starts before the agent knows of it, but not against its word.
    assert!(call("ADD", "kube-system", "late", &socket).unwrap().is_some());
    assert_eq!(call("ADD", "kube-system", "web", &socket).unwrap_err().code, NOT_CAPTURED);
    assert_eq!(call("DEL", "shop", "web", &socket).unwrap(), None);
    assert_eq!(call("CHECK", "shop", "captured", &socket).unwrap(), None);
    assert_eq!(call("CHECK", "shop", "web", &socket).unwrap_err().code, NOT_CAPTURED);
}

#[test]
fn a_socket_that_was_taken_is_taken_back() {
    let agent = Agent::start();
    let socket = agent.socket();
    std::fs::remove_file(&socket).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(call("ADD", "shop", "captured", &socket).unwrap().is_some());
}

#[test]
fn without_an_agent_only_excluded_namespaces_start() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("nobody.sock");
    let failure = call("ADD", "shop", "web", &socket).unwrap_err();
    assert_eq!(failure.code, TRY_AGAIN);
    assert!(failure.message.contains("shop/web"), "{failure:?}");
    assert!(failure.message.contains("the Isthmus agent of this node does not answer"));
    assert!(failure.details.contains("check DaemonSet isthmus-system/isthmus"), "{failure:?}");
    assert!(call("ADD", "kube-system", "dns", &socket).unwrap().is_some());
    assert_eq!(call("DEL", "shop", "web", &socket).unwrap(), None);
    assert_eq!(call("STATUS", "shop", "web", &socket).unwrap(), None);
}

#[test]
fn versions_and_nonsense() {
    let variable = |name: &str| (name == COMMAND).then(|| "VERSION".to_owned());
    let shown = run(variable, b"").unwrap().unwrap();
    assert!(shown["supportedVersions"].as_array().unwrap().contains(&json!("1.0.0")));
    let variable = |name: &str| (name == COMMAND).then(|| "ADD".to_owned());
    let (_, failure) = run(variable, br#"{"cniVersion": "9"}"#).unwrap_err();
    assert_eq!(failure.code, UNSUPPORTED_VERSION);
    let variable = |name: &str| (name == COMMAND).then(|| "DANCE".to_owned());
    let (_, failure) = run(variable, b"{}").unwrap_err();
    assert_eq!(failure.code, INVALID_ENVIRONMENT);
}
