//! Cuts a YAML stream into its documents, by the markers `---` and `...` at the start of a line. YAML reserves both
//! there even inside of quoted and block texts (YAML 1.2.2, 9.1), so no parser is needed to find them.
//!
//! A marker with text right behind it (`---kind: Pod`) is none in YAML, which would join two documents, and an error to
//! `kubectl`. The stream is cut there, so that what stands in front of it is read, and what follows is refused.

/// One document that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk<'a> {
    pub(super) text: &'a str,
    /// Lines of the stream in front of it.
    pub(super) lines_before: usize,
    /// It begins with a marker that has text right behind it.
    pub(super) glued: bool,
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
    let mut chunks = Vec::new();
    let mut seen = Seen::Nothing;
    let (mut start, mut lines_before, mut glued) = (0, 0, false);
    let mut at = 0;
    for (number, line) in stream.split_inclusive('\n').enumerate() {
        let next = at + line.len();
        let joined = is_glued(line);
        if let Some(rest) = marker(line, "---").or_else(|| joined.then_some(line)) {
            if seen == Seen::Content {
                chunks.push(Chunk { text: &stream[start..at], lines_before, glued });
            }
            if seen != Seen::Directives {
                // To YAML, a marker with a comment right behind it is a text.
                let begin = if rest.starts_with('#') { at + "---".len() } else { at };
                (start, lines_before) = (begin, number);
            }
            glued = joined;
            seen = if is_blank(rest) { Seen::Nothing } else { Seen::Content };
        } else if marker(line, "...").is_some() {
            if seen == Seen::Content {
                chunks.push(Chunk { text: &stream[start..next], lines_before, glued });
            }
            (start, lines_before, seen, glued) = (next, number + 1, Seen::Nothing, false);
        } else if seen != Seen::Content && !is_blank(line) {
            seen = if line.starts_with('%') { Seen::Directives } else { Seen::Content };
        }
        at = next;
    }
    if seen == Seen::Content {
        chunks.push(Chunk { text: &stream[start..], lines_before, glued });
    }
    chunks
}

/// What stands behind the marker, when the line is one. A comment may stand right behind it, as `kubectl` has it.
fn marker<'a>(line: &'a str, marker: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(marker)?;
    (rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n', '#'])).then_some(rest)
}

/// Other text stands right behind the marker, and no further dash, of which ornaments are made.
fn is_glued(line: &str) -> bool {
    let rest = line.strip_prefix("---");
    rest.and_then(|rest| rest.chars().next()).is_some_and(|next| {
        !next.is_whitespace() && !next.is_control() && next != '-' && next != '#'
    })
}

fn is_blank(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || text.starts_with('#')
}
