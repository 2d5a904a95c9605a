use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::*;
use crate::admin::{ConnectionFilter, Dump, Readiness, Task, connect};
use crate::observe::{Limits, Observe};
use crate::takeover::Inherited;
use crate::telemetry::{LogFormat, Logs, RequestStart, Telemetry};

struct Agent;

impl Dump for Agent {
    fn dump(&self) -> Value {
        json!({ "version": "test" })
    }

    fn status(&self) -> Value {
        json!({ "node": "node-a" })
    }

    fn connections(&self, filter: &ConnectionFilter) -> Value {
        json!({ "limit": filter.limit })
    }

    fn pending(&self) -> usize {
        7
    }

    fn refresh(&self) {}
}

/// All servers, on ports that the kernel chose.
struct Lab {
    admin: PathBuf,
    pages: SocketAddr,
    metrics: SocketAddr,
    readiness: SocketAddr,
    source: Task,
    telemetry: Telemetry,
    quit: CancellationToken,
    cancel: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        Self::with_layer4(vec![Handle::current()])
    }

    fn with_layer4(layer4: Vec<Handle>) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let above = tempfile::tempdir().unwrap();
        let directory = above.path().join("admin");
        let admin = directory.join("node-a.sock");
        let node = "node-a".into();
        let addresses =
            Addresses { directory, node, pages: Some(any), metrics: any, readiness: any };
        let servers = Servers::bind(addresses, &Inherited::default()).unwrap();
        let [metrics, readiness, pages] =
            [0, 1, 2].map(|index: usize| servers.ports[index].1.local_addr().unwrap());
        let logs = Logs::new(Box::new(io::sink()), "info", LogFormat::Text).unwrap();
        let waited_for = Readiness::default();
        let source = waited_for.register("source");
        let (quit, cancel) = (CancellationToken::new(), CancellationToken::new());
        let telemetry = Telemetry::new(logs.clone());
        let limits = Limits { flows: 10, pairs: 10 };
        let agent = Admin {
            observe: Some(Observe::new(&telemetry, "node-a".into(), limits)),
            telemetry: telemetry.clone(),
            logs,
            readiness: waited_for,
            layer4,
            dump: Arc::new(Agent),
            quit: quit.clone(),
            scrapes: Default::default(),
        };
        let serving = tokio::spawn(servers.serve(agent, cancel.clone()));
        let _directory = above;
        Self {
            admin,
            pages,
            metrics,
            readiness,
            source,
            telemetry,
            quit,
            cancel,
            serving,
            _directory,
        }
    }
}

/// What a server answers to a request line, with one more header.
async fn ask(to: SocketAddr, line: &str, header: &str) -> String {
    exchange(TcpStream::connect(to).await.unwrap(), line, header).await
}

