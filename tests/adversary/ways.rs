//! The ways around a waypoint that users of other meshes report, each tried by whoever must not get through and by who may.
//! One policy is in force throughout: the service account `curl` may GET from `details`, and nobody may do anything else.

mod agents;
mod enrolment;
mod gateways;

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};

use crate::support::lab::command::feed_command;
use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, PORT, process, wait};
use crate::{WAYPOINT, besieged_with, settle};

pub(crate) const DETAILS: &str = "http://details.bookinfo:9080/details/0";
/// Where the application runs.
pub(crate) const VICTIM: &str = "details-v1";
/// A port of every node that leads to the application.
const NODE_PORT: u16 = 30080;

/// Who may do what with the services of bookinfo.
const GUARD: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: details, namespace: bookinfo}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/curl]}}]
    to: [{operation: {methods: [GET]}}]
";

/// More Services for the pods of `details`: one without an address, and one with another.
const OTHER_SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: details-headless, namespace: bookinfo}
spec:
  clusterIP: None
  selector: {app: details}
  ports: [{name: http, port: 9080}]
---
apiVersion: v1
kind: Service
metadata: {name: details-too, namespace: bookinfo}
spec:
  clusterIP: 10.96.0.200
  clusterIPs: [10.96.0.200]
  selector: {app: details}
  ports: [{name: http, port: 80, targetPort: 9080}]
";

/// A client and the method that it asks with.
type Who = (&'static str, &'static str);

/// Who must not get through: of another namespace on either node, of a namespace that is not attacking anybody, outside of
/// the mesh, and the one who may, with what it may not.
pub(crate) const FORBIDDEN: [Who; 6] = [
    ("attacker", "GET"),
    ("accomplice", "GET"),
    ("stranger", "GET"),
    ("outsider", "GET"),
    ("outsider", "DELETE"),
    ("curl", "DELETE"),
];

