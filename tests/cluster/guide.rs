//! Istio's guide to ambient waypoints, step by step with kubectl: Bookinfo as pods on both nodes. The steps depend on each
//! other, so this is one test.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::{answers, apply_file, curl, get, is_captured, kubectl, pod, settled, until};

const PAGE: &str = "http://productpage.bookinfo:9080/productpage";
const HUNDRED: &str = "http://reviews.bookinfo:9080/reviews/0?[1-100]";
const TWENTY: &str = "http://reviews.bookinfo:9080/reviews/0?[1-20]";

#[test]
fn the_guide_is_true_from_top_to_bottom() -> Result<()> {
    application()?;
    answers("curl", &[PAGE], 200).context("Bookinfo without the mesh")?;
    meshed()?;

    deploy_a_waypoint().context("Deploy a Waypoint Proxy")?;
    cross_namespace().context("Cross-namespace Waypoint")?;
    traffic_routing().context("Traffic Routing")?;
    security().context("Security Authorization")?;
    authentication().context("Security Authentication")?;
    cleanup().context("Cleanup")
}

/// Bookinfo and its clients, each pod of them ready.
pub fn application() -> Result<()> {
    apply_file("config/bookinfo/cluster/bookinfo.yaml")?;
    apply_file("config/bookinfo/bookinfo-versions.yaml")?;
    apply_file("config/bookinfo/cluster/clients.yaml")?;
    settled("bookinfo")?;
    settled("default")
}

/// Bookinfo with its namespaces enrolled, and every pod of them that shall be captured is.
pub fn meshed() -> Result<()> {
    application()?;
    for namespace in ["bookinfo", "default"] {
        kubectl(&[
            "label",
            "namespace",
            namespace,
            "istio.io/dataplane-mode=ambient",
            "--overwrite",
        ])?;
    }
    for app in ["details", "ratings", "reviews", "productpage"] {
        captured("bookinfo", &format!("app={app}"), true)?;
    }
    for app in ["curl", "far", "stranger"] {
        captured("default", &format!("app={app}"), true)?;
    }
    captured("default", "app=outsider", false)?;
    answers("curl", &[PAGE], 200).context("Bookinfo in the mesh").map(drop)
}

/// Waits until the rules are in the pod's namespace, or gone from it.
pub fn captured(namespace: &str, selector: &str, wanted: bool) -> Result<()> {
    until(&format!("{selector} of {namespace} to be captured: {wanted}"), || {
        let pod = pod(namespace, selector)?;
        let (node, address) = (&pod["spec"]["nodeName"], &pod["status"]["podIP"]);
        let (node, address) =
            (node.as_str().context("a node")?, address.as_str().context("an address")?);
        let is = is_captured(node, address)?.context("the pod's network namespace")?;
        Ok((is == wanted).then_some(()))
    })
}

fn deploy_a_waypoint() -> Result<()> {
    apply_file("config/bookinfo/mesh/waypoint.yaml")?;
    condition(&["gateway", "waypoint", "-n", "bookinfo"], "Programmed", "True")?;
    kubectl(&["label", "namespace", "bookinfo", "istio.io/use-waypoint=waypoint", "--overwrite"])?;
    condition(&["service", "reviews", "-n", "bookinfo"], "istio.io/WaypointBound", "True")?;
    answers("curl", &[PAGE], 200).map(drop)
}

fn cross_namespace() -> Result<()> {
    apply_file("config/bookinfo/foo.yaml")?;
    apply_file("config/bookinfo/mesh/waypoint-foo.yaml")?;
    apply_file("config/bookinfo/mesh/foo-no-delete.yaml")?;
    kubectl(&["label", "namespace", "bookinfo", "istio.io/use-waypoint-namespace=foo"])?;
    kubectl(&[
        "label",
        "namespace",
        "bookinfo",
        "istio.io/use-waypoint=waypoint-foo",
        "--overwrite",
    ])?;
    // The policy of the waypoint in foo holds for the services of bookinfo now.
    answers("curl", &["-X", "DELETE", "http://reviews.bookinfo:9080/reviews/0"], 403)?;
    answers("curl", &["http://reviews.bookinfo:9080/reviews/0"], 200)?;
    kubectl(&["label", "namespace", "bookinfo", "istio.io/use-waypoint-namespace-"])?;
    kubectl(&["label", "namespace", "bookinfo", "istio.io/use-waypoint=waypoint", "--overwrite"])?;
    kubectl(&["delete", "authorizationpolicy", "--all", "-n", "foo"])?;
    kubectl(&["delete", "gateway", "waypoint-foo", "-n", "foo"]).map(drop)
}

