//! `isthmus analyze`: what is wrong with objects that are valid.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::agent::Agent;
use super::output::{self, Output, complain, print};
use super::{EXIT_INVALID, EXIT_WARNINGS};
use crate::analyze::{Extent, Level, Report, analyze};
use crate::app;
use crate::config::{Overrides, Settings};
use crate::source;

#[derive(Args)]
pub(super) struct Analyze {
    /// The directory of manifests; without one, the objects that the running agent knows
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
    #[command(flatten)]
    agent: Agent,
    #[command(flatten)]
    output: Output,
}

/// What was found, as its text and JSON, and the worst of it.
struct Found {
    text: String,
    worst: Option<Level>,
}

pub(super) fn run(asked: &Analyze) -> ExitCode {
    let found = match &asked.directory {
        Some(directory) => of_directory(asked, directory),
        None => of_agent(asked).map_err(|error| (ExitCode::FAILURE, error)),
    };
    let found = match found {
        Ok(found) => found,
        Err((code, error)) => {
            complain(format_args!("isthmus: {error:#}"));
            return code;
        }
    };
    match print(found.text.as_bytes()) {
        Err(code) => code,
        Ok(_) => match found.worst {
            Some(Level::Error) => ExitCode::from(EXIT_INVALID),
            Some(Level::Warning) => ExitCode::from(EXIT_WARNINGS),
            Some(Level::Info) | None => ExitCode::SUCCESS,
        },
    }
}

fn of_directory(asked: &Analyze, directory: &Path) -> Result<Found, (ExitCode, anyhow::Error)> {
    let invalid = |error: anyhow::Error| (ExitCode::from(EXIT_INVALID), error);
    let settings = Settings::load(asked.agent.config(), &Overrides::default());
    let settings = settings.map_err(|error| invalid(error.into()))?;
    let objects = source::read(directory).map_err(|error| invalid(error.into()))?;
    let report = analyze(&objects, &app::translate_settings(&settings), Extent::Part);
    shown(&report, asked.output).map_err(invalid)
}

fn shown(report: &Report, output: Output) -> anyhow::Result<Found> {
    let text = if output.is_json() { output::json(report)? } else { report.to_string() };
    Ok(Found { text, worst: report.worst() })
}

fn of_agent(asked: &Analyze) -> anyhow::Result<Found> {
    let report: Report = serde_json::from_str(&asked.agent.get("/analysis")?)
        .context("read the agent's answer; is it of another version?")?;
    shown(&report, asked.output)
}
