//! What filters make of requests, as clients and applications see it: path, host, method, headers, `location`.

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::support::*;
use crate::filter::{
    Cors, HeaderFilter, HttpFilter, OriginPattern, PathRewrite, Permitted, Redirect,
    RequestHeaders, ResponseHeaders, Rewrite,
};
use crate::l7::WorkerSettings;
use crate::model::*;
use crate::world::fixture::{self, Fixture, backend as to};

/// A rule of the route of `echo` for what begins with `path`.
fn rule(path: &str, filters: Vec<HttpFilter>, backends: Vec<Backend>) -> HttpRule {
    let path = PathMatch::Prefix(path.into());
    let matches = vec![HttpMatch { path, ..HttpMatch::default() }];
    HttpRule { matches, filters, ..fixture::rule(backends) }
}

/// Services `one` and `two` beside `echo`, and these rules for `echo`.
async fn lab(rules: Vec<HttpRule>) -> Lab {
    let (one, two) = (application("one").await, application("two").await);
    let (first, second) = (outsider("one", one), outsider("two", two));
    let mesh: Fixture = shop(one)
        .service(bound("one", "10.96.0.2", &first, one))
        .service(bound("two", "10.96.0.3", &second, two))
        .workload(first)
        .workload(second)
        .route(fixture::route("routes", "echo", rules));
    Lab::new(mesh, WorkerSettings::for_tests())
}

fn prefix(prefix: &str, with: &str) -> PathRewrite {
    PathRewrite::Prefix { prefix: prefix.into(), with: with.into() }
}

fn rewrite(hostname: Option<&'static str>, path: Option<PathRewrite>) -> HttpFilter {
    HttpFilter::Rewrite(Rewrite { hostname: hostname.map(HeaderValue::from_static), path })
}

fn set(name: &'static str, value: &'static str) -> HeaderFilter {
    let set = vec![(HeaderName::from_static(name), HeaderValue::from_static(value))];
    HeaderFilter { set, ..HeaderFilter::default() }
}

#[tokio::test]
async fn redirects_tell_where_to_go_and_reach_nobody() {
    let redirect = Redirect {
        scheme: None,
        hostname: None,
        path: None,
        port: None,
        status: StatusCode::FOUND,
    };
    let rules = vec![
        rule(
            "/host",
            vec![HttpFilter::Redirect(Redirect {
                hostname: Some("example.org".into()),
                status: StatusCode::MOVED_PERMANENTLY,
                ..redirect.clone()
            })],
            vec![],
        ),
        rule(
            "/tls",
            vec![HttpFilter::Redirect(Redirect {
                scheme: Some("https".into()),
                status: StatusCode::PERMANENT_REDIRECT,
                ..redirect.clone()
            })],
            vec![],
        ),
        rule(
            "/old",
            vec![HttpFilter::Redirect(Redirect {
                path: Some(prefix("/old", "/new")),
                port: Some(8083),
                ..redirect.clone()
            })],
            vec![],
        ),
        rule(
            "/backend",
            vec![],
            vec![Backend {
                filters: vec![HttpFilter::Redirect(Redirect {
                    path: Some(PathRewrite::Full("/full".into())),
                    status: StatusCode::TEMPORARY_REDIRECT,
                    ..redirect
                })],
                ..to("one", 1)
            }],
        ),
    ];
    let lab = lab(rules).await;
    for http2 in [false, true] {
        let stream = lab.dial("client", "echo").await;
        let mut client = match http2 {
            true => Client::http2(stream).await,
            false => Client::http1(stream).await,
        };
        for (path, status, location) in [
            ("/host/a?b=c", 301, "http://example.org/host/a?b=c"),
            ("/tls", 308, "https://echo/tls"),
            ("/old/a?b=/old", 302, "http://echo:8083/new/a?b=/old"),
            ("/backend/x", 307, "http://echo/full"),
        ] {
            let answer = client.send(Method::POST, path, &[]).await.unwrap();
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(answer.headers["location"], location);
            assert_eq!(answer.body, "");
        }
    }
    assert_eq!(lab.requests(&["response_code=\"301\"", "response_flags=\"-\""]), 2);
}

