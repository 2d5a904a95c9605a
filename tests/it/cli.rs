//! Subcommands as a shell meets them.

use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_isthmus");

/// Runs the program with a standard output that nobody reads any more, as that of `| head -1` soon is.
fn unread(arguments: &[&str]) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = Command::new(PROGRAM).args(arguments).stdout(writer).output();
    child.unwrap()
}

fn directory(manifest: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.yaml"), manifest).unwrap();
    directory
}

#[test]
fn a_reader_that_goes_away_changes_nothing() {
    let good = directory("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n");
    let bad = directory(&"a: [\n---\n".repeat(5_000));
    let (good, bad) = (good.path().to_str().unwrap(), bad.path().to_str().unwrap());
    for (arguments, code) in [
        (&["check", good][..], 0),
        (&["check", bad], 2),
        (&["analyze", good], 0),
        (&["version"], 0),
        (&["--help"], 0),
        (&["check", "--help"], 0),
    ] {
        let output = unread(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), said.as_ref()), (Some(code), ""), "{arguments:?}");
    }
}

/// `docs/troubleshooting.md`, "Exit codes".
#[test]
fn exit_codes_are_those_of_the_documentation() {
    let code = |arguments: &[&str]| {
        let output = Command::new(PROGRAM).args(arguments).output().unwrap();
        output.status.code()
    };
    let socket = ["status", "--socket", "/nowhere/agent.sock"];
    assert_eq!(code(&["ready", "/nowhere/ready"]), Some(1));
    assert_eq!(code(&["ready", PROGRAM]), Some(0));
    assert_eq!(code(&["check", "/nowhere"]), Some(2));
    assert_eq!(code(&["nonsense"]), Some(2));
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/analyze");
    for (directory, expected) in [("good", 0), ("routes", 2), ("hosts", 3)] {
        assert_eq!(code(&["analyze", &format!("{golden}/{directory}")]), Some(expected));
    }
    assert_eq!(code(&["analyze", "/nowhere"]), Some(2));
    // No agent answers there.
    assert_eq!(code(&["check", "--socket", "/nowhere/agent.sock"]), Some(2));
    assert_eq!(code(&["check", &format!("{golden}/good"), "--output", "json"]), Some(0));
    assert_eq!(code(&["analyze", "--socket", "/nowhere/agent.sock"]), Some(1));
    assert_eq!(code(&["run", "--config", "/nowhere/agent.toml"]), Some(2));
    assert_eq!(code(&socket), Some(1));
    let help = Command::new(PROGRAM).arg("--help").output().unwrap();
    assert!(String::from_utf8_lossy(&help.stdout).contains("Exit codes:"));
}

/// `docs/troubleshooting.md`, "JSON".
#[test]
fn a_program_reads_what_check_found() {
    let bad = directory("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\na: [\n");
    let arguments = ["check", bad.path().to_str().unwrap(), "--output", "json"];
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(2), &b""[..]));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["valid"], &report["counts"]["workloads"]), (&false.into(), &0.into()));
    let complaint = &report["complaints"][0];
    assert_eq!((&complaint["severity"], &complaint["document"]), (&"error".into(), &2.into()));
    let line = complaint["complaint"].as_str().unwrap();
    assert!(line.starts_with("a.yaml, document 2: "), "{line}");
    assert!(line.ends_with(complaint["reason"].as_str().unwrap()), "{line}");

    let unknown = Command::new(PROGRAM).args(["check", "/", "-o", "yaml"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
}

/// Each check of the table is told once, in its order, whatever this machine is like.
#[test]
fn a_check_of_a_node_tells_every_check_as_json() {
    let arguments = ["check", "--output", "json", "--socket", "/nowhere/agent.sock"];
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let ids: Vec<&str> = checks.iter().filter_map(|it| it["id"].as_str()).collect();
    let mut expected: Vec<&str> = isthmus::check::ROWS.iter().map(|row| row.id).collect();
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    expected.sort_unstable();
    assert_eq!(sorted, expected);
    let of = |id: &str| checks.iter().find(|it| it["id"] == id).unwrap();
    assert_eq!(of("agent-answers")["outcome"], "failure");
    assert_eq!(of("agent-ready")["outcome"], "not checked");
    assert_eq!(of("settings")["outcome"], "pass");
    assert!(of("agent-answers")["mend"].is_string());
}
