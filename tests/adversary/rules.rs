//! VirtualServices, DestinationRules, TrafficPolicies and labels of waypoints of another namespace, attacked by their authors: whose requests they
//! reach, in whose name, and past which policies. What counts is what the victim's application saw, and what its clients got.

use anyhow::{Result, ensure};

use crate::frames::{Peer, run_in};
use crate::issued::{Wrong, issue};
use crate::lies::{CURL, exchange};
use crate::recorder::Recorder;
use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, PORT};
use crate::{WAYPOINT, besieged, settle};

const VICTIM: &str = "details-v1";
const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const HEADERS: &str = "http://details.bookinfo:9080/headers";

/// The accomplice's application.
pub(crate) const CATCHER: &str = "
apiVersion: v1
kind: Service
metadata: {name: catcher, namespace: evil}
spec:
  clusterIP: 10.96.66.1
  selector: {app: accomplice}
  ports: [{name: http, port: 9080}]
---
";

/// All that a VirtualService and a DestinationRule can do to requests, for every name that leads to the victim.
const HIJACK: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: hijack, namespace: evil}
spec:
  hosts: [details.bookinfo.svc.cluster.local., '*.bookinfo.svc.cluster.local', '*.local', '*']
  exportTo: ['*']
  http:
  - match: [{uri: {prefix: /own}}]
    directResponse: {status: 418, body: {string: mine}}
  - match: [{uri: {prefix: /health}}]
    fault: {delay: {fixedDelay: 3s, percentage: {value: 100}}, abort: {httpStatus: 500, percentage: {value: 100}}}
    route: [{destination: {host: details.bookinfo.svc.cluster.local}}]
  - match: [{uri: {prefix: /headers}}]
    route: [{destination: {host: catcher.evil.svc.cluster.local}}]
  - route: [{destination: {host: details.bookinfo.svc.cluster.local}}]
    mirror: {host: catcher.evil.svc.cluster.local}
    headers: {response: {set: {x-mine: '1'}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: hijack, namespace: evil}
spec:
  host: '*.bookinfo.svc.cluster.local'
  exportTo: ['*']
  trafficPolicy:
    connectionPool: {http: {http1MaxPendingRequests: 1, http2MaxRequests: 1}, tcp: {maxConnections: 1}}
    outlierDetection: {consecutive5xxErrors: 1, baseEjectionTime: 1h, maxEjectionPercent: 100}
    portLevelSettings: [{port: {number: 9081}, tls: {mode: SIMPLE}}]
---
";

fn guarded(more: &[&str]) -> Result<Lab> {
    let mut lab = besieged(&[&[WAYPOINT], more].concat())?;
    let bookinfo = Key::new("Namespace", "", "bookinfo");
    lab.manifests.label(&bookinfo, &["istio.io/use-waypoint=waypoint"])?;
    Ok(lab)
}

#[test]
fn no_route_of_a_third_namespace_reaches_others_requests() -> Result<()> {
    let lab = guarded(&[CATCHER, HIJACK])?;
    let catcher = Recorder::start(&lab, "accomplice")?;
    // Its own clients it may do anything to.
    settle(&lab, "attacker", &["http://details.bookinfo:9080/own"], 418)?;
    let own = settle(&lab, "attacker", &[&format!("{DETAILS}?attacker")], 200)?;
    ensure!(own.header("x-mine") == Some("1"), "{own:?}");
    settle(&lab, "attacker", &["http://details.bookinfo:9080/health"], 500)?;
    let caught = crate::support::lab::wait::until("the attacker's copy", || {
        let caught = catcher.take();
        Ok(caught.contains("/details/0?attacker").then_some(caught))
    })?;
    ensure!(caught.contains("host: details.bookinfo-shadow"), "{caught}");
    settle(&lab, "attacker", &[HEADERS], 200)?;
    ensure!(catcher.take().contains("get /headers"), "the attacker's own requests are led there");
    for client in ["curl", "productpage-v1", "stranger"] {
        for _ in 0..3 {
            let answer = lab.curl(client, &[&format!("{DETAILS}?victim")])?;
            ensure!(answer.status == 200, "{client}: {answer:?}");
            ensure!(answer.header("x-mine").is_none(), "{client}: {answer:?}");
        }
        for (url, status) in [(HEADERS, 200), ("http://details.bookinfo:9080/health", 200)] {
            let answer = lab.curl(client, &["--max-time", "2", url])?;
            ensure!(answer.status == status, "{client} {url}: {answer:?}");
        }
        let answer = lab.curl(client, &["http://details.bookinfo:9080/own"])?;
        ensure!(!matches!(answer.status, 0 | 418), "{client}: {answer:?}");
    }
    let caught = catcher.take();
    ensure!(caught.is_empty(), "it caught {caught}");
    Ok(())
}

/// Who may talk to the victim.
fn only(principals: &[&str]) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: only, namespace: bookinfo}}\n\
         spec: {{selector: {{matchLabels: {{app: details}}}}, rules: [{{from: [{{source: {{principals: [{}]}}}}]}}]}}\n---\n",
        principals.join(", ")
    )
}

