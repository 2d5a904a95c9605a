//! Tables that a person reads, made from JSON.

use std::fmt::{Result, Write};

use serde_json::Value;

/// A titled table; nothing when there are no rows. A value that is no text is shown as `-`.
pub(super) fn rows(text: &mut String, title: &str, columns: &[&str], rows: &Value) -> Result {
    let rows = list(rows);
    if rows.is_empty() {
        return Ok(());
    }
    let width = |column: &&str| {
        let widest = rows.iter().map(|row| text_of(&row[*column]).chars().count()).max();
        widest.unwrap_or(0).max(column.len())
    };
    let widths: Vec<usize> = columns.iter().map(width).collect();
    writeln!(text, "\n{title}")?;
    let mut line = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(text, "  {}", padded.join("  ").trim_end())
    };
    line(columns.to_vec())?;
    for row in rows {
        line(columns.iter().map(|column| text_of(&row[*column])).collect())?;
    }
    Ok(())
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}
