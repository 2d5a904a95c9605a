//! What operators see of connections and requests: `isthmus observe` at real agents.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::support::lab::agents::{administer, socket};
use crate::support::lab::manifests::Key;
use crate::support::lab::process::{self, Process};
use crate::support::lab::{Lab, wait};
use crate::{WAYPOINT, meshed, settle};

const DETAILS: &str = "http://details.bookinfo:9080/details";
const RATINGS: &str = "http://ratings.bookinfo:9080/ratings/0";
/// Within which a flow is to be seen once it has ended.
const SOON: Duration = Duration::from_secs(2);
/// Long enough for anything that happens at all.
const PATIENCE: Duration = Duration::from_secs(10);

fn node_of(lab: &Lab, pod: &str) -> Result<String> {
    Ok(lab.pod(pod)?.plan.node.clone())
}

fn use_waypoint(lab: &mut Lab) -> Result<()> {
    lab.manifests.apply(WAYPOINT)?;
    let namespace = Key::new("Namespace", "", "bookinfo");
    lab.manifests.label(&namespace, &["istio.io/use-waypoint=waypoint"])
}

/// Lets only GET pass to a Service.
fn only_get(lab: &mut Lab, service: &str) -> Result<()> {
    let policy = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {service}-get, namespace: bookinfo}}\n\
         spec:\n  targetRefs: [{{kind: Service, group: '', name: {service}}}]\n  \
         rules: [{{to: [{{operation: {{methods: [GET]}}}}]}}]\n"
    );
    lab.manifests.apply(&policy)?;
    Ok(())
}

/// What `isthmus observe` prints at a node.
fn observe(lab: &Lab, node: &str, arguments: &[&str]) -> Result<String> {
    let mut command = process::command(&lab.node(node)?.namespace, &lab.programs().isthmus);
    let output = command.args(["observe", "--node", node]).args(arguments).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "observe {arguments:?}: {}: {error}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn flows(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| serde_json::from_str(line).context(line.to_owned())).collect()
}

/// The flow of a request with this path, or of a connection, that this half of it reported.
fn seen(lab: &Lab, node: &str, reporter: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let arguments = ["--output", "json", "--last", "1000"];
    wait::within(SOON, &format!("a flow at {node} by its {reporter}"), || {
        let flows = flows(&observe(lab, node, &arguments)?)?;
        Ok(flows.into_iter().find(|flow| flow["reporter"] == reporter && wanted(flow)))
    })
}