/// The attacker's Service, whose rule leads whoever calls it to the victim, and its waypoint.
const LURE: &str = "
apiVersion: v1
kind: Service
metadata: {name: lure, namespace: evil, labels: {istio.io/use-waypoint: waypoint}}
spec:
  clusterIP: 10.96.66.2
  selector: {app: accomplice}
  ports: [{name: http, port: 9080}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: lure, namespace: evil}
spec:
  hosts: [lure]
  http:
  - match: [{uri: {prefix: /ready}}]
    directResponse: {status: 204}
  - match: [{uri: {prefix: /copy}}]
    rewrite: {uri: /details/9}
    route: [{destination: {host: catcher}}]
    mirror: {host: details.bookinfo.svc.cluster.local}
  - rewrite: {uri: /headers}
    route: [{destination: {host: details.bookinfo.svc.cluster.local}}]
---
";

/// The owner of a service that others call does not call a third one in their name.
#[test]
fn nobody_who_is_called_acts_in_the_callers_name() -> Result<()> {
    let evil = WAYPOINT.replace("bookinfo", "evil");
    let curl = "cluster.local/ns/default/sa/curl";
    let mut lab = besieged(&[CATCHER, &evil, LURE, &only(&[curl])])?;
    let _catcher = Recorder::start(&lab, "accomplice")?;
    settle(&lab, "curl", &["http://lure.evil:9080/ready"], 204)?;
    settle(&lab, "stranger", &[DETAILS], 0)?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    for _ in 0..3 {
        let led = lab.curl("curl", &["http://lure.evil:9080/"])?;
        ensure!(led.status == 403, "{led:?}");
        let copied = lab.curl("curl", &["http://lure.evil:9080/copy"])?;
        ensure!(copied.status == 200, "{copied:?}");
    }
    std::thread::sleep(std::time::Duration::from_secs(1));
    let log = lab.pod_log(VICTIM)?;
    ensure!(!log.contains("/headers") && !log.contains("/details/9"), "the victim saw {log}");
    // Whom the victim lets in by the attacker's own waypoint may be led there.
    lab.manifests.apply(&only(&[curl, "cluster.local/ns/evil/sa/waypoint"]))?;
    settle(&lab, "curl", &["http://lure.evil:9080/"], 200)?;
    // The rule is the attacker's own clients' own.
    lab.manifests.apply(&only(&["cluster.local/ns/evil/sa/attacker"]))?;
    settle(&lab, "attacker", &["http://lure.evil:9080/"], 200)?;
    Ok(())
}

/// The owner of `bookinfo` leaves a part of `reviews` to the attacker, and what the attacker says there lifts no policy of `details`.
#[test]
fn what_is_left_to_a_delegate_lifts_nothing() -> Result<()> {
    let root = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: bookinfo}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /part}, sourceNamespace: default}]
    delegate: {name: part, namespace: evil}
  - match: [{uri: {prefix: /own}}]
    rewrite: {uri: /headers}
    route: [{destination: {host: details}}]
---
";
    let part = |matches: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: part, namespace: evil}}\n\
             spec: {{http: [{{match: [{{uri: {{prefix: /part/ready}}{matches}}}], directResponse: {{status: 204}}}}, \
             {{match: [{{uri: {{prefix: /part}}{matches}}}], rewrite: {{uri: /headers/led}}, \
             route: [{{destination: {{host: details.bookinfo.svc.cluster.local}}}}]}}]}}\n---\n"
        )
    };
    let policy = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: details, namespace: bookinfo}
