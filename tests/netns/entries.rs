//! ServiceEntries with real agents: what is outside of the mesh, by name and by address.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;

use crate::support::lab::agents::administer;
use crate::support::lab::manifests::Key;
use crate::support::lab::netns::Namespace;
use crate::support::lab::{Lab, private, wait};
use crate::upstream::Upstream;
use crate::{bookinfo, captured_in, settle};

/// The machine that joins the nodes: an address that is none of a pod's.
const OUTSIDE: &str = "172.30.0.254:9080";
/// Nobody is there: only capture can bring an answer.
const NOBODY: &str = "10.96.0.10";

/// A waypoint for what leaves the mesh.
const EGRESS: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
    metadata: {name: egress, namespace: default}\nspec: {gatewayClassName: istio-waypoint, \
    listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n---\n";
const NO_DELETE_TO_MACHINES: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
    metadata: {name: machines, namespace: default}\nspec:\n  action: DENY\n  \
    targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: machines}]\n  \
    rules: [{to: [{operation: {methods: [DELETE]}}]}]\n---\n";

/// A server that is no part of the mesh; answers every request with 200 and the client's address.
struct Outside {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Outside {
    fn start(namespace: &Namespace, address: &str) -> Result<Self> {
        let listener = namespace.run(|| TcpListener::bind(address))??;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let ends = stop.clone();
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, from)) => _ = std::thread::spawn(move || answer(stream, from)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    Err(_) => return,
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, from: SocketAddr) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? > 0 {
        head.push(byte[0]);
    }
    let body = format!("outside, to {}", from.ip());
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// An entry in the clients' namespace.
fn entry(name: &str, labels: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
         metadata: {{name: {name}, namespace: default, labels: {{{labels}}}}}\nspec: {spec}\n---\n"
    )
}

/// Bookinfo, and clients whose names only the agent can resolve. It asks the pod `outsider`.
fn lab() -> Result<(Lab, Outside)> {
    let mut lab = bookinfo()?;
    std::fs::write("/run/resolv.conf", format!("nameserver {}\n", lab.address("outsider")?))?;
    lab.start_agents("[dns]\nresolv_conf = \"/run/resolv.conf\"\n")?;
    for namespace in ["bookinfo", "default"] {
        let key = Key::new("Namespace", "", namespace);
        lab.manifests.label(&key, &["istio.io/dataplane-mode=ambient"])?;
        captured_in(&lab, namespace)?;
    }
    private::set_name_server(NOBODY.parse()?)?;
    let outside = Outside::start(lab.network().own(), OUTSIDE)?;
    Ok((lab, outside))
}

/// How many connections of `curl` to a service the agents have counted, and how they were secured.
fn connections(lab: &Lab, service: &str, name: &str, policy: &str) -> Result<f64> {
    let labels = [
        ("reporter", "source"),
        ("source_workload", "curl"),
        ("destination_service", service),
        ("destination_service_name", name),
        ("connection_security_policy", policy),
    ];
    Ok(lab.metrics()?.sum("istio_tcp_connections_opened_total", &labels))
}

#[test]
fn a_static_entry_is_reached_by_its_names_and_addresses() -> Result<()> {
    let (mut lab, _outside) = lab()?;
    let spec = |hosts: &str, addresses: &str| {
        format!(
            "{{hosts: [{hosts}], addresses: [{addresses}], resolution: STATIC, \
             ports: [{{number: 80, name: http, protocol: HTTP}}], \
             endpoints: [{{address: 172.30.0.254, ports: {{http: 9080}}}}]}}"
        )
    };
    let all = entry("given", "", &spec("db.example.com, other.example.com", "192.0.2.10"))
        + &entry("allotted", "", &spec("auto.example.com", ""))
        + &entry("wild", "", &spec("'*.wild.example.com'", ""))
        + &entry("network", "", &spec("net.example.com", "198.51.100.0/24"));
    lab.manifests.apply(&all)?;
    for host in ["db.example.com", "other.example.com", "auto.example.com", "a.b.wild.example.com"]
    {
        let answer = settle(&lab, "curl", &[&format!("http://{host}/")], 200)?;
        assert_eq!(answer.body, format!("outside, to {}", lab.address("curl")?), "{host}");
    }
    let by_ipv6 = lab.curl("curl", &["-6", "http://auto.example.com/"])?;
    assert_eq!(by_ipv6.status, 200, "one family is enough for the endpoint: {by_ipv6:?}");
    for address in ["192.0.2.10", "198.51.100.77"] {
        assert_eq!(lab.curl("curl", &[&format!("http://{address}/")])?.status, 200, "{address}");
    }
    let refused = lab.curl("curl", &["http://192.0.2.10:81/"])?;
    assert_eq!(refused.status, 0, "the entry has no such port: {refused:?}");
    assert_eq!(lab.curl("curl", &["--max-time", "2", "http://unknown.example.com/"])?.status, 0);
    assert!(connections(&lab, "db.example.com", "given", "unknown")? >= 2.0);
    assert!(connections(&lab, "net.example.com", "network", "unknown")? >= 1.0);
    Ok(())
}

