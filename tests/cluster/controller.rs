//! Who is given certificates by the controller, and who is not; its CA and its Lease. The controller is the installed
//! one, with the rights that the manifests give it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use futures_util::StreamExt;
use isthmus::identity::ca_messages::CertificateRequest;
use nix::sched::{CloneFlags, setns};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::{Code, Status};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::ca_client::{Ask, CaClient};
use crate::cluster::{agent, apply, delete, directory, get, inside, kubectl, until};

const SYSTEM: &str = "isthmus-system";
const AGENT: &str = "isthmus";
const WEB: &str = "spiffe://cluster.local/ns/ca-test/sa/web";
const GHOST: &str = "spiffe://cluster.local/ns/ca-test/sa/ghost";
const ENDED: &str = "spiffe://cluster.local/ns/ca-test/sa/ended";
/// `web` runs on node1; the others are on a node without a kubelet, so that nobody but this test changes their phase.
pub const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: ca-test}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: ca-test}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: ghost, namespace: ca-test}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: ended, namespace: ca-test}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: ca-test}
spec:
  serviceAccountName: web
  nodeName: node1
  terminationGracePeriodSeconds: 0
  containers: [{name: pause, image: \"localhost/pause:lab\", imagePullPolicy: Never}]
---
apiVersion: v1
kind: Pod
metadata: {name: ghost, namespace: ca-test}
spec:
  serviceAccountName: ghost
  nodeName: ghost
  terminationGracePeriodSeconds: 0
  containers: [{name: pause, image: \"localhost/pause:lab\", imagePullPolicy: Never}]
---
apiVersion: v1
kind: Pod
metadata: {name: ended, namespace: ca-test}
spec:
  serviceAccountName: ended
  nodeName: ghost
  terminationGracePeriodSeconds: 0
  containers: [{name: pause, image: \"localhost/pause:lab\", imagePullPolicy: Never}]
";

/// Runs in the cluster's network, on a separate thread that ends with it.
fn in_cluster<T: Send>(work: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
    let holder = std::fs::read_to_string(directory().join("log/holder.pid"))
        .context("no cluster runs; scripts/cluster-tests starts one")?;
    let network = File::open(format!("/proc/{}/ns/net", holder.trim()))?;
    let enter = move || -> Result<T> {
        setns(network, CloneFlags::CLONE_NEWNET)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(work())
    };
    std::thread::scope(|scope| {
        scope.spawn(enter).join().map_err(|_| anyhow::anyhow!("the questions broke off"))?
    })
}

/// Where the replicas sign.
fn replicas() -> Result<Vec<SocketAddr>> {
    let pods = get(&["pods", "-n", SYSTEM, "-l", "app.kubernetes.io/name=isthmus-controller"])?;
    let items = pods["items"].as_array().cloned().unwrap_or_default();
    let alive = items.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let addresses = alive.filter_map(|pod| pod["status"]["podIP"].as_str()?.parse().ok());
    Ok(addresses.map(|address| SocketAddr::new(address, 15012)).collect())
}

pub fn published_roots() -> Result<String> {
    let map = get(&["configmap", "isthmus-ca-root", "-n", SYSTEM])?;
    Ok(map["data"]["root-cert.pem"].as_str().context("no roots are published")?.to_owned())
}

/// A token of a service account, bound to a pod of it when one is named.
fn token(namespace: &str, account: &str, pod: Option<&str>, audience: &str) -> Result<String> {
    let mut arguments = vec!["create", "token", account, "-n", namespace, "--audience", audience];
    if let Some(pod) = pod {
        arguments.extend(["--bound-object-kind", "Pod", "--bound-object-name", pod]);
    }
    Ok(kubectl(&arguments)?.trim().to_owned())
}

/// The token's claims changed, signed with this key; with the cluster's own key the API server could have made it.
fn forged(token: &str, key: Option<&str>, change: impl FnOnce(&mut Value)) -> Result<String> {
    let parts: Vec<&str> = token.split('.').collect();
    let mut claims: Value = serde_json::from_slice(&BASE64.decode(parts[1])?)?;
    change(&mut claims);
    let body = format!("{}.{}", parts[0], BASE64.encode(claims.to_string()));
    let signature = match key {
        Some(key) => BASE64.encode(signed(&body, key)?),
        None => parts[2].to_owned(),
    };
    Ok(format!("{body}.{signature}"))
}

fn signed(text: &str, key: &str) -> Result<Vec<u8>> {
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign", key])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    openssl.stdin.take().context("a pipe")?.write_all(text.as_bytes())?;
    let output = openssl.wait_with_output()?;
    ensure!(output.status.success(), "openssl cannot sign with {key}");
    Ok(output.stdout)
}

/// An agent's token of a node; made by the cluster's key for one that has no agent.
fn agents_token(node: &str) -> Result<String> {
    let made = token(SYSTEM, AGENT, Some(&agent("node1")?), "istio-ca")?;
    if node == "node1" {
        return Ok(made);
    }
    if node == "node2" {
        return token(SYSTEM, AGENT, Some(&agent("node2")?), "istio-ca");
    }
    let key = directory().join("pki/sa.key").display().to_string();
    forged(&made, Some(&key), |claims| claims["kubernetes.io"]["node"]["name"] = node.into())
}

fn set_phase(pod: &str, phase: &str) -> Result<()> {
    let patch = json!({ "status": { "phase": phase } }).to_string();
    let arguments = ["patch", "pod", pod, "-n", "ca-test", "--subresource=status", "-p", &patch];
    kubectl(&arguments).map(drop)
}

fn code<T>(answer: &Result<T, Status>) -> Code {
    answer.as_ref().err().map_or(Code::Ok, Status::code)
}

type Question = (&'static str, Ask, Code);

/// The same question with the tokens of everybody.
fn callers() -> Result<Vec<Question>> {
    let key = directory().join("pki/sa.key").display().to_string();
    let other_key = std::env::temp_dir().join("isthmus-other-cluster.key").display().to_string();
    let made = Command::new("openssl").args(["genrsa", "-out", &other_key, "2048"]).output()?;
    ensure!(made.status.success(), "openssl makes no key");
    let (node1, node2) = (agents_token("node1")?, agents_token("node2")?);
    let own = agent("node1")?;
    let to_node1 = |claims: &mut Value| claims["kubernetes.io"]["node"]["name"] = "node1".into();
    let past = |claims: &mut Value| {
        for claim in ["exp", "iat", "nbf"] {
            claims[claim] = (claims[claim].as_i64().unwrap_or_default() - 100_000).into();
        }
    };
    let other_pod = |claims: &mut Value| {
        claims["kubernetes.io"]["pod"]["uid"] = "00000000-0000-0000-0000-000000000000".into();
    };
    let api_server = "https://kubernetes.default.svc.cluster.local";
    let tokens = [
        ("the agent of its node", node1.clone(), Code::Ok),
        ("the agent of another node", node2.clone(), Code::PermissionDenied),
        (
            "the pod itself",
            token("ca-test", "web", Some("web"), "istio-ca")?,
            Code::PermissionDenied,
        ),
        (
            "an agent's account without a pod",
            token(SYSTEM, AGENT, None, "istio-ca")?,
            Code::PermissionDenied,
        ),
        (
            "a token for somebody else",
            token(SYSTEM, AGENT, Some(&own), "else")?,
            Code::Unauthenticated,
        ),
        (
            "a token for the API server",
            token(SYSTEM, AGENT, Some(&own), api_server)?,
            Code::Unauthenticated,
        ),
        ("an expired token", forged(&node1, Some(&key), past)?, Code::Unauthenticated),
        (
            "a token of a pod that is gone",
            forged(&node1, Some(&key), other_pod)?,
            Code::Unauthenticated,
        ),
        (
            "another cluster's token",
            forged(&node1, Some(&other_key), |_| {})?,
            Code::Unauthenticated,
        ),
        (
            "a changed node, the old signature",
            forged(&node2, None, to_node1)?,
            Code::Unauthenticated,
        ),
        ("nonsense", "nothing".to_owned(), Code::Unauthenticated),
    ];
    Ok(tokens.map(|(who, token, expected)| (who, Ask::new(&token, WEB), expected)).into())
}

/// Good tokens of agents, with questions that no agent should ask.
fn requests() -> Result<Vec<Question>> {
    let (node1, ghost) = (agents_token("node1")?, agents_token("ghost")?);
    let ours = Ask::new(&node1, WEB);
    let about = |identity: &str| Ask::new(&node1, identity);
    Ok(vec![
        (
            "another trust domain",
            about("spiffe://other.example/ns/ca-test/sa/web"),
            Code::InvalidArgument,
        ),
        ("no identity", about("ca-test/web"), Code::InvalidArgument),
        (
            "an account without a pod",
            about("spiffe://cluster.local/ns/ca-test/sa/default"),
            Code::PermissionDenied,
        ),
        (
            "no such namespace",
            about("spiffe://cluster.local/ns/nowhere/sa/web"),
            Code::PermissionDenied,
        ),
        (
            "another name in the request",
            Ask { name: GHOST.to_owned(), ..ours.clone() },
            Code::InvalidArgument,
        ),
        (
            "another kind of key",
            Ask { algorithm: &rcgen::PKCS_ED25519, ..ours },
            Code::InvalidArgument,
        ),
        ("a pod that was just bound", Ask::new(&ghost, GHOST), Code::Ok),
        ("a pod that has ended", Ask::new(&ghost, ENDED), Code::PermissionDenied),
    ])
}

#[test]
fn only_the_agent_of_a_pods_node_is_given_its_certificate() -> Result<()> {
    apply(OBJECTS)?;
    set_phase("ghost", "Running")?;
    set_phase("ended", "Succeeded")?;
    let (roots, questions) = (published_roots()?, [callers()?, requests()?].concat());
    for replica in replicas()? {
        let wrong = in_cluster(async || {
            let mut client = CaClient::new(replica, &roots)?;
            let mut wrong = Vec::new();
            for (who, ask, expected) in &questions {
                let answer = client.ask(ask).await;
                let told = answer.as_ref().err().map_or("a certificate", |it| it.message());
                if code(&answer) != *expected {
                    wrong.push(format!("{who}: {told} ({:?})", code(&answer)));
                }
            }
            Ok(wrong)
        })?;
        ensure!(wrong.is_empty(), "{replica}: {wrong:#?}");
    }
    delete(OBJECTS)
}

#[test]
fn a_certificate_lives_a_day_at_the_most_and_comes_with_all_roots() -> Result<()> {
    apply(OBJECTS)?;
    let ask = Ask { seconds: 365 * 24 * 60 * 60, ..Ask::new(&agents_token("node1")?, WEB) };
    let (replica, roots) = (*replicas()?.first().context("a replica")?, published_roots()?);
    let chain = in_cluster(async || Ok(CaClient::new(replica, &roots)?.ask(&ask).await?))?;
    let leaf = CertificateDer::from_pem_slice(chain[0].as_bytes())?;
    let (_, leaf) = X509Certificate::from_der(&leaf)?;
    let validity = leaf.validity();
    let seconds = validity.not_after.timestamp() - validity.not_before.timestamp();
    ensure!((86_400..=86_400 + 300).contains(&seconds), "valid for {seconds} s");
    ensure!(!leaf.is_ca(), "it signs nothing itself");
    ensure!(chain.last() == Some(&roots), "the roots are those that are published");
    delete(OBJECTS)
}

#[test]
fn what_is_too_large_or_without_a_token_is_refused() -> Result<()> {
    let (replica, roots) = (*replicas()?.first().context("a replica")?, published_roots()?);
    let node1 = agents_token("node1")?;
    let large =
        CertificateRequest { csr: "x".repeat(1024 * 1024), ..CertificateRequest::default() };
    let answers = in_cluster(async || {
        let mut client = CaClient::new(replica, &roots)?;
        let too_large = client.send(large, Some(&node1)).await;
        let no_token = client.send(CertificateRequest::default(), None).await;
        let no_content = client.send(CertificateRequest::default(), Some(&node1)).await;
        Ok([code(&too_large), code(&no_token), code(&no_content)])
    })?;
    let expected = [Code::OutOfRange, Code::Unauthenticated, Code::InvalidArgument];
    ensure!(answers == expected, "{answers:?}");
    Ok(())
}

/// An agent that starts on a node with many pods: one token, eight requests at a time.
#[test]
fn two_hundred_pods_of_a_node_have_their_certificates_in_seconds() -> Result<()> {
    apply(OBJECTS)?;
    let ask = Ask::new(&agents_token("node1")?, WEB);
    let (replica, roots) = (*replicas()?.first().context("a replica")?, published_roots()?);
    let took = in_cluster(async || {
        let client = CaClient::new(replica, &roots)?;
        let begun = Instant::now();
        let asked = futures_util::stream::iter(0..200).map(|_| {
            let (mut client, ask) = (client.clone(), ask.clone());
            async move { client.ask(&ask).await }
        });
        let answers: Vec<_> = asked.buffer_unordered(8).collect().await;
        for answer in answers {
            answer?;
        }
        Ok(begun.elapsed())
    })?;
    eprintln!("200 certificates, 8 at a time: {took:?}");
    ensure!(took < Duration::from_secs(20), "it took {took:?}");
    delete(OBJECTS)
}

/// The Secret's content, and whether it still signs.
pub fn secret() -> Result<Value> {
    get(&["secret", "isthmus-ca", "-n", SYSTEM])
}

fn patch_secret(patch: &Value) -> Result<()> {
    kubectl(&["patch", "secret", "isthmus-ca", "-n", SYSTEM, "-p", &patch.to_string()]).map(drop)
}

pub fn signs() -> Result<()> {
    let ask = Ask::new(&agents_token("node1")?, WEB);
    let roots = published_roots()?;
    for replica in replicas()? {
        in_cluster(async || Ok(CaClient::new(replica, &roots)?.ask(&ask).await?))?;
    }
    Ok(())
}

#[test]
fn a_ca_that_is_spoilt_or_deleted_goes_on_signing() -> Result<()> {
    apply(OBJECTS)?;
    let before = secret()?;
    patch_secret(&json!({ "data": { "ca-key.pem": "bm90aGluZw==" } }))?;
    std::thread::sleep(Duration::from_secs(2));
    signs().context("with a key that is none")?;
    patch_secret(&json!({ "data": before["data"] }))?;
    std::thread::sleep(Duration::from_secs(1));
    kubectl(&["delete", "secret", "isthmus-ca", "-n", SYSTEM])?;
    until("the Secret to be written back", || {
        Ok((secret()?["data"] == before["data"]).then_some(()))
    })?;
    signs().context("after the Secret was deleted")?;
    delete(OBJECTS)
}

/// How many roots each replica sends along.
pub fn roots_of_replicas() -> Result<BTreeSet<usize>> {
    let ask = Ask::new(&agents_token("node1")?, WEB);
    let roots = published_roots()?;
    let mut counts = BTreeSet::new();
    for replica in replicas()? {
        let chain = in_cluster(async || Ok(CaClient::new(replica, &roots)?.ask(&ask).await?))?;
        let sent = chain.last().cloned().unwrap_or_default();
        counts.insert(sent.matches("BEGIN CERTIFICATE").count());
    }
    Ok(counts)
}

#[test]
fn a_new_root_is_trusted_everywhere_before_it_signs() -> Result<()> {
    apply(OBJECTS)?;
    let before = secret()?;
    kubectl(&["annotate", "secret", "isthmus-ca", "-n", SYSTEM, "isthmus.io/rotate-root=test"])?;
    until("both roots to be published and sent along", || {
        let published = published_roots()?.matches("BEGIN CERTIFICATE").count();
        Ok((published == 2 && roots_of_replicas()? == BTreeSet::from([2])).then_some(()))
    })?;
    let now = secret()?;
    ensure!(now["data"]["ca-cert.pem"] == before["data"]["ca-cert.pem"], "the old one still signs");
    let annotations = &now["metadata"]["annotations"];
    ensure!(annotations["isthmus.io/rotate-root"].is_null(), "asked once, made once");
    // As if it had never been asked for.
    let gone: serde_json::Map<String, Value> =
        ["ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem", "announced-root-cert.pem"]
            .map(|key| format!("next-{key}"))
            .map(|key| (key, Value::Null))
            .into_iter()
            .collect();
    patch_secret(&json!({ "data": gone }))?;
    until("one root to be published again", || {
        let published = published_roots()?.matches("BEGIN CERTIFICATE").count();
        Ok((published == 1 && roots_of_replicas()? == BTreeSet::from([1])).then_some(()))
    })?;
    delete(OBJECTS)
}

/// Who holds the Lease: the name of a pod, `_`, and what tells it from a former self; empty when nobody does.
pub fn leader() -> Result<String> {
    let lease = get(&["lease", "isthmus-controller", "-n", SYSTEM])?;
    Ok(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn another_replica_leads_when_the_leader_goes_and_the_ca_stays() -> Result<()> {
    let holder =
        || Ok::<_, anyhow::Error>(leader()?.split('_').next().unwrap_or_default().to_owned());
    let (first, before) = (holder()?, secret()?);
    ensure!(!first.is_empty(), "nobody leads");
    let begun = Instant::now();
    kubectl(&["delete", "pod", &first, "-n", SYSTEM, "--wait=false"])?;
    let next = until("another leader", || {
        let now = holder()?;
        Ok((!now.is_empty() && now != first).then_some(now))
    })?;
    let took = begun.elapsed();
    eprintln!("{next} leads after {took:?}");
    // It gave the Lease back, so nobody had to wait for its end.
    ensure!(took < Duration::from_secs(10), "it took {took:?}");
    ensure!(secret()?["data"] == before["data"], "the CA is the same");
    let output =
        inside("kubectl", &["-n", SYSTEM, "rollout", "status", "deployment/isthmus-controller"]);
    ensure!({ output }.status()?.success(), "the controller is not complete again");
    Ok(())
}
