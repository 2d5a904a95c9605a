//! Bookinfo: request routing, fault injection, traffic shifting and timeouts, with Istio's resources and with those of the
//! Gateway API.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::stage::Stage;
use crate::support::lab::curl::Answer;

const APPLICATION: &str = "bookinfo/platform/kube/bookinfo.yaml";
const VERSIONS: &str = "bookinfo/platform/kube/bookinfo-versions.yaml";
/// What the page shows below the book, as JSON.
const PAGE: &str = "http://productpage:9080/api/v1/products/0/reviews";
const REVIEWS: &str = "http://reviews:9080/reviews/0";
const RATINGS: &str = "http://ratings:9080/ratings/0";
const DETAILS: &str = "http://details:9080/details/0";

/// The request of a user who has signed in.
fn jason(url: &str) -> [&str; 3] {
    ["--header", "end-user: jason", url]
}

/// Which version of reviews the page is made of.
fn version(answer: &Answer) -> String {
    answer.json()["podname"].as_str().unwrap_or_default().to_owned()
}

fn networking(name: &str) -> String {
    format!("bookinfo/networking/{name}.yaml")
}

fn staged() -> Result<Stage> {
    let stage = Stage::of(&[APPLICATION], true)?;
    stage.until("the application", &[PAGE], |it| it.status == 200)?;
    Ok(stage)
}

/// "Request Routing": all to v1, then Jason to v2.
#[test]
fn requests_are_routed_by_version_and_user() -> Result<()> {
    let mut stage = staged()?;
    for rules in ["destination-rule-all", "destination-rule-all-mtls"] {
        stage.apply(&networking(rules))?;
        stage.apply(&networking("virtual-service-all-v1"))?;
        stage.until_shared(&[PAGE], &[("reviews-v1", 10)], version)?;
        stage.apply(&networking("virtual-service-reviews-test-v2"))?;
        stage.until_shared(&jason(PAGE), &[("reviews-v2", 10)], version)?;
        stage.until_shared(&[PAGE], &[("reviews-v1", 10)], version)?;
        stage.apply(&networking("virtual-service-reviews-jason-v2-v3"))?;
        stage.until_shared(&[PAGE], &[("reviews-v3", 10)], version)?;
        stage.until_shared(&jason(PAGE), &[("reviews-v2", 10)], version)?;
    }
    let stars = stage.curl(&jason(PAGE))?;
    ensure!(stars.json()["reviews"][0]["rating"]["color"] == "black", "{stars:?}");
    Ok(())
}

/// "Fault Injection": Jason waits for ratings, or gets none.
#[test]
fn faults_are_injected_for_one_user() -> Result<()> {
    let mut stage = staged()?;
    stage.apply(&networking("destination-rule-all"))?;
    stage.apply(&networking("virtual-service-all-v1"))?;
    stage.apply(&networking("virtual-service-reviews-test-v2"))?;
    stage.until_shared(&jason(PAGE), &[("reviews-v2", 10)], version)?;

    stage.apply(&networking("virtual-service-ratings-test-delay"))?;
    let seven = Duration::from_secs(7);
    stage.until("a delay", &jason(RATINGS), |it| it.status == 200 && it.time >= seven)?;
    // reviews gives up sooner, so the page comes without stars, or without reviews.
    let page = stage.curl(&jason(PAGE))?;
    ensure!(page.json()["reviews"][0]["rating"]["stars"].is_null(), "{page:?}");
    let others = stage.curl(&[RATINGS])?;
    ensure!(others.status == 200 && others.time < seven, "{others:?}");

    stage.apply(&networking("virtual-service-ratings-test-abort"))?;
    let aborted = |it: &Answer| it.status == 500 && it.body == "fault filter abort";
    stage.until("an abort", &jason(RATINGS), aborted)?;
    let page = stage.curl(&jason(PAGE))?;
    let told = &page.json()["reviews"][0]["rating"]["error"];
    ensure!(told == "Ratings service is currently unavailable", "{page:?}");
    ensure!(stage.curl(&[RATINGS])?.status == 200, "others are left alone");

    stage.apply(&networking("fault-injection-details-v1"))?;
    stage.until("an abort with a status of one's own", &[DETAILS], |it| it.status == 555).map(drop)
}