#[test]
fn an_entry_without_resolution_passes_to_what_was_dialled() -> Result<()> {
    let (mut lab, _outside) = lab()?;
    let spec = "{hosts: [machines.example.com], addresses: [172.30.0.0/24], \
                ports: [{number: 9080, name: http, protocol: HTTP}]}";
    lab.manifests.apply(&entry("machines", "", spec))?;
    let url = format!("http://{OUTSIDE}/");
    wait::until("the entry to be known", || {
        assert_eq!(lab.curl("curl", &[&url])?.status, 200, "it is reached all the time");
        let counted = connections(&lab, "machines.example.com", "machines", "unknown")?;
        Ok((counted > 0.0).then_some(()))
    })?;

    // Behind a waypoint only the ports that it names, and what the policies let pass.
    let guarded = entry("machines", "istio.io/use-waypoint: egress", spec);
    lab.manifests.apply(&(EGRESS.to_owned() + &guarded))?;
    lab.manifests.apply(NO_DELETE_TO_MACHINES)?;
    settle(&lab, "curl", &["-X", "DELETE", &url], 403)?;
    assert_eq!(lab.curl("curl", &[&url])?.status, 200);
    let readiness = format!("http://{}:15021/healthz/ready", lab.node("node-b")?.addresses[0]);
    assert_eq!(lab.curl("curl", &[&readiness])?.status, 0);
    Ok(())
}

/// A workload of the mesh is never reached in the clear, whatever an entry calls it.
#[test]
fn an_endpoint_in_the_mesh_is_reached_through_a_tunnel() -> Result<()> {
    let (mut lab, _outside) = lab()?;
    let address = lab.address("details-v1")?;
    let spec = format!(
        "{{hosts: [details.example.com], resolution: STATIC, \
         ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 9080}}], \
         endpoints: [{{address: {address}}}]}}"
    );
    lab.manifests.apply(&entry("details", "", &spec))?;
    let url = "http://details.example.com/details/0";
    settle(&lab, "curl", &[url], 200)?;
    let capture = lab.capture("node-a")?;
    assert_eq!(lab.curl("curl", &[url])?.status, 200);
    let captured = capture.finish(lab.node("node-a")?, lab.node("node-b")?)?;
    assert!(!captured.contains("GET /details/0"), "in the clear between the nodes");
    assert!(captured.packets_by_port().contains_key(&15008));
    assert!(connections(&lab, "details.example.com", "details", "mutual_tls")? >= 2.0);
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                  metadata: {name: default, namespace: bookinfo}\nspec: {mtls: {mode: STRICT}}\n";
    lab.manifests.apply(strict)?;
    settle(&lab, "outsider", &["http://details.bookinfo:9080/details/0"], 0)?;
    assert_eq!(lab.curl("curl", &[url])?.status, 200);
    Ok(())
}

/// Connections of `stranger` to the entry's ports that are not HTTP, open from end to end.
fn open_connections(lab: &Lab) -> Result<Vec<TcpStream>> {
    let opened = || -> Result<f64> {
        let labels = [("destination_service", "api.example.com")];
        Ok(lab.metrics()?.sum("istio_tcp_connections_opened_total", &labels))
    };
    let before = opened()?;
    let namespace = &lab.pod("stranger")?.attachment.namespace;
    let mut open = Vec::new();
    for port in [81, 82] {
        let to = SocketAddr::new("192.0.2.20".parse()?, port);
        let mut stream = namespace.run(|| TcpStream::connect(to))??;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"\x16\x03\x01 bytes without an end\n")?;
        open.push(stream);
    }
    wait::until("both to be open", || Ok((opened()? >= before + 2.0).then_some(())))?;
    Ok(open)
}

