//! MeshConfig's `REGISTRY_ONLY` on a cluster, and ways around it: a machine outside of the cluster's pods listens on three ports, of
//! which the registry has one. What counts is what the machine saw, and every way leads there without the setting.

use anyhow::{Context, Result, ensure};

use crate::cluster::{answers, apply, curl, delete, on_node, pod};
use crate::guide::meshed;
use crate::listener::{self, Seen};

const MESH: &str = "\
apiVersion: v1
kind: Namespace
metadata: { name: istio-system }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: istio, namespace: istio-system }
data: { mesh: 'outboundTrafficPolicy: { mode: REGISTRY_ONLY }' }
";

/// The one port of the machine that the registry has for everybody; and the other one, for another namespace.
const ENTRIES: &str = "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: partner, namespace: default }
spec:
  hosts: [partner.example.com]
  addresses: [192.0.2.10]
  resolution: STATIC
  ports: [{ number: 80, name: http, protocol: HTTP }]
  endpoints: [{ address: 10.99.0.1, ports: { http: 9080 } }]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: of-others, namespace: bookinfo }
spec:
  hosts: [others.example.com]
  addresses: [10.99.0.1, 192.0.2.12]
  exportTo: [.]
  resolution: STATIC
  ports: [{ number: 9081, name: http, protocol: HTTP }]
  endpoints: [{ address: 10.99.0.1 }]
";

/// What nobody may reach, on the machine.
const LITERAL: &str = "http://10.99.0.1:9081/";
const CLIENTS: [&str; 2] = ["curl", "far"];

/// All of them lead somewhere under `ALLOW_ANY`.
const WAYS: &[&[&str]] = &[
    &[LITERAL],
    // The kubelet of a node, and the API server by its own address.
    &["-k", "https://10.99.0.12:10250/pods"],
    &["-k", "https://10.99.0.1:6443/version"],
    // Names of the registry that lead elsewhere: DNS rebinding, the `Host` header, the server name in TLS.
    &["--resolve", "partner.example.com:80:10.99.0.1", "http://partner.example.com/"],
    &["--connect-to", "::10.99.0.1:9081", "http://partner.example.com/"],
    &["-H", "Host: partner.example.com", LITERAL],
    &["-k", "--connect-to", "::10.99.0.12:10250", "https://partner.example.com/"],
    &["-k", "--connect-to", "::10.99.0.1:6443", "https://kubernetes.default.svc/version"],
];
/// A port that the entry does not name, and an entry that another namespace keeps to itself.
const PORTS_OF_OTHERS: &[&[&str]] = &[&["http://192.0.2.10:9081/"], &["http://192.0.2.12:9081/"]];

#[test]
fn only_the_registry_is_reached() -> Result<()> {
    meshed()?;
    let seen = Seen::default();
    for port in [80, 9080, 9081] {
        listener::tell(listener::listen_outside(port)?, &seen);
    }
    let outcome = locked(&seen);
    delete(ENTRIES)?;
    // The namespace stays, as other tests leave it.
    delete(MESH.split("---\n").nth(1).context("the ConfigMap")?)?;
    outcome?;
    answers("curl", &[LITERAL], 200).map(drop)
}

fn locked(seen: &Seen) -> Result<()> {
    for client in CLIENTS {
        for way in WAYS {
            let answer = curl(client, way)?;
            ensure!(answer.status != 0, "{client} {way:?}, without the setting: {answer:?}");
        }
    }
    apply(&format!("{ENTRIES}---\n{MESH}"))?;
    for client in CLIENTS {
        answers(client, &["http://192.0.2.10/"], 200)?;
        answers(client, &[LITERAL], 0)?;
    }
    seen.lock().clear();
    ways_around()?;
    let astray: Vec<_> = seen.lock().iter().filter(|port| **port != 9080).copied().collect();
    ensure!(astray.is_empty(), "the machine was reached at {astray:?}");
    the_registry_goes_on()?;
    let metrics = on_node("node1", "curl", &["-fsS", "http://127.0.0.1:15020/metrics"])?;
    let counted = metrics.lines().any(|line| {
        line.starts_with("istio_tcp_connections_failed_total")
            && line.contains("destination_service_name=\"BlackHoleCluster\"")
            && line.contains("response_flags=\"BLACKHOLE\"")
    });
    ensure!(counted, "no connection is counted under the name that sidecars give it");
    Ok(())
}

fn ways_around() -> Result<()> {
    // The name leads to the registry's address at first, and elsewhere when it is resolved again.
    let first = ["--resolve", "partner.example.com:80:192.0.2.10", "http://partner.example.com/"];
    for client in CLIENTS {
        let answer = curl(client, &first)?;
        ensure!(answer.status == 200, "{client} {first:?}: {answer:?}");
        for way in WAYS.iter().chain(PORTS_OF_OTHERS) {
            let answer = curl(client, &[&["--max-time", "3"], *way].concat())?;
            ensure!(answer.status == 0, "{client} {way:?}: {answer:?}");
        }
    }
    Ok(())
}

/// Services, pods, entries, and the API server by its Service.
fn the_registry_goes_on() -> Result<()> {
    let ratings = pod("bookinfo", "app=ratings")?["status"]["podIP"].clone();
    let ratings = format!("http://{}:9080/health", ratings.as_str().context("an address")?);
    for client in CLIENTS {
        for url in ["http://details.bookinfo:9080/details/0", &ratings, "http://192.0.2.10/"] {
            let answer = curl(client, &[url])?;
            ensure!(answer.status == 200, "{client} {url}: {answer:?}");
        }
        let answer = curl(client, &["-k", "https://kubernetes.default.svc/version"])?;
        ensure!(answer.status != 0, "{client}: {answer:?}");
    }
    Ok(())
}
