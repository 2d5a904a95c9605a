use http::Uri;

use super::*;
use crate::model::HttpCheck;

fn exact(names: &[&str]) -> Vec<StringMatch> {
    names.iter().map(|name| StringMatch::Exact((*name).into())).collect()
}

fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in all {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

fn about<'a>(headers: &'a HeaderMap, body: Option<SeenBody<'a>>) -> About<'a> {
    About { method: &Method::PUT, target: "/a?b=c", headers, body }
}

fn pairs(headers: &HeaderMap) -> Vec<String> {
    headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
}

#[test]
fn a_check_has_what_the_definition_says_and_no_more() {
    let sent = headers(&[
        ("host", "web"),
        ("authorization", "Bearer t"),
        ("cookie", "a=b"),
        ("x-a-1", "1"),
        ("x-secret", "1"),
        ("x-always", "the client's"),
        ("connection", "x-a-1"),
        ("content-length", "7"),
    ]);
    let definition = HttpCheck {
        path_prefix: "/check".into(),
        include_headers: vec![
            StringMatch::Exact("cookie".into()),
            StringMatch::Prefix("x-a-".into()),
            StringMatch::Suffix("-length".into()),
        ],
        additional_headers: vec![("x-always".into(), "mesh".into())],
        ..HttpCheck::default()
    };
    let request = check(&definition, &about(&sent, None)).unwrap();
    assert_eq!((request.method(), request.uri()), (&Method::PUT, &Uri::from_static("/check/a?b=c")));
    assert_eq!(
        pairs(request.headers()),
        [
            "authorization: Bearer t",
            "cookie: a=b",
            "x-a-1: 1",
            "host: web",
            "x-always: mesh",
            "content-length: 0"
        ]
    );
    let bytes = Bytes::from_static(b"body");
    for partial in [true, false] {
        let body = SeenBody { bytes: &bytes, partial };
        let request = check(&definition, &about(&sent, Some(body))).unwrap();
        assert_eq!(request.headers()["content-length"], "4");
        assert_eq!(request.headers()["x-envoy-auth-partial-body"], partial.to_string());
        assert_eq!(request.body(), &bytes);
    }
}

/// Envoy's table: 200 permits, a provider that fails says nothing, and all else denies.
#[test]
fn only_200_permits() {
    for (status, expected) in [
        (200, Some(true)),
        (201, Some(false)),
        (204, Some(false)),
        (302, Some(false)),
        (401, Some(false)),
        (403, Some(false)),
        (429, Some(false)),
        (500, None),
        (503, None),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let none = HeaderMap::new();
        let verdict = verdict(&HttpCheck::default(), &none, status, &none, Bytes::new());
        let permits = verdict.ok().map(|verdict| matches!(verdict, Verdict::Allow(_)));
        assert_eq!(permits, expected, "{status}");
    }
}

const LIES: [(&str, &str); 9] = [
    ("host", "evil"),
    ("content-length", "1"),
    ("transfer-encoding", "chunked"),
    ("connection", "close"),
    ("x-forwarded-client-cert", "URI=admin"),
    ("x_forwarded_client_cert", "URI=admin"),
    ("x-isthmus-original", "x"),
    ("upgrade", "h2c"),
    ("te", "trailers"),
];

#[test]
fn a_provider_sets_what_is_listed_and_never_what_frames_or_names() {
    let mut answer = headers(&LIES);
    answer.extend(headers(&[
        ("x-user", "alice"),
        ("x-other", "1"),
        ("set-cookie", "s=1"),
        ("x-envoy-auth-headers-to-remove", "authorization, host, x-forwarded-client-cert"),
    ]));
    let all = vec![StringMatch::Present];
    let definition = HttpCheck {
        upstream_on_allow: exact(&["x-user", "x-role", "host", "x-forwarded-client-cert"]),
        downstream_on_allow: exact(&["set-cookie", "content-length"]),
        ..HttpCheck::default()
    };
    let sent = headers(&[
        ("host", "web"),
        ("authorization", "Bearer t"),
        ("x-user", "root"),
        ("x-role", "admin"),
        ("x-mine", "1"),
    ]);
    let Ok(Verdict::Allow(changes)) =
        verdict(&definition, &sent, StatusCode::OK, &answer, Bytes::new())
    else {
        panic!("denied");
    };
    let mut request = sent.clone();
    changes.apply(&mut request);
    assert_eq!(pairs(&request), ["host: web", "x-mine: 1", "x-user: alice"]);
    assert_eq!(pairs(&changes.response), ["set-cookie: s=1"]);
    // Whatever the lists say.
    let definition =
        HttpCheck { upstream_on_allow: all.clone(), downstream_on_allow: all, ..definition };
    let Ok(Verdict::Allow(changes)) =
        verdict(&definition, &sent, StatusCode::OK, &headers(&LIES), Bytes::new())
    else {
        panic!("denied");
    };
    assert!(changes.set.is_empty() && changes.response.is_empty(), "{changes:?}");
}

#[test]
fn what_the_provider_saw_of_the_client_stays() {
    let definition = HttpCheck {
        include_headers: exact(&["cookie"]),
        upstream_on_allow: exact(&["cookie", "authorization", "x-user"]),
        ..HttpCheck::default()
    };
    let mut request =
        headers(&[("cookie", "a"), ("authorization", "b"), ("x-user", "c"), ("x-user", "d")]);
    let none = HeaderMap::new();
    let Ok(Verdict::Allow(changes)) =
        verdict(&definition, &request, StatusCode::OK, &none, Bytes::new())
    else {
        panic!("denied");
    };
    changes.apply(&mut request);
    assert_eq!(pairs(&request), ["cookie: a", "authorization: b"]);
}

#[test]
fn a_denial_is_the_providers_as_far_as_it_may_be() {
    let mut answer = headers(&LIES);
    answer.extend(headers(&[
        ("location", "/login"),
        ("set-cookie", "s=1"),
        ("content-type", "text/html"),
        ("x-why", "no token"),
    ]));
    for (list, expected) in [
        (&[][..], &["location: /login", "set-cookie: s=1", "content-type: text/html", "x-why: no token"][..]),
        (&["x-why"], &["location: /login", "content-type: text/html", "x-why: no token"]),
    ] {
        let definition =
            HttpCheck { downstream_on_deny: exact(list), ..HttpCheck::default() };
        let none = HeaderMap::new();
        let found = verdict(&definition, &none, StatusCode::FOUND, &answer, Bytes::from("page"));
        let Ok(Verdict::Deny(refusal)) = found else { panic!("{found:?}") };
        assert_eq!(pairs(&refusal.headers), expected);
        assert_eq!((refusal.status, &refusal.body[..]), (StatusCode::FOUND, &b"page"[..]));
    }
}

#[test]
fn cookies_stand_beside_those_of_the_application() {
    let mut response = headers(&[("set-cookie", "app=1"), ("x-a", "app")]);
    add_to_response(&headers(&[("set-cookie", "auth=1"), ("x-a", "auth")]), &mut response);
    assert_eq!(pairs(&response), ["set-cookie: app=1", "set-cookie: auth=1", "x-a: auth"]);
}