/// The same over the socket.
async fn administer(lab: &Lab, line: &str) -> String {
    exchange(connect(&lab.admin).await.unwrap(), line, "x-test: 1").await
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    line: &str,
    header: &str,
) -> String {
    let request =
        format!("{line} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n{header}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn status(to: SocketAddr, line: &str) -> String {
    code(&ask(to, line, "x-test: 1").await)
}

fn code(answer: &str) -> String {
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn readiness_names_what_is_missing_and_no_workload() {
    let lab = Lab::new();
    let answer = ask(lab.readiness, "GET /healthz/ready", "x-test: 1").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("source"), "{answer}");
    assert!(answer.ends_with("\n7 workloads are pending: see isthmus status\n"), "{answer}");
    lab.source.set(true);
    assert_eq!(status(lab.readiness, "GET /healthz/ready").await, "200");
    lab.source.set(false);
    assert_eq!(status(lab.readiness, "GET /healthz/ready").await, "503");
}

#[tokio::test]
async fn metrics_are_typed_as_the_scraper_asks() {
    let lab = Lab::new();
    let old = ask(lab.metrics, "GET /stats/prometheus", "accept: text/plain").await;
    assert!(old.contains("content-type: text/plain; version=0.0.4"), "{old}");
    let accept = "accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let new = ask(lab.metrics, "GET /metrics", accept).await;
    assert!(new.contains("content-type: application/openmetrics-text; version=1.0.0"), "{new}");
    // In parts, the last of which is empty.
    assert!(new.contains("istio_build") && new.ends_with("# EOF\n\r\n0\r\n\r\n"), "{new}");
}

#[tokio::test]
async fn levels_are_changed_by_post_and_bad_ones_refused() {
    let lab = Lab::new();
    let levels = |line: &'static str| administer(&lab, line);
    assert!(levels("GET /logging").await.ends_with("\r\n\r\ninfo\n"));
    assert!(levels("POST /logging?level=warn,access%3Doff").await.ends_with("\nwarn,access=off\n"));
    assert!(
        levels("POST /logging?level=a::b:trace,info")
            .await
            .ends_with("\ninfo,a::b=trace,access=off\n")
    );
    assert!(levels("GET /logging").await.ends_with("\ninfo,a::b=trace,access=off\n"));
    assert_eq!(code(&levels("POST /logging?level=loud").await), "400");
    assert_eq!(code(&levels("POST /logging?levels=info").await), "400");
    assert!(levels("POST /logging").await.ends_with("\ninfo,a::b=trace,access=off\n"));
    assert!(levels("POST /logging?reset").await.ends_with("\ninfo\n"));
}

#[tokio::test]
async fn an_agent_whose_data_path_is_stuck_is_not_ready_and_says_so() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let layer4 = builder.worker_threads(1).enable_all().build().unwrap();
    let lab = Lab::with_layer4(vec![layer4.handle().clone()]);
    lab.source.set(true);
    assert_eq!(status(lab.readiness, "GET /healthz/ready").await, "200");
    let (release, stuck) = std::sync::mpsc::channel::<()>();
    layer4.spawn(async move { _ = stuck.recv() });
    let answer = ask(lab.readiness, "GET /healthz/ready", "x-test: 1").await;
    assert!(answer.contains(" 503 ") && answer.contains("layer4"), "{answer}");
    drop(release);
    assert_eq!(status(lab.readiness, "GET /healthz/ready").await, "200");
    layer4.shutdown_background();
}

#[tokio::test]
async fn only_a_post_ends_the_agent() {
    let lab = Lab::new();
    assert_eq!(code(&administer(&lab, "GET /quitquitquit").await), "405");
    assert!(!lab.quit.is_cancelled());
    assert_eq!(code(&administer(&lab, "POST /quitquitquit").await), "200");
    assert!(lab.quit.is_cancelled());
}

#[tokio::test]
async fn each_port_has_its_own_pages() {
    let lab = Lab::new();
    let dump = administer(&lab, "GET /config_dump").await;
    assert!(dump.contains("\"version\": \"test\""), "{dump}");
    let waiting = administer(&lab, "GET /status").await;
    assert!(waiting.contains("\"source\""), "what it waits for: {waiting}");
    for line in ["GET /metrics", "GET /nothing", "POST /config_dump"] {
        assert_eq!(code(&administer(&lab, line).await), "404", "{line}");
    }
    assert!(administer(&lab, "GET /").await.contains("quitquitquit"));
    assert!(!ask(lab.pages, "GET /", "x-test: 1").await.contains("quitquitquit"));
    for line in ["GET /config_dump", "GET /connections", "GET /status", "GET /logging"] {
        assert_eq!(status(lab.pages, line).await, "200", "{line}");
    }
    for (port, line) in [
        (lab.pages, "POST /quitquitquit"),
        (lab.pages, "GET /quitquitquit"),
        (lab.pages, "POST /logging?level=off"),
        (lab.pages, "POST /config_dump"),
        (lab.pages, "GET /flows"),
        (lab.pages, "GET /flows/summary"),
        (lab.metrics, "GET /flows"),
        (lab.pages, "GET /debug/pprof/profile?seconds=1"),
        (lab.pages, "GET /debug/pprof/heap"),
        (lab.pages, "POST /debug/pprof/heap/profiling?activate=true"),
        (lab.metrics, "GET /status"),
        (lab.metrics, "POST /quitquitquit"),
        (lab.readiness, "GET /status"),
        (lab.readiness, "POST /logging?level=off"),
        (lab.metrics, "GET /config_dump"),
        (lab.metrics, "GET /connections"),
        (lab.readiness, "POST /quitquitquit"),
        (lab.readiness, "GET /metrics"),
    ] {
        assert_eq!(status(port, line).await, "404", "{line}");
    }
    assert!(!lab.quit.is_cancelled());
    assert!(administer(&lab, "GET /logging").await.ends_with("\r\n\r\ninfo\n"));
}

