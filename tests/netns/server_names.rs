//! The condition `connection.sni` with real agents: the server that a client asks for in TLS decides, at the pods' own policies, at a
//! waypoint's, and for a server outside of the mesh, and no way of saying it, or of not saying it, leads past a policy.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::stream_routes::serve;
use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, wait};
use crate::{WAYPOINT, application, enrol};

/// How long agents wait for a client's first message here.
const AGENTS: &str = "public_service_entries = [\"egress\"]\n[layer4]\nconnect_timeout = \"2s\"\n";

/// Two Services of one server each: by a port that is said to be TLS, and by one that agents look at themselves. The second one's pod
/// is on the other node.
fn services() -> String {
    let service = |name: &str, app: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: bookinfo}}\n\
             spec: {{selector: {{app: {app}}}, ports: [{{name: https, port: 443, targetPort: 9443}}, \
             {{name: any, port: 444, targetPort: 9443}}]}}\n---\n"
        )
    };
    service("left", "details") + &service("right", "ratings")
}

/// A policy about the servers of these pods, on the port that they have.
fn policy(namespace: &str, target: &str, action: &str, names: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: servers, namespace: {namespace}}}\n\
         spec:\n  action: {action}\n  {target}\n  \
         rules: [{{to: [{{operation: {{ports: ['443', '444', '445', '9443']}}}}], when: [{{key: connection.sni, values: [{names}]}}]}}]\n---\n"
    )
}

/// What the server says to a client that asks for this name; nothing if the connection is closed.
fn ask(lab: &Lab, server: IpAddr, port: u16, name: &str) -> Result<String> {
    let to = format!("{name}:{port}:{server}");
    let url = format!("https://{name}:{port}/");
    Ok(lab.curl("curl", &["--insecure", "--http1.1", "--resolve", &to, &url])?.body)
}

/// Waits until the first name is served, everywhere, and the second one is not; and expects it of other ways to name a server.
fn expect(lab: &Lab, servers: &[(IpAddr, u16, &str)], served: &str, refused: &str) -> Result<()> {
    for (server, port, says) in servers {
        wait::until(&format!("{served} at {says}, port {port}, and not {refused}"), || {
            let answers = (ask(lab, *server, *port, served)?, ask(lab, *server, *port, refused)?);
            Ok((answers.0 == *says && answers.1.is_empty()).then_some(()))
        })?;
        ensure!(ask(lab, *server, *port, &served.to_ascii_uppercase())? == *says, "in capitals");
        ensure!(ask(lab, *server, *port, &refused.to_ascii_uppercase())?.is_empty(), "in capitals");
    }
    Ok(())
}

/// Whether a client that sends these pieces, with a pause after each, is answered with anything.
fn answers(lab: &Lab, to: SocketAddr, pieces: &[&[u8]], pause: Duration) -> Result<bool> {
    let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
    lab.pod("curl")?.attachment.namespace.run(move || -> Result<bool> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        for piece in pieces {
            if stream.write_all(&piece).is_err() {
                return Ok(false);
            }
            std::thread::sleep(pause);
        }
        let mut byte = [0];
        Ok(stream.read(&mut byte).is_ok_and(|count| count > 0))
    })?
}

/// The first message of a client of TLS that asks for this name.
fn first_message(name: &str) -> Result<Vec<u8>> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned())?;
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name)?;
    let mut message = Vec::new();
    client.write_tls(&mut message)?;
    Ok(message)
}

/// Every way of not saying a name, or of saying it late, where those that ask for `denied` are refused and all others served.
fn hide(lab: &Lab, to: SocketAddr, denied: &str) -> Result<()> {
    let message = first_message(denied)?;
    let (front, rest) = message.split_at(message.len() / 2);
    let now = Duration::ZERO;
    // Longer than agents wait.
    let late = Duration::from_secs(3);
    let permitted = first_message("permitted.example.org")?;
    ensure!(answers(lab, to, &[&permitted], now)?, "a name that nothing refuses");
    ensure!(!answers(lab, to, &[&message], now)?, "the name");
    let pieces: Vec<&[u8]> = message.chunks(100).collect();
    ensure!(!answers(lab, to, &pieces, Duration::from_millis(5))?, "the name in pieces");
    ensure!(
        !answers(lab, to, &[front, rest], late)?,
        "half of the name, and the rest when nobody waits"
    );
    ensure!(!answers(lab, to, &[&[], &message], late)?, "silence, and the name when nobody waits");
    // Two records: the type, the version and the length of each.
    let body = message.get(5..).unwrap_or_default();
    let (one, two) = body.split_at(20);
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).unwrap_or_default().to_be_bytes();
        [&[22, 3, 1], &length[..], part].concat()
    };
    ensure!(!answers(lab, to, &[&record(one), &record(two)], now)?, "the name in two records");
    // What the server would understand, and the agent cannot.
    let odd = [&[22, 3, 9][..], message.get(3..).unwrap_or_default()].concat();
    ensure!(!answers(lab, to, &[&odd], now)?, "another version of records");
    Ok(())
}