fn traffic_routing() -> Result<()> {
    let before = served(HUNDRED)?;
    ensure!(before.iter().all(|count| *count > 0), "a version never answered: {before:?}");
    apply_file("config/bookinfo/mesh/reviews-route.yaml")?;
    until("the route to take effect", || Ok((served(TWENTY)?[2] == 0).then_some(())))?;
    let split = served(HUNDRED)?;
    ensure!(split == [90, 10, 0], "the split is not 90 to 10: {split:?}");
    let parents = until("the route's status", || {
        let route = get(&["httproute", "reviews", "-n", "bookinfo"])?;
        let parents = route["status"]["parents"].as_array().cloned().unwrap_or_default();
        Ok((!parents.is_empty()).then_some(parents))
    })?;
    for kind in ["Accepted", "ResolvedRefs"] {
        ensure!(status_of(&parents[0]["conditions"], kind) == Some("True"), "{kind}: {parents:?}");
    }
    Ok(())
}

/// How often each version of reviews answered.
fn served(url: &str) -> Result<[usize; 3]> {
    let answer = curl("curl", &[url])?;
    let count =
        |version: &str| answer.body.matches(&format!("\"podname\":\"reviews-{version}-")).count();
    Ok(["v1", "v2", "v3"].map(count))
}

fn security() -> Result<()> {
    apply_file("config/bookinfo/mesh/productpage-waypoint.yaml")?;
    answers("stranger", &[PAGE], 403)?;
    answers("curl", &[PAGE], 200)?;
    answers("curl", &["-X", "DELETE", PAGE], 403)?;
    // No way around: the pod's own address.
    let address = pod("bookinfo", "app=productpage")?["status"]["podIP"].clone();
    let direct = format!("http://{}:9080/productpage", address.as_str().context("an address")?);
    answers("stranger", &[&direct], 403)?;
    answers("outsider", &[&direct], 403)?;
    let policy = ["authorizationpolicy", "productpage-waypoint", "-n", "bookinfo"];
    condition(&policy, "WaypointAccepted", "True")
}

fn authentication() -> Result<()> {
    let health = "http://details.bookinfo:9080/details/0";
    answers("outsider", &[health], 200)?;
    apply_file("config/bookinfo/mesh/peer-authentication-strict.yaml")?;
    answers("outsider", &[health], 0)?;
    answers("curl", &[health], 200)?;
    // The kubelet's probes come in the clear, from the node: the pods stay ready.
    std::thread::sleep(std::time::Duration::from_secs(4));
    settled("bookinfo")?;
    kubectl(&["delete", "peerauthentication", "--all", "-n", "bookinfo"])?;
    answers("outsider", &[health], 200).map(drop)
}

fn cleanup() -> Result<()> {
    kubectl(&["delete", "-n", "bookinfo", "AuthorizationPolicy", "productpage-waypoint"])?;
    kubectl(&["delete", "-n", "bookinfo", "HTTPRoute", "reviews"])?;
    kubectl(&["label", "namespace", "bookinfo", "istio.io/use-waypoint-"])?;
    kubectl(&["delete", "-n", "bookinfo", "Gateway", "waypoint"])?;
    for namespace in ["bookinfo", "default"] {
        kubectl(&["label", "namespace", namespace, "istio.io/dataplane-mode-"])?;
    }
    captured("bookinfo", "app=productpage", false)?;
    captured("default", "app=curl", false)?;
    answers("curl", &[PAGE], 200)?;
    answers("stranger", &[PAGE], 200).map(drop)
}

/// Waits until a condition in an object's `status.conditions` has this status.
fn condition(object: &[&str], kind: &str, status: &str) -> Result<()> {
    let mut last = Value::Null;
    let found = until(&format!("{kind}={status} of {object:?}"), || {
        last = get(object)?["status"].take();
        Ok((status_of(&last["conditions"], kind) == Some(status)).then_some(()))
    });
    found.with_context(|| format!("its status was {last}"))
}

fn status_of<'a>(conditions: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = conditions.as_array()?;
    conditions.iter().find(|it| it["type"] == kind)?["status"].as_str()
}
