//! HBONE on the wire with a client and a server that share no code with ours: Go's `x/net/http2`
//! (tests/interop/go). Each is tried right and wrong.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::support::lab::manifests::Key;
use crate::support::lab::process::{Process, command};
use crate::support::lab::{Lab, wait};
use crate::{application, captured_in, meshed, settle};

const CLIENT: &str = "spiffe://cluster.local/ns/interop/sa/go-client";
/// Whom the mesh expects in the foreign pod.
pub const FOREIGN_IDENTITY: &str = SERVER;
const SERVER: &str = "spiffe://cluster.local/ns/interop/sa/go-server";
const PORT: u16 = 9080;

/// A workload of the mesh on a node without an agent of ours: what stands there is the Go server.
const FOREIGN: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: interop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Pod
metadata:
  name: foreign
  namespace: interop
  labels: {app: foreign}
  annotations: {isthmus.io/node: node-c, isthmus.io/network-namespace: foreign}
spec:
  serviceAccountName: go-server
  containers: [{name: app, image: none}]
---
apiVersion: v1
kind: Service
metadata: {name: foreign, namespace: interop}
spec:
  selector: {app: foreign}
  ports: [{name: tcp, port: 9080, targetPort: 9080}]
";

/// The program, built once a run, outside of any lab: its one dependency comes from the module proxy.
fn program() -> Result<&'static Path> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = PROGRAM.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn build() -> Result<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hbone");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/go");
    let output = Command::new("go")
        .args(["build", "-o"])
        .arg(&target)
        .arg(".")
        .current_dir(source)
        .output()
        .context("run go: is Go 1.23 or later installed?")?;
    ensure!(output.status.success(), "go build: {}", String::from_utf8_lossy(&output.stderr));
    Ok(target)
}

/// What one run of a client brought.
#[derive(Debug)]
pub struct Exchange {
    pub status: u64,
    pub body: String,
    pub error: String,
    pub server: String,
}

impl Exchange {
    /// From the line of JSON that it printed.
    pub fn parse(output: &[u8]) -> Result<Self> {
        let answer: Value = serde_json::from_slice(output)?;
        let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            status: answer["status"].as_u64().unwrap_or_default(),
            body: text("body"),
            error: text("error"),
            server: text("server"),
        })
    }
}

/// Runs the Go client outside of the mesh, against a pod's HBONE port.
fn dial(lab: &Lab, pod: &str, arguments: &[&str]) -> Result<Exchange> {
    let ca = lab.ca_directory();
    let mut run = command(&lab.pod("outsider")?.attachment.namespace, program()?);
    let output = run
        .arg("client")
        .args(["-to", &format!("{}:15008", lab.address(pod)?)])
        .arg("-roots")
        .arg(&ca)
        .args(arguments)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Exchange::parse(&output.stdout)
}

/// Like [`dial`], with the mesh's CA, an identity, and an authority.
fn dial_as(lab: &Lab, identity: &str, authority: &str, more: &[&str]) -> Result<Exchange> {
    let ca = lab.ca_directory();
    let ca = ca.to_str().context("the CA's path")?;
    let right = ["-ca", ca, "-identity", identity, "-authority", authority, "-get", "/details/0"];
    dial(lab, "details-v1", &[&right, more].concat())
}

#[test]
fn a_go_client_is_served() -> Result<()> {
    program()?;
    let lab = meshed()?;
    let authority = format!("{}:{PORT}", lab.address("details-v1")?);
    let baggage = "baggage=k8s.namespace.name=default,k8s.deployment.name=go-v7,service.name=go,service.version=v7";
    let served = dial_as(&lab, CLIENT, &authority, &["-header", baggage])?;
    assert_eq!(served.status, 200, "{served:?}");
    assert!(served.body.contains("200 OK"), "{served:?}");
    assert_eq!(served.server, "spiffe://cluster.local/ns/bookinfo/sa/bookinfo-details");
    // The mesh does not know the client: the labels are what its proxy says, but for the namespace, which is proven.
    let said = [
        ("reporter", "destination"),
        ("source_principal", CLIENT),
        ("source_workload", "go-v7"),
        ("source_workload_namespace", "interop"),
        ("source_canonical_service", "go"),
        ("source_version", "v7"),
    ];
    let opened = lab.metrics()?.sum("istio_tcp_connections_opened_total", &said);
    assert!(opened >= 1.0, "{opened}");
    Ok(())
}

