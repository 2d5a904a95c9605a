//! ServiceEntries with the resolution DYNAMIC_DNS, with real agents, a resolver and servers outside of the mesh: names below a wildcard by
//! HTTP's host and by the server's name in TLS, and what is not taken for them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, private, wait};
use crate::upstream::Upstream;
use crate::{bookinfo, captured_in, settle};

/// The machine that joins the nodes.
const OUTSIDE: &str = "172.30.0.254";
/// Nobody is there: only the agent answers DNS.
const NOBODY: &str = "10.96.0.10";
/// Where the operator puts the certificates of rules.
const FILES: &str = "/run/tls";

const EGRESS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: egress, labels: {istio.io/use-waypoint: waypoint}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: egress}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: All}}}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild, namespace: egress}
spec:
  hosts: ['*.wild.example']
  location: MESH_EXTERNAL
  resolution: DYNAMIC_DNS
  ports:
  - {number: 80, name: http, protocol: HTTP, targetPort: 9080}
  - {number: 443, name: tls, protocol: TLS, targetPort: 9443}
  - {number: 8080, name: http-for-tls, protocol: HTTP, targetPort: 9443}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: wild, namespace: egress}
spec:
  host: '*.wild.example'
  trafficPolicy: {portLevelSettings: [{port: {number: 8080}, tls: {mode: SIMPLE, caCertificates: ca.pem}}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: wild, namespace: egress}
spec:
  targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: wild}]
  action: DENY
  rules: [{to: [{operation: {hosts: [secret.wild.example], ports: ['80']}}]}]
---
";

/// Has a host that the policy denies look like another one, for the clients of one namespace.
const DISGUISE: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: disguise, namespace: default}
spec:
  hosts: ['*.wild.example']
  http:
  - match: [{uri: {exact: /disguised}}]
    rewrite: {authority: a.wild.example}
    route: [{destination: {host: '*.wild.example', port: {number: 80}}}]
  - match: [{uri: {exact: /plain}}]
    route: [{destination: {host: '*.wild.example', port: {number: 80}}}]
---
";
const REGISTRY_ONLY: &str = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: default}
spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}
---
";

/// What the servers were told: the name that TLS asked for, and the host of the request.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// A machine with a server that speaks HTTP and one that speaks TLS.
struct Outside {
    seen: Seen,
    authority: String,
    trusted: ClientConfig,
}

impl Outside {
    fn start(lab: &Lab) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName("*.wild.example".try_into()?)];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?;
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(authority.der().to_vec()))?;
        let trusted = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (seen, server) = (Seen::default(), Arc::new(server));
        for port in [9080, 9443] {
            let listener = lab.network().own().run(|| TcpListener::bind((OUTSIDE, port)))??;
            let (seen, server) = (seen.clone(), (port == 9443).then(|| server.clone()));
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (seen, server) = (seen.clone(), server.clone());
                    thread::spawn(move || match server {
                        Some(server) => answer_tls(server, stream, &seen),
                        None => answer(stream, &seen, |_| String::new()),
                    });
                }
            });
        }
        Ok(Self { seen, authority: authority.pem(), trusted })
    }

    /// Whether one request came with these names.
    fn has_seen(&self, name: &str, host: &str) -> bool {
        self.seen.lock().iter().any(|(asked, told)| asked == name && told == host)
    }
}

fn answer_tls(server: Arc<ServerConfig>, stream: TcpStream, seen: &Seen) -> Result<()> {
    let stream = StreamOwned::new(ServerConnection::new(server)?, stream);
    answer(stream, seen, |stream| stream.conn.server_name().unwrap_or_default().to_owned())
}

fn answer<S: Read + Write>(mut stream: S, seen: &Seen, name: impl Fn(&S) -> String) -> Result<()> {
    loop {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte)? == 0 {
                return Ok(());
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        let host = fields.find(|(field, _)| field.eq_ignore_ascii_case("host"));
        let host = host.map_or("", |(_, host)| host).to_owned();
        seen.lock().push((name(&stream), host.clone()));
        let length = host.len();
        stream.write_all(
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{host}").as_bytes(),
        )?;
        stream.flush()?;
    }
}

fn start() -> Result<(Lab, Upstream, Outside)> {
    let mut lab = bookinfo()?;
    std::fs::write("/run/resolv.conf", format!("nameserver {}\n", lab.address("outsider")?))?;
    std::fs::create_dir_all(format!("{FILES}/egress"))?;
    let outside = Outside::start(&lab)?;
    std::fs::write(format!("{FILES}/egress/ca.pem"), &outside.authority)?;
    lab.start_agents(&format!(
        "public_service_entries = [\"egress\"]\n[dns]\nresolv_conf = \"/run/resolv.conf\"\n[tls]\ndirectory = \"{FILES}\"\n"
    ))?;
    for namespace in ["bookinfo", "default"] {
        let key = Key::new("Namespace", "", namespace);
        lab.manifests.label(&key, &["istio.io/dataplane-mode=ambient"])?;
        captured_in(&lab, namespace)?;
    }
    private::set_name_server(NOBODY.parse()?)?;
    let upstream = Upstream::start(&lab.pod("outsider")?.attachment.namespace)?;
    for name in ["a", "b", "secret", "x.y"] {
        upstream.teach(&format!("{name}.wild.example"), OUTSIDE.parse()?);
    }
    lab.manifests.apply(EGRESS)?;
    settle(&lab, "curl", &["http://a.wild.example/"], 200)?;
    Ok((lab, upstream, outside))
}

