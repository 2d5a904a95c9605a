//! `isthmus check` without a directory.

use std::process::ExitCode;

use super::EXIT_INVALID;
use super::agent::Agent;
use super::analyze::Format;
use super::output::{complain, print};
use crate::check;

/// Looks at this node, its agent and its cluster.
pub(super) fn node(agent: &Agent, output: Format) -> ExitCode {
    let file = agent.file();
    let report = check::node(file, &|path| agent.get(path).map_err(|error| format!("{error:#}")));
    let text = match output {
        Format::Text => report.to_string(),
        Format::Json => match serde_json::to_string_pretty(&report) {
            Ok(text) => text + "\n",
            Err(error) => {
                complain(format_args!("isthmus: {error}"));
                return ExitCode::FAILURE;
            }
        },
    };
    match print(text.as_bytes()) {
        Ok(()) if report.has_failed() => ExitCode::from(EXIT_INVALID),
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => code,
    }
}
