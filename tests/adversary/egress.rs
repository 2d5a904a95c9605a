//! Ways around REGISTRY_ONLY. A machine outside of the mesh listens on two ports, of which the registry has one for the
//! attacker. What counts is what the machine saw; a client under ALLOW_ANY reaches everything by the same ways.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use anyhow::{Result, ensure};
use parking_lot::Mutex;

use crate::recorder::Raw;
use crate::support::lab::manifests::Key;
use crate::support::lab::netns::Namespace;
use crate::support::lab::{Lab, wait};
use crate::{besieged, settle};

/// What the registry has for the attacker, and what it has for others. Two entries stand behind a waypoint, which parses HTTP.
const REGISTRY: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: partner, namespace: evil}
spec:
  hosts: [partner.example.com]
  addresses: [192.0.2.10]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 172.30.0.254, ports: {http: 9080}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: network, namespace: evil}
spec:
  hosts: [network.example.com]
  addresses: [172.30.0.254/32, 'fd30::fe/128']
  resolution: NONE
  ports: [{number: 9080, name: tcp, protocol: TCP}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: guarded, namespace: evil, labels: {istio.io/use-waypoint: egress}}
spec:
  hosts: [guarded.example.com]
  addresses: [192.0.2.11]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 172.30.0.254, ports: {http: 9080}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: of-others, namespace: default}
spec:
  hosts: [others.example.com]
  addresses: [192.0.2.12, 172.30.0.254]
  exportTo: ['*']
  resolution: STATIC
  ports: [{number: 9081, name: http, protocol: HTTP}]
  endpoints: [{address: 172.30.0.254}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: egress, namespace: evil}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
";
/// That clients of `default` may do what they like, and the operator's word for everybody else, in this order.
const LOCKED: &str = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: default}
spec: {outboundTrafficPolicy: {mode: ALLOW_ANY}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    outboundTrafficPolicy: {mode: REGISTRY_ONLY}
---
";

/// What came to ports that the registry does not have: the port and the client.
pub(crate) type Seen = Arc<Mutex<Vec<(u16, IpAddr)>>>;

/// Answers each request with 200 and the port that it came to.
pub(crate) fn listen(at: &Namespace, address: &str, seen: &Seen) -> Result<()> {
    let listener = at.run(|| TcpListener::bind(address))??;
    let (port, seen) = (listener.local_addr()?.port(), seen.clone());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let client = stream.peer_addr().map(|it| it.ip().to_canonical());
            seen.lock().extend(client.map(|client| (port, client)));
            thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                    head.push(byte[0]);
                }
                let body = format!("port {port}");
                let length = body.len();
                _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
                );
            });
        }
    });
    Ok(())
}

/// The machine and a node with an open port, the registry, and everybody under the operator's word.
fn locked() -> Result<(Lab, Seen)> {
    let mut lab = besieged(&[])?;
    let seen = Seen::default();
    for address in ["[::]:9080", "[::]:9081"] {
        listen(lab.network().own(), address, &seen)?;
    }
    listen(&lab.node("node-b")?.namespace, "[::]:10250", &seen)?;
    lab.manifests.apply(REGISTRY)?;
    for client in ["attacker", "accomplice"] {
        settle(&lab, client, &["http://192.0.2.11/"], 200)?;
        settle(&lab, client, &["http://172.30.0.254:9081/"], 200)?;
    }
    lab.manifests.apply(LOCKED)?;
    for client in ["attacker", "accomplice"] {
        settle(&lab, client, &["http://172.30.0.254:9081/"], 0)?;
    }
    settle(&lab, "curl", &["http://172.30.0.254:9081/"], 200)?;
    seen.lock().clear();
    Ok((lab, seen))
}

