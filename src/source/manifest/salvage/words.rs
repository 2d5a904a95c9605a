//! Words of a text that name kinds whose objects deny something.

use crate::source::objects::{Guard, ISTIO_SECURITY_GROUP};

/// The kinds that the words of `text` name, once for each word. Lines that are nothing but a comment do not count.
pub(super) fn guards(text: &str) -> Vec<&'static str> {
    let told: Vec<&str> =
        text.split(['\n', '\r']).filter(|line| !line.trim_start().starts_with('#')).collect();
    let text = unescaped(&told.join("\n"));
    let words = text.split(|char: char| !char.is_ascii_alphanumeric());
    let mut found: Vec<&'static str> = words.filter_map(Guard::named).collect();
    // Its versions; labels of the same group say something else.
    let mut versions =
        text.split(ISTIO_SECURITY_GROUP).skip(1).filter_map(|after| after.strip_prefix("/v"));
    if found.is_empty() && versions.any(|after| after.starts_with(|it: char| it.is_ascii_digit())) {
        found.push("");
    }
    found
}

/// With the escapes of YAML and JSON for letters and for ends of lines resolved, wherever they stand, and without zeros (UTF-16
/// that says not that it is).
pub(super) fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '\0']) {
        let (before, from) = rest.split_at(at);
        plain.push_str(before);
        let (char, length) = escape(from);
        plain.extend(char);
        rest = from.get(length..).unwrap_or_default();
    }
    plain.push_str(rest);
    plain
}

/// What the escape at the start of `text` stands for, and its length in bytes.
fn escape(text: &str) -> (Option<char>, usize) {
    let hex = |digits: usize| {
        let digits = text.get(2..2 + digits)?;
        Some((u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)?, 2 + digits.len()))
    };
    let found = match text.as_bytes() {
        [b'\0', ..] => return (None, 1),
        [b'\\', b'x', ..] => hex(2),
        [b'\\', b'u', ..] => hex(4),
        [b'\\', b'U', ..] => hex(8),
        [b'\\', b'\n' | b'\r', ..] => {
            let after = text.get(1..).unwrap_or_default();
            return (None, 1 + after.len() - after.trim_start().len());
        }
        // Another escape, which may be of a backslash itself.
        [b'\\', next, ..] if next.is_ascii() => return (Some('\\'), 2),
        _ => return (Some('\\'), 1),
    };
    found.map_or((Some('\\'), 1), |(char, length)| (Some(char), length))
}
