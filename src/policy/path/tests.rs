use proptest::prelude::*;

use super::*;
use crate::base::path::served_as;

fn exact(path: &str) -> StringMatch {
    StringMatch::Exact(path.into())
}

fn prefix(path: &str) -> StringMatch {
    StringMatch::Prefix(path.into())
}

fn readings(path: &str) -> Vec<String> {
    Readings::of(path).iter().map(str::to_owned).collect()
}

#[test]
fn a_plain_path_has_one_reading() {
    assert_eq!(readings("/a/b?c=/../d"), ["/a/b"]);
    for path in ["/", "*", "", "/a/b/", "/a.b/c"] {
        assert_eq!(readings(path), [path]);
        assert!(!Readings::of(path).unclear);
    }
}

#[test]
fn what_hides_a_path_is_seen_by_what_refuses_and_admits_nothing() {
    for hidden in [
        "/x/../admin",
        "/x/%2e%2E/admin",
        "/./admin",
        "/admin/.",
        "/admin/x/..",
        "//admin",
        "/%61dmin",
        "/x/..%2Fadmin",
        "\\admin",
        "/\\admin",
        "/admin;v=1",
        "/%5Cadmin",
        "/x/..;/admin",
        "/x%2Fy//../admin",
        "/a\\b/../admin",
        "/x//y;/%2e%2e/../admin",
        "/%c0%ae%c0%ae/admin",
        "/admin%00.html",
        "/admin%",
        "/%zz/../admin",
    ] {
        let readings = Readings::of(hidden);
        assert!(readings.any(&exact("/admin")), "{hidden} can be /admin");
        assert!(!readings.all(&exact("/admin")), "{hidden} need not be /admin");
    }
}

#[test]
fn what_leaves_an_admitted_tree_is_not_admitted() {
    for path in [
        "/public/../secret",
        "/public/..%2fsecret",
        "/public/..\\secret",
        "/public/%2e%2e/secret",
        "/public//../../secret",
        "/public/..;a=b/secret",
    ] {
        assert!(!Readings::of(path).all(&prefix("/public/")), "{path}");
    }
    for path in
        ["/public/a/../b", "/public/a%20b", "/public//a", "/public/a;b=c", "/public/.hidden"]
    {
        assert!(Readings::of(path).all(&prefix("/public/")), "{path}");
    }
}

#[test]
fn encoded_values_admit_what_they_say() {
    assert!(Readings::of("/a%20b/c").all(&exact("/a%20b/c")));
    assert!(Readings::of("/a%20b/c").all(&prefix("/a%20b/")));
    assert!(Readings::of("/a%2Fb").all(&prefix("/a%2Fb")));
    assert!(!Readings::of("/a/b").all(&prefix("/a%2Fb")));
    assert!(Readings::of("/a b").any(&exact("/a b")));
}

proptest! {
    #[test]
    fn never_panics(path in "[/a.%2eE5cF;\\\\?é]{0,40}") {
        let readings = Readings::of(&path);
        _ = (readings.any(&exact("/a")), readings.all(&exact("/a")));
    }

    /// What admits is never more generous than what refuses.
    #[test]
    fn all_implies_any(path in "/[/a.%2f;\\\\]{0,20}", value in "/[/a.%2f]{0,6}") {
        let readings = Readings::of(&path);
        for value in [exact(&value), prefix(&value)] {
            prop_assert!(!readings.all(&value) || readings.any(&value));
        }
    }

    /// However a server cleans a path that is below `/a/`, an ALLOW for `/a/` admits it only if it stays there.
    #[test]
    fn admitted_paths_stay_where_they_are(
        rest in proptest::collection::vec(
            prop_oneof!["b", "%2e%2e", "\\.\\.", "\\.", "%2F", ";x", "/", "\\\\", "c"], 0..8),
        choice in 0u8..16,
    ) {
        let path = format!("/a/{}", rest.concat());
        if Readings::of(&path).all(&prefix("/a/")) {
            let cleaned = served_as(&path, choice);
            prop_assert!(cleaned.starts_with("/a/") || cleaned == "/a", "{} read as {}", path, cleaned);
        }
    }
}

/// The values as translation leaves them.
fn canonical_exact(path: &str) -> StringMatch {
    exact(&crate::base::path::canonical(path).unwrap())
}

#[test]
fn a_character_is_the_same_in_every_spelling() {
    for value in ["/café", "/caf%C3%A9", "/caf%c3%a9"].map(canonical_exact) {
        for path in ["/café", "/caf%C3%A9", "/caf%c3%a9", "/caf%C3%a9?x"] {
            let readings = Readings::of(path);
            assert!(readings.any(&value) && readings.all(&value), "{path} {value:?}");
        }
        for other in ["/cafe", "/caf%E9", "/caf%C3%83%C2%A9"] {
            assert!(!Readings::of(other).all(&value), "{other} {value:?}");
        }
    }
    let below = prefix("/café/");
    assert!(Readings::of("/caf%c3%a9/x").all(&below) && Readings::of("/café/x").any(&below));
}

#[test]
fn what_is_not_utf8_is_refused_and_never_admitted() {
    for path in ["/a%C0%AFb", "/a%E0%80%AFb", "/caf%E9", "/a%ED%A0%80", "/%u002fadmin"] {
        let readings = Readings::of(path);
        for value in [exact("/other"), prefix("/"), StringMatch::Present] {
            assert!(readings.any(&value) && !readings.all(&value), "{path} {value:?}");
        }
    }
}

#[test]
fn refusing_values_mean_whatever_they_can_be_read_as() {
    for (value, path) in [
        ("/%61dmin", "/admin"),
        ("/a%2Fb", "/a/b"),
        ("/x/../admin", "/admin"),
        ("/x/%2e%2e/admin", "/admin"),
        ("//admin", "/admin"),
        ("/admin;v=1", "/admin"),
        ("/\\admin", "/admin"),
        ("/a%20b", "/a%20b"),
    ] {
        assert!(Readings::of(path).any(&exact(value)), "{value} {path}");
        assert!(!Readings::of(path).all(&exact(value)) || value == path, "{value} {path}");
    }
    assert!(Readings::of("/admin/x").any(&prefix("/%61dmin/")));
    // Of a prefix nobody knows what comes: that files with a dot are refused refuses no others.
    assert!(!Readings::of("/a").any(&prefix("/.")));
}

proptest! {
    /// Who writes the same in another way gets the same answer, from every value in every spelling.
    #[test]
    fn spelling_decides_nothing(
        path in "/[aé/]{0,6}",
        value in "/[aé/]{0,4}",
        open in 0u8..4,
    ) {
        let encode = |text: &str| -> String {
            text.chars().map(|char| match char {
                'é' => "%C3%a9".to_owned(),
                char => char.to_string(),
            }).collect()
        };
        let made = |text: &str| {
            let text = crate::base::path::canonical(text).unwrap().into_owned().into();
            match open {
                0 => StringMatch::Exact(text),
                1 => StringMatch::Prefix(text),
                2 => StringMatch::Suffix(text),
                _ => StringMatch::Template(text),
            }
        };
        let decided = |path: &str, value: &str| {
            let (readings, value) = (Readings::of(path), made(value));
            (readings.any(&value), readings.all(&value))
        };
        let expected = decided(&path, &value);
        prop_assert_eq!(decided(&encode(&path), &value), expected);
        prop_assert_eq!(decided(&path, &encode(&value)), expected);
        prop_assert_eq!(decided(&encode(&path), &encode(&value)), expected);
    }
}
