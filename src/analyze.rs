//! What is wrong with objects that are valid: routes and policies that do nothing, rules that are never reached, hosts that lead
//! nowhere.
//!
//! [`analyze`] is a pure function over the objects and what they are translated to; only whether files of certificates exist is asked
//! of the disk. What the translation complains of is sorted by its [topic](crate::source::Topic); what no single object shows is
//! looked for here, one family of findings a file. Each finding has a [`Code`] that never changes its meaning.
//!
//! This room decides nothing that holds for traffic, and no other room depends on what it finds.

mod backends;
mod code;
mod complained;
mod finding;
mod hosts;
mod identities;
mod judged;
mod report;
mod shadowed;
mod snapshot;
mod subsets;
#[cfg(test)]
mod tests;
mod tls;
mod waypoints;

pub use code::{CODES, Code, Described, Level};
pub use finding::Finding;
pub use report::{Counts, Report};
pub use snapshot::Extent;

use crate::source::{Objects, TranslateSettings, translate};
use snapshot::Snapshot;

/// Finds what is wrong, by object.
pub fn analyze(objects: &Objects, settings: &TranslateSettings, extent: Extent) -> Report {
    let translation = translate(objects, settings);
    let snapshot = Snapshot::new(objects, settings, &translation.mesh, extent);
    let mut findings = complained::find(&translation.complaints);
    for find in [
        backends::find,
        hosts::find,
        identities::find,
        judged::find,
        shadowed::find,
        subsets::find,
        tls::find,
        waypoints::find,
    ] {
        find(&snapshot, &mut findings);
    }
    Report::new(findings, &translation.mesh)
}