#[test]
fn names_below_a_wildcard_are_resolved_by_host() -> Result<()> {
    let (mut lab, upstream, outside) = start()?;
    for (client, host) in [("curl", "a"), ("curl", "B"), ("productpage-v1", "x.y")] {
        let host = format!("{host}.wild.example");
        let answer = settle(&lab, client, &[&format!("http://{host}/")], 200)?;
        ensure!(answer.body.eq_ignore_ascii_case(&host), "{host}: {answer:?}");
    }
    // The name of another server below it, over the same address.
    let other =
        |host: &str| lab.curl("curl", &["-H", &format!("Host: {host}"), "http://a.wild.example/"]);
    ensure!(other("b.wild.example:1234")?.body == "b.wild.example:1234", "the port means nothing");
    for (host, status) in [
        ("secret.wild.example", 403),
        ("SECRET.wild.example.", 403),
        ("wild.example", 404),
        ("evil.example", 404),
        ("a.wild.example.evil.example", 404),
        (OUTSIDE, 404),
        ("[::1]", 404),
        ("api.bookinfo.svc.cluster.local", 404),
        ("user@a.wild.example", 400),
        ("a.wild.example, b.wild.example", 400),
        ("nobody.wild.example", 503),
    ] {
        let answer = other(host)?;
        ensure!(answer.status == status, "{host}: {answer:?}");
    }
    wildcard_is_counted(&lab)?;
    ensure!(
        !outside
            .seen
            .lock()
            .iter()
            .any(|(_, host)| host.contains("evil") || host.contains("ecret")),
        "{:?}",
        outside.seen
    );
    speaks_tls(&lab, &outside)?;
    // A route of the client's namespace, which policies believe, makes no other server of it.
    lab.manifests.apply(DISGUISE)?;
    settle(&lab, "curl", &["http://secret.wild.example/disguised"], 404)?;
    for (host, status) in [("secret", 404), ("b", 404), ("a", 200)] {
        let answer = lab.curl("curl", &[&format!("http://{host}.wild.example/disguised")])?;
        ensure!(answer.status == status, "{host}: {answer:?}");
    }
    settle(&lab, "curl", &["http://secret.wild.example/plain"], 403)?;
    // Without the waypoint nothing passes.
    let entry = Key::new("ServiceEntry", "egress", "wild");
    lab.manifests.label(&entry, &["istio.io/use-waypoint=none"])?;
    settle(&lab, "curl", &["http://a.wild.example/"], 0)?;
    upstream.end()
}

/// Metrics tell of the wildcard, and of no name below it.
fn wildcard_is_counted(lab: &Lab) -> Result<()> {
    let flags = |flag: &str| {
        let labels = [
            ("response_flags", flag),
            ("source_workload", "curl"),
            ("destination_service", "*.wild.example"),
            ("destination_service_name", "wild"),
        ];
        Ok::<f64, anyhow::Error>(lab.metrics()?.sum("istio_requests_total", &labels))
    };
    ensure!(
        flags("DF")? >= 1.0 && flags("NR")? >= 6.0 && flags("-")? >= 3.0,
        "the wildcard in metrics"
    );
    Ok(())
}

/// TLS that the client's node speaks is for the name that was resolved.
fn speaks_tls(lab: &Lab, outside: &Outside) -> Result<()> {
    for host in ["a.wild.example", "b.wild.example", "a.wild.example"] {
        settle(lab, "curl", &[&format!("http://{host}:8080/")], 200)?;
        ensure!(outside.has_seen(host, &format!("{host}:8080")), "{host}: {:?}", outside.seen);
    }
    for (name, host) in outside.seen.lock().iter().filter(|(name, _)| !name.is_empty()) {
        ensure!(host.starts_with(name.as_str()), "{name} for {host}");
    }
    Ok(())
}

