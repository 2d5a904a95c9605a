//! VirtualServices with real agents: Istio's tasks with Bookinfo, from manifests in a directory.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::support::lab::curl::Answer;
use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, wait};
use crate::{WAYPOINT, meshed, settle};

const REVIEWS: &str = "http://reviews.bookinfo:9080/headers";

/// As in Istio's samples (`destination-rule-all.yaml`).
const SUBSETS: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: bookinfo}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
  - {name: v3, labels: {version: v3}}
";

fn with_waypoint() -> Result<Lab> {
    let mut lab = meshed()?;
    lab.manifests.apply(WAYPOINT)?;
    let label = ["istio.io/use-waypoint=waypoint"];
    lab.manifests.label(&Key::new("Namespace", "", "bookinfo"), &label)?;
    settle(&lab, "curl", &[REVIEWS], 200)?;
    Ok(lab)
}

fn reviews(http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews, namespace: bookinfo}}\n\
         spec:\n  hosts: [reviews]\n  http:\n{http}"
    )
}

/// How many of so many requests each version answered; `None` if one failed.
fn versions(lab: &Lab, args: &[&str], count: usize) -> Result<Option<BTreeMap<String, usize>>> {
    let mut versions = BTreeMap::new();
    for _ in 0..count {
        let answer = lab.curl("curl", args)?;
        if answer.status != 200 {
            return Ok(None);
        }
        let version = answer.json()["version"].as_str().unwrap_or_default().to_owned();
        *versions.entry(version).or_default() += 1;
    }
    Ok(Some(versions))
}

/// Waits until all of ten requests in a row are answered by this version.
fn all_to(lab: &Lab, args: &[&str], version: &str) -> Result<()> {
    wait::until(&format!("all requests to go to {version}"), || {
        let found = versions(lab, args, 10)?;
        Ok((found == Some(BTreeMap::from([(version.to_owned(), 10)]))).then_some(()))
    })
}

fn until(lab: &Lab, what: &str, args: &[&str], is_it: impl Fn(&Answer) -> bool) -> Result<Answer> {
    wait::until(what, || {
        let answer = lab.curl("curl", args)?;
        Ok(is_it(&answer).then_some(answer))
    })
}

#[test]
fn bookinfo_is_shifted_by_weights_and_users() -> Result<()> {
    let mut lab = with_waypoint()?;
    // All to v1; before the DestinationRule is there, nothing has such a subset.
    lab.manifests.apply(&reviews("  - route: [{destination: {host: reviews, subset: v1}}]\n"))?;
    until(&lab, "an unknown subset", &[REVIEWS], |it| it.status == 503)?;
    lab.manifests.apply(SUBSETS)?;
    all_to(&lab, &[REVIEWS], "v1")?;
    // 90 to 10.
    lab.manifests.apply(&reviews(
        "  - route:\n    - {destination: {host: reviews, subset: v1}, weight: 90}\n    \
         - {destination: {host: reviews, subset: v2}, weight: 10}\n",
    ))?;
    wait::until("the split", || {
        let versions = versions(&lab, &[REVIEWS], 20)?;
        let expected = BTreeMap::from([("v1".to_owned(), 18), ("v2".to_owned(), 2)]);
        Ok((versions == Some(expected)).then_some(()))
    })?;
    // Jason to v2, the others to v1.
    let by_user = "  - match: [{headers: {end-user: {exact: jason}}}]\n    \
                   route: [{destination: {host: reviews, subset: v2}}]\n  \
                   - route: [{destination: {host: reviews, subset: v1}}]\n";
    lab.manifests.apply(&reviews(by_user))?;
    let jason = ["--header", "end-user: jason", REVIEWS];
    all_to(&lab, &jason, "v2")?;
    all_to(&lab, &[REVIEWS], "v1")?;
    // A client's own namespace comes first, for its clients alone.
    let own = reviews(
        "  - route: [{destination: {host: reviews.bookinfo.svc.cluster.local}}]\n    \
                       fault: {abort: {httpStatus: 418, percentage: {value: 100}}}\n",
    );
    let own = own.replace("namespace: bookinfo", "namespace: default");
    let own = own.replace("hosts: [reviews]", "hosts: [reviews.bookinfo.svc.cluster.local]");
    lab.manifests.apply(&own)?;
    until(&lab, "the rules of the client's namespace", &[REVIEWS], |it| it.status == 418)?;
    lab.manifests.delete(&Key::new("VirtualService", "default", "reviews"))?;
    all_to(&lab, &[REVIEWS], "v1")
}