#[tokio::test]
async fn rewrites_reach_the_application_and_only_there() {
    let full = PathRewrite::Full("/full/path".into());
    let rules = vec![
        rule("/prefix", vec![rewrite(None, Some(prefix("/prefix", "/x")))], vec![to("one", 1)]),
        rule("/strip", vec![rewrite(None, Some(prefix("/strip", "")))], vec![to("one", 1)]),
        rule("/full", vec![rewrite(None, Some(full))], vec![to("one", 1)]),
        rule("/host", vec![rewrite(Some("inner.example.org"), None)], vec![to("one", 1)]),
        rule(
            "/both",
            vec![
                HttpFilter::RequestHeaders(RequestHeaders(set("x-set", "1"))),
                rewrite(Some("b.org"), Some(prefix("/both", "/b"))),
            ],
            vec![to("one", 1)],
        ),
    ];
    let lab = lab(rules).await;
    for http2 in [false, true] {
        let stream = lab.dial("client", "echo").await;
        let mut client = match http2 {
            true => Client::http2(stream).await,
            false => Client::http1(stream).await,
        };
        for (path, method, target, host) in [
            ("/prefix/a?b=c", Method::GET, "/x/a?b=c", "echo"),
            ("/prefix", Method::PUT, "/x", "echo"),
            ("/strip", Method::GET, "/", "echo"),
            ("/strip/a", Method::GET, "/a", "echo"),
            ("/full/a?b", Method::DELETE, "/full/path?b", "echo"),
            ("/host/a", Method::GET, "/host/a", "inner.example.org"),
            ("/both/a", Method::GET, "/b/a", "b.org"),
        ] {
            let answer = client.send(method.clone(), path, &[]).await.unwrap();
            let (first, rest) = answer.body.split_once('\n').unwrap();
            let expected = match http2 {
                true => format!("one HTTP/2.0 {method} http://{host}{target}"),
                false => format!("one HTTP/1.1 {method} {target}"),
            };
            assert_eq!(first, expected, "{path}");
            assert!(http2 || rest.contains(&format!("host: {host}\n")), "{path}: {rest}");
            assert!(!rest.contains("x-isthmus"), "{rest}");
        }
    }
}

#[tokio::test]
async fn a_backends_filters_are_its_own() {
    let mine = |name: &'static str, path: &str| Backend {
        filters: vec![
            HttpFilter::RequestHeaders(RequestHeaders(set("x-version", name))),
            rewrite(None, Some(PathRewrite::Full(path.into()))),
            HttpFilter::ResponseHeaders(ResponseHeaders(set("x-answered-by", name))),
        ],
        ..to(name, 1)
    };
    let shared = HttpFilter::RequestHeaders(RequestHeaders(set("x-shared", "1")));
    let rules = vec![rule("/", vec![shared], vec![mine("one", "/1"), mine("two", "/2")])];
    let lab = lab(rules).await;
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    let mut seen = [0, 0];
    for _ in 0..10 {
        let answer = client.get("/").await;
        let (name, path) = match answer.body.starts_with("one ") {
            true => ("one", "/1"),
            false => ("two", "/2"),
        };
        seen[usize::from(name == "two")] += 1;
        assert!(
            answer.body.starts_with(&format!("{name} HTTP/1.1 GET {path}\n")),
            "{}",
            answer.body
        );
        assert!(answer.body.contains(&format!("x-version: {name}\n")), "{}", answer.body);
        assert!(answer.body.contains("x-shared: 1\n"), "{}", answer.body);
        assert_eq!(answer.headers["x-answered-by"], name);
    }
    assert_eq!(seen, [5, 5]);
}

#[tokio::test]
async fn browsers_are_answered_by_cors_and_applications_by_nobody() {
    let cors = HttpFilter::Cors(Cors {
        origins: vec![OriginPattern::Like {
            scheme: "https".into(),
            host: "*.bar.com".into(),
            port: 443,
        }],
        credentials: true,
        methods: Permitted::Any,
        headers: Permitted::None,
        exposed: Permitted::None,
        max_age: 5,
    });
    let lab = lab(vec![rule("/", vec![cors], vec![to("one", 1)])]).await;
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    let asks = |origin| [("origin", origin), ("access-control-request-method", "PUT")];
    let answer = client.send(Method::OPTIONS, "/", &asks("https://www.bar.com")).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (204, ""));
    assert_eq!(answer.headers["access-control-allow-origin"], "https://www.bar.com");
    assert_eq!(answer.headers["access-control-allow-methods"], "PUT");
    assert!(!answer.headers.contains_key("content-length"), "{:?}", answer.headers);
    let answer = client.send(Method::OPTIONS, "/", &asks("https://bar.com")).await.unwrap();
    assert_eq!(answer.status, 204);
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    for (origin, allowed) in [("https://a.bar.com", true), ("https://evil.com", false)] {
        let answer = client.send(Method::PUT, "/", &[("origin", origin)]).await.unwrap();
        assert!(answer.body.starts_with("one HTTP/1.1 PUT /\n"), "{}", answer.body);
        let given = answer.headers.get("access-control-allow-origin");
        assert_eq!(given.is_some_and(|given| given == origin), allowed, "{origin}");
    }
}