#[test]
fn no_way_leads_out_of_the_registry() -> Result<()> {
    let (lab, seen) = locked()?;
    // What the registry has goes on.
    for url in ["http://192.0.2.10/", "http://192.0.2.11/", "http://172.30.0.254:9080/"] {
        for client in ["attacker", "accomplice"] {
            let answer = lab.curl(client, &[url])?;
            ensure!(answer.body == "port 9080", "{client} {url}: {answer:?}");
        }
    }
    let node = "http://172.30.0.2:10250/";
    let mapped = "http://[::ffff:172.30.0.254]:9081/";
    let refused: &[&[&str]] = &[
        &["http://172.30.0.254:9081/"],
        &["http://[fd30::fe]:9081/"],
        &[mapped],
        &[node],
        // A name of the registry that the client has resolve to another place, or to another port.
        &["--resolve", "partner.example.com:9081:172.30.0.254", "http://partner.example.com:9081/"],
        &["--connect-to", "::172.30.0.254:9081", "http://partner.example.com/"],
        &["-H", "Host: partner.example.com", "http://172.30.0.254:9081/"],
        // Ports that an entry does not name.
        &["http://192.0.2.10:9081/"],
        &["http://192.0.2.11:9081/"],
        // Entries that are others' business, though they ask for everybody.
        &["http://192.0.2.12:9081/"],
        // TLS with the name of an entry.
        &["-k", "--connect-to", "::172.30.0.254:9081", "https://partner.example.com/"],
    ];
    for arguments in refused {
        for client in ["attacker", "accomplice"] {
            let answer = lab.curl(client, &[&["--max-time", "3"], *arguments].concat())?;
            ensure!(answer.status == 0, "{client} {arguments:?}: {answer:?}");
        }
    }
    // At a waypoint the address that was dialled counts, whatever the request says.
    for arguments in [
        &["-H", "Host: 172.30.0.254:9081", "http://192.0.2.11/"][..],
        &["-H", "Host: others.example.com:9081", "http://192.0.2.11/"],
        &["--request-target", "http://172.30.0.254:9081/", "http://192.0.2.11/"],
        &["-X", "CONNECT", "--request-target", "172.30.0.254:9081", "http://192.0.2.11/"],
    ] {
        let answer = lab.curl("attacker", &[&["--max-time", "3"], arguments].concat())?;
        ensure!(!answer.body.contains("9081"), "{arguments:?}: {answer:?}");
    }
    let astray: Vec<_> = seen.lock().iter().filter(|(port, _)| *port != 9080).copied().collect();
    ensure!(astray.is_empty(), "{astray:?}");
    // The same ways are open to who may use them.
    for url in ["http://172.30.0.254:9081/", "http://[fd30::fe]:9081/", mapped, node] {
        let answer = lab.curl("curl", &[url])?;
        ensure!(answer.status == 200, "{url}: {answer:?}");
    }
    is_counted(&lab)
}

/// Under the name that sidecars give such connections.
fn is_counted(lab: &Lab) -> Result<()> {
    let labels = [
        ("reporter", "source"),
        ("source_workload", "attacker"),
        ("destination_service_name", "BlackHoleCluster"),
        ("response_flags", "BLACKHOLE"),
    ];
    let counted = lab.metrics()?.sum("istio_tcp_connections_failed_total", &labels);
    ensure!(counted >= 5.0, "{counted} connections are counted");
    Ok(())
}

/// What was open before the registry lost it, or before the operator's word, does not stay open.
#[test]
fn no_connection_outlives_its_place_in_the_registry() -> Result<()> {
    let mut lab = besieged(&[])?;
    let seen = Seen::default();
    listen(lab.network().own(), "[::]:9080", &seen)?;
    let network = REGISTRY.split("---").nth(1).unwrap_or_default();
    let network = network.replace(", 'fd30::fe/128'", "");
    lab.manifests.apply(&network)?;
    settle(&lab, "attacker", &["http://172.30.0.254:9080/"], 200)?;
    let open = |client: &str, to: &str| Raw::connect(&lab, client, to.parse()?);
    let registered = open("attacker", "172.30.0.254")?;
    let literal = open("attacker", "fd30::fe")?;
    let mut free = open("curl", "fd30::fe")?;
    lab.manifests.apply(LOCKED)?;
    ends(literal)?;
    let entry = Key::new("ServiceEntry", "evil", "network");
    lab.manifests.delete(&entry)?;
    ends(registered)?;
    free.send(b"GET / HTTP/1.1\r\n\r\n")?;
    ensure!(free.head().starts_with("HTTP/1.1 200"), "the other's connection is still open");
    Ok(())
}

/// Waits until the connection has been cut.
fn ends(mut connection: Raw) -> Result<()> {
    wait::until("the connection to be cut", || Ok(connection.is_over().then_some(())))
}
