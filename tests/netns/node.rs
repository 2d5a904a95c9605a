//! HBONE on the wire with a third implementation: Node's `http2` and `tls`, which are nghttp2 and OpenSSL
//! (tests/interop/node), as a client and as a server, right and wrong.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::interop::{CLAIMS, Exchange, FOREIGN_IDENTITY, foreign_lab, only_for_curl};
use crate::issued::{Wrong, issue};
use crate::support::lab::netns::Namespace;
use crate::support::lab::process::{Process, command};
use crate::support::lab::{Lab, PORT, wait};
use crate::{meshed, settle};

const CLIENT: &str = "spiffe://cluster.local/ns/interop/sa/node-client";
const ELSEWHERE: &str = "spiffe://other.domain/ns/interop/sa/node-client";

/// Node with the program and its certificates; none for a peer that shows nothing.
fn node(
    lab: &Lab,
    namespace: &Namespace,
    role: &str,
    who: Option<(&str, Wrong)>,
) -> Result<Command> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/node/hbone.mjs");
    let mut run = command(namespace, "node");
    run.arg(program).arg(role);
    run.arg("--roots").arg(lab.ca_directory().join("ca-cert.pem"));
    if let Some((identity, wrong)) = who {
        let (chain, key): (PathBuf, PathBuf) = issue(lab, identity, wrong)?.write(role)?;
        run.arg("--cert").arg(chain).arg("--key").arg(key);
    }
    Ok(run)
}

fn dial(lab: &Lab, who: Option<(&str, Wrong)>, arguments: &[&str]) -> Result<Exchange> {
    let mut run = node(lab, &lab.pod("outsider")?.attachment.namespace, "client", who)?;
    run.args(["--to", &format!("{}:15008", lab.address("details-v1")?)]).args(arguments);
    let output = run.output().context("run node: is it installed? scripts/setup does so")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Exchange::parse(&output.stdout)
}

fn dial_as(lab: &Lab, identity: &str, authority: &str, more: &[&str]) -> Result<Exchange> {
    let right = ["--authority", authority, "--get", "/details/0"];
    dial(lab, Some((identity, Wrong::Nothing)), &[&right, more].concat())
}

#[test]
fn a_node_client_is_served_and_told_what_it_asks_wrongly() -> Result<()> {
    let lab = meshed()?;
    let own = lab.address("details-v1")?;
    let right = format!("{own}:{PORT}");
    let served = dial_as(&lab, CLIENT, &right, &[])?;
    assert_eq!(served.status, 200, "{served:?}");
    assert!(served.body.contains("200 OK"), "{served:?}");
    assert_eq!(served.server, "spiffe://cluster.local/ns/bookinfo/sa/bookinfo-details");
    for authority in [
        format!("{}:{PORT}", lab.address("ratings-v1")?),
        format!("{own}:15008"),
        format!("{own}:15001"),
        "details.bookinfo.svc.cluster.local:9080".to_owned(),
    ] {
        let refused = dial_as(&lab, CLIENT, &authority, &[])?;
        assert_eq!(refused.status, 400, "{authority}: {refused:?}");
    }
    let get = dial_as(&lab, CLIENT, &right, &["--method", "GET"])?;
    assert_eq!(get.status, 400, "{get:?}");
    let nothing_there = dial_as(&lab, CLIENT, &format!("{own}:9"), &[])?;
    assert_eq!(nothing_there.status, 503, "{nothing_there:?}");
    Ok(())
}

#[test]
fn a_node_client_may_end_its_direction_first() -> Result<()> {
    let lab = meshed()?;
    let address = SocketAddr::new(lab.address("details-v1")?, 9099);
    let namespace = &lab.pod("details-v1")?.attachment.namespace;
    let listener = namespace.run(|| std::net::TcpListener::bind(address))??;
    let application = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut received = Vec::new();
        stream.read_to_end(&mut received)?;
        write!(stream, "{} bytes and the end", received.len())
    });
    let served = dial_as(&lab, CLIENT, &address.to_string(), &["--half-close"])?;
    assert!(served.body.ends_with(" bytes and the end"), "{served:?}");
    application.join().map_err(|_| anyhow::anyhow!("the application panicked"))??;
    Ok(())
}

