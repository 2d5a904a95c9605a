//! A peer that is no agent, with a certificate that the mesh's CA has signed: where it may have its tunnels lead to, and what
//! it may say of itself. The workload's own ports are all that it reaches, as the identity that its certificate names.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use isthmus::quota::messages::{Amount, Joins, Limit, Report};
use isthmus::quota::peers::AUTHORITY;
use prost::Message;

use crate::frames::{self, DATA, END_HEADERS, HEADERS, Peer, RESET, frame, run_in};
use crate::issued::{Wrong, issue, issue_names};
use crate::support::lab::command::run;
use crate::support::lab::manifests::Key;
use crate::support::lab::netns::Namespace;
use crate::support::lab::{Lab, PORT, wait};
use crate::{WAYPOINT, besieged, settle};

pub(crate) const ATTACKER: &str = "spiffe://cluster.local/ns/evil/sa/attacker";
pub(crate) const CURL: &str = "spiffe://cluster.local/ns/default/sa/curl";
pub(crate) const VICTIM: &str = "details-v1";
/// Where those listen whom nobody may reach through the victim.
pub(crate) const SECRET: u16 = 7777;
/// Where clouds answer with credentials.
const METADATA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254));

/// Servers that count who comes.
#[derive(Clone, Default)]
pub(crate) struct Visitors(Arc<AtomicUsize>);

impl Visitors {
    fn listen(&self, namespace: &Namespace, at: SocketAddr) -> Result<()> {
        let listener = namespace.run(|| TcpListener::bind(at))?;
        let listener = listener.with_context(|| format!("{} {at}", namespace.name()))?;
        let count = self.0.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::Relaxed);
                let mut read = [0; 64];
                if stream.read(&mut read).is_ok() {
                    _ = stream.write_all(b"secret");
                }
            }
        });
        Ok(())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that a process in the victim's place could reach, and a peer of its agent may not.
pub(crate) fn secrets(lab: &Lab) -> Result<Visitors> {
    let visitors = Visitors::default();
    let everywhere = |port: u16| SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port);
    let victim = &lab.pod(VICTIM)?.attachment.namespace;
    visitors.listen(victim, SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), SECRET))?;
    visitors.listen(victim, SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), SECRET))?;
    for pod in ["accomplice", "outsider"] {
        visitors.listen(&lab.pod(pod)?.attachment.namespace, everywhere(SECRET))?;
    }
    for node in ["node-a", "node-b"] {
        let node = &lab.node(node)?.namespace;
        node.run(|| run("ip", &["address", "add", &format!("{METADATA}/32"), "dev", "lo"]))??;
        visitors.listen(node, everywhere(SECRET))?;
        visitors.listen(node, SocketAddr::new(METADATA, 80))?;
    }
    Ok(visitors)
}

/// Where tunnels to the victim may not lead.
fn places(lab: &Lab) -> Result<Vec<String>> {
    let own = lab.address(VICTIM)?;
    let IpAddr::V4(v4) = own else { anyhow::bail!("{own} is not IPv4") };
    let agents = [15000, 15001, 15006, 15008, 15020, 15021, 15053];
    let ports = agents.map(|port| format!("{own}:{port}"));
    let loopback = ["127.0.0.1", "127.1", "0.0.0.0", "[::1]", "[::]", "localhost", "2130706433"];
    let loopback = loopback.map(|it| format!("{it}:{SECRET}"));
    let mapped = ["[::ffff:127.0.0.1]", "[::127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]"];
    let mapped = mapped.map(|it| format!("{it}:{SECRET}"));
    let nodes = ["node-a", "node-b"].map(|node| lab.node(node).map(|it| it.addresses));
    let mut all = [&ports[..], &loopback, &mapped].concat();
    for node in nodes {
        all.extend(node?.iter().map(|it| SocketAddr::new(*it, SECRET).to_string()));
    }
    for pod in ["accomplice", "outsider"] {
        let addresses = lab.pod(pod)?.attachment.addresses;
        all.extend(addresses.map(|it| SocketAddr::new(it, SECRET).to_string()));
    }
    let service = lab.service("bookinfo", "details")?;
    all.extend(service.map(|it| SocketAddr::new(it, PORT).to_string()));
    all.extend([
        format!("{METADATA}:80"),
        format!("[::ffff:{METADATA}]:80"),
        format!("details.bookinfo:{PORT}"),
        format!("user@{own}:{PORT}"),
        format!("{own}:{PORT}:80"),
        format!("{own}:{PORT}, {METADATA}:80"),
        format!("{own}:0"),
        format!("{own}:{}", u32::from(PORT) + 65_536),
        format!("{own}:{PORT}/"),
        format!("{own}"),
        format!(":{PORT}"),
        format!("{}:{PORT}", u32::from(v4)),
        String::new(),
    ]);
    Ok(all)
}