/// Trap 11: the end of the client's direction arrives, and the answer still comes back.
#[test]
fn a_go_client_may_end_its_direction_first() -> Result<()> {
    program()?;
    let lab = meshed()?;
    let address = std::net::SocketAddr::new(lab.address("details-v1")?, 9099);
    let namespace = &lab.pod("details-v1")?.attachment.namespace;
    let listener = namespace.run(|| std::net::TcpListener::bind(address))??;
    let application = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut received = Vec::new();
        stream.read_to_end(&mut received)?;
        write!(stream, "{} bytes and the end", received.len())
    });
    let served = dial_as(&lab, CLIENT, &address.to_string(), &["-half-close"])?;
    assert!(served.body.ends_with(" bytes and the end"), "{served:?}");
    application.join().map_err(|_| anyhow::anyhow!("the application panicked"))??;
    Ok(())
}

#[test]
fn a_go_client_that_asks_wrongly_is_told_so() -> Result<()> {
    program()?;
    let lab = meshed()?;
    let own = lab.address("details-v1")?;
    let another = lab.address("ratings-v1")?;
    for authority in [
        format!("{another}:{PORT}"),
        format!("{own}:15008"),
        format!("{own}:15001"),
        format!("{own}:15006"),
        "details.bookinfo.svc.cluster.local:9080".to_owned(),
        "169.254.169.254:80".to_owned(),
    ] {
        let refused = dial_as(&lab, CLIENT, &authority, &[])?;
        assert_eq!(refused.status, 400, "{authority}: {refused:?}");
    }
    let right = format!("{own}:{PORT}");
    let get = dial_as(&lab, CLIENT, &right, &["-method", "GET"])?;
    assert_eq!(get.status, 400, "{get:?}");
    let nothing_there = dial_as(&lab, CLIENT, &format!("{own}:9"), &[])?;
    assert_eq!(nothing_there.status, 503, "{nothing_there:?}");
    assert_eq!(dial_as(&lab, CLIENT, &right, &[])?.status, 200);
    Ok(())
}

#[test]
fn a_go_client_without_a_right_certificate_gets_no_answer() -> Result<()> {
    program()?;
    let lab = meshed()?;
    let ca = lab.ca_directory();
    let ca = ca.to_str().context("the CA's path")?;
    let authority = format!("{}:{PORT}", lab.address("details-v1")?);
    let elsewhere = "spiffe://other.domain/ns/interop/sa/go-client";
    for (case, wrong) in [
        ("no certificate", &[][..]),
        ("expired", &["-ca", ca, "-identity", CLIENT, "-expired"]),
        ("another trust domain", &["-ca", ca, "-identity", elsewhere]),
        ("no SPIFFE name", &["-ca", ca, "-identity", "https://cluster.local/ns/interop"]),
        ("signed by itself", &["-identity", CLIENT]),
    ] {
        let refused = dial(&lab, "details-v1", &[wrong, &["-authority", &authority]].concat())?;
        assert_eq!(refused.status, 0, "{case}: {refused:?}");
        assert!(!refused.error.is_empty(), "{case}: {refused:?}");
    }
    assert_eq!(dial_as(&lab, CLIENT, &authority, &[])?.status, 200);
    Ok(())
}

/// A mesh in which `details` admits curl alone.
pub fn only_for_curl() -> Result<Lab> {
    let mut lab = meshed()?;
    lab.manifests.apply(
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: details, namespace: bookinfo}
spec:
  selector: {matchLabels: {app: details}}
  action: ALLOW
  rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/curl]}}]}]
",
    )?;
    settle(&lab, "stranger", &["http://details.bookinfo:9080/details/0"], 0)?;
    Ok(lab)
}

/// What a peer may claim to be, in headers that mean something between agents and proxies.
pub const CLAIMS: [&str; 5] = [
    "baggage=k8s.namespace.name=default,k8s.deployment.name=curl",
    "forwarded=for=\"10.244.0.1:1\";host=details.bookinfo.svc.cluster.local",
    "x-forwarded-network=elsewhere",
    "x-istio-source=waypoint",
    "x-forwarded-client-cert=URI=spiffe://cluster.local/ns/default/sa/curl",
];

