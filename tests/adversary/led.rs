//! Connections that a route of the service's owner leads on: whose bytes, in whose name. Nobody parses them, so that the owner of a
//! service chooses where its callers' bytes go, and not what they are.

use anyhow::{Result, ensure};

use crate::recorder::Raw;
use crate::support::lab::wait;
use crate::{WAYPOINT, besieged, settle};

const VICTIM: &str = "details-v1";
const DETAILS: &str = "http://details.bookinfo:9080/details/0";

/// The attacker's Services, whose connections are led to the victim: by a VirtualService with and without a waypoint, and by a
/// TCPRoute.
const LURES: &str = "
apiVersion: v1
kind: Service
metadata: {name: lure, namespace: evil, labels: {istio.io/use-waypoint: waypoint}}
spec: {clusterIP: 10.96.66.4, selector: {app: nobody}, ports: [{name: tcp, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: bare, namespace: evil}
spec: {clusterIP: 10.96.66.5, selector: {app: nobody}, ports: [{name: tcp, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: routed, namespace: evil, labels: {istio.io/use-waypoint: waypoint}}
spec: {clusterIP: 10.96.66.6, selector: {app: nobody}, ports: [{name: tcp, port: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: lure, namespace: evil}
spec:
  hosts: [lure, bare]
  tcp: [{route: [{destination: {host: details.bookinfo.svc.cluster.local, port: {number: 9080}}}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: routed, namespace: evil}
spec:
  parentRefs: [{group: '', kind: Service, name: routed}]
  rules: [{backendRefs: [{name: details, namespace: bookinfo, port: 9080}]}]
---
";

/// Who may talk to the victim.
fn only(principals: &[&str]) -> String {
    let all: Vec<_> =
        principals.iter().map(|it| format!("cluster.local/ns/{it}")).collect::<Vec<_>>();
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: only, namespace: bookinfo}}\n\
         spec: {{selector: {{matchLabels: {{app: details}}}}, rules: [{{from: [{{source: {{principals: [{}]}}}}]}}]}}\n---\n",
        all.join(", ")
    )
}

const CURL: &str = "default/sa/curl";

/// The owner of a service that others call does not have them connect to a third one in their name.
#[test]
fn nobody_who_is_called_leads_connections_in_the_callers_name() -> Result<()> {
    let evil = WAYPOINT.replace("bookinfo", "evil");
    let waypoint = "evil/sa/waypoint";
    let mut lab = besieged(&[&evil, LURES, &only(&[CURL, waypoint])])?;
    // Whom the victim lets in by the attacker's own waypoint may be led there.
    settle(&lab, "curl", &["http://lure.evil:9080/headers?permitted"], 200)?;
    settle(&lab, "curl", &["http://routed.evil:9080/headers?permitted"], 200)?;
    let open = |namespace: &str, name: &str| -> Result<Raw> {
        let mut open = Raw::connect(&lab, "curl", lab.service(namespace, name)?[0])?;
        open.send(b"GET /details/0 HTTP/1.1\r\nHost: lure\r\n\r\n")?;
        let head = open.head();
        ensure!(head.starts_with("HTTP/1.1 200"), "{name}: {head}");
        Ok(open)
    };
    let led = ["lure", "routed"].map(|name| open("evil", name));
    let mut direct = open("bookinfo", "details")?;
    lab.manifests.apply(&only(&[CURL]))?;
    for (open, name) in led.into_iter().zip(["lure", "routed"]) {
        let mut open = open?;
        wait::until("the connection to be cut", || Ok(open.is_over().then_some(())))?;
        settle(&lab, "curl", &[&format!("http://{name}.evil:9080/headers?led")], 0)?;
    }
    for name in ["lure", "bare", "routed"] {
        for _ in 0..3 {
            let led = lab.curl("curl", &[&format!("http://{name}.evil:9080/headers?led")])?;
            ensure!(led.status == 0, "{name}: {led:?}");
        }
    }
    direct.send(b"GET /details/0 HTTP/1.1\r\nHost: details\r\n\r\n")?;
    ensure!(!direct.is_over(), "the client's own connection goes on");
    settle(&lab, "curl", &[DETAILS], 200)?;
    let log = lab.pod_log(VICTIM)?;
    ensure!(log.contains("/headers?permitted"), "the log shows what it saw: {log}");
    ensure!(!log.contains("/headers?led"), "the victim saw {log}");
    // The rule is the attacker's own clients' own.
    lab.manifests.apply(&only(&["evil/sa/attacker"]))?;
    for name in ["lure", "bare", "routed"] {
        settle(&lab, "attacker", &[&format!("http://{name}.evil:9080/details/0")], 200)?;
    }
    // Where anybody may go, anybody may be led.
    lab.manifests.apply(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: only, namespace: bookinfo}\n\
         spec: {selector: {matchLabels: {app: details}}, rules: [{}]}\n---\n",
    )?;
    for name in ["lure", "bare", "routed"] {
        settle(&lab, "curl", &[&format!("http://{name}.evil:9080/details/0")], 200)?;
    }
    Ok(())
}
