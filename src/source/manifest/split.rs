//! Cuts a YAML stream into its documents, by the markers `---` and `...` at the start of a line. YAML reserves both
//! there even inside of quoted and block texts (YAML 1.2.2, 9.1), so no parser is needed to find them.

/// One document that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk<'a> {
    pub(super) text: &'a str,
    /// Lines of the stream in front of it.
    pub(super) lines_before: usize,
}

/// What the current document has so far.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Blank lines, comments and markers.
    Nothing,
    /// `%` directives: they belong to the marker that follows.
    Directives,
    Content,
}

pub(super) fn split(stream: &str) -> Vec<Chunk<'_>> {
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream);
    let mut chunks = Vec::new();
    let mut seen = Seen::Nothing;
    let (mut start, mut lines_before) = (0, 0);
    let mut at = 0;
    for (number, line) in stream.split_inclusive('\n').enumerate() {
        let next = at + line.len();
        if let Some(rest) = marker(line, "---") {
            if seen == Seen::Content {
                chunks.push(Chunk { text: &stream[start..at], lines_before });
            }
            if seen != Seen::Directives {
                (start, lines_before) = (at, number);
            }
            seen = if is_blank(rest) { Seen::Nothing } else { Seen::Content };
        } else if marker(line, "...").is_some() {
            if seen == Seen::Content {
                chunks.push(Chunk { text: &stream[start..next], lines_before });
            }
            (start, lines_before, seen) = (next, number + 1, Seen::Nothing);
        } else if seen != Seen::Content && !is_blank(line) {
            seen = if line.starts_with('%') { Seen::Directives } else { Seen::Content };
        }
        at = next;
    }
    if seen == Seen::Content {
        chunks.push(Chunk { text: &stream[start..], lines_before });
    }
    chunks
}

/// What stands behind the marker, when the line is one.
fn marker<'a>(line: &'a str, marker: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(marker)?;
    (rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])).then_some(rest)
}

fn is_blank(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || text.starts_with('#')
}
