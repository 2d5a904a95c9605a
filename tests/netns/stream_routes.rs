//! TCPRoutes and TLSRoutes with real agents: connections are split, named and judged without a proxy that parses them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::issued::{self, Wrong};
use crate::support::lab::manifests::Key;
use crate::support::lab::netns::Namespace;
use crate::support::lab::{Lab, wait};
use crate::{WAYPOINT, application, enrol, meshed, settle};

const REVIEWS: &str = "http://reviews.bookinfo:9080/reviews/0";

/// A TCPRoute of the service `reviews`.
fn tcp_route(backends: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {{name: reviews, namespace: bookinfo}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, name: reviews, port: 9080}}]\n  \
         rules: [{{backendRefs: [{backends}]}}]\n"
    )
}

/// How many of 20 connections each version of `reviews` answered, and how many nobody did.
fn shares(lab: &Lab) -> Result<[usize; 4]> {
    let mut shares = [0; 4];
    for _ in 0..20 {
        let answer = lab.curl("curl", &[REVIEWS])?;
        let found = (1..=3).find(|version| answer.body.contains(&format!("reviews-v{version}")));
        ensure!(found.is_some() == (answer.status == 200), "{answer:?}");
        shares[found.unwrap_or(0)] += 1;
    }
    Ok(shares)
}

fn settled_shares(lab: &Lab, expected: [usize; 4]) -> Result<()> {
    wait::until(&format!("shares of {expected:?}"), || Ok((shares(lab)? == expected).then_some(())))
}

#[test]
fn a_tcp_route_splits_connections_with_and_without_a_waypoint() -> Result<()> {
    let mut lab = meshed()?;
    let to = |version: &str, weight: u32| {
        format!("{{name: reviews-{version}, port: 9080, weight: {weight}}}")
    };
    lab.manifests.apply(&tcp_route(&format!("{}, {}", to("v1", 15), to("v3", 5))))?;
    settled_shares(&lab, [0, 15, 0, 5])?;
    // The share of a backend that does not exist is closed, logged, and given to no other.
    let since = lab.moment()?;
    lab.manifests.apply(&tcp_route(&format!("{}, {}", to("v2", 3), to("v9", 1))))?;
    settled_shares(&lab, [5, 0, 15, 0])?;
    wait::until("a line of the log", || {
        let lines = lab.lines_since(&since);
        let closed = |line: &str| {
            line.contains("TCPRoute bookinfo/reviews") && line.contains("response_flags=\"NR\"")
        };
        Ok(lines.iter().any(|(_, line)| closed(line)).then_some(()))
    })?;
    // A waypoint changes nothing about that, and the backend's policies judge.
    lab.manifests.apply(WAYPOINT)?;
    let label = ["istio.io/use-waypoint=waypoint"];
    lab.manifests.label(&Key::new("Namespace", "", "bookinfo"), &label)?;
    lab.manifests.apply(&tcp_route(&format!("{}, {}", to("v1", 15), to("v3", 5))))?;
    settled_shares(&lab, [0, 15, 0, 5])?;
    lab.manifests.apply(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: v3, namespace: bookinfo}\n\
         spec: {action: DENY, targetRefs: [{group: '', kind: Service, name: reviews-v3}], \
         rules: [{from: [{source: {namespaces: [default]}}]}]}\n",
    )?;
    settled_shares(&lab, [5, 15, 0, 0])?;
    // An HTTPRoute takes the port.
    lab.manifests.apply(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: reviews, namespace: bookinfo}\n\
         spec:\n  parentRefs: [{group: '', kind: Service, name: reviews}]\n  \
         rules: [{backendRefs: [{name: reviews-v2, port: 9080}]}]\n",
    )?;
    settled_shares(&lab, [0, 0, 20, 0])
}

