//! ServiceEntries with the resolution DYNAMIC_DNS: clients choose the names, and whoever answers for a domain the addresses. What
//! counts is what a server outside of the mesh saw, and what others of the node got meanwhile.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::egress::{Seen, listen};
use crate::support::lab::{Lab, private, wait};
use crate::upstream::Upstream;
use crate::{EVIL, application, captured_in, enrol, settle};

/// The machine that joins the nodes.
const OUTSIDE: &str = "172.30.0.254";
const OUTSIDE_V6: &str = "fd30::fe";
/// Nobody is there: only the agent answers DNS.
const NOBODY: &str = "10.96.0.10";
/// More than the names of one workload that are kept.
const MANY: usize = 700;
/// More than the names of one workload that are asked for at a time.
const AT_ONCE: usize = 100;

/// A wildcard, and an entry that another waypoint guards, with a policy that nobody meets.
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
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: strict, namespace: egress}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: All}}}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild, namespace: egress}
spec:
  hosts: ['*.wild.example']
  location: MESH_EXTERNAL
  resolution: DYNAMIC_DNS
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 9080}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: guarded, namespace: egress, labels: {istio.io/use-waypoint: strict}}
spec:
  hosts: [guarded.example]
  addresses: ['fd30::fe']
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 9080, name: http, protocol: HTTP}]
  endpoints: [{address: 'fd30::fe'}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: guarded, namespace: egress}
spec: {targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: guarded}]}
---
";

fn start() -> Result<(Lab, Upstream, Seen)> {
    let mut lab = application(&[EVIL])?;
    std::fs::write("/run/resolv.conf", format!("nameserver {}\n", lab.address("outsider")?))?;
    lab.start_agents(
        "public_service_entries = [\"egress\"]\n[dns]\nresolv_conf = \"/run/resolv.conf\"\n",
    )?;
    enrol(&mut lab)?;
    captured_in(&lab, "evil")?;
    private::set_name_server(NOBODY.parse()?)?;
    let upstream = Upstream::start(&lab.pod("outsider")?.attachment.namespace)?;
    let seen = Seen::default();
    listen(lab.network().own(), "[::]:9080", &seen)?;
    upstream.teach("a.wild.example", OUTSIDE.parse()?);
    lab.manifests.apply(EGRESS)?;
    for client in ["curl", "attacker"] {
        settle(&lab, client, &["http://a.wild.example/"], 200)?;
    }
    Ok((lab, upstream, seen))
}

/// Requests for these hosts over one connection of the attacker's, and the status of each answer.
fn ask(lab: &Lab, hosts: impl Iterator<Item = String> + Send + 'static) -> Result<Vec<u16>> {
    lab.pod("attacker")?.attachment.namespace.run(move || -> Result<Vec<u16>> {
        let mut stream = TcpStream::connect("a.wild.example:80")?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        hosts.map(|host| status(&mut stream, &host).with_context(|| host.clone())).collect()
    })?
}

fn status(stream: &mut TcpStream, host: &str) -> Result<u16> {
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(Ok(0), str::parse)?];
    stream.read_exact(&mut body)?;
    head.get(9..12).context("no status")?.parse().context("the status")
}

/// A client that makes up names below a wildcard, more than are kept, is served with each, and takes nothing from others.
#[test]
fn names_that_a_client_makes_up_take_nothing_from_others() -> Result<()> {
    let (lab, upstream, _) = start()?;
    let name = |number: usize| format!("n-{number}.wild.example");
    (0..MANY).for_each(|number| upstream.teach(&name(number), IpAddr::from([172, 30, 0, 254])));
    let statuses = ask(&lab, (0..MANY).map(name))?;
    ensure!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    // Those that do not exist too.
    let statuses = ask(&lab, (0..MANY).map(|number| format!("none-{number}.wild.example")))?;
    ensure!(statuses.iter().all(|status| *status == 503), "{statuses:?}");
    for host in ["a", "n-1", "n-699"] {
        let answer = lab.curl("curl", &[&format!("http://{host}.wild.example/")])?;
        ensure!(answer.status == 200, "{host}: {answer:?}");
    }
    upstream.end()
}

/// Questions that no resolver answers are of the client that has them asked: others' names are resolved meanwhile.
#[test]
fn questions_without_an_answer_hold_nobody_else_up() -> Result<()> {
    let (lab, upstream, _) = start()?;
    upstream.teach("fresh.wild.example", OUTSIDE.parse()?);
    let statuses = std::thread::scope(|scope| -> Result<Vec<u16>> {
        let asking: Vec<_> = (0..AT_ONCE)
            .map(|number| {
                let lab = &lab;
                scope.spawn(move || {
                    ask(lab, std::iter::once(format!("silent-{number}.wild.example")))
                })
            })
            .collect();
        wait::until("questions to be asked", || {
            let asked = (0..AT_ONCE).filter(|number| {
                upstream.times_asked(&format!("silent-{number}.wild.example")) > 0
            });
            Ok((asked.count() > 1).then_some(()))
        })?;
        let answer = lab.curl("curl", &["http://fresh.wild.example/"])?;
        ensure!(answer.status == 200, "{answer:?}");
        let known = lab.curl("attacker", &["http://a.wild.example/"])?;
        ensure!(known.status == 200, "{known:?}");
        let mut statuses = Vec::new();
        for asked in asking {
            statuses.extend(asked.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        Ok(statuses)
    })?;
    ensure!(statuses.iter().all(|status| *status == 503), "{statuses:?}");
    upstream.end()
}

/// A name whose address changes between the check and the next connection is checked again.
#[test]
fn a_name_that_is_rebound_leads_nowhere_else() -> Result<()> {
    let (lab, upstream, seen) = start()?;
    let url = "http://flip.wild.example/";
    let refused = ["169.254.169.254", "127.0.0.1", "240.240.0.1", OUTSIDE_V6];
    for address in refused {
        upstream.teach("flip.wild.example", OUTSIDE.parse()?);
        settle(&lab, "attacker", &[url], 200)?;
        upstream.teach("flip.wild.example", address.parse()?);
        settle(&lab, "attacker", &[url], 503)?;
        seen.lock().clear();
        for more in
            [&[][..], &["-H", "Host: flip.wild.example."], &["-H", "Host: FLIP.wild.example:9080"]]
        {
            let answer = lab.curl("attacker", &[&[url], more].concat())?;
            ensure!(answer.status == 503, "{address} {more:?}: {answer:?}");
        }
        ensure!(seen.lock().is_empty(), "{address}: {:?}", seen.lock());
    }
    // The same server by the entry that everybody has, whose policy holds.
    let guarded = lab.curl("attacker", &["http://[fd30::fe]:9080/"])?;
    ensure!(guarded.status == 403, "{guarded:?}");
    upstream.end()
}