#[test]
fn a_tunnel_leads_to_its_workload_and_nowhere_else() -> Result<()> {
    let lab = besieged(&[])?;
    let visitors = secrets(&lab)?;
    let to = SocketAddr::new(lab.address(VICTIM)?, 15008);
    // Who is in the victim's place does reach all of that: the attack can succeed.
    let victim = &lab.pod(VICTIM)?.attachment.namespace;
    for place in [format!("127.0.0.1:{SECRET}"), format!("{METADATA}:80")] {
        victim.run(|| std::net::TcpStream::connect(&place))?.context(place)?;
    }
    wait::until("those visits to be counted", || Ok((visitors.count() == 2).then_some(())))?;
    let certificate = issue(&lab, ATTACKER, Wrong::Nothing)?;
    let (places, own) = (places(&lab)?, lab.pod(VICTIM)?.attachment.addresses);
    run_in(&lab.pod("outsider")?.attachment.namespace, || async {
        for place in &places {
            let mut peer = Peer::connect(to, &certificate).await?;
            // What is no authority at all may end the connection.
            let opened = peer.open(1, place).await.unwrap_or(false);
            ensure!(!opened, "a tunnel to {place:?} was opened");
        }
        let mut peer = Peer::connect(to, &certificate).await?;
        for (number, address) in own.into_iter().enumerate() {
            let (stream, place) = (2 * number as u32 + 1, SocketAddr::new(address, PORT));
            ensure!(peer.open(stream, &place.to_string()).await?, "{place} is the victim's own");
        }
        Ok(())
    })?;
    ensure!(visitors.count() == 2, "{} visits too many", visitors.count() - 2);
    settle(&lab, "curl", &["http://details.bookinfo:9080/details/0"], 200)?;
    Ok(())
}

/// Only `curl` may speak with `details`, by a policy of its Service and one of the workload.
pub(crate) const GUARD: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: details, namespace: bookinfo}
spec:
  targetRefs: [{group: '', kind: Service, name: details}]
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/curl]}}]
";
/// A Service of the attacker's with the victim's pods would take a slice; one without endpoints does not.
const DECOY: &str = "
apiVersion: v1
kind: Service
metadata: {name: decoy, namespace: evil}
spec:
  selector: {app: nobody}
  ports: [{name: http, port: 9080}]
";

/// Fields that a peer may add to its CONNECT, each a lie.
fn lies() -> Vec<Vec<(&'static str, String)>> {
    let baggage = "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=curl,service.name=curl";
    let forwarded = [
        "host=decoy.evil.svc.cluster.local",
        "host=reviews.bookinfo.svc.cluster.local",
        "host=details.bookinfo.svc.cluster.local",
        "host=nobody.nowhere.svc.cluster.local",
        "for=127.0.0.1;host=\"decoy.evil\";proto=https",
        "host=",
        "host=a,host=b",
        "\u{1}",
    ];
    let mut lies: Vec<Vec<(&str, String)>> =
        forwarded.iter().map(|it| vec![("forwarded", (*it).to_owned())]).collect();
    lies.push(vec![("baggage", baggage.to_owned())]);
    lies.push(vec![("x-forwarded-client-cert", format!("By={CURL};URI={CURL}"))]);
    lies.push(vec![("x-forwarded-for", "127.0.0.1".to_owned())]);
    lies.push(vec![("source", "curl.default".to_owned()), ("x-istio-principal", CURL.to_owned())]);
    lies.push(vec![(
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
    )]);
    lies.push(vec![
        ("forwarded", "host=decoy.evil.svc.cluster.local".to_owned()),
        ("forwarded", "host=details.bookinfo.svc.cluster.local".to_owned()),
        ("baggage", baggage.to_owned()),
    ]);
    lies
}