#[test]
fn the_server_that_tls_asks_for_decides() -> Result<()> {
    let mut lab = application(&[&services()])?;
    lab.start_agents(AGENTS)?;
    enrol(&mut lab)?;
    serve(&lab, &lab.pod("details-v1")?.attachment.namespace, "left")?;
    serve(&lab, &lab.pod("ratings-v1")?.attachment.namespace, "right")?;
    let (left, right) = (lab.service("bookinfo", "left")?[0], lab.service("bookinfo", "right")?[0]);
    let all =
        [(left, 443, "left"), (right, 443, "right"), (left, 444, "left"), (right, 444, "right")];
    // The policies of the pods themselves, by the server's port.
    lab.manifests.apply(&policy("bookinfo", "", "ALLOW", "'*.example.org'"))?;
    expect(&lab, &all, "cart.example.org", "cart.example.com")?;
    let by_address = lab.curl("curl", &["--insecure", &format!("https://{left}/")])?;
    ensure!(by_address.status == 0, "an address is no name: {by_address:?}");
    ensure!(lab.curl("curl", &[&format!("http://{left}:443/")])?.status == 0, "no TLS");
    let since = lab.moment()?;
    ensure!(ask(&lab, left, 443, "cart.example.com")?.is_empty());
    wait::until("a line of the log that names the server", || {
        let lines = lab.lines_since(&since);
        let named = |line: &str| {
            line.contains("dst.server_name=\"cart.example.com\"")
                && line.contains("bookinfo/servers")
        };
        Ok(lines.iter().any(|(_, line)| named(line)).then_some(()))
    })?;
    lab.manifests.apply(&policy("bookinfo", "", "DENY", "secret.example.org"))?;
    expect(&lab, &all, "cart.example.org", "secret.example.org")?;
    for (server, port, _) in all {
        hide(&lab, SocketAddr::new(server, port), "secret.example.org")?;
    }
    // A client outside of the mesh.
    let details = lab.address("details-v1")?;
    for (name, status) in [("cart.example.org", 200), ("secret.example.org", 0)] {
        let to = format!("{name}:9443:{details}");
        let url = format!("https://{name}:9443/");
        let arguments = ["--insecure", "--http1.1", "--resolve", &to, &url];
        ensure!(lab.curl("outsider", &arguments)?.status == status, "{name} from outside");
    }
    // Those of a waypoint, by the ports that clients dial.
    lab.manifests.delete(&Key::new("AuthorizationPolicy", "bookinfo", "servers"))?;
    lab.manifests.apply(WAYPOINT)?;
    let label = ["istio.io/use-waypoint=waypoint"];
    lab.manifests.label(&Key::new("Namespace", "", "bookinfo"), &label)?;
    let target = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]";
    lab.manifests.apply(&policy("bookinfo", target, "DENY", "secret.example.org"))?;
    expect(&lab, &all, "cart.example.org", "secret.example.org")?;
    for (server, port, _) in all {
        hide(&lab, SocketAddr::new(server, port), "secret.example.org")?;
    }
    Ok(())
}

/// A server outside of the mesh, behind a waypoint.
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
metadata: {name: api, namespace: egress}
spec:
  hosts: [api.example.com]
  addresses: [192.0.2.10]
  resolution: STATIC
  ports: [{number: 443, name: tls, protocol: TLS, targetPort: 9443}, {number: 444, name: any, protocol: TCP, targetPort: 9443}, {number: 445, name: auto, targetPort: 9443}]
  endpoints: [{address: 172.30.0.254}]
---
";

#[test]
fn the_server_that_tls_asks_for_decides_of_egress() -> Result<()> {
    let mut lab = application(&[])?;
    lab.start_agents(AGENTS)?;
    enrol(&mut lab)?;
    serve(&lab, lab.network().own(), "outside")?;
    let target = "targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: api}]";
    lab.manifests
        .apply(&(EGRESS.to_owned() + &policy("egress", target, "ALLOW", "'*.example.com'")))?;
    let api: IpAddr = "192.0.2.10".parse()?;
    let all = [(api, 443, "outside"), (api, 444, "outside"), (api, 445, "outside")];
    expect(&lab, &all, "api.example.com", "api.example.org")?;
    lab.manifests.apply(&policy("egress", target, "DENY", "secret.example.org"))?;
    expect(&lab, &all, "api.example.com", "secret.example.org")?;
    for (server, port, _) in all {
        hide(&lab, SocketAddr::new(server, port), "secret.example.org")?;
    }
    Ok(())
}
