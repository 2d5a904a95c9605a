//! The DNS stub with real agents: names of the mesh, everything else from a real resolver, over UDP and TCP.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, wait};
use crate::upstream::{Upstream, read_framed, write_framed};
use crate::{bookinfo, captured_in};

/// Nobody is there: only capture can bring an answer.
const NOBODY: &str = "10.96.0.10:53";
const PATIENCE: Duration = Duration::from_secs(8);

fn question(name: &str, kind: RecordType) -> Result<Message> {
    let mut query = Message::new(4711, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name)?, kind));
    Ok(query)
}

fn by_udp(lab: &Lab, name: &str, kind: RecordType) -> Result<Message> {
    let query = question(name, kind)?.to_vec()?;
    lab.pod("curl")?.attachment.namespace.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(NOBODY)?;
        socket.send(&query)?;
        let mut answer = [0; 4096];
        let length = socket.recv(&mut answer).context("no answer")?;
        Ok(Message::from_vec(&answer[..length])?)
    })?
}

fn by_tcp(lab: &Lab, name: &str, kind: RecordType) -> Result<Message> {
    let query = question(name, kind)?.to_vec()?;
    lab.pod("curl")?.attachment.namespace.run(|| {
        let mut stream = TcpStream::connect_timeout(&NOBODY.parse()?, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write_framed(&mut stream, &query)?;
        Ok(Message::from_vec(&read_framed(&mut stream)?)?)
    })?
}

fn addresses(answer: &Message) -> Result<Vec<IpAddr>> {
    if answer.metadata.id != 4711 || answer.metadata.message_type != MessageType::Response {
        bail!("not our answer: {answer:?}");
    }
    let address = |record: &Record| match &record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    Ok(answer.answers.iter().filter_map(address).collect())
}

const V4_ONLY: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: four, namespace: bookinfo}\n\
    spec: {clusterIP: 10.96.44.4, selector: {app: details}, ports: [{port: 9080}]}\n";

/// Trap 21: over TCP, truncated, and no data for a family that a service has not.
#[test]
fn trap_21_names_of_the_mesh_and_of_the_world() -> Result<()> {
    let mut lab = bookinfo()?;
    let resolver: SocketAddr = SocketAddr::new(lab.address("outsider")?, 53);
    std::fs::write("/run/resolv.conf", format!("nameserver {}\n", resolver.ip()))?;
    lab.start_agents("[dns]\nresolv_conf = \"/run/resolv.conf\"\n")?;
    lab.manifests.apply(V4_ONLY)?;
    let key = Key::new("Namespace", "", "default");
    lab.manifests.label(&key, &["istio.io/dataplane-mode=ambient"])?;
    captured_in(&lab, "default")?;
    let upstream = Upstream::start(&lab.pod("outsider")?.attachment.namespace)?;

    let [v4, v6] = lab.service("bookinfo", "details")?;
    let name = "details.bookinfo.svc.cluster.local.";
    assert_eq!(addresses(&by_udp(&lab, name, RecordType::A)?)?, [v4]);
    assert_eq!(addresses(&by_udp(&lab, name, RecordType::AAAA)?)?, [v6]);
    assert_eq!(addresses(&by_tcp(&lab, "details.bookinfo.", RecordType::A)?)?, [v4]);
    wait::until("the new service to be known", || {
        let answer = by_udp(&lab, "four.bookinfo.svc.cluster.local.", RecordType::A)?;
        Ok((!addresses(&answer)?.is_empty()).then_some(()))
    })?;
    for kind in [RecordType::AAAA, RecordType::TXT] {
        let none = by_udp(&lab, "four.bookinfo.svc.cluster.local.", kind)?;
        assert_eq!(none.metadata.response_code, ResponseCode::NoError, "{kind}: it exists");
        assert!(none.answers.is_empty());
    }

    let world = by_udp(&lab, "www.example.test.", RecordType::A)?;
    assert_eq!(addresses(&world)?, ["192.0.2.80".parse::<IpAddr>()?]);
    let world = by_tcp(&lab, "www.example.test.", RecordType::A)?;
    assert_eq!(addresses(&world)?, ["192.0.2.80".parse::<IpAddr>()?]);
    let unknown = by_udp(&lab, "nobody.example.test.", RecordType::A)?;
    assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
    let big = by_udp(&lab, "big.example.test.", RecordType::TXT)?;
    assert!(big.metadata.truncation && big.answers.is_empty());
    assert_eq!(by_tcp(&lab, "big.example.test.", RecordType::TXT)?.answers.len(), 20);

    lab.pod("curl")?.attachment.namespace.run(|| -> Result<()> {
        let noise = UdpSocket::bind("0.0.0.0:0")?;
        for length in [0, 1, 11, 12, 13, 500] {
            noise.send_to(&vec![0xa5; length], NOBODY)?;
        }
        Ok(())
    })??;
    assert_eq!(addresses(&by_udp(&lab, name, RecordType::A)?)?, [v4]);

    upstream.end()?;
    let failed = by_udp(&lab, "www.example.test.", RecordType::A)?;
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(
        addresses(&by_udp(&lab, name, RecordType::A)?)?,
        [v4],
        "the mesh is known all the same"
    );
    let metrics = lab.metrics()?;
    let of = |name: &str| metrics.sum(name, &[("source_canonical_service", "curl")]);
    assert!(of("istio_dns_requests_total") > of("istio_dns_upstream_requests_total"));
    assert!(of("istio_dns_upstream_failures_total") >= 1.0);
    Ok(())
}