/// Whoever answers for the domain chooses the addresses.
#[test]
fn answers_of_resolvers_lead_nowhere_that_is_guarded_otherwise() -> Result<()> {
    let (mut lab, upstream, _outside) = start()?;
    let refused = [
        "127.0.0.1",
        "169.254.169.254",
        "240.240.0.1",
        "0.0.0.0",
        "2001:2::1",
        "fe80::1",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
    ];
    for (index, address) in refused.into_iter().enumerate() {
        let name = format!("bad-{index}.wild.example");
        upstream.teach(&name, address.parse()?);
        let answer = lab.curl("curl", &[&format!("http://{name}/")])?;
        ensure!(
            answer.status == 503 && answer.body == "DNS resolution failure",
            "{address}: {answer:?}"
        );
    }
    // A pod of the mesh is reached through a tunnel, and judges for itself.
    upstream.teach("rebound.wild.example", lab.address("details-v1")?);
    let url = "http://rebound.wild.example/details/0";
    settle(&lab, "curl", &[url], 200)?;
    let tunnelled = [
        ("reporter", "destination"),
        ("source_workload", "curl"),
        ("destination_workload", "details-v1"),
        ("connection_security_policy", "mutual_tls"),
    ];
    ensure!(
        lab.metrics()?.sum("istio_tcp_connections_opened_total", &tunnelled) > 0.0,
        "no tunnel"
    );
    let closed = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                  metadata: {name: nobody, namespace: bookinfo}\nspec: {}\n---\n";
    lab.manifests.apply(closed)?;
    settle(&lab, "curl", &[url], 403)?;
    settle(&lab, "curl", &["http://a.wild.example/"], 200)?;
    upstream.end()
}

/// What a client in `curl` sends as its first message.
enum First {
    Name(&'static str),
    /// Cut into records of a few bytes.
    InPieces(&'static str),
    Bytes(&'static [u8]),
}

/// What comes back over TLS, to the address that DNS answers or to another one.
fn spoken(lab: &Lab, outside: &Outside, to: &str, first: First) -> Result<String> {
    let mut config = outside.trusted.clone();
    let to = to.to_owned();
    let speaking = move || -> Result<String> {
        let mut stream = TcpStream::connect(&*to)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let name = match first {
            First::Name(name) => name,
            First::InPieces(name) => {
                config.max_fragment_size = Some(40);
                name
            }
            First::Bytes(bytes) => {
                stream.write_all(bytes)?;
                let mut back = String::new();
                stream.read_to_string(&mut back)?;
                return Ok(back);
            }
        };
        let client = ClientConnection::new(Arc::new(config), ServerName::try_from(name)?)?;
        let mut stream = StreamOwned::new(client, stream);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: within\r\n\r\n")?;
        let mut answer = [0; 15];
        stream.read_exact(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    lab.pod("curl")?.attachment.namespace.run(speaking)?
}

#[test]
fn names_below_a_wildcard_are_resolved_by_the_servers_name_in_tls() -> Result<()> {
    let (mut lab, upstream, outside) = start()?;
    let entry = "a.wild.example:443";
    let moment = lab.moment()?;
    for (to, first, name) in [
        (entry, First::Name("a.wild.example"), "a.wild.example"),
        (entry, First::InPieces("b.wild.example"), "b.wild.example"),
        ("nobody.wild.example:443", First::Name("x.wild.example"), "x.wild.example"),
    ] {
        upstream.teach("x.wild.example", OUTSIDE.parse()?);
        let answer = spoken(&lab, &outside, to, first).with_context(|| name)?;
        ensure!(answer == "HTTP/1.1 200 OK", "{name}: {answer:?}");
        ensure!(outside.has_seen(name, "within"), "{name}: {:?}", outside.seen);
    }
    wait::until("the log to tell the names", || {
        let lines = lab.lines_since(&moment);
        let tells = |name: &str| {
            let told = format!("dst.server_name=\"{name}\"");
            lines.iter().any(|(_, line)| line.contains(&told) && line.contains("*.wild.example"))
        };
        Ok((tells("a.wild.example") && tells("b.wild.example")).then_some(()))
    })?;
    let seen = outside.seen.lock().len();
    for first in [
        First::Name("evil.example"),
        First::Name("wild.example"),
        First::Name("172.30.0.254"),
        First::Name("nobody.wild.example"),
        First::Bytes(b"GET / HTTP/1.1\r\nHost: a.wild.example\r\n\r\n"),
        First::Bytes(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"),
    ] {
        let answer = spoken(&lab, &outside, entry, first);
        ensure!(answer.as_ref().map_or(true, String::is_empty), "{answer:?}");
    }
    for flag in ["NR", "DF"] {
        let labels = [("response_flags", flag), ("destination_service", "*.wild.example")];
        let failed = lab.metrics()?.sum("istio_tcp_connections_failed_total", &labels);
        ensure!(failed >= 1.0, "{flag}");
    }
    // An address of its own choice is not the entry's, whatever name is claimed.
    let real = format!("{OUTSIDE}:9443");
    let passed_on = spoken(&lab, &outside, &real, First::Name("a.wild.example"));
    ensure!(passed_on.context("ALLOW_ANY")?.contains("200"));
    lab.manifests.apply(REGISTRY_ONLY)?;
    wait::until("the registry to be all there is", || {
        let answer = spoken(&lab, &outside, &real, First::Name("a.wild.example"));
        Ok(answer.is_err().then_some(()))
    })?;
    let through = spoken(&lab, &outside, entry, First::Name("a.wild.example"));
    ensure!(through.context("the entry is in the registry")?.contains("200"));
    ensure!(outside.seen.lock().len() >= seen + 2);
    upstream.end()
}
