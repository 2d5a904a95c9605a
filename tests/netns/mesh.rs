//! The mesh with real agents, beyond what the demo shows.

use std::net::SocketAddr;

use anyhow::Result;

use crate::support::lab::Lab;
use crate::support::lab::manifests::Key;
use crate::{WAYPOINT, meshed, settle};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const HEADERS: &str = "http://details.bookinfo:9080/headers";

fn use_waypoint(lab: &mut Lab, label: &str) -> Result<()> {
    lab.manifests.label(&Key::new("Namespace", "", "bookinfo"), &[label])
}

#[test]
fn ipv6_is_carried_like_ipv4() -> Result<()> {
    let lab = meshed()?;
    let service = SocketAddr::new(lab.service("bookinfo", "details")?[1], 9080);
    let pod = SocketAddr::new(lab.pod("details-v1")?.attachment.addresses[1], 9080);
    let capture = lab.capture("node-a")?;
    for target in [service, pod] {
        let answer = lab.curl("curl", &[&format!("http://{target}/headers")])?;
        assert_eq!(answer.status, 200, "{answer:?}");
        let peer: SocketAddr = answer.json()["peer"].as_str().unwrap_or_default().parse()?;
        assert!(lab.pod("curl")?.attachment.addresses.contains(&peer.ip()), "{peer}");
    }
    let captured = capture.finish(lab.node("node-a")?, lab.node("node-b")?)?;
    assert!(!captured.contains("GET /headers"));
    Ok(())
}

#[test]
fn the_outside_is_reached_and_reaches_in_while_permissive() -> Result<()> {
    let lab = meshed()?;
    let answer = lab.curl("outsider", &[DETAILS])?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let refused = lab.curl("curl", &["http://10.96.200.200:9080/"])?;
    assert_eq!(refused.status, 0, "{refused:?}");
    // An address of the mesh's machines that is no workload passes through.
    let node = lab.node("node-b")?.addresses[0];
    let metrics = lab.curl("curl", &[&format!("http://{node}:15021/healthz/ready")])?;
    assert_eq!(metrics.status, 200, "{metrics:?}");
    Ok(())
}

#[test]
fn the_agents_ports_cannot_be_reached_through_it() -> Result<()> {
    let lab = meshed()?;
    let pod = lab.address("details-v1")?;
    for port in [15001, 15006, 15008] {
        let answer = lab.curl("curl", &[&format!("http://{pod}:{port}/")])?;
        assert_eq!(answer.status, 0, "{port}: {answer:?}");
    }
    Ok(())
}

#[test]
fn http2_goes_through_a_waypoint_and_headers_arrive() -> Result<()> {
    let mut lab = meshed()?;
    lab.manifests.apply(WAYPOINT)?;
    use_waypoint(&mut lab, "istio.io/use-waypoint=waypoint")?;
    let arguments =
        ["--http2-prior-knowledge", "--header", "x-request-id: given", "--data", "body", HEADERS];
    let answer = settle(&lab, "curl", &arguments, 200)?;
    let echo = answer.json();
    assert_eq!(echo["protocol"], "HTTP/2.0", "{echo}");
    assert_eq!(echo["method"], "POST", "{echo}");
    assert_eq!(echo["headers"]["x-request-id"], "given", "{echo}");
    Ok(())
}

#[test]
fn a_waypoint_that_is_named_but_missing_refuses() -> Result<()> {
    let mut lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    use_waypoint(&mut lab, "istio.io/use-waypoint=nobody")?;
    let refused = crate::support::lab::wait::until("the refusal", || {
        let answer = lab.curl("curl", &[DETAILS])?;
        Ok((answer.status != 200).then_some(answer))
    })?;
    assert!(refused.status == 0 || refused.status >= 500, "{refused:?}");
    use_waypoint(&mut lab, "istio.io/use-waypoint-")?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    Ok(())
}

#[test]
fn routes_match_and_change_headers() -> Result<()> {
    let mut lab = meshed()?;
    lab.manifests.apply(WAYPOINT)?;
    use_waypoint(&mut lab, "istio.io/use-waypoint=waypoint")?;
    lab.manifests.apply(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews, namespace: bookinfo}
spec:
  parentRefs: [{group: '', kind: Service, name: reviews, port: 9080}]
  rules:
  - matches: [{headers: [{name: end-user, value: jason}]}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-routed, value: jason}], remove: [x-drop]}
    - type: ResponseHeaderModifier
      responseHeaderModifier: {add: [{name: x-seen, value: 'yes'}]}
    backendRefs: [{name: reviews-v3, port: 9080}]
  - backendRefs: [{name: reviews-v1, port: 9080}]
