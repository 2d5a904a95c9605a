//! `isthmus explain` and `isthmus preview` beside real agents.

use anyhow::{Context, Result};

use crate::support::lab::manifests::Key;
use crate::support::lab::{Lab, process, wait};
use crate::{WAYPOINT, meshed, settle};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";

/// The node that a pod runs on.
fn node_of(lab: &Lab, pod: &str) -> Result<String> {
    Ok(lab.pod(pod)?.plan.node.clone())
}

/// Asks the agent of a node why, as an operator does.
fn explain(lab: &Lab, node: &str, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = process::command(&lab.node(node)?.namespace, &lab.programs().isthmus);
    let output = command.args(["explain", "--node", node]).args(arguments).output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn a_denial_is_explained_as_it_happens_and_what_would_lift_it_is_known_before() -> Result<()> {
    let mut lab = meshed()?;
    lab.manifests.apply(WAYPOINT)?;
    let namespace = Key::new("Namespace", "", "bookinfo");
    lab.manifests.label(&namespace, &["istio.io/use-waypoint=waypoint"])?;
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                  metadata: {name: details, namespace: bookinfo}\n\
                  spec:\n  targetRefs: [{kind: Service, group: '', name: details}]\n  \
                  rules: [{to: [{operation: {methods: [GET]}}]}]\n";
    lab.manifests.apply(policy)?;
    settle(&lab, "curl", &["-X", "DELETE", DETAILS], 403)?;
    let node = node_of(&lab, "curl")?;
    let asked = ["--from", "default/curl", "--to", "details.bookinfo:9080", "--path", "/details/0"];
    let delete = [&asked[..], &["--method", "DELETE"]].concat();
    let (code, text) = explain(&lab, &node, &delete)?;
    assert_eq!(code, Some(3), "{text}");
    for told in [
        "Gateway bookinfo/waypoint takes it",
        "AuthorizationPolicy bookinfo/details (ALLOW): no rule matches",
        "to[0].operation.methods wants \"GET\"; the method is DELETE",
        "=> refused: 403 (",
    ] {
        assert!(text.contains(told), "{told}: {text}");
    }
    let (code, text) = explain(&lab, &node, &asked)?;
    assert_eq!(code, Some(0), "{text}");
    settle(&lab, "curl", &[DETAILS], 200)?;

    // What is supposed is not done.
    let without = ["--without", "AuthorizationPolicy/bookinfo/details"];
    let (code, text) = explain(&lab, &node, &[&delete[..], &without].concat())?;
    assert_eq!(code, Some(0), "{text}");
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("wider.yaml");
    std::fs::write(&file, policy.replace("[GET]", "[GET, DELETE]"))?;
    let with = ["--with", file.to_str().context("a path")?];
    let (code, text) = explain(&lab, &node, &[&delete[..], &with].concat())?;
    assert_eq!(code, Some(0), "{text}");
    settle(&lab, "curl", &["-X", "DELETE", DETAILS], 403)?;
    let denied = policy.replace("[GET]", "[PUT]");
    std::fs::write(&file, denied)?;
    let previewed = wait::until("the requests above to be remembered", || {
        let mut command = process::command(&lab.node(&node)?.namespace, &lab.programs().isthmus);
        let output = command.args(["preview", with[1], "--node", &node]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.contains("GET /details/0").then_some((output.status.code(), text)))
    })?;
    let (code, text) = previewed;
    assert_eq!(code, Some(3), "{text}");
    let line = text.lines().find(|it| it.contains("GET /details/0")).context(text.clone())?;
    assert!(line.contains("permitted -> refused: 403") && line.contains("default/curl"), "{text}");
    assert!(!text.contains("DELETE"), "it was denied before: {text}");
    let (code, text) = explain(&lab, &node, &["--from", "default/curl", "--to", "nobody:1"])?;
    assert!(code == Some(1) && text.contains("for another namespace say"), "{text}");
    Ok(())
}
