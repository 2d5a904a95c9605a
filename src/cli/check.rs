//! `isthmus check`: what is wrong with a directory of manifests, or with this node, for people or for programs.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::EXIT_INVALID;
use super::agent::Agent;
use super::output::{self, Output, complain, print};
use crate::check;
use crate::model::Mesh;
use crate::source::{Complaint, Origin, Severity, Translation};

/// Looks at this node, its agent and its cluster.
pub(super) fn node(agent: &Agent, output: Output) -> ExitCode {
    let file = agent.file();
    let report = check::node(file, &|path| agent.get(path).map_err(|error| format!("{error:#}")));
    let text = if output.is_json() { output::json(&report) } else { Ok(report.to_string()) };
    let text = match text {
        Ok(text) => text,
        Err(error) => {
            complain(format_args!("isthmus: {error:#}"));
            return ExitCode::FAILURE;
        }
    };
    match print(text.as_bytes()) {
        Ok(_) if report.has_failed() => ExitCode::from(EXIT_INVALID),
        Ok(_) => ExitCode::SUCCESS,
        Err(code) => code,
    }
}

/// Whether something would be refused.
pub(super) fn is_refused(translation: &Translation) -> bool {
    translation.complaints.iter().any(|it| it.severity == Severity::Error)
}

/// Every complaint, and how many objects there are.
pub(super) fn report(translation: &Translation, output: Output) -> anyhow::Result<String> {
    let counts = counts(&translation.mesh);
    if output.is_json() {
        return output::json(&json!({
            "valid": !is_refused(translation),
            "counts": counts.iter().map(|(what, count)| (*what, *count)).collect::<Value>(),
            "complaints": translation.complaints.iter().map(row).collect::<Value>(),
        }));
    }
    let mut text = String::new();
    for complaint in &translation.complaints {
        writeln!(text, "{}: {complaint}", complaint.severity)?;
    }
    let counts: Vec<String> =
        counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
    writeln!(text, "{}", counts.join(", "))?;
    Ok(text)
}

fn counts(mesh: &Mesh) -> [(&'static str, usize); 5] {
    [
        ("workloads", mesh.workloads.len()),
        ("services", mesh.services.len()),
        ("waypoints", mesh.waypoints.len()),
        ("routes", mesh.routes.len()),
        ("policies", mesh.policies.len()),
    ]
}

/// `severity` and `complaint` are those of `isthmus status`; the rest are the parts of the complaint.
fn row(complaint: &Complaint) -> Value {
    let (file, document) = match &complaint.origin {
        Some(Origin::File { file, document }) => (Some(file), Some(document)),
        _ => (None, None),
    };
    let object = complaint.object.as_ref();
    json!({
        "severity": complaint.severity.to_string(),
        "complaint": complaint.to_string(),
        "file": file,
        // 0 stands for the file as a whole.
        "document": document,
        "kind": known(&complaint.kind),
        "namespace": object.and_then(|key| known(&key.namespace)),
        "name": object.map(|key| &key.name),
        "field": known(&complaint.field),
        "reason": complaint.reason,
    })
}

fn known(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
