use proptest::prelude::*;

use super::*;

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
fn separators_are_read_in_every_combination() {
    let readings = readings("//a%2Fb/c");
    for expected in ["/a%2Fb/c", "//a/b/c", "/a/b/c"] {
        assert!(readings.contains(&expected.to_owned()), "{expected}: {readings:?}");
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
        let readings = Readings::of(&path);
        let _ = (readings.any(&exact("/a")), readings.all(&exact("/a")));
        let once = resolve(&path);
        prop_assert_eq!(resolve(&once), once);
    }

    #[test]
    fn arbitrary_text_never_panics(path in ".{0,60}") {
        let _ = Readings::of(&path);
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
            let mut read = if choice & 1 == 0 { path } else { decode(&path, |_| true) };
            read = decode(&read, is_unreserved);
            if choice & 2 != 0 { read = read.replace('\\', "/"); }
            if choice & 4 != 0 { read = rejoin(&read, without_parameters, false); }
            if choice & 8 != 0 { read = rejoin(&read, |segment| segment, true); }
            let cleaned = resolve(&read);
            prop_assert!(cleaned.starts_with("/a/") || cleaned == "/a", "{} read as {}", read, cleaned);
        }
    }
}
