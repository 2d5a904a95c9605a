//! Output of subcommands. The standard macros panic if the reader has gone, as `head` does once it has read enough.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

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
