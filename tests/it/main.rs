//! Tests of the whole that need neither root nor namespaces.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod book;
mod cli;
mod crds;
mod docs;
mod drawing;
mod kinds;
mod layers;
mod manual;
mod modules;
mod monitoring;
#[path = "../support/monitoring/monitoring.rs"]
mod monitoring_files;
mod performance;
mod policies;
mod rbac;
mod sizes;
mod source_text;
mod traps;