/// Three services without endpoints of HTTP: the one that clients address, and those that serve.
fn tls_services() -> String {
    let service = |name: &str, selector: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: bookinfo}}\n\
             spec: {{selector: {{{selector}}}, ports: [{{name: https, port: 443, targetPort: 9443}}]}}\n---\n"
        )
    };
    service("front", "app: nobody")
        + &service("left", "app: details")
        + &service("right", "app: ratings")
}

fn tls_route(name: &str, host: &str, backend: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: TLSRoute\nmetadata: {{name: {name}, namespace: bookinfo}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, name: front}}]\n  hostnames: ['{host}']\n  \
         rules: [{{backendRefs: [{{name: {backend}, port: 443}}]}}]\n---\n"
    )
}

/// A server of TLS on port 9443 that says its name and then echoes what it was sent, until the test ends.
pub fn serve(lab: &Lab, namespace: &Namespace, says: &'static str) -> Result<()> {
    let certificate = issued::issue(lab, "spiffe://example.org/server", Wrong::SelfSigned)?;
    let chain = vec![CertificateDer::from_pem_slice(certificate.chain.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let config = Arc::new(config);
    let listener = namespace.run(|| TcpListener::bind("[::]:9443"))??;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = config.clone();
            std::thread::spawn(move || answer(stream, config, says));
        }
    });
    Ok(())
}

fn answer(stream: TcpStream, config: Arc<ServerConfig>, says: &str) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, stream);
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? > 0 {
        head.push(byte[0]);
    }
    let length = says.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{says}"
    )?;
    stream.conn.send_close_notify();
    stream.flush().context("the answer")
}

#[test]
fn a_tls_route_selects_by_the_name_of_the_server() -> Result<()> {
    let mut lab = application(&[&tls_services()])?;
    lab.start_agents("")?;
    enrol(&mut lab)?;
    serve(&lab, &lab.pod("details-v1")?.attachment.namespace, "left")?;
    serve(&lab, &lab.pod("ratings-v1")?.attachment.namespace, "right")?;
    let all = tls_route("exact", "cart.example.org", "left")
        + &tls_route("wildcard", "*.example.org", "right");
    lab.manifests.apply(&all)?;
    let front = lab.service("bookinfo", "front")?[0];
    let ask = |lab: &Lab, name: &str| -> Result<String> {
        let to = format!("{name}:443:{front}");
        let url = format!("https://{name}/");
        Ok(lab.curl("curl", &["--insecure", "--http1.1", "--resolve", &to, &url])?.body)
    };
    wait::until("the routes", || Ok((ask(&lab, "cart.example.org")? == "left").then_some(())))?;
    ensure!(ask(&lab, "pay.example.org")? == "right");
    ensure!(ask(&lab, "a.b.example.org")? == "right");
    ensure!(ask(&lab, "cart.example.org")? == "left");
    let since = lab.moment()?;
    ensure!(ask(&lab, "example.com")?.is_empty(), "no route has this name");
    let by_address = format!("https://{front}/");
    let nameless = lab.curl("curl", &["--insecure", "--http1.1", &by_address])?;
    ensure!(nameless.status == 0, "an address is no name: {nameless:?}");
    let plain = lab.curl("curl", &[&format!("http://{front}:443/")])?;
    ensure!(plain.status == 0, "{plain:?}");
    for words in ["example.com", "names no server", "is not TLS"] {
        wait::until(words, || {
            let lines = lab.lines_since(&since);
            let closed = |line: &str| line.contains(words) && line.contains("\"NR\"");
            Ok(lines.iter().any(|(_, line)| closed(line)).then_some(()))
        })?;
    }
    lab.manifests.delete(&Key::new("TLSRoute", "bookinfo", "wildcard"))?;
    wait::until("the route to be gone", || {
        Ok(ask(&lab, "pay.example.org")?.is_empty().then_some(()))
    })?;
    ensure!(ask(&lab, "cart.example.org")? == "left");
    settle(&lab, "curl", &["http://details.bookinfo:9080/details/0"], 200)?;
    Ok(())
}