/// A CONNECT with these fields.
fn connect(authority: &str, fields: &[(&str, String)]) -> Vec<u8> {
    let mut block = frames::connect(authority);
    for (name, value) in fields {
        block.extend([0, name.len() as u8]);
        block.extend(name.as_bytes());
        // Lengths from 127 take more than seven bits.
        let length = value.len();
        match length {
            0..127 => block.push(length as u8),
            _ => block.extend([0x7f, (length - 127) as u8]),
        }
        block.extend(value.as_bytes());
    }
    block
}

/// Opens a tunnel with `fields`, and sends a request through it. The beginning of its answer, unless the tunnel is refused or
/// ends without one.
pub async fn exchange(
    peer: &mut Peer,
    stream: u32,
    authority: &str,
    fields: &[(&str, String)],
    request: impl AsRef<[u8]>,
) -> Result<Option<Vec<u8>>> {
    peer.send(&frame(HEADERS, END_HEADERS, stream, &connect(authority, fields))).await?;
    let answers =
        |frame: &frames::Frame| frame.stream == stream && [HEADERS, RESET].contains(&frame.kind);
    let answer = peer.until(answers).await?.context("the connection ended")?;
    if answer.kind == RESET || answer.payload.first() != Some(&0x88) {
        return Ok(None);
    }
    peer.send(&frame(DATA, 0, stream, request.as_ref())).await?;
    let answers =
        |frame: &frames::Frame| frame.stream == stream && [DATA, RESET].contains(&frame.kind);
    let answer = peer.until(answers).await?;
    Ok(answer.filter(|it| it.kind == DATA).map(|it| it.payload))
}

/// Whether the application answered a request.
async fn served(
    peer: &mut Peer,
    stream: u32,
    authority: &str,
    fields: &[(&str, String)],
    path: &str,
) -> Result<bool> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: details\r\nx-envoy-external-address: 127.0.0.1\r\n\r\n"
    );
    let answer = exchange(peer, stream, authority, fields, request).await?;
    Ok(answer.is_some_and(|it| it.starts_with(b"HTTP/1.1 200")))
}

#[test]
fn what_a_peer_says_of_itself_opens_nothing() -> Result<()> {
    let mut lab = besieged(&[WAYPOINT, GUARD, DECOY])?;
    let namespace = Key::new("Namespace", "", "bookinfo");
    lab.manifests.label(&namespace, &["istio.io/use-waypoint=waypoint"])?;
    settle(&lab, "attacker", &["http://details.bookinfo:9080/details/0"], 403)?;
    settle(&lab, "curl", &["http://details.bookinfo:9080/details/0"], 200)?;
    let own = lab.address(VICTIM)?;
    let (to, authority) = (SocketAddr::new(own, 15008), format!("{own}:{PORT}"));
    let (attacker, curl) =
        (issue(&lab, ATTACKER, Wrong::Nothing)?, issue(&lab, CURL, Wrong::Nothing)?);
    run_in(&lab.pod("outsider")?.attachment.namespace, || async {
        for fields in std::iter::once(Vec::new()).chain(lies()) {
            let mut peer = Peer::connect(to, &attacker).await?;
            let served = served(&mut peer, 1, &authority, &fields, "/details/0?lie").await;
            ensure!(!served.unwrap_or(false), "{fields:?}: it was served");
            // The one who may is served, whatever else is said.
            let mut peer = Peer::connect(to, &curl).await?;
            let served = self::served(&mut peer, 1, &authority, &fields, "/details/0").await;
            println!("curl {fields:?}: {served:?}");
            ensure!(!fields.is_empty() || served?, "curl was not served");
        }
        Ok(())
    })?;
    let log = lab.pod_log(VICTIM)?;
    ensure!(!log.contains("lie"), "the application saw it: {log}");
    Ok(())
}

