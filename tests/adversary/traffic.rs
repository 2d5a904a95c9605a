//! Rate limits on a rule of a route, attacked by a client's half that lies: about the request that the client sent, about the
//! service that it addressed, and with a route in the client's own namespace. The destination finds the rule itself.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::frames::{Peer, run_in};
use crate::issued::{Wrong, issue};
use crate::lies::exchange;
use crate::support::lab::PORT;
use crate::support::lab::manifests::Key;
use crate::{WAYPOINT, besieged, settle};

const ATTACKER: &str = "spiffe://cluster.local/ns/evil/sa/attacker";
const VICTIM: &str = "details-v1";
const DETAILS: &str = "http://details.bookinfo:9080/details/0";

/// Each identity may ask for `/details` twice; the other rule has no limit, and changes the request.
const LIMIT: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: details, namespace: bookinfo}
spec:
  parentRefs: [{group: '', kind: Service, name: details}]
  rules:
  - name: limited
    matches: [{path: {value: /details}}]
    backendRefs: [{name: details, port: 9080}]
  - name: free
    filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-free, value: '1'}]}}]
    backendRefs: [{name: details, port: 9080}]
---
apiVersion: isthmus.io/v1alpha1
kind: TrafficPolicy
metadata: {name: details, namespace: bookinfo}
spec:
  targetRefs:
  - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: details, sectionName: limited}
  rateLimit: {local: {requests: 2, interval: 1h, keys: [{type: Identity}]}}
";
/// The attacker's own route for the victim's Service, without a limit.
const DETOUR: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: detour, namespace: evil}
spec:
  parentRefs: [{group: '', kind: Service, name: details, namespace: bookinfo}]
  rules: [{backendRefs: [{name: details, namespace: bookinfo, port: 9080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: decoy, namespace: evil}
spec:
  selector: {app: nobody}
  ports: [{name: http, port: 9080}]
";

/// The header by which a client's half tells what the client sent: this path, and of these headers these values.
fn original(path: &str, headers: &[(&str, &[&str])]) -> String {
    let text = |text: &str| [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat();
    let mut bytes = vec![2];
    bytes.extend(text(path));
    for (name, values) in headers {
        bytes.push(name.len() as u8);
        bytes.extend(name.as_bytes());
        bytes.push(values.len() as u8);
        values.iter().for_each(|value| bytes.extend(text(value)));
    }
    format!("x-isthmus-original: {}\r\n", STANDARD_NO_PAD.encode(bytes))
}

/// What a lying client's half says inside of the tunnel.
fn originals() -> [String; 6] {
    [
        String::new(),
        original("/headers", &[]),
        original("/headers", &[("x-free", &[])]),
        // As the rule without a limit would have sent it.
        format!("{}x-free: 1\r\n", original("/headers", &[("x-free", &[])])),
        format!("{}x-free: 1\r\n", original("", &[("x-free", &[])])),
        original("/headers", &[("host", &["reviews"])]),
    ]
}

#[test]
fn a_lie_about_the_route_lifts_no_limit() -> Result<()> {
    let mut lab = besieged(&[WAYPOINT, LIMIT, DETOUR])?;
    let namespace = Key::new("Namespace", "", "bookinfo");
    lab.manifests.label(&namespace, &["istio.io/use-waypoint=waypoint"])?;
    // The limit is in force when an honest client has used its own up.
    settle(&lab, "curl", &[DETAILS], 429)?;
    let own = lab.address(VICTIM)?;
    let (to, authority) = (SocketAddr::new(own, 15008), format!("{own}:{PORT}"));
    let attacker = issue(&lab, ATTACKER, Wrong::Nothing)?;
    let hosts = [None, Some("details.bookinfo"), Some("decoy.evil"), Some("reviews.bookinfo")];
    let mut answered = Vec::new();
    for host in hosts {
        let host = host.map(|host| ("forwarded", format!("host={host}.svc.cluster.local")));
        let fields: Vec<_> = host.into_iter().collect();
        for original in originals() {
            let request = format!("GET /details/0?lie HTTP/1.1\r\nHost: details\r\n{original}\r\n");
            let answer = run_in(&lab.pod("outsider")?.attachment.namespace, || async {
                let mut peer = Peer::connect(to, &attacker).await?;
                exchange(&mut peer, 1, &authority, &fields, &request).await
            })?;
            let answer = String::from_utf8_lossy(&answer.unwrap_or_default()).into_owned();
            answered.push(answer.get(9..12).unwrap_or_default().to_owned());
        }
    }
    // The attacker is a client as any other: it has two requests, and no more.
    ensure!(answered[..2] == ["200", "200"], "{answered:?}");
    ensure!(answered[2..].iter().all(|status| status == "429"), "{answered:?}");
    let seen = lab.pod_log(VICTIM)?.matches("/details/0?lie").count();
    ensure!(seen <= 2, "the application saw {seen} requests");
    // The limit is one rule's and one identity's.
    settle(&lab, "stranger", &[DETAILS], 200)?;
    settle(&lab, "curl", &["http://details.bookinfo:9080/headers"], 200)?;
    Ok(())
}
