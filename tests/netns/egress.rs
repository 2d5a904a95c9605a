//! Egress as Istio's guide has it, with real agents: a namespace with a waypoint, an entry of a server outside of the mesh, policies for
//! it, and TLS that the client's node speaks.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, private, wait};
use crate::{bookinfo, captured_in, settle};

/// The machine that joins the nodes.
const OUTSIDE: &str = "172.30.0.254:9443";
/// Nobody is there: only the agent answers DNS.
const NOBODY: &str = "10.96.0.10";
/// Where the operator puts the certificates of rules.
const FILES: &str = "/run/tls";

const GUIDE: &str = "
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
metadata: {name: api, namespace: egress}
spec:
  hosts: [api.example.com]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 9443}, {number: 81, name: tcp, protocol: TCP, targetPort: 9443}]
  endpoints: [{address: 172.30.0.254}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: api, namespace: egress}
spec:
  targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: api}]
  action: DENY
  rules: [{to: [{operation: {methods: [DELETE], ports: ['80']}}]}]
";

fn rule(ca: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: api, namespace: egress}}\n\
         spec: {{host: api.example.com, trafficPolicy: {{tls: {{mode: SIMPLE, caCertificates: {ca}}}}}}}\n"
    )
}

/// What the server was told before each request: the name that TLS asked for, and the first line.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// A server that speaks nothing but TLS, under a certificate of its own authority, and answers 200.
fn serve(lab: &Lab) -> Result<(Seen, String)> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::DnsName("api.example.com".try_into()?)];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let (config, seen) = (Arc::new(config), Seen::default());
    let listener = lab.network().own().run(|| TcpListener::bind(OUTSIDE))??;
    let sees = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, sees) = (config.clone(), sees.clone());
            std::thread::spawn(move || answer(config, stream, &sees));
        }
    });
    Ok((seen, authority.pem()))
}

fn answer(config: Arc<ServerConfig>, stream: TcpStream, seen: &Seen) -> Result<()> {
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, stream);
    loop {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte)? == 0 {
                return Ok(());
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let line = head.lines().next().unwrap_or_default().to_owned();
        let name = stream.conn.server_name().unwrap_or_default().to_owned();
        seen.lock().push((name, line));
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret")?;
        stream.flush()?;
    }
}

#[test]
fn the_egress_guide_can_be_followed_to_its_end() -> Result<()> {
    let mut lab = bookinfo()?;
    std::fs::write("/run/resolv.conf", format!("nameserver {}\n", lab.address("outsider")?))?;
    for namespace in ["egress", "bookinfo"] {
        std::fs::create_dir_all(format!("{FILES}/{namespace}"))?;
    }
    lab.start_agents(&format!(
        "public_service_entries = [\"egress\"]\n[dns]\nresolv_conf = \"/run/resolv.conf\"\n[tls]\ndirectory = \"{FILES}\"\n"
    ))?;
    for namespace in ["bookinfo", "default"] {
        let key = Key::new("Namespace", "", namespace);
        lab.manifests.label(&key, &["istio.io/dataplane-mode=ambient"])?;
        captured_in(&lab, namespace)?;
    }
    private::set_name_server(NOBODY.parse()?)?;
    let (seen, authority) = serve(&lab)?;
    // The first half of the guide: the server speaks TLS only, which nobody speaks yet.
    lab.manifests.apply(GUIDE)?;
    settle(&lab, "curl", &["-X", "DELETE", "http://api.example.com/"], 403)?;
    ensure!(lab.curl("curl", &["http://api.example.com/"])?.status != 200, "nobody speaks TLS");
    // A rule whose file is not there, or is another namespace's, sends nothing.
    std::fs::write(format!("{FILES}/bookinfo/ca.pem"), &authority)?;
    for ca in ["ca.pem", "../bookinfo/ca.pem", "/run/tls/bookinfo/ca.pem"] {
        lab.manifests.apply(&rule(ca))?;
        let no_tls = [("response_flags", "NO_TLS"), ("source_workload", "curl")];
        let before = lab.metrics()?.sum("istio_requests_total", &no_tls);
        wait::until("the request to be refused", || {
            settle(&lab, "curl", &["http://api.example.com/"], 503)?;
            let now = lab.metrics()?.sum("istio_requests_total", &no_tls);
            Ok((now > before).then_some(()))
        })
        .with_context(|| ca.to_owned())?;
    }
    ensure!(seen.lock().is_empty(), "nothing came through");
    // The second half.
    std::fs::write(format!("{FILES}/egress/ca.pem"), &authority)?;
    lab.manifests.apply(&rule("ca.pem"))?;
    let answer = settle(&lab, "curl", &["http://api.example.com/path"], 200)?;
    ensure!(answer.body == "secret", "{answer:?}");
    settle(&lab, "curl", &["-X", "DELETE", "http://api.example.com/"], 403)?;
    // Bytes of a port that is not HTTP, and from the other node.
    settle(&lab, "curl", &["http://api.example.com:81/bytes"], 200)?;
    settle(&lab, "productpage-v1", &["http://api.example.com/far"], 200)?;
    let lines = seen.lock().clone();
    let expected = ["GET /path HTTP/1.1", "GET /bytes HTTP/1.1", "GET /far HTTP/1.1"];
    for line in expected {
        let told = lines.iter().find(|(_, told)| told == line).context(line)?;
        ensure!(told.0 == "api.example.com", "{told:?}");
    }
    ensure!(!lines.iter().any(|(_, line)| line.starts_with("DELETE")), "{lines:?}");
    Ok(())
}