/// Nobody judges at a destination outside of the mesh, so the client's node does both halves.
#[test]
fn a_waypoint_guards_what_leaves_the_mesh() -> Result<()> {
    let (mut lab, _outside) = lab()?;
    let spec = "{hosts: [api.example.com], addresses: [192.0.2.20], resolution: STATIC, \
        ports: [{number: 80, name: http, protocol: HTTP}, {number: 81, name: tcp, protocol: TCP}, \
        {number: 82, name: any}], \
        endpoints: [{address: 172.30.0.254, ports: {http: 9080, tcp: 9080, any: 9080}}]}";
    lab.manifests.apply(EGRESS)?;
    lab.manifests.apply(&entry("api", "istio.io/use-waypoint: egress", spec))?;
    let url = "http://api.example.com/";
    settle(&lab, "curl", &[url], 200)?;
    let policy = |action: &str, rule: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: api, namespace: default}}\nspec:\n  action: {action}\n  \
             targetRefs: [{{group: networking.istio.io, kind: ServiceEntry, name: api}}]\n  rules: [{rule}]\n"
        )
    };
    lab.manifests.apply(&policy("DENY", "{to: [{operation: {methods: [DELETE]}}]}"))?;
    settle(&lab, "curl", &["-X", "DELETE", url], 403)?;
    assert_eq!(lab.curl("curl", &[url])?.status, 200);
    let stranger = "{from: [{source: {principals: [cluster.local/ns/default/sa/stranger]}}]}";
    lab.manifests.apply(&policy("ALLOW", stranger))?;
    settle(&lab, "curl", &[url], 403)?;
    assert_eq!(lab.curl("stranger", &[url])?.status, 200);
    let bytes = "http://api.example.com:81/";
    assert_eq!(lab.curl("curl", &[bytes])?.status, 0, "bytes are judged as well");
    assert_eq!(lab.curl("stranger", &[bytes])?.status, 200);

    let audit = policy("AUDIT", stranger).replace("name: api, namespace", "name: audit, namespace");
    lab.manifests.apply(&audit)?;
    wait::until("the audit of bytes to be noted", || {
        assert_eq!(lab.curl("stranger", &[bytes])?.status, 200);
        let noted = lab.metrics()?.sum("isthmus_policy_notes_total", &[("policy_name", "audit")]);
        Ok((noted >= 1.0).then_some(()))
    })?;

    let mut open = open_connections(&lab)?;
    let since = lab.moment()?;
    let other = "{from: [{source: {principals: [cluster.local/ns/default/sa/other]}}]}";
    lab.manifests.apply(&policy("ALLOW", other))?;
    for stream in &mut open {
        let ended = stream.read(&mut [0; 16]);
        let late = matches!(&ended, Err(error) if error.kind() == ErrorKind::WouldBlock);
        assert!(!late && !matches!(ended, Ok(1..)), "still open: {ended:?}");
    }
    wait::until("both cuts to be logged", || {
        let lines = lab.lines_since(&since);
        let cut = lines.iter().filter(|(_, line)| line.contains("cut after a change"));
        Ok((cut.count() >= 2).then_some(()))
    })
}