#[test]
fn requests_are_seen_at_both_ends_with_verdict_policy_and_reason() -> Result<()> {
    let mut lab = meshed()?;
    use_waypoint(&mut lab)?;
    only_get(&mut lab, "details")?;
    let (get, delete) = (format!("{DETAILS}/1?token=x"), format!("{DETAILS}/2"));
    settle(&lab, "curl", &["-X", "DELETE", &format!("{DETAILS}/0")], 403)?;
    let (here, there) = (node_of(&lab, "curl")?, node_of(&lab, "details-v1")?);
    assert_eq!(lab.curl("curl", &[&get])?.status, 200);
    let answer = lab.curl("curl", &["-v", "-X", "DELETE", &delete])?;
    assert_eq!(answer.status, 403);
    assert!(
        !format!("{answer:?}").contains("x-isthmus"),
        "what agents tell each other: {answer:?}"
    );

    let path = |path: &'static str| move |flow: &Value| flow["http"]["path"] == path;
    let flow = seen(&lab, &there, "destination", path("/details/1?token=x"))?;
    assert_eq!(
        (&flow["verdict"], &flow["policy"]),
        (&"permitted".into(), &"bookinfo/details-get".into())
    );
    assert_eq!(
        (&flow["layer"], &flow["mutualTls"], &flow["http"]["status"]),
        (&7.into(), &true.into(), &200.into())
    );
    assert_eq!(flow["source"]["identity"], "spiffe://cluster.local/ns/default/sa/curl");
    assert_eq!(flow["destination"]["pod"], "details-v1", "{flow:#}");
    let flow = seen(&lab, &here, "source", path("/details/1?token=x"))?;
    assert_eq!(
        (&flow["verdict"], &flow["service"]["name"]),
        (&"permitted".into(), &"details".into())
    );
    assert!(flow["durationMs"].as_f64() > Some(0.0), "{flow:#}");

    let flow = seen(&lab, &there, "destination", path("/details/2"))?;
    assert_eq!(
        (&flow["verdict"], &flow["policy"]),
        (&"denied".into(), &"bookinfo/details-get".into())
    );
    let reason = flow["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("no ALLOW AuthorizationPolicy matches"), "{flow:#}");
    assert_eq!((&flow["flags"], &flow["http"]["method"]), (&"DENY".into(), &"DELETE".into()));
    let flow = seen(&lab, &here, "source", path("/details/2"))?;
    assert_eq!(
        (&flow["verdict"], &flow["http"]["status"]),
        (&"denied".into(), &403.into()),
        "{flow:#}"
    );
    assert!(
        flow["reason"].as_str().is_some_and(|why| why.contains("destination's node")),
        "{flow:#}"
    );

    what_is_asked_for_is_shown(&lab, &here, &there)
}

/// Filters, forms of output, and the counts, after a permitted and a denied request.
fn what_is_asked_for_is_shown(lab: &Lab, here: &str, there: &str) -> Result<()> {
    let denied = flows(&observe(lab, there, &["--verdict", "denied", "--output", "json"])?)?;
    assert!(!denied.is_empty() && denied.iter().all(|flow| flow["verdict"] == "denied"));
    let text = observe(lab, there, &["--status", "403", "--workload", "default/curl"])?;
    assert!(text.contains("denied") && text.contains("DELETE /details/2 403"), "{text}");
    assert!(!text.contains("GET /details/1"), "{text}");
    let summary = observe(lab, there, &["--summary"])?;
    let row = summary.lines().find(|row| row.contains("denied") && row.contains("DELETE"));
    assert!(row.is_some_and(|row| row.contains("bookinfo/details-get")), "{summary}");
    assert_eq!(administer(lab.node(here)?, &[], "/flows?layer=5")?.status, 400);
    Ok(())
}

#[test]
fn connections_are_seen_at_both_ends_with_verdict_policy_and_reason() -> Result<()> {
    let mut lab = meshed()?;
    let url = format!("{DETAILS}/0");
    settle(&lab, "curl", &[&url], 200)?;
    let (here, there) = (node_of(&lab, "curl")?, node_of(&lab, "details-v1")?);
    let permitted = |flow: &Value| flow["layer"] == 4 && flow["verdict"] == "permitted";
    for (node, reporter) in [(&here, "source"), (&there, "destination")] {
        let flow = seen(&lab, node, reporter, permitted)?;
        assert!(flow["bytesReceived"].as_u64() > Some(20), "{flow:#}");
    }
    lab.manifests.apply(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {name: no-curl, namespace: bookinfo}\n\
         spec:\n  selector: {matchLabels: {app: details}}\n  action: DENY\n  \
         rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/curl]}}]}]\n",
    )?;
    settle(&lab, "curl", &[&url], 0)?;
    let denied = |flow: &Value| flow["layer"] == 4 && flow["verdict"] == "denied";
    let flow = seen(&lab, &there, "destination", denied)?;
    assert_eq!(
        (&flow["policy"], &flow["flags"]),
        (&"bookinfo/no-curl".into(), &"DENY".into()),
        "{flow:#}"
    );
    assert!(
        flow["reason"].as_str().is_some_and(|why| why.contains("bookinfo/no-curl denies")),
        "{flow:#}"
    );
    let flow = seen(&lab, &here, "source", denied)?;
    assert_eq!(flow["destination"]["pod"], "details-v1", "{flow:#}");
    assert!(flow["reason"].as_str().is_some_and(|why| why.contains("401")), "{flow:#}");
    Ok(())
}

#[test]
fn who_follows_sees_what_is_new_and_only_what_was_asked_for() -> Result<()> {
    let mut lab = meshed()?;
    use_waypoint(&mut lab)?;
    only_get(&mut lab, "details")?;
    settle(&lab, "curl", &["-X", "DELETE", &format!("{DETAILS}/0")], 403)?;
    let there = node_of(&lab, "details-v1")?;
    let namespace = lab.node(&there)?.namespace.clone();
    let mut command = process::command(&namespace, &lab.programs().isthmus);
    command.args([
        "observe",
        "--node",
        &there,
        "-f",
        "--last",
        "0",
        "--verdict",
        "denied",
        "--output",
        "json",
    ]);
    let mut following = Process::start("observe", &namespace, command, lab.logs())?;
    let observers = || anyhow::Ok(lab.metrics()?.sum("isthmus_observers", &[]));
    wait::until("the observer to follow", || Ok((observers()? == 1.0).then_some(())))?;
    assert_eq!(lab.curl("curl", &[&format!("{DETAILS}/3")])?.status, 200);
    assert_eq!(lab.curl("curl", &["-X", "PUT", &format!("{DETAILS}/4")])?.status, 403);
    let text = wait::within(SOON, "the denied request", || {
        following.must_run()?;
        let log = following.log();
        Ok(log.ends_with('\n').then_some(log))
    })?;
    let flows = flows(&text)?;
    assert!(flows.iter().all(|flow| flow["verdict"] == "denied"), "{text}");
    assert!(flows.iter().any(|flow| flow["http"]["path"] == "/details/4"), "{text}");
    drop(following);
    wait::until("the observer to be gone", || Ok((observers()? == 0.0).then_some(())))
}

