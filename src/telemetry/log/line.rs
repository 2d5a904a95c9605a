//! One line of the log, in either format. Whatever is put in, the result is one line, and one JSON object in that
//! format: texts of peers cannot add lines, fields, or control sequences for a terminal.

use std::fmt::{self, Write};
use std::time::SystemTime;

use tracing::Level;

use super::{LogFormat, clock};

/// Most lines of the access log are shorter, in bytes.
const USUAL_LENGTH: usize = 768;

/// What a value, or a message, may have, in bytes before it is escaped: most URLs and every name. Whoever sends more
/// fills the disk with it, and pushes other lines out of the queue.
pub const MAX_FIELD: usize = 1024;
/// Stands at the end of what was cut.
const CUT: char = '…';
/// What a whole line may have, in bytes: no line has so many fields that peers chose.
pub(in crate::telemetry) const MAX_LINE: usize = 32 * 1024;

/// A line that is being written: message first, then fields in the order of the calls.
pub(in crate::telemetry) struct Line {
    text: String,
    format: LogFormat,
    has_message: bool,
    has_fields: bool,
}

impl Line {
    pub(super) fn new(format: LogFormat, level: Level, target: &str) -> Self {
        let mut line = Self {
            text: String::with_capacity(USUAL_LENGTH),
            format,
            has_message: false,
            has_fields: false,
        };
        line.header(level, target);
        line
    }

    fn header(&mut self, level: Level, target: &str) {
        let now = SystemTime::now();
        let level = level_name(level);
        match self.format {
            LogFormat::Text => {
                clock::write(&mut self.text, now);
                self.push(&["\t", level, "\t"]);
                escape(&mut self.text, target);
            }
            LogFormat::Json => {
                self.text.push_str("{\"time\":\"");
                clock::write(&mut self.text, now);
                self.push(&["\",\"level\":\"", level, "\",\"scope\":\""]);
                escape(&mut self.text, target);
                self.text.push('"');
            }
        }
    }

    /// Before all fields; what comes later is a field named `message`.
    pub(super) fn message(&mut self, message: &str) {
        if self.has_message {
            return self.text("message", message);
        }
        self.has_message = true;
        match self.format {
            LogFormat::Text => {
                self.text.push('\t');
                let (start, rest) = cut(message);
                escape_bare(&mut self.text, start);
                self.text.extend(rest);
            }
            LogFormat::Json => {
                self.text.push_str(",\"message\":");
                quote(&mut self.text, message);
            }
        }
    }

    /// A quoted value.
    pub(in crate::telemetry) fn text(&mut self, key: &str, value: &str) {
        if self.text.len() > MAX_LINE {
            return;
        }
        self.key(key);
        quote(&mut self.text, value);
    }

    /// A quoted value, or nothing when it is empty.
    pub(in crate::telemetry) fn known(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.text(key, value);
        }
    }

    /// A number or a truth value: not quoted.
    pub(in crate::telemetry) fn bare(&mut self, key: &str, value: impl Bare) {
        self.key(key);
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{value}");
    }

    /// An address: quoted in JSON only.
    pub(in crate::telemetry) fn address(&mut self, key: &str, value: std::net::SocketAddr) {
        self.key(key);
        let _ = match self.format {
            LogFormat::Text => write!(self.text, "{value}"),
            LogFormat::Json => write!(self.text, "\"{value}\""),
        };
    }

    /// A time in UTC as RFC 3339.
    pub(in crate::telemetry) fn time(&mut self, key: &str, value: SystemTime) {
        self.key(key);
        self.text.push('"');
        clock::write(&mut self.text, value);
        self.text.push('"');
    }

    pub(super) fn finish(mut self) -> String {
        if !self.has_message {
            self.message("");
        }
        self.text.push_str(match self.format {
            LogFormat::Text => "\n",
            LogFormat::Json => "}\n",
        });
        self.text
    }

    fn key(&mut self, key: &str) {
        if !self.has_message {
            self.message("");
        }
        match self.format {
            LogFormat::Text => {
                self.text.push(if self.has_fields { ' ' } else { '\t' });
                escape(&mut self.text, key);
                self.text.push('=');
            }
            LogFormat::Json => {
                self.text.push(',');
                quote(&mut self.text, key);
                self.text.push(':');
            }
        }
        self.has_fields = true;
    }

    fn push(&mut self, parts: &[&str]) {
        for part in parts {
            self.text.push_str(part);
        }
    }
}

/// What is written without quotes: its text is a JSON value and holds no separator.
pub(in crate::telemetry) trait Bare: fmt::Display {}
impl Bare for u64 {}
impl Bare for i64 {}
impl Bare for u128 {}
impl Bare for i128 {}
impl Bare for u16 {}
impl Bare for u32 {}
impl Bare for bool {}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// Writes a text in quotes, escaped and cut.
pub(in crate::telemetry) fn quote(out: &mut String, text: &str) {
    let (start, rest) = cut(text);
    out.push('"');
    escape(out, start);
    out.extend(rest);
    out.push('"');
}

