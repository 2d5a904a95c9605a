//! Keys that are fetched: a server of keys that changes, hangs, floods or leads elsewhere, and tenants that name each other's.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::capture::means::namespace;
use crate::support::issuer::Issuer;
use crate::support::lab::Lab;
use crate::support::lab::netns::Namespace;
use crate::ways::{DETAILS, seen};
use crate::{besieged, settle};

/// Far from now.
const LATE: u64 = 4_000_000_000;
/// Where servers of keys listen.
const PORT: u16 = 9999;
/// Longer than a request waits for keys by default.
const PATIENCE: Duration = Duration::from_secs(6);

/// A server of keys.
#[derive(Clone, Default)]
struct Server {
    /// What is answered, by path; nothing at all where there is nothing.
    answers: Arc<Mutex<BTreeMap<&'static str, String>>>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    /// In a pod, or on a node.
    fn start(at: &Namespace, address: IpAddr) -> Result<Self> {
        let listener = at.run(|| TcpListener::bind(SocketAddr::new(address, PORT)))??;
        let server = Self::default();
        let serving = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = serving.clone();
                thread::spawn(move || server.serve(stream));
            }
        });
        Ok(server)
    }

    fn serve(&self, mut stream: TcpStream) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut head = [0; 4096];
        let read = stream.read(&mut head).unwrap_or(0);
        let head = String::from_utf8_lossy(&head[..read]).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let answer = self.answers.lock().get(path).cloned();
        match answer {
            Some(answer) => _ = stream.write_all(answer.as_bytes()),
            // Until the client goes.
            None => _ = stream.read(&mut [0; 1]),
        }
    }

    fn answers(&self, path: &'static str, head: &str, body: &str) {
        let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        self.answers.lock().insert(path, answer);
    }

    fn publishes(&self, issuer: &Issuer) -> Result<()> {
        let set = issuer.jwks()?;
        self.answers("/keys", "200 OK\r\ncache-control: max-age=3600", &set.to_string());
        Ok(())
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// A Service whose server of keys is in the pod `outsider`, which is in no mesh.
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: issuer, namespace: legacy}
spec:
  clusterIP: 10.96.0.201
  clusterIPs: [10.96.0.201]
  selector: {app: outsider}
  ports: [{name: http, port: 80, targetPort: 9999}]
";

/// Who may use details.
const USERS: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: users, namespace: bookinfo}
spec:
  selector: {matchLabels: {app: details}}
  rules: [{from: [{source: {requestPrincipals: ['*']}}]}]
";

fn tokens(rules: &[(&str, &str)]) -> String {
    let rules = rules.iter().map(|(issuer, more)| format!("  - {{issuer: '{issuer}', {more}}}\n"));
    let rules: String = rules.collect();
    format!(
        "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: users, namespace: bookinfo}}
spec:
  selector: {{matchLabels: {{app: details}}}}
  jwtRules:
{rules}"
    )
}

/// In the attacker's namespace, the same address means other pods, and its rules are as bad as they can be.
fn of_others(attacker: IpAddr) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: issuer, namespace: evil}}
spec:
  hosts: [issuer.legacy.svc.cluster.local]
  addresses: [240.240.9.9]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints: [{{address: {attacker}, ports: {{http: {PORT}}}}}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: users, namespace: evil}}
spec:
  jwtRules:
  - {{issuer: 'https://issuer', jwksUri: 'http://issuer.legacy.svc.cluster.local/keys', timeout: 0.001s}}
"
    )
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

fn claims() -> Value {
    json!({"iss": "https://issuer", "sub": "alice", "exp": LATE})
}

/// The answer to the first and only attempt.
fn once(lab: &Lab, client: &str, token: &str, url: &str) -> Result<u16> {
    Ok(lab.curl(client, &["-H", &bearer(token), url])?.status)
}

