use http::Uri;

use super::http_check::{check, verdict};
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
    assert_eq!(
        (request.method(), request.uri()),
        (&Method::PUT, &Uri::from_static("/check/a?b=c"))
    );
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

/// HTTPExternalAuthFilter, `allowedResponseHeaders`: none listed means all.
#[test]
fn a_filter_that_lists_no_headers_copies_all_but_what_describes_the_answer() {
    let definition = HttpCheck { all_upstream: true, ..HttpCheck::default() };
    let mut answer = headers(&LIES);
    answer.extend(headers(&[("x-user", "alice"), ("content-type", "text/html"), ("date", "x")]));
    let sent = headers(&[("content-type", "application/json"), ("x-mine", "1")]);
    let verdict = verdict(&definition, &sent, StatusCode::OK, &answer, Bytes::new());
    let Ok(Verdict::Allow(changes)) = verdict else { panic!("{verdict:?}") };
    let mut request = sent.clone();
    changes.apply(&mut request);
    assert_eq!(pairs(&request), ["content-type: application/json", "x-mine: 1", "x-user: alice"]);
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
        (
            &[][..],
            &["location: /login", "set-cookie: s=1", "content-type: text/html", "x-why: no token"]
                [..],
        ),
        (&["x-why"], &["location: /login", "content-type: text/html", "x-why: no token"]),
    ] {
        let definition = HttpCheck { downstream_on_deny: exact(list), ..HttpCheck::default() };
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

mod grpc {
    use std::net::SocketAddr;

    use prost::Message;

    use super::super::grpc_check::{Ends, Shown, check, verdict};
    use super::super::messages::*;
    use super::*;
    use crate::base::Identity;

    fn option(key: &str, value: &str, append: Option<bool>, action: i32) -> HeaderValueOption {
        let header =
            HeaderPair { key: key.to_owned(), value: value.to_owned(), raw_value: Vec::new() };
        HeaderValueOption {
            header: Some(header),
            append: append.map(|value| BoolValue { value }),
            append_action: action,
        }
    }

    fn framed(answer: &CheckResponse) -> Vec<u8> {
        let message = answer.encode_to_vec();
        let mut framed = vec![0];
        framed.extend((message.len() as u32).to_be_bytes());
        framed.extend(message);
        framed
    }

    fn said(asked: &HeaderMap, code: i32, response: Option<HttpResponse>) -> Verdict {
        let answer = CheckResponse { status: Some(Status { code }), response };
        verdict(asked, Some(0), &framed(&answer)).unwrap()
    }

    #[test]
    fn a_check_tells_of_the_request_and_of_both_ends() {
        let sent = headers(&[("host", "web"), ("x-a", "1"), ("x-a", "2"), ("x-request-id", "id")]);
        let bytes = Bytes::from_static(b"body\xff");
        let body = Some(SeenBody { bytes: &bytes, partial: true });
        let (client, server) = (Identity::new("td", "a", "b"), Identity::new("td", "c", "d"));
        let address: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let ends = Ends {
            client: Some(&client),
            client_address: address,
            server: Some(&server),
            server_address: address,
        };
        for as_bytes in [true, false] {
            let shown = Shown { headers: &[], as_bytes };
            let request = check(&about(&sent, body), ends, "auth", shown);
            assert_eq!(request.uri(), "/envoy.service.auth.v3.Authorization/Check");
            assert_eq!(request.headers()["content-type"], "application/grpc");
            let message = CheckRequest::decode(&request.body()[5..]).unwrap();
            let attributes = message.attributes.unwrap();
            assert_eq!(attributes.source.unwrap().principal, "spiffe://td/ns/a/sa/b");
            assert_eq!(attributes.destination.unwrap().principal, "spiffe://td/ns/c/sa/d");
            let http = attributes.request.unwrap().http.unwrap();
            assert_eq!((&*http.method, &*http.path, &*http.host), ("PUT", "/a?b=c", "web"));
            assert_eq!((&*http.id, &*http.headers["x-a"]), ("id", "1,2"));
            assert_eq!(http.headers[":path"], "/a?b=c");
            assert_eq!(http.headers["x-envoy-auth-partial-body"], "true");
            assert_eq!(http.raw_body.is_empty(), !as_bytes);
            assert_eq!(http.body.is_empty(), as_bytes);
        }
        let shown = Shown { headers: &exact(&["x-request-id"]), as_bytes: false };
        let request = check(&about(&sent, body), ends, "auth", shown);
        let message = CheckRequest::decode(&request.body()[5..]).unwrap();
        let http = message.attributes.unwrap().request.unwrap().http.unwrap();
        assert_eq!((&*http.host, http.headers.get("x-a")), ("web", None));
        assert_eq!(http.headers["x-request-id"], "id");
    }

    #[test]
    fn only_an_ok_permits() {
        let none = HeaderMap::new();
        let ok = || Some(HttpResponse::Ok(OkResponse::default()));
        let denied = || Some(HttpResponse::Denied(DeniedResponse::default()));
        let error = || Some(HttpResponse::Error(DeniedResponse::default()));
        for (code, response, permits) in [
            (0, None, true),
            (0, ok(), true),
            (0, denied(), false),
            (0, error(), false),
            (7, None, false),
            (7, ok(), false),
            (7, denied(), false),
        ] {
            let found = said(&none, code, response.clone());
            assert_eq!(matches!(found, Verdict::Allow(_)), permits, "{code} {response:?}");
        }
        let good = framed(&CheckResponse::default());
        assert!(verdict(&none, Some(0), &good).is_ok());
        let compressed = [&[1], &good[1..]].concat();
        let two = [&good[..], &good].concat();
        for (status, body) in [
            (Some(14), &good[..]),
            (None, &good),
            (Some(0), &[]),
            (Some(0), &good[..4]),
            (Some(0), &compressed),
            (Some(0), &two),
            (Some(0), b"\0\0\0\0\x02\xff\xff"),
        ] {
            assert!(verdict(&none, status, body).is_err(), "{status:?} {body:?}");
        }
        let query = OkResponse {
            query_parameters_to_remove: vec!["token".to_owned()],
            ..OkResponse::default()
        };
        let answer = CheckResponse { status: None, response: Some(HttpResponse::Ok(query)) };
        assert!(verdict(&none, Some(0), &framed(&answer)).is_err());
    }

    #[test]
    fn a_denial_has_the_status_the_headers_and_the_body_that_it_says() {
        let mut denied = DeniedResponse {
            status: Some(HttpStatus { code: 401 }),
            headers: vec![option("www-authenticate", "Basic", None, 0)],
            body: "who?".to_owned(),
        };
        denied.headers.extend(LIES.map(|(name, value)| option(name, value, None, 0)));
        let Verdict::Deny(refusal) =
            said(&HeaderMap::new(), 16, Some(HttpResponse::Denied(denied.clone())))
        else {
            panic!("allowed");
        };
        assert_eq!((refusal.status.as_u16(), &refusal.body[..]), (401, &b"who?"[..]));
        assert_eq!(pairs(&refusal.headers), ["www-authenticate: Basic"]);
        for (code, status) in [(0, 403), (99, 403), (101, 403), (999, 403), (-1, 403), (302, 302)] {
            denied.status = Some(HttpStatus { code });
            let found = said(&HeaderMap::new(), 7, Some(HttpResponse::Denied(denied.clone())));
            let Verdict::Deny(refusal) = found else { panic!("allowed") };
            assert_eq!(refusal.status.as_u16(), status, "{code}");
        }
    }

    #[test]
    fn headers_are_set_appended_and_removed() {
        let asked = headers(&[
            ("host", "web"),
            ("x-set", "client"),
            ("x-append", "client"),
            ("x-absent", "client"),
            ("x-gone", "client"),
        ]);
        let mut ok = OkResponse {
            headers: vec![
                option("x-set", "a", None, 0),
                option("x-append", "a", Some(true), 0),
                option("x-absent", "a", None, 1),
                option("x-new", "a", None, 1),
            ],
            headers_to_remove: vec!["x-gone".to_owned(), "host".to_owned()],
            response_headers_to_add: vec![option("x-response", "a", None, 0)],
            ..OkResponse::default()
        };
        for lies in [&mut ok.headers, &mut ok.response_headers_to_add] {
            lies.extend(LIES.map(|(name, value)| option(name, value, None, 0)));
        }
        let Verdict::Allow(changes) = said(&asked, 0, Some(HttpResponse::Ok(ok))) else {
            panic!("denied");
        };
        let mut request = asked;
        changes.apply(&mut request);
        let mut found = pairs(&request);
        found.sort();
        assert_eq!(
            found,
            [
                "host: web",
                "x-absent: client",
                "x-append: a",
                "x-append: client",
                "x-new: a",
                "x-set: a"
            ]
        );
        assert_eq!(pairs(&changes.response), ["x-response: a"]);
    }
}

/// Applications that know headers as variables take `x_user` for `x-user`, and a header that the client sends in this way for
/// the provider's word.
#[test]
fn no_name_that_is_read_alike_stands_beside_a_providers() {
    let list = ["x-user", "x-a-*", "*-role"].map(|text| match text {
        "x-a-*" => StringMatch::Prefix("x-a-".into()),
        "*-role" => StringMatch::Suffix("-role".into()),
        whole => StringMatch::Exact(whole.into()),
    });
    let definition = HttpCheck {
        include_headers: exact(&["x-token"]),
        upstream_on_allow: list.to_vec(),
        ..HttpCheck::default()
    };
    let sent = headers(&[
        ("x_user", "root"),
        ("x.user", "root"),
        ("x_a_b", "1"),
        ("x-b_role", "admin"),
        ("x-token", "t"),
        ("x-users", "kept"),
    ]);
    for (answer, expected) in [
        (headers(&[("x-user", "alice")]), &["x-token: t", "x-users: kept", "x-user: alice"][..]),
        (HeaderMap::new(), &["x-token: t", "x-users: kept"]),
    ] {
        let Ok(Verdict::Allow(changes)) =
            verdict(&definition, &sent, StatusCode::OK, &answer, Bytes::new())
        else {
            panic!()
        };
        let mut made = sent.clone();
        changes.apply(&mut made);
        assert_eq!(sorted(&made), sorted_texts(expected));
    }
    let provider = ExtAuthz {
        name: "p".into(),
        service: ProviderService::Host { namespace: None, hostname: "p".into() },
        port: 80,
        timeout: Duration::from_secs(1),
        fail_open: true,
        status_on_error: 403,
        body: None,
        protocol: CheckProtocol::Http(definition),
    };
    let mut passed = sent.clone();
    without_answer(&provider, &sent).apply(&mut passed);
    assert_eq!(sorted(&passed), sorted_texts(&["x-token: t", "x-users: kept"]));
}

fn sorted(headers: &HeaderMap) -> Vec<String> {
    let mut pairs = pairs(headers);
    pairs.sort();
    pairs
}

fn sorted_texts(texts: &[&str]) -> Vec<String> {
    let mut texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
    texts.sort();
    texts
}
