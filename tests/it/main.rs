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
mod modules;
mod performance;
mod policies;
mod rbac;
mod sizes;
mod source_text;
mod traps;
