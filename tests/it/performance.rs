//! `docs/performance.md` and its charts are what the figures recorded beside them make (`scripts/bench --document` records them).

#[path = "../../benches/network/record/record.rs"]
mod record;

use crate::docs::same;
use crate::source_text::root;

#[test]
fn the_performance_page_shows_the_recorded_figures() {
    for (path, text) in record::page::files(root()).unwrap() {
        same(&path, &text);
    }
}