/// Where the nodes of a Service meet that share its limits: a name that is proven elsewhere than where its pod is speaks for no node.
#[test]
fn a_stolen_name_speaks_for_no_node() -> Result<()> {
    let lab = besieged(&[])?;
    let to = SocketAddr::new(lab.address(VICTIM)?, 15008);
    let limit = Limit {
        number: 1,
        namespace: "bookinfo".to_owned(),
        service: "details".to_owned(),
        policy_namespace: "bookinfo".to_owned(),
        policy: "limit".to_owned(),
        name: "shared".to_owned(),
        tokens: 10,
        interval: 1_000_000_000,
        burst: 10,
    };
    let report = Report {
        number: 1,
        joins: Some(Joins { limits: vec![limit] }),
        wants: vec![Amount { limit: 1, key: 7, amount: 1_000 }],
        ..Report::default()
    };
    let report = report.encode_to_vec();
    let message = [&u32::try_from(report.len())?.to_be_bytes()[..], &report].concat();
    for name in [ATTACKER, "spiffe://cluster.local/ns/bookinfo/sa/bookinfo-details"] {
        let certificate = issue(&lab, name, Wrong::Nothing)?;
        let answer = run_in(&lab.pod("outsider")?.attachment.namespace, || async {
            let mut peer = Peer::connect(to, &certificate).await?;
            exchange(&mut peer, 1, AUTHORITY, &[], &message).await
        })?;
        ensure!(answer.is_none(), "{name} was answered: {answer:?}");
    }
    settle(&lab, "curl", &["http://details.bookinfo:9080/details/0"], 200)?;
    Ok(())
}

/// Names that somebody could take for `curl`'s.
const LOOK_ALIKES: [&str; 12] = [
    "spiffe://cluster.local/ns/default/sa/curl/",
    "spiffe://cluster.local//ns/default/sa/curl",
    "spiffe://cluster.local/ns/default/sa/Curl",
    "spiffe://cluster.local/ns/default/sa/curl%00",
    "spiffe://cluster.local/ns/default/sa/%63url",
    "spiffe://cluster.local/ns/evil/../default/sa/curl",
    "spiffe://cluster.local/ns/evil/sa/attacker/ns/default/sa/curl",
    "spiffe://cluster.local/ns/default/sa/curl?x",
    "spiffe://cluster.local/ns/default/sa/curl#x",
    "spiffe://cluster.local:443/ns/default/sa/curl",
    "spiffe://x@cluster.local/ns/default/sa/curl",
    "https://cluster.local/ns/default/sa/curl",
];

#[test]
fn a_certificate_names_one_workload_exactly() -> Result<()> {
    let mut lab = besieged(&[WAYPOINT, GUARD])?;
    let namespace = Key::new("Namespace", "", "bookinfo");
    lab.manifests.label(&namespace, &["istio.io/use-waypoint=waypoint"])?;
    settle(&lab, "attacker", &["http://details.bookinfo:9080/details/0"], 403)?;
    settle(&lab, "curl", &["http://details.bookinfo:9080/details/0"], 200)?;
    let own = lab.address(VICTIM)?;
    let (to, authority) = (SocketAddr::new(own, 15008), format!("{own}:{PORT}"));
    let mut chains: Vec<Vec<&str>> = LOOK_ALIKES.iter().map(|it| vec![*it]).collect();
    chains.extend([vec![ATTACKER, CURL], vec![CURL, ATTACKER], vec![]]);
    for names in chains {
        let certificate = issue_names(&lab, &names, Wrong::Nothing)?;
        let served = run_in(&lab.pod("outsider")?.attachment.namespace, || async {
            let mut peer = Peer::connect(to, &certificate).await?;
            served(&mut peer, 1, &authority, &[], "/details/0?lie").await
        });
        println!("{names:?}: {served:?}");
        ensure!(!served.unwrap_or(false), "{names:?}: it was served");
    }
    let log = lab.pod_log(VICTIM)?;
    ensure!(!log.contains("lie"), "the application saw it: {log}");
    let certificate = issue(&lab, CURL, Wrong::Nothing)?;
    let served = run_in(&lab.pod("outsider")?.attachment.namespace, || async {
        let mut peer = Peer::connect(to, &certificate).await?;
        served(&mut peer, 1, &authority, &[], "/details/0").await
    })?;
    ensure!(served, "curl's own certificate is not taken");
    Ok(())
}
