//! Mirrors: what they get, and that nobody waits for them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use super::scripted::{Script, Step};
use super::support::*;
use crate::filter::{
    HeaderFilter, HttpFilter, Mirror, PathRewrite, RequestHeaders, Rewrite, Share,
};
use crate::l7::WorkerSettings;
use crate::model::*;
use crate::world::fixture::{self, Fixture, backend as to, key, policy};

pub(super) fn mirror(service: &str, numerator: u32, denominator: u32) -> HttpFilter {
    let target = BackendRef::Service { service: key(service), port: 80 };
    let share = Share { numerator, denominator };
    HttpFilter::Mirror(Mirror { turn: Arc::default(), ..Mirror::new(target, share) })
}

/// `echo` is mirrored to `copy`.
fn mesh(at: SocketAddr, copy: SocketAddr, filters: Vec<HttpFilter>) -> Fixture {
    let pod = outsider("copy", copy);
    let rule = HttpRule { filters, ..fixture::rule(vec![to("echo", 1)]) };
    shop(at).service(bound("copy", "10.96.0.2", &pod, copy)).workload(pod).route(fixture::route(
        "r",
        "echo",
        vec![rule],
    ))
}

fn roomy() -> WorkerSettings {
    WorkerSettings { max_requests: 1000, ..WorkerSettings::for_tests() }
}

/// Copies are on their own way.
async fn until(is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(10), "waited in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_mirror_gets_what_the_rule_makes_of_the_request() {
    let set = vec![(HeaderName::from_static("x-set"), HeaderValue::from_static("1"))];
    let filters = vec![
        HttpFilter::RequestHeaders(RequestHeaders(HeaderFilter { set, ..HeaderFilter::default() })),
        HttpFilter::Rewrite(Rewrite {
            hostname: None,
            path: Some(PathRewrite::Full("/new".into())),
        }),
        mirror("copy", 1, 1),
        mirror("copy", 1, 1),
    ];
    let (copy, script) = Script::start(&[Step::Status(500)]).await;
    let lab = Lab::new(mesh(application("app").await, copy, filters), roomy());
    for http2 in [false, true] {
        let stream = lab.dial("client", "echo").await;
        let mut client = match http2 {
            true => Client::http2(stream).await,
            false => Client::http1(stream).await,
        };
        let body = Bytes::from_static(b"payload");
        let answer = client.exchange(Method::PUT, "/old?a", &[], body).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "the mirror's answer is nobody's");
        assert!(answer.body.ends_with("payload"), "{}", answer.body);
        let came = script.wait_for(if http2 { 4 } else { 2 }).await;
        for one in came {
            assert_eq!((one.method.as_str(), one.target.as_str()), ("PUT", "/new?a"));
            assert_eq!(one.headers["x-set"], "1");
            assert_eq!(one.body.as_deref(), Some(&b"payload"[..]));
            assert!(!one.headers.contains_key("x-isthmus-original"));
        }
    }
    assert_eq!(lab.requests(&[]), 2, "copies are not counted as requests of the client");
    let mirror = lab.telemetry.mirror();
    until(|| mirror.answered.get() == 4).await;
    assert_eq!(mirror.failed.get() + mirror.timed_out.get() + mirror.dropped.get(), 0);
}

#[tokio::test]
async fn the_share_is_exact() {
    let (copy, script) = Script::start(&[Step::Status(200)]).await;
    let lab =
        Lab::new(mesh(application("app").await, copy, vec![mirror("copy", 20, 100)]), roomy());
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    for _ in 0..100 {
        assert_eq!(client.get("/").await.status, StatusCode::OK);
    }
    assert_eq!(script.wait_for(20).await.len(), 20);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(script.came().len(), 20);
}

#[tokio::test]
async fn nobody_waits_for_a_mirror() {
    let gone = "127.0.0.1:1".parse().unwrap();
    let (silent, script) = Script::start(&[Step::Ignore]).await;
    for copy in [gone, silent] {
        let lab =
            Lab::new(mesh(application("app").await, copy, vec![mirror("copy", 1, 1)]), roomy());
        let mut client = Client::http1(lab.dial("client", "echo").await).await;
        let started = Instant::now();
        // More than may be on their way.
        for _ in 0..200 {
            assert_eq!(client.get("/").await.status, StatusCode::OK);
        }
        let body = Bytes::from(vec![b'x'; 4 << 20]);
        let answer = client.exchange(Method::POST, "/", &[], body.clone()).await.unwrap();
        assert!(answer.body.matches('x').count() >= body.len());
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        let mirror = lab.telemetry.mirror();
        if copy == gone {
            until(|| mirror.failed.get() + mirror.dropped.get() == 201).await;
            assert!(mirror.failed.get() > 0);
        } else {
            assert!(mirror.dropped.get() > 0, "more than may be on their way");
        }
        assert_eq!(mirror.answered.get(), 0);
    }
    assert!(script.came().is_empty());
}

#[tokio::test]
async fn long_bodies_are_mirrored_whole() {
    let (copy, script) = Script::start(&[Step::Status(200)]).await;
    let lab = Lab::new(mesh(application("app").await, copy, vec![mirror("copy", 1, 1)]), roomy());
    let body = Bytes::from((0..4 << 20).map(|at: u32| (at % 251) as u8).collect::<Vec<u8>>());
    for http2 in [false, true] {
        let stream = lab.dial("client", "echo").await;
        let mut client = match http2 {
            true => Client::http2(stream).await,
            false => Client::http1(stream).await,
        };
        client.exchange(Method::POST, "/", &[], body.clone()).await.unwrap();
        let came = script.wait_for(1 + usize::from(http2)).await;
        assert_eq!(came.last().unwrap().body.as_ref(), Some(&body));
    }
}

#[tokio::test]
async fn a_copy_is_judged_by_the_mirrors_policies() {
    let (copy, script) = Script::start(&[Step::Status(200)]).await;
    let get = Operation {
        methods: Values { any: vec![StringMatch::Exact("GET".into())], none: vec![] },
        ..Operation::default()
    };
    let scope = Scope::Targets(vec![PolicyTarget::Service("copy".into())]);
    let only_get =
        policy("get", Action::Allow, scope, vec![Rule { to: vec![get], ..Rule::default() }]);
    let mesh = mesh(application("app").await, copy, vec![mirror("copy", 1, 1)]).policy(only_get);
    let lab = Lab::new(mesh, roomy());
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    assert_eq!(client.send(Method::PUT, "/", &[]).await.unwrap().status, StatusCode::OK);
    assert_eq!(client.get("/").await.status, StatusCode::OK);
    let came = script.wait_for(1).await;
    assert_eq!(came[0].method, "GET");
}
