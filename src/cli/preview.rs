//! `isthmus preview`: what of the last hour a change would have decided otherwise.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::agent::Agent;
use super::explain::supposed;
use super::output::{Output, complain, json, print};
use crate::explain::{Change, Outcome, Preview as Told};

/// Something would be decided otherwise: for scripts.
const EXIT_CHANGES: u8 = 3;

#[derive(Args)]
pub(super) struct Preview {
    /// Manifests as they would be applied
    #[arg(value_name = "FILE", required_unless_present = "without")]
    files: Vec<PathBuf>,
    /// Decide as if this object were deleted; several times for several
    #[arg(long = "without", value_name = "KIND/NAMESPACE/NAME")]
    without: Vec<String>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    agent: Agent,
}

impl Preview {
    pub(super) fn run(&self) -> ExitCode {
        let told = self.ask().and_then(|told| {
            let text = if self.output.is_json() { json(&told)? } else { text(&told) };
            Ok((told.changed, text))
        });
        match told {
            Ok((changed, text)) => match print(text.as_bytes()) {
                Err(code) => code,
                Ok(_) if changed > 0 => ExitCode::from(EXIT_CHANGES),
                Ok(_) => ExitCode::SUCCESS,
            },
            Err(error) => {
                complain(format_args!("isthmus: {error:#}"));
                ExitCode::FAILURE
            }
        }
    }

    fn ask(&self) -> anyhow::Result<Told> {
        let supposed = supposed(&self.files, &self.without)?;
        let told = self.agent.post("/preview", serde_json::to_vec(&supposed)?)?;
        serde_json::from_slice(&told).context("the agent's answer; is it of this version?")
    }
}

fn text(told: &Told) -> String {
    let Told { pairs, left_out, changed, changes } = told;
    let mut text =
        format!("{changed} of {pairs} pairs of the last hour would be decided otherwise");
    if *left_out > 0 {
        // Into a text nothing fails.
        _ = write!(
            text,
            "; {left_out} cannot be asked about again (headers, tokens, or what is gone)"
        );
    }
    text.push('\n');
    for change in changes {
        _ = writeln!(text, "{}", line(change));
    }
    if changes.len() < *changed {
        _ = writeln!(text, "and {} more", changed - changes.len());
    }
    text
}

fn line(change: &Change) -> String {
    let Change { count, before, after, answer, question } = change;
    let what = match &question.http {
        Some(http) => {
            let part = |it: &Option<String>| it.clone().unwrap_or_default();
            format!("{} {} ", part(&http.method), part(&http.path))
        }
        None => String::new(),
    };
    format!(
        "{:>8}x  {what}from {} to {}: {} -> {}: {answer}",
        count,
        question.from,
        question.to,
        named(*before),
        named(*after)
    )
}

fn named(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Permitted => "permitted",
        Outcome::Depends => "depends",
        Outcome::Answered => "answered by a route",
        Outcome::Refused => "refused",
    }
}
