use proptest::prelude::*;

use super::*;

fn readings(path: &str) -> Vec<String> {
    let readings = PathReadings::of(path);
    std::iter::once(readings.sent.into_owned()).chain(readings.others).collect()
}

#[test]
fn a_plain_path_has_one_reading() {
    for path in ["/", "*", "", "/a/b/", "/a.b/c", "/café"] {
        assert_eq!(readings(path), [path]);
        assert_eq!(PathReadings::of(path).unclear, None);
    }
}

#[test]
fn separators_are_read_in_every_combination() {
    let readings = readings("//a%2Fb/c");
    for expected in ["/a%2Fb/c", "//a/b/c", "/a/b/c"] {
        assert!(readings.contains(&expected.to_owned()), "{expected}: {readings:?}");
    }
}

#[test]
fn one_spelling_of_what_is_the_same() {
    for (path, expected) in [
        ("/café", "/café"),
        ("/caf%C3%A9", "/café"),
        ("/caf%c3%a9", "/café"),
        ("/a%2fb", "/a%2Fb"),
        ("/%61", "/%61"),
        ("/%E2%82%AC%2e", "/€%2E"),
        ("/%F0%9F%A6%80", "/🦀"),
    ] {
        assert_eq!(canonical(path).unwrap(), expected, "{path}");
    }
}

#[test]
fn what_has_no_sure_reading_is_unclear() {
    for (path, why) in [
        ("/%c0%ae%c0%ae/admin", UnclearPath::NotUtf8),
        ("/a%C0%AFb", UnclearPath::NotUtf8),
        ("/a%E0%80%AFb", UnclearPath::NotUtf8),
        ("/a%F0%80%80%AFb", UnclearPath::NotUtf8),
        ("/caf%E9", UnclearPath::NotUtf8),
        ("/%ED%A0%80", UnclearPath::NotUtf8),
        ("/caf%C3", UnclearPath::NotUtf8),
        ("/é%A9", UnclearPath::NotUtf8),
        ("/admin%00.html", UnclearPath::Nul),
        ("/admin%", UnclearPath::BrokenEscape),
        ("/%zz/admin", UnclearPath::BrokenEscape),
        ("/%u002fadmin", UnclearPath::BrokenEscape),
        ("/x/..;/admin", UnclearPath::Dots),
        ("/x/..%2Fadmin", UnclearPath::Dots),
    ] {
        assert_eq!(PathReadings::of(path).unclear, Some(why), "{path}");
    }
}

#[test]
fn dot_segments_are_resolved_as_in_the_rfc() {
    for (path, expected) in [
        ("/a/b/c/./../../g", "/a/g"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/../../a", "/a"),
        ("/a//../b", "/a/b"),
        ("/a//b", "/a//b"),
    ] {
        assert_eq!(resolve(path), expected, "{path}");
    }
}

proptest! {
    #[test]
    fn never_panics_and_resolving_is_idempotent(path in "[/a.%2eE5cF;\\\\?é]{0,40}") {
        _ = PathReadings::of(&path);
        let once = resolve(&path);
        prop_assert_eq!(resolve(&once), once);
    }

    #[test]
    fn arbitrary_text_never_panics(path in ".{0,60}") {
        _ = PathReadings::of(&path);
    }

    #[test]
    fn canonical_is_idempotent(path in "[/a%2é€A9cC3;]{0,20}") {
        if let Ok(once) = canonical(&path) {
            prop_assert_eq!(canonical(&once).unwrap(), once.clone());
        }
    }

    /// However the characters beyond ASCII are written, the readings are the same.
    #[test]
    fn spelling_makes_no_reading(
        parts in proptest::collection::vec(
            prop_oneof!["/", "a", "é", "€", "🦀", "%2F", "%61", ";x", "\\.\\.", "\\\\", "%C3", "%0"], 0..8),
        upper in any::<bool>(),
    ) {
        let raw = format!("/{}", parts.concat());
        let encoded: String = raw.chars().map(|char| spelled(char, upper)).collect();
        let (raw, encoded) = (PathReadings::of(&raw), PathReadings::of(&encoded));
        prop_assert_eq!(&raw.unclear, &encoded.unclear);
        if raw.unclear.is_none() {
            prop_assert_eq!(raw, encoded);
        }
    }
}

/// A character as escapes, if it is not ASCII.
fn spelled(char: char, upper: bool) -> String {
    let mut buffer = [0; 4];
    let text = char.encode_utf8(&mut buffer);
    match (char.is_ascii(), upper) {
        (true, _) => text.to_owned(),
        (false, true) => text.bytes().map(|byte| format!("%{byte:02X}")).collect(),
        (false, false) => text.bytes().map(|byte| format!("%{byte:02x}")).collect(),
    }
}
