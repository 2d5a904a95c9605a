//! TrafficPolicies with real agents: limits at the destination, of requests and of connections, and a fault at the client's half.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, wait};
use crate::{WAYPOINT, meshed, settle};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";

fn with_waypoint() -> Result<Lab> {
    let mut lab = meshed()?;
    lab.manifests.apply(WAYPOINT)?;
    let label = ["istio.io/use-waypoint=waypoint"];
    lab.manifests.label(&Key::new("Namespace", "", "bookinfo"), &label)?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    Ok(lab)
}

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: isthmus.io/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: details, namespace: bookinfo}}\n\
         spec:\n  targetRefs: [{{group: '', kind: Service, name: details}}]\n  {spec}\n"
    )
}

#[test]
fn a_rate_limit_holds_whatever_way_requests_come() -> Result<()> {
    let mut lab = with_waypoint()?;
    let pod = lab.pod("details-v1")?.attachment.addresses;
    lab.manifests.apply(&policy("rateLimit: {local: {requests: 3, interval: 1h}}"))?;
    let since = lab.moment()?;
    let refused = wait::until("the limit", || {
        let answer = lab.curl("curl", &[DETAILS])?;
        Ok((answer.status == 429).then_some(answer))
    })?;
    ensure!(refused.body == "local_rate_limited", "{refused:?}");
    ensure!(refused.header("x-ratelimit-limit") == Some("3"), "{refused:?}");
    let again: u64 = refused.header("retry-after").unwrap_or_default().parse()?;
    ensure!((1..=1200).contains(&again), "{refused:?}");
    // Straight to the pod there is no other bucket.
    for address in pod {
        let url = format!("http://{}/details/0", std::net::SocketAddr::new(address, 9080));
        ensure!(lab.curl("curl", &[&url])?.status == 429, "{url}");
    }
    wait::until("a line of the log", || {
        let lines = lab.lines_since(&since);
        let limited = |line: &str| {
            line.contains("response_flags=\"RL\"") && line.contains("bookinfo/details")
        };
        Ok(lines.iter().any(|(_, line)| limited(line)).then_some(()))
    })?;
    // An object that cannot be read leaves the limit as it is.
    lab.manifests.apply(&policy("rateLimit: {local: {requests: 0, interval: 1h}}"))?;
    std::thread::sleep(Duration::from_millis(500));
    ensure!(lab.curl("curl", &[DETAILS])?.status == 429, "the last good version holds");
    lab.manifests.delete(&Key::new("TrafficPolicy", "bookinfo", "details"))?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    Ok(())
}

/// By a tunnel, on the same node, and in plaintext: the pod itself counts.
#[test]
fn connections_are_counted_without_a_waypoint() -> Result<()> {
    let mut lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let since = lab.moment()?;
    let limit = "tcpRateLimit: {connections: {limit: 2, interval: 1h, keys: [{type: Identity}]}}";
    lab.manifests.apply(&policy(limit))?;
    settle(&lab, "curl", &[DETAILS], 0)?;
    wait::until("a line of the log", || {
        let lines = lab.lines_since(&since);
        let limited = |line: &str| {
            line.contains("response_flags=\"RL\"") && line.contains("bookinfo/details")
        };
        Ok(lines.iter().any(|(_, line)| limited(line)).then_some(()))
    })?;
    let mut passed = 0;
    for address in lab.pod("details-v1")?.attachment.addresses {
        let url = format!("http://{}/details/0", std::net::SocketAddr::new(address, 9080));
        ensure!(lab.curl("curl", &[&url])?.status == 0, "{url}");
        // Of nobody: plaintext has a bucket of its own.
        for _ in 0..5 {
            passed += usize::from(lab.curl("outsider", &[&url])?.status == 200);
        }
    }
    ensure!(passed == 2, "{passed} connections of plaintext");
    lab.manifests.delete(&Key::new("TrafficPolicy", "bookinfo", "details"))?;
    settle(&lab, "curl", &[DETAILS], 200).map(drop)
}

#[test]
fn bytes_wait_for_their_time() -> Result<()> {
    let mut lab = meshed()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    lab.manifests
        .apply(&policy("tcpRateLimit: {bytes: {limit: 1000, interval: 1s, burst: 100}}"))?;
    // An answer and its head have more than three hundred bytes.
    wait::until("a wait", || {
        let answer = lab.curl("curl", &[DETAILS])?;
        ensure!(answer.status == 200, "nothing is lost: {answer:?}");
        Ok((answer.time >= Duration::from_millis(200)).then_some(()))
    })
}

#[test]
fn a_fault_delays_and_aborts_what_it_names() -> Result<()> {
    let mut lab = with_waypoint()?;
    let fault = "fault: {delay: {fixedDelay: 300ms}, abort: {httpStatus: 418}, headers: [{name: x-trial, value: '1'}]}";
    lab.manifests.apply(&policy(fault))?;
    let since = lab.moment()?;
    let tried = ["--header", "x-trial: 1", DETAILS];
    let aborted = wait::until("the fault", || {
        let answer = lab.curl("curl", &tried)?;
        Ok((answer.status == 418).then_some(answer))
    })?;
    ensure!(aborted.time >= Duration::from_millis(300), "{aborted:?}");
    ensure!(lab.curl("curl", &[DETAILS])?.status == 200, "others are left alone");
    wait::until("a line of the log", || {
        let lines = lab.lines_since(&since);
        let found = lines.iter().any(|(_, line)| line.contains("response_flags=\"FI\""));
        Ok(found.then_some(()))
    })?;
    lab.manifests.apply(&policy("fault: {delay: {fixedDelay: 300ms}}"))?;
    wait::until("a delay without an abort", || {
        let answer = lab.curl("curl", &tried)?;
        Ok((answer.status == 200 && answer.time >= Duration::from_millis(300)).then_some(()))
    })?;
    wait::until("its line of the log", || {
        let lines = lab.lines_since(&since);
        let found = lines.iter().any(|(_, line)| line.contains("response_flags=\"DI\""));
        Ok(found.then_some(()))
    })
}