/// A policy with targets means the port that clients dial: where the destination judges, and where the client's node does;
/// also for who dials the pod.
#[test]
fn a_policy_means_the_port_that_was_dialled() -> Result<()> {
    let (mut lab, _outside) = lab()?;
    lab.manifests.apply(EGRESS)?;
    let spec = "{hosts: [api.example.com], addresses: [192.0.2.20], resolution: STATIC, \
        ports: [{number: 80, name: http, protocol: HTTP, targetPort: 9080}, \
        {number: 81, name: http-other, protocol: HTTP, targetPort: 9080}], \
        endpoints: [{address: 172.30.0.254}]}";
    lab.manifests.apply(&entry("api", "istio.io/use-waypoint: egress", spec))?;
    lab.manifests.apply(&EGRESS.replace("namespace: default", "namespace: bookinfo"))?;
    lab.manifests.apply(
        "apiVersion: v1\nkind: Service\n\
         metadata: {name: front, namespace: bookinfo, labels: {istio.io/use-waypoint: egress}}\n\
         spec: {clusterIP: 10.96.77.1, selector: {app: details}, \
         ports: [{name: http, port: 80, targetPort: 9080}]}\n",
    )?;
    let policy = |namespace: &str, target: &str, port: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: port, namespace: {namespace}}}\nspec:\n  action: DENY\n  \
             targetRefs: [{{{target}}}]\n  \
             rules: [{{to: [{{operation: {{ports: ['{port}'], paths: ['/details*', '/']}}}}]}}]\n"
        )
    };
    let to_entry = "group: networking.istio.io, kind: ServiceEntry, name: api";
    let to_front = "kind: Service, name: front";
    let (api, other) = ("http://api.example.com/", "http://api.example.com:81/");
    let front = "http://10.96.77.1/details/0";
    let pod = format!("http://{}:9080/details/0", lab.address("details-v1")?);
    for url in [api, other, front, &pod] {
        settle(&lab, "curl", &[url], 200)?;
    }
    for (port, by_front) in [("80", 403), ("9080", 403), ("443", 200)] {
        lab.manifests.apply(&policy("bookinfo", to_front, port))?;
        settle(&lab, "curl", &[front], by_front)?;
        settle(&lab, "curl", &[&pod], by_front)?;
    }
    for (port, by_api, by_other) in [("80", 403, 200), ("81", 200, 403), ("9080", 403, 403)] {
        lab.manifests.apply(&policy("default", to_entry, port))?;
        settle(&lab, "curl", &[api], by_api)?;
        settle(&lab, "curl", &[other], by_other)?;
    }
    Ok(())
}

/// Of names only the client's own resolvers know.
#[test]
fn endpoints_with_names_are_resolved_for_their_client() -> Result<()> {
    let (mut lab, _outside) = lab()?;
    let upstream = Upstream::start(&lab.pod("outsider")?.attachment.namespace)?;
    let outside: SocketAddr = OUTSIDE.parse()?;
    upstream.teach("edge.example.net", outside.ip());
    upstream.teach("itself.example.com", outside.ip());
    let spec = |hosts: &str, endpoints: &str, resolution: &str| {
        format!(
            "{{hosts: [{hosts}], resolution: {resolution}, endpoints: [{endpoints}], \
             ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 9080}}]}}"
        )
    };
    let all = entry("named", "", &spec("api.example.com", "{address: edge.example.net}", "DNS"))
        + &entry("itself", "", &spec("itself.example.com", "", "DNS_ROUND_ROBIN"))
        + &entry("nobody", "", &spec("nobody.example.com", "{address: gone.example.net}", "DNS"))
        + &entry(
            "alias",
            "",
            &spec("alias.example.com", "{address: details.bookinfo.svc.cluster.local}", "DNS"),
        );
    lab.manifests.apply(&all)?;
    for host in ["api.example.com", "itself.example.com"] {
        let answer = settle(&lab, "curl", &[&format!("http://{host}/")], 200)?;
        assert!(answer.body.starts_with("outside"), "{host}: {answer:?}");
    }
    // A name of the mesh means the Service's endpoints, which are reached through tunnels.
    let alias = "http://alias.example.com/details/0";
    assert_eq!(lab.curl("curl", &[alias])?.status, 200);
    assert!(connections(&lab, "alias.example.com", "alias", "mutual_tls")? >= 1.0);
    let since = lab.moment()?;
    assert_eq!(lab.curl("curl", &["http://nobody.example.com/"])?.status, 0);
    wait::until("a line that says why", || {
        let lines = lab.lines_since(&since);
        let said =
            |line: &str| line.contains("gone.example.net: the resolvers have no address for it");
        Ok(lines.iter().any(|(_, line)| said(line)).then_some(()))
    })?;
    let count = upstream.times_asked("edge.example.net");
    assert!(count >= 1, "its own resolvers were asked");
    let dump = administer(lab.node("node-a")?, &[], "/config_dump")?.json();
    let names = dump["names"].as_array().cloned().unwrap_or_default();
    let edge = names.iter().find(|it| it["name"] == "edge.example.net");
    assert_eq!(edge.map(|it| it["addresses"][0].clone()), Some("172.30.0.254".into()), "{names:?}");

    // Who moves is followed when the answer's time is over, and what was known goes on while nobody answers.
    upstream.teach("edge.example.net", lab.address("details-v1")?);
    let moved = "http://api.example.com/headers";
    wait::until("the new address", || {
        let answer = lab.curl("curl", &[moved])?;
        Ok((answer.json()["pod"] == "details-v1").then_some(()))
    })?;
    assert!(connections(&lab, "api.example.com", "named", "mutual_tls")? >= 1.0, "in the mesh");
    upstream.end()?;
    assert_eq!(lab.curl("curl", &[moved])?.status, 200);
    Ok(())
}

