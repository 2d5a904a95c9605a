//! Attempts to get around the waypoint. The policy `productpage-waypoint` is in force throughout: the service
//! account curl may GET, and nothing else may be done.

use std::net::SocketAddr;

use anyhow::Result;

use crate::stage::Stage;
use crate::tunnel::{self, Credentials, Outcome};

/// Whom the forged certificates are for.
const ALLOWED: &str = "spiffe://cluster.local/ns/default/sa/curl";
const DENIED: &str = "spiffe://cluster.local/ns/default/sa/stranger";
const FOREIGN: &str = "spiffe://elsewhere.example/ns/default/sa/curl";

/// To the pod instead of the service.
pub fn pod_address(stage: &mut Stage) -> Result<()> {
    let pod = format!("http://{}:9080/productpage", stage.lab.address("productpage-v1")?);
    stage.expect("curl", &[&pod], 200)?;
    stage.expect("curl", &["--request", "DELETE", &pod], 403)?;
    stage.expect("stranger", &[&pod], 403)?;
    stage.report.figure("curl_delete", 403);
    stage.report.figure("stranger_get", 403);
    Ok(())
}

/// In plaintext, from a client that is not in the mesh.
pub fn plaintext(stage: &mut Stage) -> Result<()> {
    let pod = format!("http://{}:9080/productpage", stage.lab.address("productpage-v1")?);
    for url in [pod.as_str(), crate::plaintext::PAGE] {
        stage.expect("outsider", &[url], 403)?;
        stage.expect("outsider", &["--request", "DELETE", url], 403)?;
    }
    stage.report.figure("outsider_get", 403);
    stage.report.say("a service without a policy is served, because the namespace is PERMISSIVE:");
    stage.expect("outsider", &["http://details.bookinfo:9080/details/0"], 200).map(drop)
}

/// By a tunnel of one's own, with a workload's certificate that the lab's CA signs.
pub fn tunnel(stage: &mut Stage) -> Result<()> {
    let ca = stage.lab.ca_directory();
    let allowed = Credentials::issued(&ca, ALLOWED)?;
    let denied = Credentials::issued(&ca, DENIED)?;
    let foreign = Credentials::issued(&ca, FOREIGN)?;
    let forged = Credentials::self_made(ALLOWED)?;

    let outcome = attempt(stage, "curl's certificate, GET", &allowed, "GET", None)?;
    stage.check(outcome == Outcome::Answered(200), "an allowed request was refused")?;
    let outcome = attempt(stage, "curl's certificate, DELETE", &allowed, "DELETE", None)?;
    stage.check(outcome == Outcome::Answered(403), "DELETE was not refused with 403")?;
    let mut refused = vec![outcome.to_string()];

    let pretended = Some("details.bookinfo.svc.cluster.local");
    let attempts = [
        ("stranger's certificate, GET", &denied, None),
        ("stranger's certificate, pretending to have dialled details", &denied, pretended),
        ("a certificate of another trust domain", &foreign, None),
    ];
    for (what, credentials, host) in attempts {
        let outcome = attempt(stage, what, credentials, "GET", host)?;
        stage.check(!outcome.admitted(), &format!("{what}: was admitted"))?;
        refused.push(outcome.to_string());
    }
    let what = "a certificate for curl from a CA of one's own";
    let outcome = attempt(stage, what, &forged, "GET", None)?;
    let refused_at_once = matches!(outcome, Outcome::Refused(_));
    stage.check(refused_at_once, &format!("{what}: got as far as CONNECT"))?;
    refused.push(outcome.to_string());
    stage.report.figure("refused", refused);
    Ok(())
}

fn attempt(
    stage: &Stage,
    what: &str,
    credentials: &Credentials,
    method: &str,
    host: Option<&str>,
) -> Result<Outcome> {
    let pod = stage.lab.address("productpage-v1")?;
    let from = &stage.lab.pod("outsider")?.attachment.namespace;
    let request = tunnel::Request { method, path: "/productpage", host };
    let target = SocketAddr::new(pod, 9080);
    let outcome = from.run(|| tunnel::attempt(target, credentials, &request))??;
    stage.report.say(&format!("outsider: CONNECT {target} by way of {pod}:15008: {what}"));
    stage.report.evidence(&format!("<- {outcome}"));
    Ok(outcome)
}