#[test]
fn faults_delay_and_abort_what_one_user_asks() -> Result<()> {
    let mut lab = with_waypoint()?;
    let jason = ["--header", "end-user: jason", REVIEWS];
    let with = |fault: &str| {
        reviews(&format!(
            "  - match: [{{headers: {{end-user: {{exact: jason}}}}}}]\n    fault: {fault}\n    \
             route: [{{destination: {{host: reviews}}}}]\n  - route: [{{destination: {{host: reviews}}}}]\n"
        ))
    };
    let delay = Duration::from_millis(400);
    lab.manifests.apply(&with("{delay: {fixedDelay: 400ms, percentage: {value: 100.0}}}"))?;
    until(&lab, "a delay", &jason, |it| it.status == 200 && it.time >= delay)?;
    let since = lab.moment()?;
    lab.manifests.apply(&with("{abort: {httpStatus: 500, percentage: {value: 100.0}}}"))?;
    until(&lab, "an abort", &jason, |it| it.status == 500 && it.body == "fault filter abort")?;
    ensure!(lab.curl("curl", &[REVIEWS])?.status == 200, "others are left alone");
    wait::until("a line of the log", || {
        let lines = lab.lines_since(&since);
        let told = |line: &str| {
            line.contains("response_flags=\"FI\"")
                && line.contains("VirtualService bookinfo/reviews")
        };
        Ok(lines.iter().any(|(_, line)| told(line)).then_some(()))
    })
}

/// Istio's task with tcp-echo, without a waypoint: connections are split between subsets.
#[test]
fn connections_are_shifted_by_weights() -> Result<()> {
    let mut lab = meshed()?;
    let subset = |name: &str| format!("{{name: {name}, labels: {{version: {name}}}}}");
    lab.manifests.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: tcp-echo, namespace: bookinfo}}\n\
         spec: {{clusterIP: 10.96.90.1, selector: {{app: reviews}}, ports: [{{name: tcp, port: 9000, targetPort: 9080}}]}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: tcp-echo, namespace: bookinfo}}\n\
         spec: {{host: tcp-echo, subsets: [{}, {}]}}\n",
        subset("v1"),
        subset("v2")
    ))?;
    let to = |name: &str, weight: u32| {
        format!(
            "{{destination: {{host: tcp-echo, port: {{number: 9000}}, subset: {name}}}, weight: {weight}}}"
        )
    };
    let rules = |routes: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: tcp-echo, namespace: bookinfo}}\n\
             spec: {{hosts: [tcp-echo], tcp: [{{match: [{{port: 9000}}], route: [{routes}]}}]}}\n"
        )
    };
    let url = "http://10.96.90.1:9000/headers";
    settle(&lab, "curl", &[url], 200)?;
    lab.manifests.apply(&rules(&to("v1", 100)))?;
    all_to(&lab, &[url], "v1")?;
    lab.manifests.apply(&rules(&format!("{}, {}", to("v1", 80), to("v2", 20))))?;
    wait::until("the split", || {
        let versions = versions(&lab, &[url], 20)?;
        let expected = BTreeMap::from([("v1".to_owned(), 16), ("v2".to_owned(), 4)]);
        Ok((versions == Some(expected)).then_some(()))
    })
}