/// The worker of a waypoint resolves as layer 4 does, and judges what it found.
#[test]
fn a_waypoint_resolves_names_too() -> Result<()> {
    let (mut lab, _outside) = lab()?;
    let upstream = Upstream::start(&lab.pod("outsider")?.attachment.namespace)?;
    let outside: SocketAddr = OUTSIDE.parse()?;
    upstream.teach("edge.example.net", outside.ip());
    let spec = "{hosts: [api.example.com], resolution: DNS, endpoints: [{address: edge.example.net}], \
        ports: [{number: 80, name: http, protocol: HTTP, targetPort: 9080}]}";
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
        metadata: {name: api, namespace: default}\nspec:\n  action: DENY\n  \
        targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: api}]\n  \
        rules: [{to: [{operation: {methods: [DELETE]}}]}]\n---\n";
    lab.manifests.apply(EGRESS)?;
    lab.manifests.apply(&entry("api", "istio.io/use-waypoint: egress", spec))?;
    lab.manifests.apply(policy)?;
    let url = "http://api.example.com/";
    settle(&lab, "curl", &[url], 200)?;
    settle(&lab, "curl", &["-X", "DELETE", url], 403)?;

    // Routes of an entry lead to other hosts: here into the mesh.
    let inside = format!(
        "{{hosts: [inside.example.com], resolution: STATIC, endpoints: [{{address: {}}}], \
         ports: [{{number: 80, name: http, targetPort: 9080}}]}}",
        lab.address("details-v1")?
    );
    lab.manifests.apply(&entry("inside", "", &inside))?;
    lab.manifests.apply(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {name: api, namespace: default}\nspec:\n  \
         parentRefs: [{group: networking.istio.io, kind: ServiceEntry, name: api}]\n  rules:\n  \
         - matches: [{path: {value: /headers}}]\n    \
           backendRefs: [{group: networking.istio.io, kind: Hostname, name: inside.example.com, port: 80}]\n  \
         - backendRefs: [{group: networking.istio.io, kind: Hostname, name: api.example.com, port: 80}]\n",
    )?;
    wait::until("the route", || {
        let answer = lab.curl("curl", &["http://api.example.com/headers"])?;
        Ok((answer.json()["pod"] == "details-v1").then_some(()))
    })?;
    assert!(lab.curl("curl", &[url])?.body.starts_with("outside"));
    upstream.end()
}

/// Plaintext reaches the application itself, and tunnels arrive as before: the way back of borrowed addresses
/// stays.
#[test]
fn inbound_capture_is_bypassed_where_the_pod_says_so() -> Result<()> {
    let (mut lab, _outside) = lab()?;
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                  metadata: {name: default, namespace: bookinfo}\nspec: {mtls: {mode: STRICT}}\n";
    lab.manifests.apply(strict)?;
    let url = format!("http://{}:9080/headers", lab.address("details-v1")?);
    settle(&lab, "outsider", &[&url], 0)?;
    let pod = Key::new("Pod", "bookinfo", "details-v1");
    lab.manifests.annotate(&pod, "ambient.istio.io/bypass-inbound-capture", "true")?;
    settle(&lab, "outsider", &[&url], 200)?;
    let through = lab.curl("curl", &[&url])?;
    assert_eq!(through.status, 200, "{through:?}");
    let peer: SocketAddr = through.json()["peer"].as_str().unwrap_or_default().parse()?;
    assert_eq!(peer.ip(), lab.address("curl")?, "the client's address is kept");
    lab.manifests.annotate(&pod, "ambient.istio.io/bypass-inbound-capture", "false")?;
    settle(&lab, "outsider", &[&url], 0)?;
    assert_eq!(lab.curl("curl", &[&url])?.status, 200);
    Ok(())
}
