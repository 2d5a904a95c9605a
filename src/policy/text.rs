//! How AuthorizationPolicy compares texts: exact, prefix, suffix, presence, path template.

use crate::model::StringMatch;

pub(super) fn matches(value: &StringMatch, text: &str) -> bool {
    match value {
        StringMatch::Present => !text.is_empty(),
        StringMatch::Exact(exact) => **exact == *text,
        StringMatch::Prefix(prefix) => text.starts_with(&**prefix),
        StringMatch::Suffix(suffix) => text.ends_with(&**suffix),
        StringMatch::Template(template) => matches_template(template, text),
    }
}

/// The text is given in parts, so that nobody has to join them.
pub(super) fn matches_parts(value: &StringMatch, parts: &[&str]) -> bool {
    match value {
        StringMatch::Present => parts.iter().any(|part| !part.is_empty()),
        StringMatch::Exact(exact) => {
            let length: usize = parts.iter().map(|part| part.len()).sum();
            length == exact.len() && starts_with(parts, exact)
        }
        StringMatch::Prefix(prefix) => starts_with(parts, prefix),
        StringMatch::Suffix(suffix) => ends_with(parts, suffix),
        // Templates are for paths, which nobody has in parts.
        StringMatch::Template(_) => false,
    }
}

fn starts_with(parts: &[&str], mut wanted: &str) -> bool {
    for part in parts {
        if wanted.len() <= part.len() {
            return part.starts_with(wanted);
        }
        match wanted.strip_prefix(part) {
            Some(rest) => wanted = rest,
            None => return false,
        }
    }
    wanted.is_empty()
}

fn ends_with(parts: &[&str], mut wanted: &str) -> bool {
    for part in parts.iter().rev() {
        if wanted.len() <= part.len() {
            return part.ends_with(wanted);
        }
        match wanted.strip_suffix(part) {
            Some(rest) => wanted = rest,
            None => return false,
        }
    }
    wanted.is_empty()
}

/// `{*}` is one segment that is not empty; `{**}` is the rest, or what stands before that which follows it, and may be
/// empty, but its slash must be there: `/a/{**}` takes `/a/` and not `/a` (Istio, AuthorizationPolicy `Operation`).
fn matches_template(template: &str, path: &str) -> bool {
    let wanted: Vec<&str> = template.split('/').collect();
    let given: Vec<&str> = path.split('/').collect();
    let same = |(wanted, given): (&&str, &&str)| match *wanted {
        "{*}" => !given.is_empty(),
        literal => literal == *given,
    };
    match wanted.iter().position(|segment| *segment == "{**}") {
        None => wanted.len() == given.len() && wanted.iter().zip(&given).all(same),
        Some(at) => {
            let after = wanted.len() - at - 1;
            given.len() > at + after
                && wanted[..at].iter().zip(&given).all(same)
                && wanted[at + 1..].iter().zip(&given[given.len() - after..]).all(same)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_compare_like_the_joined_text() {
        let parts = ["td", "/ns/", "a", "/sa/", "b"];
        let fits = |value| matches_parts(&value, &parts);
        assert!(fits(StringMatch::Exact("td/ns/a/sa/b".into())));
        assert!(!fits(StringMatch::Exact("td/ns/a/sa/".into())));
        assert!(!fits(StringMatch::Exact("td/ns/a/sa/bc".into())));
        assert!(fits(StringMatch::Prefix("td/ns/a".into())));
        assert!(!fits(StringMatch::Prefix("td/ns/ab".into())));
        assert!(fits(StringMatch::Suffix("/sa/b".into())));
        assert!(fits(StringMatch::Suffix("a/sa/b".into())));
        assert!(!fits(StringMatch::Suffix("x/sa/b".into())));
        assert!(fits(StringMatch::Present));
    }

    #[test]
    fn templates() {
        for (template, path, expected) in [
            ("/a/{*}/c", "/a/b/c", true),
            ("/a/{*}/c", "/a//c", false),
            ("/a/{*}/c", "/a/b/b/c", false),
            ("/a/{**}", "/a/b/c", true),
            ("/a/{**}", "/a/", true),
            ("/a/{**}", "/b/c", false),
            ("/a/{**}", "/a", false),
            ("/a/{**}/z", "/a/z", false),
            ("/a/{*}/b/{**}", "/a/x/b/", true),
            ("/a/{*}/b/{**}", "/a/x/b/y/z", true),
            ("/a/{**}/z", "/a/b/c/z", true),
            ("/a/{**}/z", "/a/b/c", false),
            ("/{*}", "/x/y", false),
        ] {
            assert_eq!(matches_template(template, path), expected, "{template} {path}");
        }
    }

    proptest! {
        #[test]
        fn split_texts_compare_like_whole_ones(text in "[a/]{0,8}", at in 0usize..9, wanted in "[a/]{0,5}") {
            let at = at.min(text.len());
            let parts = [&text[..at], &text[at..]];
            let wanted: crate::base::Str = wanted.into();
            for value in [
                StringMatch::Exact(wanted.clone()),
                StringMatch::Prefix(wanted.clone()),
                StringMatch::Suffix(wanted.clone()),
                StringMatch::Present,
            ] {
                prop_assert_eq!(matches_parts(&value, &parts), matches(&value, &text));
            }
        }

        /// Envoy makes regular expressions of templates.
        #[test]
        fn templates_match_as_their_expressions_do(
            before in prop::collection::vec("[ab]|\\{\\*\\}", 0..3),
            rest in prop::option::of(Just("{**}".to_owned())),
            after in prop::collection::vec("[ab]", 0..3),
            slash in "/?",
            path in "(/[ab]?){1,6}",
        ) {
            let segments: Vec<String> = before.into_iter().chain(rest).chain(after).collect();
            let template = format!("/{}{slash}", segments.join("/"));
            let expression = template.replace("{**}", ".*").replace("{*}", "[^/]+");
            let expression = regex::Regex::new(&format!("^{expression}$")).unwrap();
            prop_assert_eq!(
                matches_template(&template, &path),
                expression.is_match(&path),
                "{} {}", template, path
            );
        }

        #[test]
        fn templates_never_panic(template in ".{0,20}", path in ".{0,20}") {
            let _ = matches_template(&template, &path);
        }
    }
}
