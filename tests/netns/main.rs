//! Tests with real network namespaces, each in a private world of its own. They need root (or the root of a
//! user namespace) and the tools that `scripts/setup` installs; `scripts/test` runs them so. Without either
//! they fail: a test that is skipped has shown nothing.

#[path = "../support/support.rs"]
mod support;

mod plain;
mod redirect;
mod sock;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use support::lab::{Lab, Programs, private};

/// The application's manifests, without any of the mesh.
const APPLICATION: [&str; 4] =
    ["bookinfo.yaml", "bookinfo-versions.yaml", "clients.yaml", "foo.yaml"];

/// Bookinfo on two nodes, no agents yet.
pub fn bookinfo() -> Result<Lab> {
    private::enter()?;
    let programs = Programs::beside(Path::new(env!("CARGO_BIN_EXE_isthmus")))?;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/bookinfo");
    let documents = APPLICATION
        .iter()
        .map(|name| fs::read_to_string(directory.join(name)).context(*name))
        .collect::<Result<Vec<_>>>()?;
    Lab::build(&documents, &programs)
}