#[test]
fn a_slow_observer_loses_flows_and_is_told() -> Result<()> {
    let mut lab = meshed()?;
    use_waypoint(&mut lab)?;
    only_get(&mut lab, "ratings")?;
    settle(&lab, "curl", &["-X", "DELETE", RATINGS], 403)?;
    let node = node_of(&lab, "curl")?;
    assert_eq!(node, node_of(&lab, "ratings-v1")?, "so that each request is two flows here");
    for reporter in ["source", "destination"] {
        let flow = seen(&lab, &node, reporter, |flow| flow["verdict"] == "denied")?;
        assert_eq!(flow["inProcess"], true, "{flow:#}");
    }
    let mut slow = UnixStream::connect(socket(&node))?;
    slow.set_read_timeout(Some(PATIENCE))?;
    slow.write_all(b"GET /flows?follow=true&layer=7&last=0 HTTP/1.0\r\nHost: agent\r\n\r\n")?;
    let dropped = || anyhow::Ok(lab.metrics()?.sum("isthmus_observed_flows_dropped_total", &[]));
    wait::until("some to be lost", || {
        assert_eq!(lab.curl("curl", &[&format!("{RATINGS}?[1-1000]")])?.status, 200);
        Ok((dropped()? > 0.0).then_some(()))
    })?;
    let mut text = String::new();
    let mut piece = [0; 64 * 1024];
    let lost = wait::until("to be told", || {
        let length = slow.read(&mut piece)?;
        ensure!(length > 0, "the stream has ended");
        text.push_str(&String::from_utf8_lossy(&piece[..length]));
        let told = text.lines().find(|line| line.starts_with("{\"lost\":"));
        Ok(told.map(str::to_owned))
    })?;
    let lost: Value = serde_json::from_str(&lost)?;
    assert!(lost["lost"].as_u64() > Some(0), "{lost}");
    slow.shutdown(Shutdown::Both)?;
    Ok(())
}

#[test]
fn top_shows_what_comes_and_ends_when_it_is_told_to() -> Result<()> {
    let lab = meshed()?;
    let url = format!("{DETAILS}/0");
    settle(&lab, "curl", &[&url], 200)?;
    let here = node_of(&lab, "curl")?;
    let namespace = lab.node(&here)?.namespace.clone();
    let isthmus = &lab.programs().isthmus;
    let top = ["top", "--node", &here, "--interval", "500ms"];
    for (form, wanted) in
        [("json", "\"service\":\"bookinfo/details\""), ("text", "bookinfo/details")]
    {
        let mut command = process::command(&namespace, isthmus);
        command.args(top).args(["--once", "--output", form]);
        let mut once = Process::start(form, &namespace, command, lab.logs())?;
        let text = wait::until("a frame", || {
            assert_eq!(lab.curl("curl", &[&url])?.status, 200);
            let log = once.log();
            Ok(log.ends_with('\n').then_some(log))
        })?;
        assert_eq!(once.wait_for_end()?, Some(0));
        assert!(text.contains(wanted), "{text}");
        if form == "json" {
            let edges: Value = serde_json::from_str(&text)?;
            let rate = |edge: &Value| edge["requestsPerSecond"].as_f64() > Some(0.0);
            assert!(edges["edges"].as_array().is_some_and(|all| all.iter().any(rate)), "{text}");
        }
    }

    // In a terminal, as an operator has it.
    let log = lab.logs().join("terminal.log");
    let shell = format!("stty rows 24 cols 100; exec {} {}", isthmus.display(), top.join(" "));
    let mut terminal = process::command(&namespace, "script")
        .args(["--quiet", "--return", "--command", &shell, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(File::create(&log)?)
        .spawn()?;
    let shown = || anyhow::Ok(String::from_utf8_lossy(&fs::read(&log)?).into_owned());
    let mut keys = terminal.stdin.take().context("a pipe")?;
    wait::until("the screen", || Ok(shown()?.contains("bookinfo/details").then_some(())))?;
    keys.write_all(b"\r")?;
    wait::until("the clients of the service", || {
        Ok(shown()?.contains("default/curl").then_some(()))
    })?;
    keys.write_all(b"q")?;
    let status = wait::until("top to end", || Ok(terminal.try_wait()?))?;
    assert!(status.success(), "{status}: {}", shown()?);
    assert!(shown()?.contains("\x1b[?1049l"), "the terminal is as it was");
    Ok(())
}

#[test]
fn nothing_is_remembered_where_the_memory_is_off() -> Result<()> {
    let mut lab = crate::bookinfo()?;
    lab.start_agents("[observe]\nflows = 0\npairs = 0\n")?;
    crate::bookinfo_lab::enrol(&mut lab)?;
    settle(&lab, "curl", &[&format!("{DETAILS}/0")], 200)?;
    let here = node_of(&lab, "curl")?;
    assert_eq!(observe(&lab, &here, &[])?, "");
    let summary = observe(&lab, &here, &["--summary"])?;
    assert!(summary.starts_with("0 pairs within the last hour"), "{summary}");
    Ok(())
}
