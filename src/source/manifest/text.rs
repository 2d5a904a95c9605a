//! Bytes of a file to text, and text to the form that the readers take, as `kubectl` does both.

use std::borrow::Cow;

/// What marks a text as Unicode, and its byte order.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// UTF-16 where a mark says so, else UTF-8; what is neither is replaced (U+FFFD) rather than refused: a name in Latin-1 in a
/// comment must not cost the file.
pub(in crate::source) fn decode(bytes: Vec<u8>) -> String {
    let units: fn([u8; 2]) -> u16 = match bytes.as_slice() {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => {
            return String::from_utf8(bytes)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        }
    };
    let (pairs, odd) = bytes.as_chunks::<2>();
    let decoded = char::decode_utf16(pairs.iter().map(|pair| units(*pair)));
    let mut text: String = decoded.map(|it| it.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    if !odd.is_empty() {
        text.push(char::REPLACEMENT_CHARACTER);
    }
    text
}

/// What ends a line besides `\n` and `\r` (YAML 1.1, 4.2).
const BREAKS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

/// Without the marks that begin lines, as files that were put together have them; every line ends in `\n` or `\r\n`.
pub(super) fn normalise(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let lone = |at: usize| bytes.get(at + 1).is_none_or(|next| *next != b'\n');
    let returns = text.match_indices('\r').any(|(at, _)| lone(at));
    if !returns && !text.contains(BYTE_ORDER_MARK) && !text.contains(BREAKS) {
        return Cow::Borrowed(text);
    }
    let mut normal = String::with_capacity(text.len());
    for (at, char) in text.char_indices() {
        match char {
            BYTE_ORDER_MARK if normal.is_empty() || normal.ends_with('\n') => {}
            '\r' if lone(at) => normal.push('\n'),
            char if BREAKS.contains(&char) => normal.push('\n'),
            char => normal.push(char),
        }
    }
    Cow::Owned(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_decoded_as_kubectl_decodes_them() {
        let utf16 = |order: fn(u16) -> [u8; 2]| {
            "\u{feff}kind: \u{1f600}".encode_utf16().flat_map(order).collect::<Vec<u8>>()
        };
        for (bytes, expected) in [
            (b"kind: a".to_vec(), "kind: a"),
            (utf16(u16::to_le_bytes), "\u{feff}kind: \u{1f600}"),
            (utf16(u16::to_be_bytes), "\u{feff}kind: \u{1f600}"),
            (b"# caf\xe9\nkind: a".to_vec(), "# caf\u{fffd}\nkind: a"),
            (b"\xff\xfea\0b".to_vec(), "\u{feff}a\u{fffd}"),
            (vec![], ""),
        ] {
            assert_eq!(decode(bytes), expected);
        }
    }

    #[test]
    fn marks_and_returns_are_seen_through() {
        for (text, expected) in [
            ("a\r\nb", "a\r\nb"),
            ("\u{feff}a\n\u{feff}---\nb\u{feff}", "a\n---\nb\u{feff}"),
            ("a\r---\rb\r", "a\n---\nb\n"),
            ("\r\u{feff}a", "\na"),
            ("a\u{85}b\u{2028}c\u{2029}\u{feff}d", "a\nb\nc\nd"),
        ] {
            assert_eq!(normalise(text), expected, "{text:?}");
        }
    }
}
