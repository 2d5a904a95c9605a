//! Objects of another namespace that name somebody else's workload: Services with EndpointSlices of their own, entries,
//! consumers' routes. They may restrict their own traffic, and do nothing else.
//!
//! The victim is `details`: its policy admits GET of `/details/*` by way of the waypoint, and never `x-user: root`. Its
//! application would answer `/headers` to anybody.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use anyhow::{Result, ensure};
use parking_lot::Mutex;

use crate::besieged;
use crate::settle;
use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, private};

/// An owner of `evil` on each node; the victim's pod is on node-b.
const ATTACKERS: [&str; 2] = ["attacker", "accomplice"];
const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const WAYPOINT: &str = include_str!("../../config/bookinfo/mesh/waypoint.yaml");
const ONLY_WAYPOINT: &str = include_str!("../../config/bookinfo/mesh/details-only-waypoint.yaml");

const POLICIES: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: details, namespace: bookinfo}
spec:
  targetRefs: [{group: '', kind: Service, name: details}]
  action: ALLOW
  rules:
  - to: [{operation: {methods: [GET], paths: [/details/*]}}]
  - to: [{operation: {methods: [POST], paths: [/grpc.Test/*]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody-is-root, namespace: bookinfo}
spec:
  targetRefs: [{group: '', kind: Service, name: details}]
  action: DENY
  rules:
  - when: [{key: 'request.headers[x-user]', values: [root]}]
  - to: [{operation: {hosts: [admin.internal]}}]
---
";

/// The victim behind its waypoint, and everybody who obeys reaches it.
fn guarded() -> Result<Lab> {
    let mut lab = besieged(&[])?;
    lab.manifests.apply(WAYPOINT)?;
    let key = Key::new("Namespace", "", "bookinfo");
    lab.manifests.label(&key, &["istio.io/use-waypoint=waypoint"])?;
    lab.manifests.apply(POLICIES)?;
    for client in ["curl", "attacker", "accomplice"] {
        settle(&lab, client, &["http://details.bookinfo:9080/health"], 403)?;
        settle(&lab, client, &[DETAILS], 200)?;
    }
    lab.manifests.apply(&service(
        "marker",
        "10.96.66.99",
        "",
        &lab.address("details-v1")?.to_string(),
    ))?;
    known(&lab, "10.96.66.99")?;
    Ok(lab)
}

/// A Service of `evil` and the EndpointSlice with which it claims an address.
pub(crate) fn service(name: &str, vip: &str, labels: &str, endpoint: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\n\
         metadata: {{name: {name}, namespace: evil, labels: {{{labels}}}}}\n\
         spec: {{clusterIP: {vip}, ports: [{{name: http, port: 9080}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}-1, namespace: evil, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: 9080}}]\n\
         endpoints: [{{addresses: ['{endpoint}'], conditions: {{ready: true}}}}]\n---\n"
    )
}

/// Waits until both nodes know what was applied together with a Service of this address that leads to the victim: by it
/// comes what everybody may have.
fn known(lab: &Lab, vip: &str) -> Result<()> {
    for client in ATTACKERS {
        settle(lab, client, &[&format!("http://{vip}:9080/details/0")], 200)?;
    }
    Ok(())
}

/// Applies objects, and waits until both nodes know them.
fn apply(lab: &mut Lab, yaml: &str, nth: u8) -> Result<()> {
    let vip = format!("10.96.66.{}", 100 + nth);
    let address = lab.address("details-v1")?.to_string();
    let marker = service(&format!("marker-{nth}"), &vip, "", &address);
    lab.manifests.apply(yaml)?;
    // Applied later, so known later.
    lab.manifests.apply(&marker)?;
    known(lab, &vip)
}

/// The victim's clients get what they got before, by every way, and never from somebody else.
fn serves_its_clients(lab: &Lab) -> Result<()> {
    let [vip, _] = lab.service("bookinfo", "details")?;
    let pod = lab.address("details-v1")?;
    for client in ["curl", "productpage-v1", "attacker"] {
        for url in [
            DETAILS.to_owned(),
            format!("http://{vip}:9080/details/0"),
            format!("http://{pod}:9080/details/0"),
        ] {
            let answer = lab.curl(client, &[&url])?;
            ensure!(answer.status == 200, "{client} {url}: {answer:?}");
            ensure!(answer.json()["author"].is_string(), "{client} {url}: {answer:?}");
        }
    }
    // Plaintext from outside of the mesh is judged by the same policies.
    let answer = lab.curl("outsider", &[&format!("http://{pod}:9080/details/0")])?;
    ensure!(answer.status == 200, "outsider: {answer:?}");
    Ok(())
}

/// The application never saw what the policy forbids.
fn saw_nothing_forbidden(lab: &Lab) -> Result<()> {
    let log = lab.pod_log("details-v1")?;
    let forbidden =
        log.lines().find(|line| line.contains("/headers") || line.starts_with("DELETE"));
    ensure!(forbidden.is_none(), "the victim saw {forbidden:?}");
    Ok(())
}

fn refused(lab: &Lab, client: &str, arguments: &[&str]) -> Result<()> {
    let answer = lab.curl(client, arguments)?;
    ensure!(matches!(answer.status, 0 | 403), "{client} {arguments:?}: {answer:?}");
    saw_nothing_forbidden(lab)
}

#[test]
fn a_service_with_a_slice_of_its_own_is_no_way_around() -> Result<()> {
    let mut lab = guarded()?;
    let pod = lab.address("details-v1")?.to_string();
    lab.manifests.apply(&WAYPOINT.replace("bookinfo", "evil"))?;
    let bound = "istio.io/use-waypoint: waypoint";
    let missing = "istio.io/use-waypoint: there-is-none";
    let all = service("plain", "10.96.66.1", "", &pod)
        + &service("own", "10.96.66.2", bound, &pod)
        + &service("dos", "10.96.66.3", missing, &pod)
        + &service("bytes", "10.96.66.4", "", &pod).replace("name: http", "name: tcp-bytes");
    apply(&mut lab, &all, 1)?;
    for client in ATTACKERS {
        for vip in 1..=4 {
            for arguments in [&["-X", "DELETE"][..], &["-H", "x-user: root"], &[]] {
                let path = if arguments.contains(&"-H") { "details/0" } else { "headers" };
                let url = format!("http://10.96.66.{vip}:9080/{path}");
                refused(&lab, client, &[arguments, &[&url]].concat())?;
            }
        }
        // What everybody may have comes by the strangers' Services too, unless these forbid it themselves.
        for (vip, status) in [(1, 200), (2, 200), (3, 0), (4, 200)] {
            let answer = lab.curl(client, &[&format!("http://10.96.66.{vip}:9080/details/0")])?;
            assert_eq!(answer.status, status, "{client} {vip}: {answer:?}");
        }
    }
    serves_its_clients(&lab)
}

/// A pod's address in another spelling is that pod's: nobody leaves the tunnel, and with it the identity, on the way there.
#[test]
fn an_address_written_as_ipv6_sheds_no_identity() -> Result<()> {
    let mut lab = guarded()?;
    let pod = format!("::ffff:{}", lab.address("details-v1")?);
    lab.manifests.apply(&service("mapped", "10.96.66.1", "", &pod))?;
    known(&lab, "10.96.66.1")?;
    lab.manifests.apply(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {name: not-evil, namespace: bookinfo}\n\
         spec: {action: DENY, selector: {matchLabels: {app: details}}, \
         rules: [{from: [{source: {namespaces: [evil]}}]}]}\n---\n",
    )?;
    for client in ATTACKERS {
        settle(&lab, client, &[DETAILS], 403)?;
        refused(&lab, client, &["http://10.96.66.1:9080/details/0"])?;
    }
    assert_eq!(lab.curl("curl", &[DETAILS])?.status, 200, "nobody else is meant");
    Ok(())
}

/// A policy that admits only what came by way of the waypoint: whoever comes by another Service carries no principal of it.
#[test]
fn no_stranger_lends_the_waypoints_principal() -> Result<()> {
    let mut lab = guarded()?;
    let pod = lab.address("details-v1")?.to_string();
    // One that everybody may use.
    let open = "\n    allowedRoutes: {namespaces: {from: All}}\n";
    lab.manifests.apply(&(WAYPOINT.trim_end().to_owned() + open))?;
    lab.manifests.apply(ONLY_WAYPOINT)?;
    settle(&lab, "curl", &[&format!("http://{pod}:9080/details/0")], 403)?;
    lab.manifests.apply(&WAYPOINT.replace("bookinfo", "evil"))?;
    let bound = "istio.io/use-waypoint: waypoint";
    let borrowed = "istio.io/use-waypoint: waypoint, istio.io/use-waypoint-namespace: bookinfo";
    let entry = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
         metadata: {{name: e, namespace: evil, labels: {{{bound}}}}}\n\
         spec: {{hosts: [details.bookinfo.svc.cluster.local], addresses: [10.96.66.3], resolution: STATIC, \
         ports: [{{number: 9080, name: http, protocol: HTTP}}], endpoints: [{{address: {pod}}}]}}\n---\n"
    );
    let all = service("own", "10.96.66.1", bound, &pod)
        + &service("borrowed", "10.96.66.2", borrowed, &pod)
        + &entry;
    lab.manifests.apply(&all)?;
    for client in ATTACKERS {
        settle(&lab, client, &["http://10.96.66.1:9080/details/0"], 403)?;
        settle(&lab, client, &["http://10.96.66.2:9080/details/0"], 403)?;
        // The entry has the name of the Service itself, which anybody may address: its policies, and all of them.
        refused(&lab, client, &["http://10.96.66.3:9080/headers"])?;
        assert_eq!(lab.curl(client, &[DETAILS])?.status, 200, "by the victim's own Service");
    }
    Ok(())
}

/// What entries of `evil` claim is nothing to clients of other namespaces, neither by address nor by name.
#[test]
fn entries_capture_nothing_of_others() -> Result<()> {
    let mut lab = guarded()?;
    let [vip, vip6] = lab.service("bookinfo", "details")?;
    let pod = lab.address("details-v1")?;
    let accomplice = lab.address("accomplice")?;
    let entry = |name: &str, spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
             metadata: {{name: {name}, namespace: evil}}\n\
             spec: {{exportTo: ['*'], ports: [{{number: 9080, name: http, protocol: HTTP}}], {spec}}}\n---\n"
        )
    };
    let to_evil = format!("resolution: STATIC, endpoints: [{{address: {accomplice}}}]");
    let to_victim = format!("resolution: STATIC, endpoints: [{{address: {pod}}}]");
    let all = entry(
        "steal",
        &format!(
            "hosts: [details.bookinfo.svc.cluster.local], addresses: ['{vip}', '{vip6}', '{pod}'], {to_evil}"
        ),
    ) + &entry(
        "wide",
        &format!("hosts: [wide.example], addresses: [10.0.0.0/8, 172.16.0.0/12], {to_evil}"),
    ) + &entry("wild", &format!("hosts: ['*.svc.cluster.local', '*.local'], {to_evil}"))
        + &entry("name", &format!("hosts: [name.example], {to_victim}"))
        + &entry(
            "selected",
            "hosts: [selected.example], addresses: [192.0.2.66], resolution: STATIC, \
                              workloadSelector: {labels: {app: liar}}",
        )
        + &format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
             metadata: {{name: liar, namespace: evil}}\n\
             spec: {{address: {pod}, serviceAccount: attacker, labels: {{app: liar}}}}\n---\n"
        );
    apply(&mut lab, &all, 1)?;
    serves_its_clients(&lab)?;
    for client in ATTACKERS {
        settle(&lab, client, &["http://192.0.2.66:9080/details/0"], 200)?;
        refused(&lab, client, &["http://192.0.2.66:9080/headers"])?;
    }
    // With nothing but the agent to ask for names. `evil` sees its own entries, and nobody else does.
    private::set_name_server("10.96.0.10".parse()?)?;
    for client in ATTACKERS {
        settle(&lab, client, &["http://name.example:9080/details/0"], 200)?;
        refused(&lab, client, &["http://name.example:9080/headers"])?;
    }
    for client in ["curl", "productpage-v1"] {
        let short = ["--max-time", "2", "http://name.example:9080/details/0"];
        assert_eq!(lab.curl(client, &short)?.status, 0, "{client} sees an entry of evil");
        assert_eq!(lab.curl(client, &[DETAILS])?.status, 200, "{client}");
    }
    Ok(())
}

/// A route that the client's own namespace attached to the victim's Service.
fn route(kind: &str, namespace: &str, name: &str, rule: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  \
         parentRefs: [{{group: '', kind: Service, name: details, namespace: bookinfo}}]\n  \
         rules: [{rule}]\n---\n"
    )
}

const TO_HEADERS: &str =
    "{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /headers}}}";
const TO_VICTIM: &str = "backendRefs: [{name: details, namespace: bookinfo, port: 9080}]";

#[test]
fn what_a_consumers_route_changes_is_judged_as_it_arrives() -> Result<()> {
    let mut lab = guarded()?;
    let pod = lab.address("details-v1")?.to_string();
    lab.manifests.apply(&service("backdoor", "10.96.66.1", "", &pod))?;
    let root = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-user, value: root}]}}";
    let host = "{type: URLRewrite, urlRewrite: {hostname: admin.internal}}";
    let mirror = "{type: RequestMirror, requestMirror: \
                  {backendRef: {name: details, namespace: bookinfo, port: 9080}}}";
    let by_backdoor = "backendRefs: [{name: backdoor, port: 9080}]";
    let of_backend = format!(
        "backendRefs: [{{name: details, namespace: bookinfo, port: 9080, filters: [{TO_HEADERS}]}}]"
    );
    for rule in [
        format!("{{filters: [{TO_HEADERS}], {TO_VICTIM}}}"),
        format!("{{filters: [{root}], {TO_VICTIM}}}"),
        format!("{{filters: [{host}], {TO_VICTIM}}}"),
        format!("{{filters: [{TO_HEADERS}, {mirror}], {TO_VICTIM}}}"),
        format!("{{filters: [{TO_HEADERS}], {by_backdoor}}}"),
        format!("{{filters: [{root}], {by_backdoor}}}"),
        format!("{{{of_backend}}}"),
    ] {
        lab.manifests.apply(&route("HTTPRoute", "evil", "steal", &rule))?;
        for client in ATTACKERS {
            settle(&lab, client, &[DETAILS], 403)?;
        }
        saw_nothing_forbidden(&lab)?;
        assert_eq!(lab.curl("curl", &[DETAILS])?.status, 200, "others' routes are theirs");
    }
    lab.manifests.delete(&Key::new("HTTPRoute", "evil", "steal"))?;
    let call = ["--http2-prior-knowledge", "-X", "POST", "-H", "content-type: application/grpc"];
    let call = [&call[..], &["http://details.bookinfo:9080/grpc.Test/Get"]].concat();
    settle(&lab, "attacker", &call, 404)?;
    let calls =
        || -> Result<usize> { Ok(lab.pod_log("details-v1")?.matches("/grpc.Test/Get").count()) };
    let seen = calls()?;
    ensure!(seen > 0, "the application sees calls that nobody forbids");
    let grpc = route("GRPCRoute", "evil", "steal", &format!("{{filters: [{root}], {TO_VICTIM}}}"));
    // Applied by hand: `calls` looks at the lab.
    lab.manifests.write("steal.yaml", &grpc)?;
    for client in ATTACKERS {
        let denied = settle(&lab, client, &call, 200)?;
        assert_eq!(denied.header("grpc-status"), Some("7"), "{denied:?}");
    }
    Ok(())
}

/// The same change by a route of the victim's own namespace is what its owner wants.
#[test]
fn a_producers_route_is_judged_as_the_client_sent_it() -> Result<()> {
    let mut lab = guarded()?;
    let rule = format!("{{filters: [{TO_HEADERS}], {TO_VICTIM}}}");
    lab.manifests.apply(&route("HTTPRoute", "bookinfo", "own", &rule))?;
    for client in ["curl", "attacker", "accomplice"] {
        let answer = crate::support::lab::wait::until("the route to hold", || {
            let answer = lab.curl(client, &[DETAILS])?;
            Ok((answer.json()["uri"] == "/headers").then_some(answer))
        })?;
        assert_eq!(answer.status, 200);
        let forbidden = lab.curl(client, &["-X", "DELETE", DETAILS])?;
        assert_eq!(forbidden.status, 403, "{client}");
    }
    Ok(())
}

/// A server outside of the mesh, which remembers the first line of each request.
fn outside(lab: &Lab) -> Result<Arc<Mutex<Vec<String>>>> {
    let listener = lab.network().own().run(|| TcpListener::bind("172.30.0.254:9080"))??;
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = lines.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
            }
            let line = String::from_utf8_lossy(&head).lines().next().map(str::to_owned);
            seen.lock().extend(line);
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
            _ = stream.write_all(answer);
        }
    });
    Ok(lines)
}

/// Where nobody judges at the other end, the client's node does, by the same rule.
#[test]
fn what_leaves_the_mesh_is_judged_as_it_arrives() -> Result<()> {
    let mut lab = guarded()?;
    let seen = outside(&lab)?;
    let machine = service("machine", "10.96.66.5", "", "172.30.0.254")
        .replace("namespace: evil", "namespace: bookinfo");
    let policy = POLICIES
        .replace("name: details", "name: machine")
        .replace("name: nobody-is-root", "name: machine-root");
    lab.manifests.apply(&(machine + &policy))?;
    let url = "http://10.96.66.5:9080/details/0";
    for client in ATTACKERS {
        settle(&lab, client, &[url], 200)?;
        settle(&lab, client, &["http://10.96.66.5:9080/headers"], 403)?;
    }
    let parent = |namespace: &str, name: &str| {
        let rule = format!(
            "{{filters: [{TO_HEADERS}], backendRefs: [{{name: machine, namespace: bookinfo, port: 9080}}]}}"
        );
        let route = route("HTTPRoute", "evil", name, &rule);
        route.replace(
            "name: details, namespace: bookinfo",
            &format!("name: {name}, namespace: {namespace}"),
        )
    };
    // By a route on the Service itself, and by one on a Service of the attacker's.
    lab.manifests.apply(&parent("bookinfo", "machine"))?;
    for client in ATTACKERS {
        settle(&lab, client, &[url], 403)?;
    }
    lab.manifests.apply(&WAYPOINT.replace("bookinfo", "evil"))?;
    let own = service("own", "10.96.66.6", "istio.io/use-waypoint: waypoint", "172.30.0.254");
    lab.manifests.apply(&(own + &parent("evil", "own")))?;
    for client in ATTACKERS {
        settle(&lab, client, &["http://10.96.66.6:9080/details/0"], 403)?;
    }
    let lines = seen.lock().clone();
    ensure!(!lines.is_empty() && !lines.iter().any(|line| line.contains("/headers")), "{lines:?}");
    Ok(())
}