/// Trap 25: what a peer says of itself in headers admits it nowhere.
#[test]
fn headers_of_a_go_client_do_not_influence_policy() -> Result<()> {
    program()?;
    let lab = only_for_curl()?;
    let authority = format!("{}:{PORT}", lab.address("details-v1")?);
    let claims = CLAIMS.map(|claim| ["-header", claim]).concat();
    let refused = dial_as(&lab, CLIENT, &authority, &claims)?;
    assert_eq!(refused.status, 401, "{refused:?}");
    let admitted = dial_as(&lab, "spiffe://cluster.local/ns/default/sa/curl", &authority, &claims)?;
    assert_eq!(admitted.status, 200, "{admitted:?}");
    Ok(())
}

fn foreign() -> Result<Lab> {
    program()?;
    foreign_lab()
}

/// A lab whose `node-c` has a foreign pod and no agent.
pub fn foreign_lab() -> Result<Lab> {
    let mut lab = application(&[FOREIGN])?;
    lab.start_agents("")?;
    // Gone before the pod is enrolled, so that nothing of ours was ever in its namespace.
    for agent in lab.agents().iter_mut().filter(|agent| agent.node == "node-c") {
        agent.process().terminate()?;
    }
    lab.manifests
        .label(&Key::new("Namespace", "", "default"), &["istio.io/dataplane-mode=ambient"])?;
    captured_in(&lab, "default")?;
    Ok(lab)
}

fn serve(lab: &Lab, name: &str, arguments: &[&str]) -> Result<Process> {
    let namespace = &lab.pod("foreign")?.attachment.namespace;
    let ca = lab.ca_directory();
    let mut run = command(namespace, program()?);
    run.arg("server").arg("-roots").arg(&ca).args(arguments);
    run.args(["-listen", &format!("{}:15008", lab.address("foreign")?)]);
    let mut process = Process::start(name, namespace, run, lab.logs())?;
    let address = std::net::SocketAddr::new(lab.address("foreign")?, 15008);
    namespace.run(|| {
        wait::until("the Go server to listen", || {
            process.must_run()?;
            Ok(std::net::TcpStream::connect(address).ok())
        })
    })??;
    Ok(process)
}

#[test]
fn a_go_server_is_reached_and_told_who_asks() -> Result<()> {
    let lab = foreign()?;
    let ca = lab.ca_directory();
    let ca = ca.to_str().context("the CA's path")?;
    let server = serve(&lab, "go-server", &["-ca", ca, "-identity", SERVER])?;
    let url = "http://foreign.interop:9080/hello";
    let answer = settle(&lab, "curl", &[url], 200)?;
    assert_eq!(answer.body, "tunnelled /hello");
    let log = server.log();
    let line = log.lines().find(|line| line.starts_with('{')).context("a CONNECT")?;
    let connect: Value = serde_json::from_str(line)?;
    assert_eq!(connect["client"], "spiffe://cluster.local/ns/default/sa/curl");
    assert_eq!(connect["method"], "CONNECT");
    assert_eq!(connect["authority"], format!("{}:{PORT}", lab.address("foreign")?));
    let forwarded = connect["headers"]["Forwarded"][0].to_string();
    assert!(forwarded.contains("host=foreign.interop.svc.cluster.local"), "{forwarded}");
    let baggage = connect["headers"]["Baggage"][0].to_string();
    assert!(baggage.contains("k8s.namespace.name=default"), "{baggage}");
    Ok(())
}

#[test]
fn a_go_server_that_is_not_who_it_should_be_is_sent_nothing() -> Result<()> {
    let lab = foreign()?;
    let ca = lab.ca_directory();
    let ca = ca.to_str().context("the CA's path")?;
    let url = "http://foreign.interop:9080/hello";
    let another = "spiffe://cluster.local/ns/interop/sa/another";
    let other_domain = "spiffe://other.domain/ns/interop/sa/go-server";
    for (case, wrong) in [
        ("another identity", &["-ca", ca, "-identity", another][..]),
        ("another trust domain", &["-ca", ca, "-identity", other_domain]),
        ("expired", &["-ca", ca, "-identity", SERVER, "-expired"]),
        ("signed by itself", &["-identity", SERVER]),
        ("refuses", &["-ca", ca, "-identity", SERVER, "-mode", "refuse"]),
        ("resets", &["-ca", ca, "-identity", SERVER, "-mode", "reset"]),
    ] {
        let server = serve(&lab, "go-server-wrong", wrong)?;
        let answer = lab.curl("curl", &[url])?;
        assert_eq!(answer.status, 0, "{case}: {answer:?}");
        drop(server);
    }
    let _server = serve(&lab, "go-server", &["-ca", ca, "-identity", SERVER])?;
    settle(&lab, "curl", &[url], 200)?;
    Ok(())
}