",
    )?;
    let url = "http://reviews.bookinfo:9080/headers";
    let jason = ["--header", "end-user: jason", "--header", "x-drop: me", url];
    let answer = crate::support::lab::wait::until("the route", || {
        let answer = lab.curl("curl", &jason)?;
        Ok((answer.header("x-seen") == Some("yes")).then_some(answer))
    })?;
    let echo = answer.json();
    assert_eq!(echo["version"], "v3", "{echo}");
    assert_eq!(echo["headers"]["x-routed"], "jason", "{echo}");
    assert!(echo["headers"]["x-drop"].is_null(), "{echo}");
    for _ in 0..5 {
        assert_eq!(lab.curl("curl", &[url])?.json()["version"], "v1");
    }
    Ok(())
}

/// As long as a second waypoint is tried, what either of them forbids is forbidden, whichever a connection has passed.
#[test]
fn the_policies_of_both_waypoints_hold_while_one_is_tried() -> Result<()> {
    let mut lab = meshed()?;
    lab.manifests.apply(WAYPOINT)?;
    lab.manifests.apply(&WAYPOINT.replace("name: waypoint", "name: next"))?;
    use_waypoint(&mut lab, "istio.io/use-waypoint=waypoint")?;
    let details = Key::new("Service", "bookinfo", "details");
    let labels = ["istio.io/use-waypoint=waypoint", "istio.io/use-waypoint-canary=next"];
    lab.manifests.label(&details, &labels)?;
    lab.manifests.annotate(&details, "istio.io/use-waypoint-canary-weight", "50")?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let policy = Key::new("AuthorizationPolicy", "bookinfo", "nobody");
    for gateway in ["next", "waypoint"] {
        lab.manifests.apply(&format!(
            "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: nobody, namespace: bookinfo}}
spec:
  action: DENY
  targetRefs: [{{kind: Gateway, group: gateway.networking.k8s.io, name: {gateway}}}]
  rules: [{{to: [{{operation: {{paths: ['/headers']}}}}]}}]
"
        ))?;
        settle(&lab, "curl", &[HEADERS], 403)?;
        for number in 0..12 {
            let status = lab.curl("curl", &[HEADERS])?.status;
            assert_eq!(status, 403, "{gateway}: request {number}");
        }
        assert_eq!(lab.curl("curl", &[DETAILS])?.status, 200);
        lab.manifests.delete(&policy)?;
        settle(&lab, "curl", &[HEADERS], 200)?;
    }
    Ok(())
}

/// A gateway dials pods; where the Service asks for it, the Service's routes hold for what it sends, as for every other client.
#[test]
fn routes_hold_for_gateways_that_dial_pods() -> Result<()> {
    let mut lab = meshed()?;
    lab.manifests.apply(WAYPOINT)?;
    use_waypoint(&mut lab, "istio.io/use-waypoint=waypoint")?;
    lab.manifests.apply(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews, namespace: bookinfo}
spec:
  parentRefs: [{group: '', kind: Service, name: reviews, port: 9080}]
  rules:
  - backendRefs: [{name: reviews-v3, port: 9080}]
",
    )?;
    let pod = format!("http://{}:9080/headers", lab.address("reviews-v1")?);
    let version = |lab: &Lab| -> Result<String> {
        Ok(lab.curl("curl", &[&pod])?.json()["version"].as_str().unwrap_or_default().to_owned())
    };
    let until = |lab: &Lab, wanted: &str| {
        crate::support::lab::wait::until("the version that is meant", || {
            Ok((version(lab)? == wanted).then_some(()))
        })
    };
    until(&lab, "v1")?;
    let reviews = Key::new("Service", "bookinfo", "reviews");
    lab.manifests.label(&reviews, &["istio.io/ingress-use-waypoint=true"])?;
    // The client is no gateway.
    settle(&lab, "curl", &["http://reviews.bookinfo:9080/headers"], 200)?;
    assert_eq!(version(&lab)?, "v1");
    let client = Key::new("Pod", "default", "curl");
    lab.manifests.label(&client, &["gateway.networking.k8s.io/gateway-name=edge"])?;
    until(&lab, "v3")?;
    // What guards the Service holds for it, too.
    lab.manifests.apply(
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: bookinfo}
spec: {action: DENY, targetRefs: [{kind: Service, group: '', name: reviews}], rules: [{}]}
",
    )?;
    settle(&lab, "curl", &[&pod], 403)?;
    Ok(())
}

#[test]
fn an_agent_that_comes_back_goes_on_and_nothing_leaks_meanwhile() -> Result<()> {
    let mut lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let codes = lab.stop_agents()?;
    assert_eq!(codes, [Some(0), Some(0)]);
    // The rules stay while no agent runs: refused rather than sent in plaintext.
    let refused = lab.curl("curl", &["--max-time", "2", DETAILS])?;
    assert_eq!(refused.status, 0, "{refused:?}");
    lab.start_agents("")?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    Ok(())
}
