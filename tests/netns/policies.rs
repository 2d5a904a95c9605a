//! Authorization with real agents: what changes for open connections, and what policies say that decide nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Result;

use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, Moment, wait};
use crate::{meshed, settle};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
/// Long enough for anything that happens at all.
const PATIENCE: Duration = Duration::from_secs(10);

fn policy(name: &str, annotations: &str, labels: &str, action: &str, rule: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {name}, namespace: bookinfo, annotations: {{{annotations}}}}}\n\
         spec:\n  selector: {{matchLabels: {{{labels}}}}}\n  action: {action}\n  rules: [{rule}]\n"
    )
}

fn logged(lab: &Lab, since: &Moment, words: &[&str]) -> Result<()> {
    wait::until(&format!("a line with {words:?}"), || {
        let lines = lab.lines_since(since);
        let found = lines.iter().any(|(_, line)| words.iter().all(|word| line.contains(word)));
        Ok(found.then_some(()))
    })
}

/// A connection of a pod that the application has answered on, so that it is open from end to end.
fn open(lab: &Lab, from: &str, to: SocketAddr, url: &str) -> Result<TcpStream> {
    let stream = lab.pod(from)?.attachment.namespace.run(|| TcpStream::connect(to))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    ask(&stream, url)?;
    Ok(stream)
}

fn ask(mut stream: &TcpStream, url: &str) -> Result<()> {
    let (host, path) = url.trim_start_matches("http://").split_once('/').unwrap_or((url, ""));
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..length]);
    anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "answered {answer:?}");
    Ok(())
}

#[test]
fn dry_run_and_audit_are_logged_and_counted() -> Result<()> {
    let mut lab = meshed()?;
    let curl = "{from: [{source: {principals: [cluster.local/ns/default/sa/curl]}}]}";
    let post = "{to: [{operation: {methods: [POST]}}]}";
    lab.manifests.apply(&policy("audit", "", "app: details", "AUDIT", curl))?;
    let dry = "istio.io/dry-run: 'true'";
    lab.manifests.apply(&policy("post", dry, "app: details", "DENY", post))?;
    let since = lab.moment()?;
    let noted = "policy.notes=\"bookinfo/audit=audit,bookinfo/post=would_deny\"";
    wait::until("the policies to be in force and a line to say so", || {
        assert_eq!(lab.curl("curl", &["-X", "POST", DETAILS])?.status, 200);
        Ok(lab.lines_since(&since).iter().any(|(_, line)| line.contains(noted)).then_some(()))
    })?;
    let count = |effect| -> Result<f64> {
        let labels = [("policy_namespace", "bookinfo"), ("effect", effect)];
        Ok(lab.metrics()?.sum("isthmus_policy_notes_total", &labels))
    };
    assert!(count("would_deny")? >= 1.0 && count("audit")? >= 1.0);
    let before = count("would_deny")?;
    assert_eq!(lab.curl("curl", &[DETAILS])?.status, 200);
    assert_eq!(count("would_deny")?, before, "a GET is not what the policy denies");
    Ok(())
}

/// Trap 5 of the reference: a policy that comes to select a workload with live connections.
#[test]
fn trap_05_a_live_connection_is_cut_when_its_workload_comes_to_be_selected() -> Result<()> {
    let mut lab = meshed()?;
    let ratings = "http://ratings.bookinfo:9080/ratings/0";
    // Through a tunnel, and within the node: each while the other one is denied whole.
    cut_when_selected(&mut lab, ("details-v1", DETAILS), ("ratings", ratings))?;
    cut_when_selected(&mut lab, ("ratings-v1", ratings), ("details", DETAILS))
}

fn cut_when_selected(lab: &mut Lab, (pod, url): (&str, &str), other: (&str, &str)) -> Result<()> {
    lab.manifests.apply(&policy("other", "", &format!("app: {}", other.0), "DENY", "{}"))?;
    settle(lab, "curl", &[url], 200)?;
    let to = SocketAddr::new(lab.address(pod)?, 9080);
    let mut connection = open(lab, "curl", to, url)?;
    let quarantine = policy("quarantine", "", "quarantined: 'yes'", "DENY", "{}");
    lab.manifests.apply(&quarantine)?;
    settle(lab, "curl", &[other.1], 0)?;
    ask(&connection, url)?;

    let since = lab.moment()?;
    let key = Key::new("Pod", "bookinfo", pod);
    lab.manifests.label(&key, &["quarantined=yes"])?;
    let mut rest = [0; 64];
    let ended = connection.read(&mut rest);
    assert!(matches!(&ended, Ok(0) | Err(_)), "still open: {ended:?}");
    assert!(!matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock));
    logged(lab, &since, &["cut after a change", "bookinfo/quarantine"])?;
    settle(lab, "curl", &[url], 0)?;
    lab.manifests.label(&key, &["quarantined=no"])?;
    settle(lab, "curl", &[url], 200)?;
    Ok(())
}

/// Trap 1: on bytes that are not HTTP, the HTTP part of a DENY rule is left out, which denies more, never less.
#[test]
fn trap_01_a_deny_of_http_denies_what_is_not_http() -> Result<()> {
    let mut lab = meshed()?;
    let delete = "{to: [{operation: {methods: [DELETE]}}]}";
    lab.manifests.apply(&policy("delete", "", "app: details", "DENY", delete))?;
    settle(&lab, "curl", &["-X", "DELETE", DETAILS], 403)?;
    assert_eq!(lab.curl("curl", &[DETAILS])?.status, 200);
    let to = SocketAddr::new(lab.address("details-v1")?, 9080);
    let since = lab.moment()?;
    let mut bytes = lab.pod("curl")?.attachment.namespace.run(|| TcpStream::connect(to))??;
    bytes.set_read_timeout(Some(PATIENCE))?;
    bytes.write_all(b"\x16\x03\x01 these are bytes that nobody takes for HTTP\r\n\r\n")?;
    let mut answer = Vec::new();
    let ended = bytes.read_to_end(&mut answer);
    let timed_out = matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(answer.is_empty() && !timed_out, "{ended:?}: {answer:?}");
    logged(&lab, &since, &["bookinfo/delete", "denies"])?;
    Ok(())
}