#[test]
fn a_node_client_without_a_right_certificate_gets_no_answer() -> Result<()> {
    let lab = meshed()?;
    let authority = format!("{}:{PORT}", lab.address("details-v1")?);
    for (case, who) in [
        ("no certificate", None),
        ("expired", Some((CLIENT, Wrong::Expired))),
        ("another trust domain", Some((ELSEWHERE, Wrong::Nothing))),
        ("no SPIFFE name", Some(("https://cluster.local/ns/interop", Wrong::Nothing))),
        ("signed by itself", Some((CLIENT, Wrong::SelfSigned))),
    ] {
        let refused = dial(&lab, who, &["--authority", &authority])?;
        assert_eq!(refused.status, 0, "{case}: {refused:?}");
        assert!(!refused.error.is_empty(), "{case}: {refused:?}");
    }
    assert_eq!(dial_as(&lab, CLIENT, &authority, &[])?.status, 200);
    Ok(())
}

#[test]
fn headers_of_a_node_client_do_not_influence_policy() -> Result<()> {
    let lab = only_for_curl()?;
    let authority = format!("{}:{PORT}", lab.address("details-v1")?);
    let claims = CLAIMS.map(|claim| ["--header", claim]).concat();
    let refused = dial_as(&lab, CLIENT, &authority, &claims)?;
    assert_eq!(refused.status, 401, "{refused:?}");
    let admitted = dial_as(&lab, "spiffe://cluster.local/ns/default/sa/curl", &authority, &claims)?;
    assert_eq!(admitted.status, 200, "{admitted:?}");
    Ok(())
}

fn serve(lab: &Lab, identity: &str, wrong: Wrong, mode: &str) -> Result<Process> {
    let namespace = &lab.pod("foreign")?.attachment.namespace;
    let mut run = node(lab, namespace, "server", Some((identity, wrong)))?;
    let address = SocketAddr::new(lab.address("foreign")?, 15008);
    run.args(["--listen", &address.to_string(), "--mode", mode]);
    let mut process = Process::start("node-server", namespace, run, lab.logs())?;
    namespace.run(|| {
        wait::until("the Node server to listen", || {
            process.must_run()?;
            Ok(std::net::TcpStream::connect(address).ok())
        })
    })??;
    Ok(process)
}

#[test]
fn a_node_server_is_reached_and_told_who_asks() -> Result<()> {
    let lab = foreign_lab()?;
    let url = "http://foreign.interop:9080/hello";
    let other_domain = FOREIGN_IDENTITY.replace("cluster.local", "other.domain");
    for (case, identity, wrong, mode) in [
        ("another identity", CLIENT, Wrong::Nothing, "echo"),
        ("another trust domain", &other_domain, Wrong::Nothing, "echo"),
        ("expired", FOREIGN_IDENTITY, Wrong::Expired, "echo"),
        ("signed by itself", FOREIGN_IDENTITY, Wrong::SelfSigned, "echo"),
        ("refuses", FOREIGN_IDENTITY, Wrong::Nothing, "refuse"),
        ("resets", FOREIGN_IDENTITY, Wrong::Nothing, "reset"),
        ("goes away", FOREIGN_IDENTITY, Wrong::Nothing, "goaway"),
    ] {
        let server = serve(&lab, identity, wrong, mode)?;
        let answer = lab.curl("curl", &[url])?;
        assert_eq!(answer.status, 0, "{case}: {answer:?}");
        drop(server);
    }
    let server = serve(&lab, FOREIGN_IDENTITY, Wrong::Nothing, "echo")?;
    let answer = settle(&lab, "curl", &[url], 200)?;
    assert_eq!(answer.body, "tunnelled /hello");
    let log = server.log();
    let line = log.lines().rfind(|line| line.starts_with('{')).context("a CONNECT")?;
    let connect: Value = serde_json::from_str(line)?;
    assert_eq!(connect["client"], "spiffe://cluster.local/ns/default/sa/curl");
    assert_eq!(connect["method"], "CONNECT");
    assert_eq!(connect["authority"], format!("{}:{PORT}", lab.address("foreign")?));
    let forwarded = connect["headers"]["forwarded"].to_string();
    assert!(forwarded.contains("host=foreign.interop.svc.cluster.local"), "{forwarded}");
    let baggage = connect["headers"]["baggage"].to_string();
    assert!(baggage.contains("k8s.namespace.name=default"), "{baggage}");
    Ok(())
}
