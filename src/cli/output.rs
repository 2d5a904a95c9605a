//! Output of subcommands. The standard macros panic if the reader has gone, as `head` does once it has read enough.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;

/// `--output`: a subcommand that prints what it found flattens this into its arguments.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Output {
    /// Text for people, or JSON for programs
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Output {
    /// Whether a program reads it.
    pub(super) fn is_json(self) -> bool {
        self.output == Format::Json
    }

    /// JSON that an agent answered with: as it is, or as a text made of it.
    pub(super) fn answer(
        self,
        json: String,
        text: impl FnOnce(&str) -> anyhow::Result<String>,
    ) -> anyhow::Result<String> {
        if self.is_json() { Ok(json) } else { text(&json) }
    }
}

/// A value as subcommands print JSON: over several lines, as an agent's pages have it.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Writes to standard output; a reader that has gone is not an error. Whether it is still there.
pub(super) fn print(text: &[u8]) -> Result<bool, ExitCode> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain(format_args!("isthmus: write to the standard output: {error}"));
            Err(ExitCode::FAILURE)
        }
        written => Ok(written.is_ok()),
    }
}

/// Writes a line to the standard error, where somebody reads it.
pub(super) fn complain(text: impl Display) {
    _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints a text, or why there is none.
pub(super) fn show(text: anyhow::Result<impl AsRef<[u8]>>) -> ExitCode {
    match text {
        Ok(text) => match print(text.as_ref()) {
            Ok(_) => ExitCode::SUCCESS,
            Err(code) => code,
        },
        Err(error) => {
            complain(format_args!("isthmus: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
