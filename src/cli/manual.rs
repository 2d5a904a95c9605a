//! What is installed beside the program, from the same definitions as `--help`: completions for shells, manual pages.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Command, ValueEnum};
use clap_complete::{generate, shells};
use clap_mangen::roff::{Roff, bold, roman};

/// The name under which shells find the program.
const PROGRAM: &str = "isthmus";
/// Commands of users and administrators alike; daemons with subcommands for both usually have theirs here.
const SECTION: &str = "1";

#[derive(Args)]
pub(super) struct Completions {
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Args)]
pub(super) struct Man {
    /// Write the page of the program and one for each subcommand into this directory
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Completions {
    pub(super) fn script(&self, mut program: Command) -> Vec<u8> {
        let mut script = Vec::new();
        match self.shell {
            Shell::Bash => generate(shells::Bash, &mut program, PROGRAM, &mut script),
            Shell::Zsh => generate(shells::Zsh, &mut program, PROGRAM, &mut script),
            Shell::Fish => generate(shells::Fish, &mut program, PROGRAM, &mut script),
        }
        script
    }
}

impl Man {
    /// Returns what to print: the page, or nothing if it was written.
    pub(super) fn pages(&self, program: Command, exit_codes: &str) -> anyhow::Result<Vec<u8>> {
        // Its names would be those of pages that nobody needs.
        let mut program = program.disable_help_subcommand(true);
        program.build();
        let Some(directory) = &self.directory else { return page(&program, exit_codes) };
        fs::create_dir_all(directory)
            .and_then(|()| write(&program, exit_codes, directory))
            .with_context(|| format!("write manual pages into {}", directory.display()))?;
        Ok(Vec::new())
    }
}

/// Writes the page of a command and those of its subcommands.
fn write(command: &Command, exit_codes: &str, directory: &Path) -> std::io::Result<()> {
    let page = page(command, exit_codes).map_err(std::io::Error::other)?;
    fs::write(directory.join(format!("{}.{SECTION}", name(command))), page)?;
    let shown = command.get_subcommands().filter(|it| !it.is_hide_set());
    shown.into_iter().try_for_each(|it| write(it, exit_codes, directory))
}

fn page(command: &Command, exit_codes: &str) -> anyhow::Result<Vec<u8>> {
    // The exit codes have a section of their own instead of one that is called EXTRA.
    let man = clap_mangen::Man::new(command.clone().after_help(None::<&str>))
        .title(name(command).to_uppercase())
        .section(SECTION)
        // An empty one would be left out, and the next field be taken for it.
        .date(" ")
        .source(concat!("isthmus ", env!("CARGO_PKG_VERSION")))
        .manual("Isthmus");
    let mut page = Vec::new();
    man.render(&mut page)?;
    ending(command, exit_codes).to_writer(&mut page)?;
    Ok(page)
}

/// The sections that all pages have.
fn ending(command: &Command, exit_codes: &str) -> Roff {
    let mut ending = Roff::new();
    ending.control("SH", ["EXIT STATUS"]);
    let codes = exit_codes.lines().filter_map(|line| line.trim_start().split_once("  "));
    for (code, meaning) in codes {
        ending.control("TP", []);
        ending.text([bold(code)]);
        ending.text([roman(meaning)]);
    }
    if name(command) != PROGRAM {
        ending.control("SH", ["SEE ALSO"]);
        ending.text([bold(PROGRAM), roman(format!("({SECTION})"))]);
    }
    ending
}

fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}