/// One way to the application.
struct Way {
    name: &'static str,
    /// `host:port` as it is dialled, and the host that is named, if another.
    to: fn(&Lab) -> Result<(String, &'static str)>,
    /// Who may come this way proves who it is; where it cannot, nobody gets through.
    proves: bool,
}

const WAYS: [Way; 8] = [
    Way { name: "service", to: |_| named("details.bookinfo:9080", ""), proves: true },
    Way { name: "pod", to: |lab| dialled(lab.address(VICTIM)?, PORT, ""), proves: true },
    Way {
        name: "pod-ipv6",
        to: |lab| dialled(lab.pod(VICTIM)?.attachment.addresses[1], PORT, ""),
        proves: true,
    },
    Way {
        name: "pod-as-service",
        to: |lab| dialled(lab.address(VICTIM)?, PORT, "ratings.bookinfo"),
        proves: true,
    },
    Way {
        name: "headless",
        to: |lab| dialled(lab.address(VICTIM)?, PORT, "details-headless.bookinfo"),
        proves: true,
    },
    Way { name: "other-service", to: |_| named("10.96.0.200:80", "details-too"), proves: true },
    Way {
        name: "node-port",
        to: |lab| dialled(lab.node("node-b")?.addresses[0], NODE_PORT, "details.bookinfo"),
        proves: false,
    },
    Way {
        name: "node-port-elsewhere",
        to: |lab| dialled(lab.node("node-a")?.addresses[0], NODE_PORT, "details.bookinfo"),
        proves: false,
    },
];

fn named(to: &str, host: &'static str) -> Result<(String, &'static str)> {
    Ok((to.to_owned(), host))
}

fn dialled(ip: IpAddr, port: u16, host: &'static str) -> Result<(String, &'static str)> {
    Ok((SocketAddr::new(ip, port).to_string(), host))
}

/// Bookinfo behind its waypoint, and the policy in force.
pub(crate) fn guarded() -> Result<Lab> {
    guarded_with("")
}

/// The same with more settings of the agents.
pub(crate) fn guarded_with(settings: &str) -> Result<Lab> {
    let mut lab = besieged_with(&[WAYPOINT, GUARD], settings)?;
    lab.manifests.label(&bookinfo(), &["istio.io/use-waypoint=waypoint"])?;
    in_force(&lab)?;
    Ok(lab)
}

pub(crate) fn bookinfo() -> Key {
    Key::new("Namespace", "", "bookinfo")
}

/// Waits until the policy refuses what it forbids, and lets through what it allows.
pub(crate) fn in_force(lab: &Lab) -> Result<()> {
    settle(lab, "attacker", &[DETAILS], 403)?;
    settle(lab, "outsider", &[DETAILS], 403)?;
    settle(lab, "curl", &[DETAILS], 200)?;
    Ok(())
}

/// What the application saw of requests with this word in their path.
pub(crate) fn seen(lab: &Lab, word: &str) -> Result<Vec<String>> {
    let log = lab.pod_log(VICTIM)?;
    Ok(log.lines().filter(|line| line.contains(word)).map(str::to_owned).collect())
}

/// A request that must not reach the application, whatever it is answered; `mark` tells it from all others.
pub(crate) fn must_not_pass(lab: &Lab, who: Who, to: (&str, &str), mark: &str) -> Result<()> {
    let answer = ask(lab, who, to, mark)?;
    ensure!(answer != 200, "{who:?} is answered 200 by way of {to:?}");
    let seen = seen(lab, mark)?;
    ensure!(seen.is_empty(), "{who:?} got through by way of {to:?}: {seen:?}");
    Ok(())
}

/// The status, 0 without an answer.
pub(crate) fn ask(
    lab: &Lab,
    (pod, method): Who,
    (to, host): (&str, &str),
    mark: &str,
) -> Result<u16> {
    let url = format!("http://{to}/details/0?mark={mark}");
    let header = format!("Host: {}", if host.is_empty() { to } else { host });
    let arguments = ["--request", method, "--header", &header, "--max-time", "3", &url];
    Ok(lab.curl(pod, &arguments)?.status)
}

/// Leads a port of the nodes to the application, as kube-proxy does: with the node's own address as the source.
fn open_node_ports(lab: &Lab) -> Result<()> {
    let script = format!(
        "table ip lab-node-port {{\n\
         chain prerouting {{\ntype nat hook prerouting priority dstnat\n\
         tcp dport {NODE_PORT} ct mark set 0x4000 dnat to {}:{PORT}\n}}\n\
         chain postrouting {{\ntype nat hook postrouting priority srcnat\nct mark 0x4000 masquerade\n}}\n}}\n",
        lab.address(VICTIM)?
    );
    for node in ["node-a", "node-b"] {
        let mut nft = process::command(&lab.node(node)?.namespace, "nft");
        feed_command(&mut nft, "nft", &["-f", "-"], &script)?;
    }
    Ok(())
}

#[test]
fn no_address_leads_around_the_waypoint() -> Result<()> {
    let mut lab = guarded()?;
    lab.manifests.apply(OTHER_SERVICES)?;
    open_node_ports(&lab)?;
    let too = ("10.96.0.200:80", "details-too");
    wait::until("the other Service to lead to the application", || {
        Ok((ask(&lab, ("curl", "GET"), too, "warm")? == 200).then_some(()))
    })?;
    try_all(&lab, "")
}

/// Every way, by everybody.
fn try_all(lab: &Lab, round: &str) -> Result<()> {
    for way in &WAYS {
        let (to, host) = (way.to)(lab)?;
        for (pod, method) in FORBIDDEN {
            let mark = format!("{round}{}-{pod}-{method}", way.name);
            must_not_pass(lab, (pod, method), (&to, host), &mark)?;
        }
        let mark = format!("{round}{}-curl-GET", way.name);
        let status = ask(lab, ("curl", "GET"), (&to, host), &mark)?;
        ensure!((status == 200) == way.proves, "curl by way of {}: {status}", way.name);
        ensure!(seen(lab, &mark)?.len() == usize::from(way.proves), "{}", way.name);
    }
    Ok(())
}

/// Without the policy every one of these ways is open: the table above can fail.
#[test]
fn without_the_policy_every_way_is_open() -> Result<()> {
    let mut lab = guarded()?;
    lab.manifests.apply(OTHER_SERVICES)?;
    open_node_ports(&lab)?;
    lab.manifests.delete(&Key::new("AuthorizationPolicy", "bookinfo", "details"))?;
    settle(&lab, "attacker", &[DETAILS], 200)?;
    for way in &WAYS {
        let (to, host) = (way.to)(&lab)?;
        let mark = format!("open-{}", way.name);
        let who = ("attacker", "GET");
        wait::until(way.name, || Ok((ask(&lab, who, (&to, host), &mark)? == 200).then_some(())))?;
        ensure!(!seen(&lab, &mark)?.is_empty(), "{}", way.name);
    }
    Ok(())
}

/// Labels that say that a pod is on another network lead around nothing: the destination judges.
#[test]
fn another_network_is_no_way_around() -> Result<()> {
    let mut lab = guarded()?;
    let elsewhere = &["topology.istio.io/network=elsewhere"];
    for (namespace, pod) in [("bookinfo", VICTIM), ("evil", "attacker"), ("legacy", "outsider")] {
        lab.manifests.label(&Key::new("Pod", namespace, pod), elsewhere)?;
    }
    lab.manifests.label(&Key::new("Namespace", "", "evil"), elsewhere)?;
    lab.manifests.label(&Key::new("Namespace", "", "istio-system"), elsewhere).ok();
    // Something that shows that the agents have read it.
    lab.manifests
        .label(&Key::new("Service", "bookinfo", "details"), &["istio.io/use-waypoint=none"])?;
    settle(&lab, "attacker", &[DETAILS], 200)?;
    lab.manifests
        .label(&Key::new("Service", "bookinfo", "details"), &["istio.io/use-waypoint-"])?;
    in_force(&lab)?;
    let pod = SocketAddr::new(lab.address(VICTIM)?, PORT).to_string();
    for to in [("details.bookinfo:9080", ""), (&pod, "")] {
        for who in FORBIDDEN {
            must_not_pass(&lab, who, to, &format!("network-{}-{}", who.0, who.1))?;
        }
        ensure!(ask(&lab, ("curl", "GET"), to, "network-curl")? == 200);
    }
    Ok(())
}