#[test]
fn keys_change_without_a_failed_request_and_belong_to_their_address_alone() -> Result<()> {
    let (old, new, forger) = (Issuer::named("a")?, Issuer::named("b")?, Issuer::named("c")?);
    let uri = "jwksUri: 'http://issuer.legacy.svc.cluster.local/keys'";
    let mut lab = besieged(&[SERVICE, USERS, &tokens(&[("https://issuer", uri)])])?;
    let attacker = lab.address("attacker")?;
    lab.manifests.apply(&of_others(attacker))?;
    let server = Server::start(&namespace(&lab, "outsider")?, lab.address("outsider")?)?;
    let forgers = Server::start(&namespace(&lab, "attacker")?, attacker)?;
    server.publishes(&old)?;
    forgers.publishes(&forger)?;
    let forged = format!("{DETAILS}?forged");
    // The attacker's pod is the first to want the keys, and gives up at once.
    let own = format!("http://{attacker}:{PORT}/keys");
    for client in ["curl", "accomplice"] {
        settle(&lab, client, &["-H", &bearer(&forger.good(&claims())?), &own], 401)?;
    }
    settle(&lab, "curl", &["-H", &bearer(&old.good(&claims())?), DETAILS], 200)?;
    for client in ["attacker", "accomplice", "curl"] {
        ensure!(once(&lab, client, &forger.good(&claims())?, &forged)? == 401, "{client}");
        ensure!(once(&lab, client, &old.good(&claims())?, DETAILS)? == 200, "{client}");
    }

    let before = server.asked();
    server.publishes(&new)?;
    let status = once(&lab, "curl", &new.good(&claims())?, DETAILS)?;
    ensure!(status == 200, "the issuer's new key: {status}");
    ensure!(once(&lab, "curl", &old.good(&claims())?, &forged)? == 401, "the one that it withdrew");
    let fetched = server.asked() - before;
    ensure!((1..=3).contains(&fetched), "{fetched} fetches for a new key and a withdrawn one");

    // A hundred requests with keys that nobody has.
    let (before, begun) = (server.asked(), Instant::now());
    let header = bearer(&forger.good(&claims())?);
    let flood = format!("{DETAILS}?forged=[1-100]");
    lab.curl("attacker", &["-Z", "--parallel-max", "100", "-H", &header, &flood])?;
    let fetched = server.asked() - before;
    let most = 2 + begun.elapsed().as_secs() / 3;
    ensure!(fetched as u64 <= most, "{fetched} fetches in {:?}", begun.elapsed());
    ensure!(once(&lab, "curl", &new.good(&claims())?, DETAILS)? == 200, "after the flood");
    let forged = seen(&lab, "forged")?;
    ensure!(forged.is_empty(), "a forged token reached the application: {forged:?}");
    Ok(())
}

#[test]
fn a_server_of_keys_that_hangs_floods_or_leads_elsewhere_costs_its_own_tokens() -> Result<()> {
    let (issuer, forger) = (Issuer::named("a")?, Issuer::named("c")?);
    let mut lab = besieged(&[SERVICE, USERS])?;
    let pod = lab.address("outsider")?;
    let at = |path: &str| format!("jwksUri: 'http://{pod}:{PORT}{path}'");
    let rules = [
        ("https://issuer", at("/keys")),
        ("https://hangs", format!("{}, timeout: 1s", at("/hangs"))),
        ("https://huge", at("/huge")),
        ("https://leads", at("/leads")),
        ("https://loopback", format!("jwksUri: 'http://127.0.0.1:{PORT}/keys'")),
        ("https://mapped", format!("jwksUri: 'http://[::ffff:127.0.0.1]:{PORT}/keys'")),
        ("https://metadata", "jwksUri: 'http://169.254.169.254/keys'".to_owned()),
    ];
    let rules: Vec<_> = rules.iter().map(|(issuer, more)| (*issuer, more.as_str())).collect();
    let server = Server::start(&namespace(&lab, "outsider")?, pod)?;
    server.publishes(&issuer)?;
    let mut keys = forger.jwks()?;
    keys["x"] = json!("x".repeat(10_000_000));
    server.answers("/huge", "200 OK", &keys.to_string());
    server.answers("/leads", &format!("302 Found\r\nlocation: http://127.0.0.1:{PORT}/keys"), "");
    let loopback = Server::start(&lab.node("node-a")?.namespace, IpAddr::from([127, 0, 0, 1]))?;
    let other = Server::start(&lab.node("node-b")?.namespace, IpAddr::from([127, 0, 0, 1]))?;
    loopback.publishes(&forger)?;
    other.publishes(&forger)?;
    lab.manifests.apply(&tokens(&rules))?;
    settle(&lab, "curl", &["-H", &bearer(&issuer.good(&claims())?), DETAILS], 200)?;
    for (name, _) in &rules[1..] {
        let mut claims = claims();
        claims["iss"] = json!(name);
        let begun = Instant::now();
        let status = once(&lab, "curl", &forger.good(&claims)?, &format!("{DETAILS}?forged"))?;
        ensure!(status == 401, "{name}: {status}");
        ensure!(begun.elapsed() < PATIENCE, "{name}: {:?}", begun.elapsed());
        let status = once(&lab, "curl", &issuer.good(&self::claims())?, DETAILS)?;
        ensure!(status == 200, "beside {name}: {status}");
    }
    ensure!(loopback.asked() + other.asked() == 0, "an agent connected to its node itself");
    let forged = seen(&lab, "forged")?;
    ensure!(forged.is_empty(), "a forged token reached the application: {forged:?}");
    Ok(())
}