spec:
  targetRefs: [{group: '', kind: Service, name: details}]
  rules: [{to: [{operation: {paths: [/details/*]}}]}]
---
";
    let mut lab = guarded(&[root, &part(", sourceNamespace: default"), policy])?;
    settle(&lab, "curl", &[HEADERS], 403)?;
    settle(&lab, "curl", &["http://reviews.bookinfo:9080/part/ready"], 204)?;
    let led = lab.curl("curl", &["http://reviews.bookinfo:9080/part"])?;
    ensure!(led.status == 403, "{led:?}");
    // The policy has let requests of before it was there pass.
    ensure!(!lab.pod_log(VICTIM)?.contains("/headers/led"), "the victim saw it");
    // Nor is it for more clients than the owner has said.
    lab.manifests.apply(&part(""))?;
    settle(&lab, "curl", &["http://reviews.bookinfo:9080/part/ready"], 404)?;
    for client in ["curl", "productpage-v1", "attacker"] {
        let answer = lab.curl(client, &["http://reviews.bookinfo:9080/part/ready"])?;
        ensure!(answer.status == 404, "{client}: {answer:?}");
    }
    // The owner's own rule stands in for the policies of the owner's other Service.
    settle(&lab, "curl", &["http://reviews.bookinfo:9080/own"], 200)?;
    Ok(())
}

/// Of the victim's name in the attacker's namespace, with all that limits requests.
const LIMITS: &str = "
apiVersion: v1
kind: Service
metadata: {name: details, namespace: evil, labels: {istio.io/use-waypoint: waypoint}}
spec:
  clusterIP: 10.96.66.3
  selector: {app: accomplice}
  ports: [{name: http, port: 9080}]
---
apiVersion: isthmus.io/v1alpha1
kind: TrafficPolicy
metadata: {name: details, namespace: evil}
spec:
  targetRefs: [{group: '', kind: Service, name: details}]
  rateLimit: {local: {requests: 1, interval: 1h}}
  concurrencyLimit: {fixed: {requests: 1}}
  circuitBreaker: {maxRequests: 1}
  fault: {abort: {httpStatus: 418, percentage: 50}}
---
apiVersion: isthmus.io/v1alpha1
kind: TrafficPolicy
metadata: {name: foreign, namespace: evil}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]
  rateLimit: {local: {requests: 1, interval: 1h}}
---
apiVersion: isthmus.io/v1alpha1
kind: TrafficPolicy
metadata: {name: bytes, namespace: evil}
spec:
  targetRefs: [{group: '', kind: Service, name: catcher}]
  tcpRateLimit: {connections: {limit: 1, interval: 1h}}
---
";

#[test]
fn no_traffic_policy_of_another_namespace_limits_anybody() -> Result<()> {
    let evil = WAYPOINT.replace("bookinfo", "evil");
    let lab = guarded(&[CATCHER, &evil, LIMITS])?;
    let _catcher = Recorder::start(&lab, "accomplice")?;
    settle(&lab, "attacker", &["http://details.evil:9080/"], 429)?;
    for client in ["curl", "attacker", "accomplice"] {
        for number in 0..6 {
            let answer = lab.curl(client, &[DETAILS])?;
            ensure!(answer.status == 200, "{client} {number}: {answer:?}");
        }
    }
    Ok(())
}

/// While one of two waypoints is tried, no way leads past the policies of either: not by the pod's address, nor by what a peer
/// says of the service; and when the one that is tried goes away, the other one's still hold.
#[test]
fn no_way_leads_past_either_of_two_waypoints() -> Result<()> {
    let next = WAYPOINT.replace("name: waypoint", "name: next");
    let deny = |gateway: &str, path: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: not-by-{gateway}, namespace: bookinfo}}\n\
             spec: {{action: DENY, targetRefs: [{{kind: Gateway, group: gateway.networking.k8s.io, name: {gateway}}}], \
             rules: [{{to: [{{operation: {{paths: [{path}]}}}}]}}]}}\n---\n"
        )
    };
    let mut lab = guarded(&[&next, &deny("next", "/headers"), &deny("waypoint", "/health")])?;
    let details = Key::new("Service", "bookinfo", "details");
    lab.manifests.label(
        &details,
        &["istio.io/use-waypoint=waypoint", "istio.io/use-waypoint-canary=next"],
    )?;
    lab.manifests.annotate(&details, "istio.io/use-waypoint-canary-weight", "1")?;
    settle(&lab, "curl", &[HEADERS], 403)?;
    settle(&lab, "attacker", &[HEADERS], 403)?;
    let pod = lab.address(VICTIM)?;
    let peer = issue(&lab, CURL, Wrong::Nothing)?;
    let hosts = [None, Some("details.bookinfo"), Some("reviews.bookinfo"), Some("nobody.evil")];
    for path in ["/headers", "/health"] {
        for client in ["curl", "attacker", "outsider"] {
            let answer = lab.curl(client, &[&format!("http://{pod}:{PORT}{path}")])?;
            ensure!(answer.status == 403, "{client} {path}: {answer:?}");
        }
        for host in hosts {
            let host = host.map(|host| ("forwarded", format!("host={host}.svc.cluster.local")));
            let fields: Vec<_> = host.into_iter().collect();
            let request = format!("GET {path} HTTP/1.1\r\nHost: details\r\n\r\n");
            let answer = run_in(&lab.pod("outsider")?.attachment.namespace, || async {
                let mut peer = Peer::connect((pod, 15008).into(), &peer).await?;
                exchange(&mut peer, 1, &format!("{pod}:{PORT}"), &fields, &request).await
            })?;
            let answer = String::from_utf8_lossy(&answer.unwrap_or_default()).into_owned();
            ensure!(answer.get(9..12) == Some("403"), "{fields:?} {path}: {answer}");
        }
    }
    lab.manifests.delete(&Key::new("Gateway", "bookinfo", "next"))?;
    settle(&lab, "curl", &[HEADERS], 200)?;
    let answer = lab.curl("curl", &["http://details.bookinfo:9080/health"])?;
    ensure!(answer.status == 403, "{answer:?}");
    Ok(())
}
