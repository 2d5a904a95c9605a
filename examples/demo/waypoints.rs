//! Waypoints, and the four ways to be enrolled to one.

use anyhow::Result;

use crate::plaintext::PAGE;
use crate::stage::{Stage, requests};
use crate::support::lab::metrics::Metrics;

/// What the page calls, the page itself first.
const SERVICES: [&str; 3] = ["productpage", "details", "reviews"];

const USE: &str = "istio.io/use-waypoint=waypoint";
const NOT: &str = "istio.io/use-waypoint-";

/// All services of a namespace.
pub fn namespace(stage: &mut Stage) -> Result<()> {
    stage.apply("waypoint.yaml")?;
    stage.label_namespace("bookinfo", &[USE])?;
    let moment = stage.lab.moment()?;
    pages(stage, "the page, details and reviews", |counts| counts.iter().all(|n| *n >= 1.0))?;
    stage.log_evidence(&moment, &["GET", "/details/0"]).map(drop)
}

/// One service; and, the other way round, all but one.
pub fn service(stage: &mut Stage) -> Result<()> {
    stage.label_namespace("bookinfo", &[NOT])?;
    stage.label("Service", "reviews", &[USE])?;
    pages(stage, "reviews alone", |[page, details, reviews]| {
        *page == 0.0 && *details == 0.0 && *reviews >= 1.0
    })?;
    stage.label("Service", "reviews", &[NOT])?;
    stage.label_namespace("bookinfo", &[USE])?;
    stage.label("Service", "details", &["istio.io/use-waypoint=none"])?;
    pages(stage, "all but details", |[page, details, reviews]| {
        *page >= 1.0 && *details == 0.0 && *reviews >= 1.0
    })?;
    stage.label("Service", "details", &[NOT])?;
    stage.label_namespace("bookinfo", &[NOT])
}

/// One pod, for traffic that is addressed to the pod itself.
pub fn pod(stage: &mut Stage) -> Result<()> {
    let enrolled = format!("http://{}:9080/reviews/0", stage.lab.address("reviews-v1")?);
    let other = format!("http://{}:9080/reviews/0", stage.lab.address("reviews-v2")?);
    let delete = ["--request", "DELETE"];
    let to = |url| [delete[0], delete[1], url];
    stage.settle("curl", &to(&enrolled), 200)?;
    stage.apply("waypoint-workload.yaml")?;
    stage.apply("pods-no-delete.yaml")?;
    stage.label("Pod", "reviews-v1", &["istio.io/use-waypoint=waypoint-pods"])?;
    let moment = stage.lab.moment()?;
    stage.settle("curl", &to(&enrolled), 403)?;
    stage.log_evidence(&moment, &["DELETE", "403"])?;
    stage.expect("curl", &[&enrolled], 200)?;
    stage.report.say("another pod, and the service, are not behind that waypoint:");
    stage.expect("curl", &to(&other), 200)?;
    stage.expect("curl", &to("http://reviews-v1.bookinfo:9080/reviews/0"), 200)?;
    stage.label("Pod", "reviews-v1", &[NOT])?;
    stage.delete("AuthorizationPolicy", "bookinfo", "pods-no-delete")?;
    stage.delete("Gateway", "bookinfo", "waypoint-pods")?;
    stage.settle("curl", &to(&enrolled), 200).map(drop)
}

/// A waypoint of namespace foo, which admits bookinfo.
pub fn across(stage: &mut Stage) -> Result<()> {
    const DETAILS: &str = "http://details.bookinfo:9080/details/0";
    stage.apply("waypoint-foo.yaml")?;
    stage.apply("foo-no-delete.yaml")?;
    stage.label_namespace(
        "bookinfo",
        &["istio.io/use-waypoint-namespace=foo", "istio.io/use-waypoint=waypoint-foo"],
    )?;
    stage.report.say("the policy of waypoint-foo denies DELETE:");
    stage.settle("curl", &["--request", "DELETE", DETAILS], 403)?;
    stage.expect("curl", &[DETAILS], 200)?;
    pages(stage, "the page, details and reviews", |counts| counts.iter().all(|n| *n >= 1.0))?;
    stage.report.say("back to the namespace's own waypoint:");
    stage.label_namespace("bookinfo", &["istio.io/use-waypoint-namespace-", USE])?;
    stage.delete("AuthorizationPolicy", "foo", "foo-no-delete")?;
    stage.delete("Gateway", "foo", "waypoint-foo")?;
    stage.settle("curl", &["--request", "DELETE", DETAILS], 200)?;
    pages(stage, "the page, details and reviews", |counts| counts.iter().all(|n| *n >= 1.0))
}

/// Asks for the page until the waypoint counted what it should.
fn pages(stage: &mut Stage, who: &str, enough: impl Fn(&[f64; 3]) -> bool) -> Result<()> {
    let counts = stage.settle_counts(
        &format!("requests through the waypoint: {who}"),
        |stage| stage.lab.curl("curl", &[PAGE]).map(drop),
        |metrics: &Metrics| SERVICES.map(|service| requests(metrics, service)),
        enough,
    )?;
    stage.expect("curl", &[PAGE], 200)?;
    for (service, count) in SERVICES.iter().zip(counts) {
        stage.figure(&format!("{service}_requests"), count);
    }
    Ok(())
}
