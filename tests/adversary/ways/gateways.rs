//! Gateways: waypoints that are missing or not ready, and pods that carry the requests of others.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use anyhow::{Result, ensure};

use super::{
    DETAILS, FORBIDDEN, VICTIM, ask, bookinfo, guarded, guarded_with, in_force, must_not_pass, seen,
};
use crate::settle;
use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, PORT, wait};

/// A port that no program of the lab listens on.
const GATEWAY: u16 = 8080;

/// A waypoint that is named and cannot be used closes the service to everybody, and opens nothing.
#[test]
fn a_waypoint_that_is_missing_or_not_ready_opens_nothing() -> Result<()> {
    let mut lab = guarded()?;
    nothing_is_opened(&mut lab)?;
    lab.manifests.label(&bookinfo(), &["istio.io/use-waypoint=nobody"])?;
    settle(&lab, "curl", &[DETAILS], 0).or_else(|_| settle(&lab, "curl", &[DETAILS], 503))?;
    must_not_pass(&lab, ("attacker", "GET"), ("details.bookinfo:9080", ""), "unready-named")
}

/// `missing_waypoint = "layer4"` opens what no waypoint's policy guards, and nothing else: who takes the Gateway away, or spoils
/// it, gets no further than with the default.
#[test]
fn going_on_at_layer_4_without_a_waypoint_is_no_way_around_one() -> Result<()> {
    let mut lab = guarded_with("missing_waypoint = \"layer4\"")?;
    nothing_is_opened(&mut lab)?;
    lab.manifests.label(&bookinfo(), &["istio.io/use-waypoint=nobody"])?;
    for client in ["curl", "attacker"] {
        settle(&lab, client, &[DETAILS], 200)?;
    }
    // What holds at layer 4 goes on holding there.
    lab.manifests.apply(ONLY_CURL)?;
    settle(&lab, "attacker", &[DETAILS], 0)?;
    for who in [("attacker", "GET"), ("accomplice", "GET"), ("outsider", "GET")] {
        must_not_pass(&lab, who, ("details.bookinfo:9080", ""), &format!("layer4-{}", who.0))?;
    }
    settle(&lab, "curl", &[DETAILS], 200).map(drop)
}

/// By identity alone, which takes no waypoint.
const ONLY_CURL: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-curl, namespace: bookinfo}
spec:
  selector: {matchLabels: {app: details}}
  rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/curl]}}]}]
";

/// Takes the waypoint away in several ways, and puts it back each time.
fn nothing_is_opened(lab: &mut Lab) -> Result<()> {
    let gateway = Key::new("Gateway", "bookinfo", "waypoint");
    let whole = lab.manifests.get(&gateway)?.clone();
    let class = |class: &str| {
        let mut gateway = whole.clone();
        gateway["spec"]["gatewayClassName"] = class.into();
        gateway
    };
    let mut without_listener = whole.clone();
    without_listener["spec"]["listeners"][0]["protocol"] = "TCP".into();
    let unready = [
        ("class", Some(class("somebody-elses"))),
        ("listener", Some(without_listener)),
        ("gone", None),
    ];
    for (round, gateway_now) in unready {
        match gateway_now {
            Some(object) => lab.manifests.change(&gateway, |it| {
                *it = object;
                Ok(())
            })?,
            None => lab.manifests.delete(&gateway)?,
        }
        wait::until("the waypoint to be unusable", || {
            Ok((ask(lab, ("curl", "GET"), ("details.bookinfo:9080", ""), "x")? != 200)
                .then_some(()))
        })?;
        let pod = SocketAddr::new(lab.address(VICTIM)?, PORT).to_string();
        for to in ["details.bookinfo:9080", &pod] {
            for who in FORBIDDEN.into_iter().chain([("curl", "GET")]) {
                let mark = format!("unready-{round}-{}-{}", who.0, who.1);
                must_not_pass(lab, who, (to, ""), &mark)?;
            }
        }
        lab.manifests.apply(&serde_saphyr::to_string(&whole)?)?;
        in_force(lab)?;
    }
    Ok(())
}

/// Copies bytes for others from inside of a pod, as a gateway of an ingress does that nobody told of the mesh.
fn gateway(lab: &Lab, pod: &str, to: SocketAddr) -> Result<String> {
    let namespace = lab.pod(pod)?.attachment.namespace.clone();
    let listener = namespace.run(|| TcpListener::bind(("0.0.0.0", GATEWAY)))??;
    std::thread::spawn(move || -> Result<()> {
        namespace.enter()?;
        for client in listener.incoming() {
            let (client, namespace) = (client?, namespace.clone());
            std::thread::spawn(move || -> Result<()> {
                namespace.enter()?;
                let server = TcpStream::connect(to)?;
                copy_both(&client, &server);
                Ok(())
            });
        }
        Ok(())
    });
    Ok(SocketAddr::new(lab.address(pod)?, GATEWAY).to_string())
}

fn copy_both(client: &TcpStream, server: &TcpStream) {
    std::thread::scope(|scope| {
        scope.spawn(|| copy(client, server));
        copy(server, client);
    });
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    // A side that breaks off ends both.
    _ = io::copy(&mut from, &mut to);
    _ = to.shutdown(Shutdown::Write);
}

/// Whoever carries a request is whom it is judged by: a gateway outside of the mesh proves nobody, one inside itself.
#[test]
fn a_gateway_pod_lends_nobody_what_it_may_not() -> Result<()> {
    let mut lab = guarded()?;
    let pod = SocketAddr::new(lab.address(VICTIM)?, PORT);
    let service = SocketAddr::new(lab.service("bookinfo", "details")?[0], PORT);
    for (gateway_pod, to) in [("outsider", pod), ("stranger", service), ("accomplice", pod)] {
        let gateway = gateway(&lab, gateway_pod, to)?;
        let host = (gateway.as_str(), "details.bookinfo");
        for who in FORBIDDEN.into_iter().chain([("curl", "GET")]) {
            // A pod does not go through the mesh to itself; what leaves it then does.
            let mark = format!("by-{gateway_pod}-{}-{}", who.0, who.1);
            must_not_pass(&lab, who, host, &mark)?;
        }
    }
    // The policy may let a gateway in by its own name, and then it lets in whom the gateway lets in.
    let key = Key::new("AuthorizationPolicy", "bookinfo", "details");
    lab.manifests.change(&key, |policy| {
        let principals = serde_json::json!(["cluster.local/ns/default/sa/stranger"]);
        policy["spec"]["rules"][0]["from"][0]["source"]["principals"] = principals;
        Ok(())
    })?;
    settle(&lab, "stranger", &[DETAILS], 200)?;
    let by = format!("{}:{GATEWAY}", lab.address("stranger")?);
    ensure!(ask(&lab, ("attacker", "GET"), (&by, "details.bookinfo"), "let-in")? == 200);
    ensure!(seen(&lab, "let-in")?.len() == 1);
    must_not_pass(&lab, ("attacker", "GET"), ("details.bookinfo:9080", ""), "not-by-itself")
}
