//! `docs/performance.md` and its charts, made from the recorded figures beside them, so that no number stands in two places.

use std::path::Path;

use anyhow::{Context, Result};

use super::figures::Figures;
use super::{chart, tables};

pub const FIGURES: &str = "docs/performance/figures.json";
const PAGE: &str = "docs/performance.md";
const CHARTS: &str = "docs/performance";

/// Records the figures and makes the page and the charts from them, in the repository that is the current directory.
pub fn write(figures: &Figures) -> Result<()> {
    figures.write(Path::new(FIGURES))?;
    for (path, text) in files(Path::new("."))? {
        std::fs::write(&path, text).with_context(|| format!("write {path}"))?;
    }
    Ok(())
}

/// Paths, below the repository's root, and texts as the recorded figures make them.
pub fn files(root: &Path) -> Result<Vec<(String, String)>> {
    let figures = Figures::read(&root.join(FIGURES))?;
    let mut page = std::fs::read_to_string(root.join(PAGE)).context(PAGE)?;
    let mut files = Vec::new();
    for block in tables::blocks(&figures) {
        let text = if block.text.is_empty() { "Not measured.\n" } else { &block.text };
        page = replaced(&page, &format!("measured: {}", block.name), text)?;
    }
    for chart in chart::all(&figures) {
        let image = format!("![{}](performance/{}.svg)\n", chart.title, chart.name);
        let text = if chart.text.is_some() { &image } else { "" };
        page = replaced(&page, &format!("chart: {}", chart.name), text)?;
        files.extend(chart.text.map(|text| (format!("{CHARTS}/{}.svg", chart.name), text)));
    }
    files.push((PAGE.to_owned(), page));
    Ok(files)
}

/// The page with another text between a mark and the next end.
fn replaced(page: &str, mark: &str, text: &str) -> Result<String> {
    let start = format!("<!-- {mark} -->\n");
    let (before, rest) = page.split_once(&start).with_context(|| format!("{PAGE}: no {start}"))?;
    let (_, after) = rest.split_once("<!-- end -->").with_context(|| format!("{start}: no end"))?;
    Ok(format!("{before}{start}\n{text}\n<!-- end -->{after}"))
}