/// Writes a text without quotes, escaped and cut.
pub(in crate::telemetry) fn write_escaped(out: &mut String, text: &str) {
    let (start, rest) = cut(text);
    escape(out, start);
    out.extend(rest);
}

/// As much of a text as a field may have, and what stands for the rest.
fn cut(text: &str) -> (&str, Option<char>) {
    if text.len() <= MAX_FIELD {
        return (text, None);
    }
    (&text[..text.floor_char_boundary(MAX_FIELD)], Some(CUT))
}

/// As [`escape`], for a text that no quotes surround: the next tab ends it, so its own quotes may stay.
fn escape_bare(out: &mut String, text: &str) {
    for (index, part) in text.split('"').enumerate() {
        if index > 0 {
            out.push('"');
        }
        escape(out, part);
    }
}

/// Escapes as JSON strings do (RFC 8259, 7), and what a terminal or a reader could mistake: C1 controls, separators of
/// lines, marks that change the direction of writing.
fn escape(out: &mut String, text: &str) {
    // Most texts are plain, and seen to be so many bytes at a time.
    if text.bytes().all(is_plain) {
        return out.push_str(text);
    }
    let mut rest = text;
    while let Some(at) = rest.find(is_special) {
        out.push_str(&rest[..at]);
        let mut characters = rest[at..].chars();
        match characters.next() {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some(other) => {
                let _ = write!(out, "\\u{:04x}", u32::from(other));
            }
            None => {}
        }
        rest = characters.as_str();
    }
    out.push_str(rest);
}

/// Of a printable character of ASCII that means nothing special.
fn is_plain(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\'
}

/// All of them lie in the first plane, so that four hexadecimal digits suffice.
fn is_special(character: char) -> bool {
    matches!(
        character,
        '"' | '\\'
            | '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(format: LogFormat, message: &str, value: &str) -> String {
        let mut line = Line::new(format, Level::INFO, "access");
        line.message(message);
        line.text("key", value);
        line.bare("number", 3u64);
        line.finish()
    }

    #[test]
    fn text_is_separated_by_tabs() {
        let text = line(LogFormat::Text, "hello \"there\"\t", "a \"b\"\tc");
        let (_, rest) = text.split_once('\t').expect("a time");
        assert_eq!(rest, "info\taccess\thello \"there\"\\t\tkey=\"a \\\"b\\\"\\tc\" number=3\n");
    }

    #[test]
    fn what_is_long_is_cut() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let long = "ä\n".repeat(MAX_FIELD);
            let text = line(format, &long, &long);
            assert!(text.contains("\\n…\"") || text.contains("ä…\""), "{text}");
            assert!(text.len() < 2 * 3 * MAX_FIELD, "{}", text.len());
            let just = "x".repeat(MAX_FIELD);
            assert!(line(format, &just, &just).contains(&format!("\"{just}\"")));
            let mut many = Line::new(format, Level::INFO, "access");
            (0..1_000).for_each(|_| many.text("key", &long));
            assert!(many.finish().len() < MAX_LINE + 6 * MAX_FIELD + 100);
        }
    }

    proptest! {
        #[test]
        fn nothing_forges_a_line_of_text(message in "(\\PC|\\pC){0,40}", value in "(\\PC|\\pC){0,40}") {
            let text = line(LogFormat::Text, &message, &value);
            prop_assert_eq!(text.matches('\n').count(), 1);
            prop_assert_eq!(text.matches('\t').count(), 4);
            prop_assert!(!text.trim_end().chars().any(|it| it.is_control() && it != '\t'));
            // The value ends at the first quote that is not escaped, and the next field follows.
            let start = text.rfind("\tkey=\"").expect("the field") + 6;
            let mut escaped = false;
            let end = text[start..].char_indices().find(|(_, it)| {
                let ends = *it == '"' && !escaped;
                escaped = *it == '\\' && !escaped;
                ends
            });
            let (end, _) = end.expect("the end of the value");
            prop_assert_eq!(&text[start + end..], "\" number=3\n");
        }

        #[test]
        fn json_round_trips(message in "(\\PC|\\pC){0,40}", value in "(\\PC|\\pC){0,40}") {
            let text = line(LogFormat::Json, &message, &value);
            prop_assert_eq!(text.matches('\n').count(), 1);
            let parsed: serde_json::Value = serde_json::from_str(&text).expect("one JSON object");
            prop_assert_eq!(parsed.as_object().map(|object| object.len()), Some(6));
            prop_assert_eq!(parsed["message"].as_str(), Some(&*message));
            prop_assert_eq!(parsed["key"].as_str(), Some(&*value));
        }
    }
}
