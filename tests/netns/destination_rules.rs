//! DestinationRules with real agents: one of three endpoints fails, is ejected, and returns.

use anyhow::{Result, ensure};

use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, wait};
use crate::{WAYPOINT, meshed, settle};

const REVIEWS: &str = "http://reviews.bookinfo:9080/headers";

fn rule(base_ejection_time: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews, namespace: bookinfo}}\n\
         spec:\n  host: reviews\n  trafficPolicy:\n    loadBalancer: {{simple: ROUND_ROBIN}}\n    outlierDetection:\n      \
         {{consecutive5xxErrors: 2, interval: 1s, baseEjectionTime: {base_ejection_time}}}\n"
    )
}

fn ejections(lab: &Lab) -> Result<f64> {
    Ok(lab.metrics()?.sum("isthmus_outlier_ejections_total", &[]))
}

/// Without a DestinationRule.
const OF_MESH: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    defaultTrafficPolicy:
      outlierDetection: {consecutive5xxErrors: 2, interval: 1s, baseEjectionTime: 1h}
";

/// Sends requests until so many endpoints have been ejected.
fn until_ejected(lab: &Lab, times: f64) -> Result<()> {
    wait::until("an endpoint to be ejected", || {
        lab.curl("curl", &[REVIEWS])?;
        Ok((ejections(lab)? >= times).then_some(()))
    })
}

#[test]
fn an_endpoint_that_fails_is_ejected_and_returns() -> Result<()> {
    let mut lab = meshed()?;
    lab.manifests.apply(WAYPOINT)?;
    let label = ["istio.io/use-waypoint=waypoint"];
    lab.manifests.label(&Key::new("Namespace", "", "bookinfo"), &label)?;
    settle(&lab, "curl", &[REVIEWS], 200)?;
    // Its clients do not notice, as their connections go to another endpoint.
    lab.manifests.apply(&rule("1h"))?;
    lab.stop_program("reviews-v2")?;
    until_ejected(&lab, 1.0)?;
    ensure!(lab.metrics()?.sum("isthmus_outlier_ejected_endpoints", &[]) == 1.0);
    lab.start_program("reviews-v2")?;
    for number in 0..12 {
        let answer = lab.curl("curl", &[REVIEWS])?;
        let is_other = answer.status == 200 && answer.json()["version"] != "v2";
        ensure!(is_other, "request {number} went to the ejected endpoint: {answer:?}");
    }
    // Under another policy it begins again.
    lab.stop_program("reviews-v2")?;
    lab.manifests.apply(&rule("1s"))?;
    until_ejected(&lab, 2.0)?;
    lab.start_program("reviews-v2")?;
    wait::until("the endpoint to return", || {
        let answer = lab.curl("curl", &[REVIEWS])?;
        Ok((answer.status == 200 && answer.json()["version"] == "v2").then_some(()))
    })
}

#[test]
fn what_the_mesh_says_holds_without_a_rule() -> Result<()> {
    let mut lab = meshed()?;
    lab.manifests.apply(WAYPOINT)?;
    let label = ["istio.io/use-waypoint=waypoint"];
    lab.manifests.label(&Key::new("Namespace", "", "bookinfo"), &label)?;
    settle(&lab, "curl", &[REVIEWS], 200)?;
    lab.manifests.apply(OF_MESH)?;
    lab.stop_program("reviews-v2")?;
    until_ejected(&lab, 1.0)?;
    lab.start_program("reviews-v2")?;
    for number in 0..12 {
        let answer = lab.curl("curl", &[REVIEWS])?;
        let is_other = answer.status == 200 && answer.json()["version"] != "v2";
        ensure!(is_other, "request {number} went to the ejected endpoint: {answer:?}");
    }
    Ok(())
}