/// Who reads flows keeps its place while there are none, and is gone from the list when it leaves.
#[tokio::test(start_paused = true)]
async fn who_follows_may_wait_for_long() {
    let lab = Lab::new();
    let mut following = connect(&lab.admin).await.unwrap();
    following.write_all(b"GET /flows?follow=true HTTP/1.1\r\nhost: agent\r\n\r\n").await.unwrap();
    tokio::time::sleep(MAX_WAIT * 100).await;
    drop(lab.telemetry.request(RequestStart { path: "/late".into(), ..request() }));
    let mut text = String::new();
    while !text.contains("\"path\":\"/late\"") {
        let mut piece = [0; 4096];
        let length = following.read(&mut piece).await.unwrap();
        assert!(length > 0, "the stream has ended: {text}");
        text.push_str(&String::from_utf8_lossy(&piece[..length]));
    }
    assert_eq!(lab.telemetry.observe().observers.get(), 1);
    drop(following);
    while lab.telemetry.observe().observers.get() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let summary = administer(&lab, "GET /flows/summary").await;
    assert!(summary.contains("\"path\": \"/late\""), "{summary}");
    assert_eq!(code(&administer(&lab, "GET /flows?layer=5").await), "400");
}

fn request() -> RequestStart {
    RequestStart {
        count: true,
        outbound: true,
        source: Arc::default(),
        service: Arc::default(),
        mutual_tls: true,
        source_address: ([10, 0, 0, 1], 40_000).into(),
        method: http::Method::GET,
        path: "/".into(),
        authority: "web".into(),
        protocol: "HTTP/1.1",
        grpc: false,
        waypoint_principal: None,
        policy: None,
        connection: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_let_go() {
    let lab = Lab::new();
    let mut silent = TcpStream::connect(lab.pages).await.unwrap();
    silent.write_all(b"GET /status HTTP/1.1\r\nhost:").await.unwrap();
    let mut answer = Vec::new();
    // Ends because the server closes; the paused clock leaps to the deadline.
    let _ = silent.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("node-a"));
}

#[tokio::test]
async fn it_ends_when_told() {
    let lab = Lab::new();
    let _open = TcpStream::connect(lab.metrics).await.unwrap();
    lab.cancel.cancel();
    lab.serving.await.unwrap();
    assert!(TcpStream::connect(lab.metrics).await.is_err());
}

/// A client that opens connections and sends nothing, or half a request, takes no place from a probe.
#[tokio::test]
async fn silent_clients_keep_no_probe_from_its_answer() {
    let lab = Lab::new();
    lab.source.set(true);
    let mut silent = Vec::new();
    for number in 0..500 {
        let mut stream = TcpStream::connect(lab.readiness).await.unwrap();
        if number % 2 == 0 {
            _ = stream.write_all(b"GET /healthz/ready HTTP/1.1\r\nhost:").await;
        }
        silent.push(stream);
        if number % 50 == 49 {
            let asked = status(lab.readiness, "GET /healthz/ready");
            let answered = tokio::time::timeout(Duration::from_secs(1), asked).await;
            assert_eq!(answered.expect("in a probe's time"), "200", "after {number}");
        }
    }
}

/// A scraper that does not read what it asked for gives its place up, too.
#[tokio::test]
async fn who_takes_no_answer_keeps_nobody_from_one() {
    let lab = Lab::new();
    let mut deaf = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(lab.metrics).await.unwrap();
        _ = stream.write_all(&b"GET /metrics HTTP/1.1\r\nhost: agent\r\n\r\n".repeat(8)).await;
        deaf.push(stream);
    }
    let asked = tokio::time::timeout(Duration::from_secs(5), status(lab.metrics, "GET /metrics"));
    assert_eq!(asked.await.expect("an answer"), "200");
}
