//! The official suite's table (HTTPRouteCORS), and origins.

use proptest::prelude::*;

use super::*;

fn list_of(text: &'static str) -> Permitted {
    match text {
        "" => Permitted::None,
        "*" => Permitted::Any,
        text => Permitted::These(HeaderValue::from_static(text)),
    }
}

fn like(scheme: &str, host: &str, port: u16) -> OriginPattern {
    OriginPattern::Like { scheme: scheme.into(), host: host.into(), port }
}

/// Methods, headers and exposed headers.
fn cors(origins: &[OriginPattern], credentials: bool, lists: [&'static str; 3]) -> Cors {
    let [methods, headers, exposed] = lists.map(list_of);
    Cors { origins: origins.to_vec(), credentials, methods, headers, exposed, max_age: 5 }
}

/// The answer's headers as text, sorted.
fn text(headers: &HeaderMap) -> String {
    let short = |name: &str| name.trim_start_matches("access-control-").to_owned();
    let mut lines: Vec<String> = (headers.iter())
        .map(|(name, value)| format!("{}: {}", short(name.as_str()), value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines.join("; ")
}

fn asked(cors: &Cors, origin: &str, method: &str, named: Option<&str>) -> String {
    let mut headers = HeaderMap::new();
    headers.insert(ORIGIN, origin.parse().unwrap());
    headers.insert(ACCESS_CONTROL_REQUEST_METHOD, method.parse().unwrap());
    if let Some(named) = named {
        headers.insert(ACCESS_CONTROL_REQUEST_HEADERS, named.parse().unwrap());
    }
    let uri = http::Uri::from_static("/");
    let head = RequestHead { method: &Method::OPTIONS, uri: &uri, headers: &mut headers };
    let answer = preflight(cors, &head).unwrap();
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    text(&answer.headers)
}

#[test]
fn questions_of_browsers() {
    let sites = [like("https", "www.foo.com", 443), like("https", "*.bar.com", 443)];
    let named =
        cors(&sites, true, ["GET, OPTIONS", "x-header-1, x-header-2", "x-header-3, x-header-4"]);
    let any_method = cors(&sites[..1], false, ["*", "", ""]);
    let any_origin = cors(&[OriginPattern::Any], false, ["PUT", "", ""]);
    let any = cors(&[OriginPattern::Any], true, ["*", "*", "*"]);
    let any_without = cors(&[OriginPattern::Any], false, ["*", "*", "*"]);
    let all = |origin: &str| {
        format!(
            "allow-credentials: true; allow-headers: x-header-1, x-header-2; allow-methods: GET, OPTIONS; \
             allow-origin: {origin}; expose-headers: x-header-3, x-header-4; max-age: 5; vary: origin"
        )
    };
    for (cors, origin, method, headers, expected) in [
        (&named, "https://www.foo.com", "GET", Some("x-header-1"), &*all("https://www.foo.com")),
        (&named, "https://www.bar.com", "GET", None, &all("https://www.bar.com")),
        (&named, "https://xpto.www.bar.com", "GET", None, &all("https://xpto.www.bar.com")),
        (&named, "https://foobar.com", "GET", None, ""),
        (&named, "http://www.foo.com", "GET", None, ""),
        (
            &any_method,
            "https://www.foo.com",
            "POST",
            None,
            "allow-methods: *; allow-origin: https://www.foo.com; max-age: 5; vary: origin",
        ),
        (
            &any_origin,
            "https://foobar.com:12345",
            "PUT",
            None,
            "allow-methods: PUT; allow-origin: *; max-age: 5",
        ),
        (
            &any,
            "https://other.foo.com",
            "PUT",
            Some("x-header-1, x-header-2"),
            "allow-credentials: true; allow-headers: x-header-1, x-header-2; allow-methods: PUT; \
             allow-origin: https://other.foo.com; max-age: 5; vary: origin",
        ),
        (
            &any,
            "https://other.foo.com",
            "PUT",
            None,
            "allow-credentials: true; allow-methods: PUT; allow-origin: https://other.foo.com; max-age: 5; vary: origin",
        ),
        (
            &any_without,
            "null",
            "PUT",
            Some("x"),
            "allow-headers: *; allow-methods: *; allow-origin: *; expose-headers: *; max-age: 5",
        ),
    ] {
        assert_eq!(asked(cors, origin, method, headers), expected, "{origin} {method} {headers:?}");
    }
}

#[test]
fn only_a_whole_question_is_one() {
    let cors = cors(&[OriginPattern::Any], false, ["", "", ""]);
    let origin = (ORIGIN, HeaderValue::from_static("https://a"));
    let method = (ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("GET"));
    for (sent, headers, expected) in [
        (Method::OPTIONS, vec![origin.clone(), method.clone()], true),
        (Method::GET, vec![origin.clone(), method.clone()], false),
        (Method::OPTIONS, vec![origin], false),
        (Method::OPTIONS, vec![method], false),
    ] {
        let mut headers = HeaderMap::from_iter(headers);
        let uri = http::Uri::from_static("/");
        let head = RequestHead { method: &sent, uri: &uri, headers: &mut headers };
        assert_eq!(preflight(&cors, &head).is_some(), expected, "{sent} {headers:?}");
    }
}

#[test]
fn responses_tell_whose_scripts_may_read_them() {
    let sites = [like("https", "*.bar.com", 443)];
    let cors = cors(&sites, true, ["GET", "x", "x-shown"]);
    for (origin, expected) in [
        (
            "https://www.bar.com",
            "allow-credentials: true; allow-origin: https://www.bar.com; expose-headers: x-shown; vary: accept; vary: origin",
        ),
        ("https://other.com", "vary: accept"),
    ] {
        let mut headers = HeaderMap::from_iter([(VARY, HeaderValue::from_static("accept"))]);
        allow(&cors, &origin.parse().unwrap(), &mut headers);
        assert_eq!(text(&headers), expected);
    }
}

#[test]
fn origins() {
    for (pattern, origin, expected) in [
        (("https", "a.com", 443), "https://a.com", true),
        (("https", "a.com", 443), "https://a.com:443", true),
        (("https", "a.com", 443), "HTTPS://A.com", true),
        (("https", "a.com", 443), "https://a.com:444", false),
        (("http", "a.com", 8080), "http://a.com:8080", true),
        (("http", "a.com", 80), "http://a.com", true),
        (("http", "a.com", 443), "http://a.com", false),
        (("https", "*.a.com", 443), "https://a.com", false),
        (("https", "*.a.com", 443), "https://x.y.a.com", true),
        (("https", "*.a.com", 443), "https://xa.com", false),
        (("https", "*", 443), "https://anything", true),
        (("https", "*", 443), "http://anything", false),
        (("https", "a*b.com", 443), "https://a.x.b.com", true),
        (("http", "[::1]", 80), "http://[::1]", true),
        (("http", "[::1]", 81), "http://[::1]:81", true),
        (("https", "a.com", 443), "null", false),
        (("https", "a.com", 443), "https://a.com:x", false),
    ] {
        let cors = cors(&[like(pattern.0, pattern.1, pattern.2)], false, ["", "", ""]);
        assert_eq!(is_allowed(&cors, &origin.parse().unwrap()), expected, "{pattern:?} {origin}");
    }
}

proptest! {
    /// The same as a regular expression says.
    #[test]
    fn stars_stand_for_anything(pattern in "[ab.*]{0,8}", text in "[abAB.]{0,10}") {
        let escaped: Vec<String> = pattern.split('*').map(regex::escape).collect();
        let regex = regex::Regex::new(&format!("^{}$", escaped.join(".*"))).unwrap();
        let expected = regex.is_match(&text.to_ascii_lowercase());
        prop_assert_eq!(is_like(pattern.as_bytes(), text.as_bytes()), expected);
    }

    #[test]
    fn any_origin_is_read(origin in "[ -~]{0,30}") {
        _ = parts(&origin);
    }
}
