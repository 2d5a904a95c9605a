use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::cni::message::Question;
use crate::cni::outcome::UNSUPPORTED_VERSION;
use crate::cni::server::{Pods, serve};
use crate::telemetry::Telemetry;

/// Answers by the pod's name.
#[derive(Default)]
struct Known {
    /// A question came that is never answered.
    stuck: Arc<AtomicBool>,
}

impl Pods for Known {
    async fn add(&self, pod: Pod, _patience: Duration) -> Answer {
        assert_eq!(pod.addresses, ["10.244.1.7".parse::<std::net::IpAddr>().unwrap()]);
        match pod.name.as_str() {
            "captured" => Answer::Done,
            "outside" => Answer::NotEnrolled,
            "stuck" => {
                self.stuck.store(true, Ordering::SeqCst);
                std::future::pending().await
            }
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
    telemetry: Telemetry,
    stuck: Arc<AtomicBool>,
    cancel: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Agent {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (path, cancel) =
            (directory.path().join("below").join("cni.sock"), CancellationToken::new());
        let (until, at) = (cancel.clone(), path.clone());
        let (telemetry, known) = (Telemetry::without_log(), Known::default());
        let (metrics, stuck) = (telemetry.cni().clone(), known.stuck.clone());
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                serve(&at, Arc::new(known), metrics, until).await.unwrap();
            });
        });
        // The file is there before anybody listens.
        while std::os::unix::net::UnixStream::connect(&path).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { directory, telemetry, stuck, cancel, thread: Some(thread) }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("below").join("cni.sock")
    }
}

impl Agent {
    /// Every question was answered by then, or is counted as not.
    fn stop(&mut self) {
        self.cancel.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    /// How many questions had this outcome.
    fn count(&self, command: &str, outcome: &str) -> Option<u64> {
        let labels = format!("command=\"{command}\",outcome=\"{outcome}\"");
        self.value(&format!("isthmus_cni_requests_total{{{labels}}} "))
    }

    fn value(&self, series: &str) -> Option<u64> {
        let scraped = self.telemetry.scrape().unwrap();
        scraped.lines().find_map(|line| line.strip_prefix(series)?.parse().ok())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
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
fn the_agents_answer_decides_and_is_counted() {
    let mut agent = Agent::start();
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
    agent.stop();
    for (command, outcome, count) in [
        ("ADD", "done", Some(1)),
        ("ADD", "not_enrolled", Some(1)),
        ("ADD", "unknown", Some(2)),
        ("ADD", "refused", Some(2)),
        ("ADD", "unanswered", None),
        ("DEL", "done", Some(1)),
        ("CHECK", "done", Some(1)),
        ("CHECK", "refused", Some(1)),
    ] {
        assert_eq!(agent.count(command, outcome), count, "{command} {outcome}");
    }
    let waited = agent.value("isthmus_cni_add_duration_seconds_count ");
    assert_eq!(waited, Some(5), "all that start but those outside of the mesh");
}

#[test]
fn a_question_that_the_agents_end_cut_off_is_counted_too() {
    use std::io::Write;
    let mut agent = Agent::start();
    let mut stream = std::os::unix::net::UnixStream::connect(agent.socket()).unwrap();
    let pod = Pod {
        namespace: "shop".to_owned(),
        name: "stuck".to_owned(),
        addresses: vec!["10.244.1.7".parse().unwrap()],
        ..Pod::default()
    };
    let question = Question { command: Command::Add, pod, patience: 60_000 };
    writeln!(stream, "{}", serde_json::to_string(&question).unwrap()).unwrap();
    while !agent.stuck.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    agent.stop();
    assert_eq!(agent.count("ADD", "unanswered"), Some(1));
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
