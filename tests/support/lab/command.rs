//! Runs the system's tools to their end: `ip`, `nft` and the like.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `program` and returns its standard output; fails with its error output when it does.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {program}: is it installed? scripts/setup does so"))?;
    finished(program, arguments, output)
}

/// Like [`run`], with `input` on the program's standard input.
pub fn feed(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    feed_command(&mut Command::new(program), program, arguments, input)
        .with_context(|| format!("with the input:\n{input}"))
}

/// Like [`feed`], for a command that has been prepared.
pub fn feed_command(
    command: &mut Command,
    program: &str,
    arguments: &[&str],
    input: &str,
) -> Result<String> {
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {program}: is it installed? scripts/setup does so"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    finished(program, arguments, child.wait_with_output()?)
}

fn finished(program: &str, arguments: &[&str], output: Output) -> Result<String> {
    if !output.status.success() {
        bail!(
            "{program} {}: {}: {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