/// The annotation says it for one workload, and may change while it runs.
#[test]
fn dns_is_captured_as_the_pod_says() -> Result<()> {
    let mut lab = bookinfo()?;
    let upstream = Upstream::start(&lab.pod("outsider")?.attachment.namespace)?;
    let resolver = SocketAddr::new(lab.address("outsider")?, 53);
    std::fs::write("/run/resolv.conf", format!("nameserver {}\n", resolver.ip()))?;
    lab.start_agents("[dns]\nresolv_conf = \"/run/resolv.conf\"\n")?;
    let key = Key::new("Namespace", "", "default");
    lab.manifests.label(&key, &["istio.io/dataplane-mode=ambient"])?;
    captured_in(&lab, "default")?;
    let name = "details.bookinfo.svc.cluster.local.";
    // The resolver itself is asked, and knows no such name, unless the agent answers in its place.
    let own = |lab: &Lab| -> Result<ResponseCode> {
        let query = question(name, RecordType::A)?.to_vec()?;
        lab.pod("curl")?.attachment.namespace.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect(resolver)?;
            socket.send(&query)?;
            let mut answer = [0; 4096];
            let length = socket.recv(&mut answer).context("no answer")?;
            Ok(Message::from_vec(&answer[..length])?.metadata.response_code)
        })?
    };
    assert_eq!(own(&lab)?, ResponseCode::NoError);
    assert_eq!(upstream.times_asked("details.bookinfo.svc.cluster.local"), 0);
    let pod = Key::new("Pod", "default", "curl");
    for (wanted, expected) in [("false", ResponseCode::NXDomain), ("true", ResponseCode::NoError)] {
        lab.manifests.annotate(&pod, "ambient.istio.io/dns-capture", wanted)?;
        wait::until(&format!("dns-capture to be {wanted}"), || {
            Ok((own(&lab)? == expected).then_some(()))
        })?;
        assert_eq!(lab.rules("curl")?.contains(":15053"), wanted == "true");
        assert!(lab.rules("curl")?.contains(":15001"), "all else is captured as before");
    }
    assert!(upstream.times_asked("details.bookinfo.svc.cluster.local") > 0);
    upstream.end()
}

/// As StatefulSets name their pods.
#[test]
fn pods_of_a_headless_service_have_names_of_their_own() -> Result<()> {
    let mut lab = crate::meshed()?;
    lab.manifests.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: peers, namespace: bookinfo}\n\
         spec: {clusterIP: None, selector: {app: details}, ports: [{port: 9080}]}\n",
    )?;
    lab.manifests.change(&Key::new("Pod", "bookinfo", "details-v1"), |pod| {
        pod["spec"]["hostname"] = "first".into();
        pod["spec"]["subdomain"] = "peers".into();
        Ok(())
    })?;
    let name = "first.peers.bookinfo.svc.cluster.local.";
    let expected = lab.address("details-v1")?;
    wait::until("the pod's name", || {
        Ok((addresses(&by_udp(&lab, name, RecordType::A)?)? == [expected]).then_some(()))
    })
}

/// Nobody else on this network knows the Services.
#[test]
fn ports_of_services_have_places() -> Result<()> {
    let mut lab = crate::meshed()?;
    lab.manifests.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: placed, namespace: bookinfo}\n\
         spec: {clusterIP: 10.96.44.5, selector: {app: details}, ports: [{name: http, port: 9080}]}\n",
    )?;
    let name = "_http._tcp.placed.bookinfo.svc.cluster.local.";
    let answer = wait::until("the place of a port", || {
        let answer = by_udp(&lab, name, RecordType::SRV)?;
        Ok((!answer.answers.is_empty()).then_some(answer))
    })?;
    let place = format!("{name} 30 IN SRV 0 100 9080 placed.bookinfo.svc.cluster.local.");
    assert_eq!(answer.answers[0].to_string(), place);
    let address = "placed.bookinfo.svc.cluster.local. 30 IN A 10.96.44.5";
    assert_eq!(answer.additionals[0].to_string(), address);
    Ok(())
}

/// A Service that says no address, of endpoints that Kubernetes would mirror.
#[test]
fn services_and_endpoints_work_as_they_were_written_for_a_cluster() -> Result<()> {
    let lab = crate::meshed()?;
    let endpoint = lab.address("details-v1")?;
    lab.manifests.write(
        "plain.yaml",
        &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: plain, namespace: bookinfo}}\n\
             spec: {{ports: [{{port: 80}}]}}\n---\n\
             apiVersion: v1\nkind: Endpoints\nmetadata: {{name: plain, namespace: bookinfo}}\n\
             subsets: [{{addresses: [{{ip: \"{endpoint}\"}}], ports: [{{port: 9080}}]}}]\n"
        ),
    )?;
    let address = wait::until("an address of the service", || {
        let answer = by_udp(&lab, "plain.bookinfo.svc.cluster.local.", RecordType::A)?;
        Ok(addresses(&answer)?.first().copied())
    })?;
    crate::settle(&lab, "curl", &[&format!("http://{address}/details/0")], 200).map(drop)
}
