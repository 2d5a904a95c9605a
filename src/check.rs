//! `isthmus check` without a directory: what this node, its agent and its cluster need, looked at one by one.
//!
//! Each check is a small function with an [id](Row) that looks at one real thing and changes nothing: capture rules are applied in a
//! network namespace that exists for this alone. What cannot be asked is told as such ([`Outcome::Unknown`]) and never passes.
//! The functions that judge are pure and stand beside the ones that ask.

mod agent;
mod cluster;
mod cni;
mod kernel;
mod metrics;
mod outcome;
mod ports;
mod process;
mod report;
mod rows;
mod settings;

pub use outcome::Outcome;
pub use report::{Line, Report};
pub use rows::{ROWS, Row, Section};

use std::path::Path;

/// Asks the agent for one of its pages; or says why it does not answer.
pub type Ask<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// Looks at everything. `file`: the settings, where there is a file.
pub fn node(file: Option<&Path>, ask: Ask<'_>) -> Report {
    let mut report = Report::default();
    let read = settings::read(file);
    report.add("settings", settings::judge(file, &read));
    // What the agent would run with is not known, so that the defaults are looked at.
    let Ok(settings) = read.or_else(|_| settings::read(None)) else { return report };
    kernel::look(&mut report);
    process::look(&mut report, &settings);
    let pages = agent::Pages::ask(ask);
    ports::look(&mut report, &settings, pages.is_there());
    cni::look(&mut report, &settings);
    agent::look(&mut report, &pages);
    metrics::look(&mut report, &settings, pages.is_there());
    cluster::look(&mut report, &settings);
    report
}
