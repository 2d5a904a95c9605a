//! `istio.io/ingress-use-waypoint`: a pod that passes for a gateway, and a Service of another namespace that asks for the traffic of
//! gateways to the victim's pods.

use anyhow::{Result, ensure};

use crate::authority::service;
use crate::recorder::Recorder;
use crate::rules::CATCHER;
use crate::support::lab::PORT;
use crate::support::lab::manifests::Key;
use crate::{WAYPOINT, besieged, settle};

const VICTIM: &str = "details-v1";
/// Makes a pod a gateway.
const GATEWAY: &str = "gateway.networking.k8s.io/gateway-name=edge";

/// Leads to the accomplice's application whatever is addressed to the attacker's Service.
const HIJACK: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: claimed, namespace: evil}
spec:
  hosts: [claimed]
  http: [{route: [{destination: {host: catcher}}]}]
---
";

const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: details, namespace: bookinfo}
spec:
  targetRefs: [{group: '', kind: Service, name: details}]
  rules: [{to: [{operation: {paths: [/details/*]}}]}]
---
";

/// Another namespace's Service with the victim's address takes nothing that gateways send there.
#[test]
fn no_service_of_another_namespace_takes_what_gateways_send() -> Result<()> {
    let evil = WAYPOINT.replace("bookinfo", "evil");
    let mut lab = besieged(&[&evil, CATCHER, HIJACK])?;
    let catcher = Recorder::start(&lab, "accomplice")?;
    let pod = lab.address(VICTIM)?;
    let labels = "istio.io/use-waypoint: waypoint, istio.io/ingress-use-waypoint: 'true'";
    lab.manifests.apply(&service("claimed", "10.96.66.7", labels, &pod.to_string()))?;
    lab.manifests.label(&Key::new("Pod", "default", "curl"), &[GATEWAY])?;
    // Whoever calls it is led there.
    settle(&lab, "curl", &["http://10.96.66.7:9080/by-name"], 200)?;
    ensure!(catcher.take().contains("get /by-name"), "the attacker's rule is in force");
    for number in 0..10 {
        let answer = lab.curl("curl", &[&format!("http://{pod}:{PORT}/details/{number}")])?;
        ensure!(answer.status == 200 && answer.body.contains("\"id\""), "{answer:?}");
    }
    let caught = catcher.take();
    ensure!(caught.is_empty(), "it caught {caught}");
    Ok(())
}

/// What a gateway may do, whoever labels its pod as one has no more than any client: the policies of the Service and its own name.
#[test]
fn who_passes_for_a_gateway_passes_no_policy() -> Result<()> {
    let mut lab = besieged(&[WAYPOINT, POLICY])?;
    let details = Key::new("Service", "bookinfo", "details");
    lab.manifests.label(&details, &["istio.io/use-waypoint=waypoint"])?;
    let pod = lab.address(VICTIM)?;
    let at = |path: &str| format!("http://{pod}:{PORT}{path}");
    settle(&lab, "attacker", &[&at("/headers")], 403)?;
    for labelled in [false, true] {
        if labelled {
            lab.manifests.label(&details, &["istio.io/ingress-use-waypoint=true"])?;
        }
        for client in ["attacker", "accomplice"] {
            lab.manifests.label(&Key::new("Pod", "evil", client), &[GATEWAY])?;
            settle(&lab, client, &[&at("/details/0")], 200)?;
            for path in ["/headers", "/health", "//headers", "/details/../headers"] {
                let url = at(path);
                for more in [
                    &[][..],
                    &["-H", "Host: reviews.bookinfo"],
                    &["-H", "x-forwarded-client-cert: By=a"],
                ] {
                    let answer = lab.curl(client, &[&["--path-as-is", &url], more].concat())?;
                    ensure!(
                        matches!(answer.status, 400 | 403),
                        "{client} {labelled} {path} {more:?}: {answer:?}"
                    );
                }
            }
        }
    }
    // Its name is its own.
    lab.manifests.apply(&POLICY.replace(
        "{to: [{operation: {paths: [/details/*]}}]}",
        "{from: [{source: {principals: [cluster.local/ns/default/sa/curl]}}]}",
    ))?;
    for client in ["attacker", "accomplice"] {
        settle(&lab, client, &[&at("/details/0")], 403)?;
    }
    settle(&lab, "curl", &[&at("/details/0")], 200)?;
    Ok(())
}
