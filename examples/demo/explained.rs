//! Why a request was denied: what the node saw, which policy decided, and what would lift it.

use anyhow::{Context, Result, ensure};

use crate::plaintext::PAGE;
use crate::stage::Stage;
use crate::support::lab::{process, wait};

/// The policy of the step before.
const POLICY: &str = "AuthorizationPolicy/bookinfo/productpage-waypoint";
/// What explain is asked.
const QUESTION: [&str; 8] = [
    "--from",
    "default/curl",
    "--to",
    "productpage.bookinfo:9080",
    "--method",
    "DELETE",
    "--path",
    "/productpage",
];
/// The exit code of a refusal (`docs/explain.md`).
const REFUSED: i32 = 3;

pub fn run(stage: &mut Stage) -> Result<()> {
    stage.expect("curl", &["--request", "DELETE", PAGE], 403)?;
    stage.report.say("what the client's node saw of it:");
    let denied = wait::until("the denied request among the flows", || {
        let (_, text) = isthmus(stage, &["observe", "--verdict", "denied", "--last", "1"])?;
        Ok(text.contains("DELETE").then_some(text))
    })?;
    tell(stage, "observe --verdict denied --last 1", &denied);
    stage.report.say("the way of such a request, and what decides it:");
    let (code, tree) = isthmus(stage, &[&["explain"], &QUESTION[..]].concat())?;
    tell(stage, &format!("explain {}", QUESTION.join(" ")), &tree);
    ensure!(code == Some(REFUSED), "explain ended with {code:?} instead of {REFUSED}");
    stage.check(tree.contains("productpage-waypoint"), "explain does not name the policy")?;
    stage.report.say("the same without the policy, which stays in force:");
    let (code, tree) =
        isthmus(stage, &[&["explain", "--without", POLICY], &QUESTION[..]].concat())?;
    let outcome = tree.lines().last().unwrap_or_default();
    tell(stage, &format!("explain --without {POLICY} ..."), outcome);
    ensure!(code == Some(0), "explain ended with {code:?} without the policy: {tree}");
    stage.expect("curl", &["--request", "DELETE", PAGE], 403)?;
    stage.report.figure("explained", "refused");
    stage.report.figure("explained_without_the_policy", "permitted");
    Ok(())
}

/// A command of `isthmus` on the node of curl, as its operator would type it: the exit code, and what it prints.
fn isthmus(stage: &Stage, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let (lab, node) = (&stage.lab, &stage.lab.pod("curl")?.plan.node);
    let mut command = process::command(&lab.node(node)?.namespace, &lab.programs().isthmus);
    let (name, rest) = arguments.split_first().context("a command")?;
    let output = command.args([name, "--node", node.as_str()]).args(rest).output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
}

fn tell(stage: &Stage, command: &str, text: &str) {
    stage.report.command(&format!("isthmus {command}"));
    for line in text.lines() {
        stage.report.evidence(line);
    }
}