/// "Traffic Shifting" with Istio's resources: exact shares of a hundred requests.
#[test]
fn requests_are_shifted_by_virtual_services() -> Result<()> {
    let mut stage = staged()?;
    stage.apply(&networking("destination-rule-all"))?;
    stage.apply(&networking("virtual-service-all-v1"))?;
    stage.until_shared(&[REVIEWS], &[("reviews-v1", 10)], version)?;
    for (file, shares) in [
        ("virtual-service-reviews-90-10", &[("reviews-v1", 18), ("reviews-v2", 2)][..]),
        ("virtual-service-reviews-80-20", &[("reviews-v1", 16), ("reviews-v2", 4)]),
        ("virtual-service-reviews-50-v3", &[("reviews-v1", 10), ("reviews-v3", 10)]),
        ("virtual-service-reviews-v2-v3", &[("reviews-v2", 10), ("reviews-v3", 10)]),
        ("virtual-service-reviews-v3", &[("reviews-v3", 20)]),
    ] {
        stage.apply(&networking(file))?;
        stage.until_shared(&[REVIEWS], shares, version)?;
    }
    // A version that no pod has.
    stage.apply(&networking("virtual-service-details-v2"))?;
    stage.until("no pod of details v2", &[DETAILS], |it| it.status == 503)?;
    stage.apply(&networking("virtual-service-ratings-db"))?;
    stage.until("no pod of ratings v2", &[RATINGS], |it| it.status == 503).map(drop)
}

/// The same pages with the Gateway API, and a rule for all versions that says how to balance.
#[test]
fn requests_are_shifted_by_http_routes() -> Result<()> {
    let mut stage = Stage::of(&[APPLICATION, VERSIONS], true)?;
    stage.apply("bookinfo/gateway-api/route-all-v1.yaml")?;
    stage.until_shared(&[PAGE], &[("reviews-v1", 10)], version)?;
    for (file, shares) in [
        ("route-reviews-90-10", &[("reviews-v1", 18), ("reviews-v2", 2)][..]),
        ("route-reviews-50-v3", &[("reviews-v1", 10), ("reviews-v3", 10)]),
        ("route-reviews-v3", &[("reviews-v3", 20)]),
        ("route-reviews-v1", &[("reviews-v1", 20)]),
    ] {
        stage.apply(&format!("bookinfo/gateway-api/{file}.yaml"))?;
        stage.until_shared(&[REVIEWS], shares, version)?;
    }
    stage.apply(&networking("destination-rule-reviews"))?;
    stage.until_shared(&[REVIEWS], &[("reviews-v1", 20)], version)
}

/// "Request Timeouts": the page's own objects, which are in no file of the samples.
#[test]
fn requests_time_out() -> Result<()> {
    let mut stage = staged()?;
    stage.apply(&networking("destination-rule-all"))?;
    stage.apply(&networking("virtual-service-all-v1"))?;
    let rules = |timeout: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews}}\nspec: {{hosts: [reviews], \
             http: [{{{timeout}route: [{{destination: {{host: reviews, subset: v2}}}}]}}]}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: ratings}}\nspec: {{hosts: [ratings], \
             http: [{{fault: {{delay: {{percentage: {{value: 100}}, fixedDelay: 2s}}}}, \
             route: [{{destination: {{host: ratings, subset: v1}}}}]}}]}}\n"
        )
    };
    let two = Duration::from_secs(2);
    stage.lab.manifests.apply_in(super::stage::NAMESPACE, &rules(""))?;
    stage.until("the delay", &[REVIEWS], |it| {
        it.status == 200 && it.time >= two && version(it) == "reviews-v2"
    })?;
    stage.lab.manifests.apply_in(super::stage::NAMESPACE, &rules("timeout: 0.5s, "))?;
    stage.until("the timeout", &[REVIEWS], |it| it.status == 504 && it.time < two)?;
    let page = stage.curl(&[PAGE])?;
    let sorry = "Sorry, product reviews are currently unavailable for this book.";
    ensure!(page.status == 503 && page.json()["error"] == sorry, "{page:?}");
    Ok(())
}
