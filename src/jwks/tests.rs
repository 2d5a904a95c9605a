//! Servers of keys on loopback addresses, which the tests' settings permit.

use std::collections::VecDeque;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::fetch::{Failed, Fetched};
use super::fresh::Validators;
use super::*;
use crate::base::ObjectKey;
use crate::jwt::fixture::Issuer;
use crate::jwt::{KeySource, KeyWait, KeysUri, MAX_FETCHED_BYTES};
use crate::model::{IssuerKeys, Scope};
use crate::policy::fixture::{token_rule, tokens};
use crate::world::fixture::{Fixture, service, workload};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(30);

/// Answers requests in the order of a script; the last answer stays.
struct Server {
    address: SocketAddr,
    script: Arc<Mutex<VecDeque<String>>>,
    /// Heads.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(script: &[String]) -> Self {
        Self::begin(script, None).await
    }

    async fn begin(script: &[String], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(VecDeque::from(script.to_vec())));
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let server = Self { address, script: script.clone(), seen: seen.clone() };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, seen, tls) = (script.clone(), seen.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &script, &seen).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &script, &seen).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    fn says(&self, answer: String) {
        *self.script.lock() = [answer].into();
    }

    fn uri(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    fn asked(&self) -> usize {
        self.seen.lock().len()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    script: &Mutex<VecDeque<String>>,
    seen: &Mutex<Vec<String>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    seen.lock().push(String::from_utf8(head).unwrap());
    let answer = {
        let mut script = script.lock();
        if script.len() > 1 { script.pop_front() } else { script.front().cloned() }
    };
    match answer {
        Some(answer) if !answer.is_empty() => {
            _ = stream.write_all(answer.as_bytes()).await;
            _ = stream.shutdown().await;
        }
        // It never answers.
        _ => std::future::pending().await,
    }
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

fn keys(issuer: &Issuer, headers: &str) -> String {
    answer("200 OK", headers, &issuer.jwks())
}

/// A world whose RequestAuthentication in `shop` names the address.
fn world(uri: &str) -> (Arc<WorldStore>, Arc<KeySource>) {
    let uri = Arc::new(KeysUri::parse(uri).unwrap());
    let source = Arc::new(KeySource { uri, namespace: "shop".into(), timeout: LONG });
    let mut rule = token_rule(&Issuer::new("k"));
    rule.keys = IssuerKeys::Remote(source.clone());
    let policy = tokens(&ObjectKey::new("shop", "tokens"), Scope::Namespace, vec![rule]);
    let built = Fixture::default().policy(policy).build();
    let store = WorldStore::new(built.names.clone());
    store.publish(built.mesh.clone());
    (store, source)
}

fn fetcher(world: &Arc<WorldStore>, allowed: &[&str], ca_file: Option<PathBuf>) -> Fetcher {
    let allowed = allowed.iter().map(|it| it.parse().unwrap()).collect();
    let settings = FetchSettings { allowed, ca_file, cluster_domain: "cluster.local".into() };
    Fetcher::new(world.clone(), &Telemetry::without_log(), settings)
}

async fn fetch_once(uri: &str, limit: Duration) -> Result<Fetched, Failed> {
    let (world, source) = world(uri);
    let fetcher = fetcher(&world, &["127.0.0.0/8"], None);
    fetcher.fetch(&source.uri, &Validators::default(), limit).await
}

/// Waits for keys until they are those of the issuer. True: they came.
async fn gets(world: &WorldStore, source: &Arc<KeySource>, issuer: &Issuer) -> bool {
    let ring = world.load().keys.clone();
    let has = || ring.known(&source.uri).is_some_and(|it| it.keys == Some(issuer.keys()));
    let mut wait = KeyWait::new(&ring, std::slice::from_ref(source));
    while wait.next().await {
        if has() {
            return true;
        }
    }
    has()
}

#[tokio::test]
async fn one_fetch_serves_all_and_new_keys_come_when_somebody_waits_for_them() {
    let (old, new) = (Issuer::new("a"), Issuer::new("b"));
    let server = Server::start(&[keys(&old, "etag: \"1\"\r\n")]).await;
    let (world, source) = world(&server.uri());
    let cancel = CancellationToken::new();
    let fetcher = fetcher(&world, &["127.0.0.1/32"], None);
    let metrics = fetcher.metrics.clone();
    let running = tokio::spawn(fetcher.run(cancel.clone()));
    let waits = (0..50).map(|_| gets(&world, &source, &old));
    assert!(futures_util::future::join_all(waits).await.into_iter().all(|got| got));
    assert_eq!((server.asked(), metrics.fetched.get()), (1, 1));

    // A flood of requests with a key that nobody knows, and the issuer's new one.
    server.says(keys(&new, ""));
    let begun = Instant::now();
    let waits = (0..50).map(|_| gets(&world, &source, &new));
    assert!(futures_util::future::join_all(waits).await.into_iter().all(|got| got));
    assert_eq!(server.asked(), 2, "after {:?}", begun.elapsed());
    assert!(server.seen.lock()[1].contains("if-none-match: \"1\"\r\n"));

    // What cannot be fetched takes nothing away.
    server.says(answer("500 Internal Server Error", "", ""));
    assert!(!gets(&world, &source, &old).await);
    let known = world.load().keys.known(&source.uri).unwrap().clone();
    assert_eq!(known.keys, Some(new.keys()));
    assert!(known.failure.as_ref().unwrap().contains("500"), "{:?}", known.failure);
    assert_eq!(metrics.failed.get(), 1);
    cancel.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn an_address_that_no_policy_names_any_more_is_forgotten() {
    let issuer = Issuer::new("a");
    let server = Server::start(&[keys(&issuer, "")]).await;
    let (world, source) = world(&server.uri());
    let cancel = CancellationToken::new();
    let running = tokio::spawn(fetcher(&world, &["127.0.0.1/32"], None).run(cancel.clone()));
    assert!(gets(&world, &source, &issuer).await);
    world.publish(Default::default());
    assert!(!gets(&world, &source, &Issuer::new("b")).await);
    assert!(world.load().keys.sets().is_empty());
    assert_eq!(server.asked(), 1);
    cancel.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn what_is_no_key_set_is_none() {
    let huge = format!("{{\"keys\": [], \"x\": \"{}\"}}", "x".repeat(10 * MAX_FETCHED_BYTES));
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{huge}\r\n0\r\n\r\n",
        huge.len()
    );
    for (text, expected) in [
        (answer("200 OK", "", &huge), "the answer has more than 262144 bytes or breaks off"),
        (chunked, "the answer has more than 262144 bytes or breaks off"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"keys\"".to_owned(),
            "the answer has more than 262144 bytes or breaks off",
        ),
        (
            answer("302 Found", "location: http://169.254.169.254/\r\n", ""),
            "the server answers 302 Found, and redirects are not followed; write the address that it leads to",
        ),
        (answer("304 Not Modified", "", ""), "the server answers 304 Not Modified"),
        (answer("404 Not Found", "", "{\"keys\": []}"), "the server answers 404 Not Found"),
        (answer("200 OK", "", "<html>"), "the answer is no JSON object"),
        (answer("200 OK", "", "{\"keys\": []}"), "the answer has no key that can be used ()"),
        (answer("200 OK", "", "{}"), "the answer has no list named keys"),
    ] {
        let server = Server::start(&[text]).await;
        let failed = fetch_once(&server.uri(), LONG).await.unwrap_err();
        assert_eq!(failed.to_string(), expected);
        assert_eq!(server.asked(), 1);
    }
    let silent = Server::start(&[]).await;
    let limit = Duration::from_millis(200);
    let failed = fetch_once(&silent.uri(), limit).await.unwrap_err();
    assert!(matches!(failed, Failed::Late(_)), "{failed}");
    let fetched =
        fetch_once(&Server::start(&[keys(&Issuer::new("k"), "")]).await.uri(), LONG).await;
    assert!(fetched.unwrap().keys.is_some(), "the way works");
}

/// Whatever resolves to it: a literal, or a Service whose owner wrote its endpoints.
#[tokio::test]
async fn agents_do_not_connect_where_only_the_node_may() {
    let issuer = Issuer::new("a");
    let server = Server::start(&[keys(&issuer, "")]).await;
    let pod = workload("idp", "127.0.0.1");
    let mut idp = service("idp", "10.96.0.1", &[&pod]);
    let port = server.address.port();
    idp.endpoints[0].ports[0].target = port;
    let built = Fixture::default().workload(pod).service(idp).build();
    let store = WorldStore::new(built.names.clone());
    store.publish(built.mesh.clone());
    let host = "idp.shop.svc";
    for uri in [server.uri(), format!("http://{host}/"), format!("http://{host}.cluster.local/")] {
        let uri = KeysUri::parse(&uri).unwrap();
        for (allowed, permitted) in [(&["127.0.0.2/32"][..], false), (&["127.0.0.1/32"], true)] {
            let fetcher = fetcher(&store, allowed, None);
            let fetched = fetcher.fetch(&uri, &Validators::default(), LONG).await;
            match fetched {
                Ok(_) => assert!(permitted, "{uri}"),
                Err(Failed::Refused(to, _)) => assert!(!permitted && to == server.address),
                Err(other) => panic!("{uri}: {other}"),
            }
        }
    }
    assert_eq!(server.asked(), 3);
    let uri = KeysUri::parse("http://nobody.shop.svc/").unwrap();
    let fetched = fetcher(&store, &[], None).fetch(&uri, &Validators::default(), LONG).await;
    assert!(matches!(fetched, Err(Failed::Resolve(_))), "{fetched:?}");
}

#[tokio::test]
async fn servers_are_believed_by_the_certificates_of_the_setting() {
    let host = "127.0.0.1".to_owned();
    let own = rcgen::generate_simple_self_signed(vec![host]).unwrap();
    let key = PrivateKeyDer::from_pem_slice(own.signing_key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(own.cert.der().to_vec())], key)
        .unwrap();
    let issuer = Issuer::new("a");
    let tls = TlsAcceptor::from(Arc::new(config));
    let server = Server::begin(&[keys(&issuer, "")], Some(tls)).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(own.cert.pem().as_bytes()).unwrap();
    let (world, source) = world(&server.uri().replace("http:", "https:"));
    for (ca_file, believed) in [(None, false), (Some(file.path().to_owned()), true)] {
        let fetcher = fetcher(&world, &["127.0.0.1/32"], ca_file);
        let fetched = fetcher.fetch(&source.uri, &Validators::default(), LONG).await;
        match fetched {
            Ok(fetched) => assert!(believed && fetched.keys == Some(issuer.keys())),
            Err(failed) => assert!(!believed && matches!(failed, Failed::Tls(_)), "{failed}"),
        }
    }
    let missing = fetcher(&world, &["127.0.0.1/32"], Some("/nowhere/ca.pem".into()));
    let fetched = missing.fetch(&source.uri, &Validators::default(), LONG).await;
    assert!(fetched.unwrap_err().to_string().contains("jwks.ca_file"));
}
