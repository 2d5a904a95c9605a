//! An HTTPRoute that splits the traffic of a Service.

use anyhow::Result;

use crate::plaintext::PAGE;
use crate::stage::Stage;
use crate::support::lab::wait;

/// curl's globbing: a hundred requests, on one connection as long as it is kept open.
const HUNDRED: &str = "http://reviews.bookinfo:9080/reviews/0?[1-100]";
const TWENTY: &str = "http://reviews.bookinfo:9080/reviews/0?[1-20]";
const PAGES: &str = "http://productpage.bookinfo:9080/productpage?[1-20]";

pub fn split(stage: &mut Stage) -> Result<()> {
    stage.report.say("without a route, all three versions answer:");
    let before = served(stage, HUNDRED)?;
    stage.figure("before", before.to_vec());
    stage.check(before.iter().all(|count| *count > 0), "a version of reviews never answered")?;

    stage.apply("reviews-route.yaml")?;
    // Without the route, none of twenty requests would reach v3 once in three thousand times.
    wait::until("the route to take effect", || Ok((served(stage, TWENTY)?[2] == 0).then_some(())))?;
    let moment = stage.lab.moment()?;
    let [v1, v2, v3] = served(stage, HUNDRED)?;
    stage.report.say("curl: a hundred requests to reviews, on one connection");
    stage.figure("v1", v1);
    stage.figure("v2", v2);
    stage.figure("v3", v3);
    stage.log_evidence(&moment, &["/reviews/0", "reviews-v2"])?;
    stage.check([v1, v2, v3] == [90, 10, 0], "the split is not 90 to 10")?;
    stars(stage)
}

/// The page shows what the route decided: no stars, or black ones, and never red ones.
fn stars(stage: &mut Stage) -> Result<()> {
    stage.expect("curl", &[PAGE], 200)?;
    let pages = stage.lab.curl("curl", &[PAGES])?.body;
    let count = |text: &str| pages.matches(text).count();
    let none = count("<u>reviews-v1</u>");
    let black = count("class=\"stars black\"") / 2;
    let red = count("class=\"stars red\"") / 2;
    stage.figure("pages_without_stars", none);
    stage.figure("pages_with_black_stars", black);
    stage.check(red == 0 && none + black == 20 && none > black, "the pages show something else")
}

/// How often each version answered.
fn served(stage: &Stage, url: &str) -> Result<[usize; 3]> {
    let answer = stage.lab.curl("curl", &[url])?;
    let count = |pod: &str| answer.body.matches(&format!("\"podname\":\"{pod}\"")).count();
    Ok(["reviews-v1", "reviews-v2", "reviews-v3"].map(count))
}
