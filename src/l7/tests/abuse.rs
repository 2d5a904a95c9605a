//! What a client could do to others, or have for nothing, by how it asks: with deadlines that nobody can meet, beyond its share, leaving
//! before it is answered, or by another spelling of a path.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::destination::captured;
use super::scripted::{Script, Step};
use super::support::*;
use super::traffic::{HOST, filters, with};
use crate::filter::HttpFilter;
use crate::l7::WorkerSettings;
use crate::model::*;
use crate::world::fixture::{self, backend as to, identity};

const LONG: Step = Step::Slow(Duration::from_secs(600));

/// The status that a client gets for each request with these headers.
async fn statuses(lab: &Lab, headers: &[(&str, &str)], count: usize) -> Vec<u16> {
    let mut all = Vec::new();
    for _ in 0..count {
        let mut client = Client::http1(lab.dial("client", "echo").await).await;
        let answer = client.send(Method::GET, "/", headers).await.unwrap();
        all.push(answer.status.as_u16());
    }
    all
}

/// The circuit is that of all clients of the node.
#[tokio::test]
async fn a_client_without_patience_opens_no_circuit() {
    let failures = json!({"failures": {"percentage": 50, "minRequests": 2, "openFor": "1h"}});
    for breaker in [failures.clone(), json!({"endpoint": failures})] {
        let (at, script) = Script::start(&[LONG]).await;
        let policy = filters(json!({"circuitBreaker": breaker}));
        let lab = Lab::new(with(shop(at), &policy), WorkerSettings::for_tests());
        let hurry = [("x-envoy-upstream-rq-timeout-ms", "20")];
        assert_eq!(statuses(&lab, &hurry, 5).await, [504; 5], "{breaker}");
        // An application of gRPC that heard of the deadline answers so itself.
        script.goes_on(Step::Head(200, "grpc-status", "4"));
        let hurry = [("content-type", "application/grpc"), ("grpc-timeout", "10S")];
        assert_eq!(statuses(&lab, &hurry, 5).await, [200; 5], "{breaker}");
        script.goes_on(Step::Status(200));
        assert_eq!(statuses(&lab, &[], 1).await, [200], "{breaker}");
        // It opens when the service fails.
        script.goes_on(Step::Status(504));
        statuses(&lab, &[], 20).await;
        assert_eq!(statuses(&lab, &[], 1).await, [503], "{breaker}");
    }
}

/// A client's node must not take it for an error of the endpoint, and have that ejected for its neighbours.
#[tokio::test]
async fn a_full_budget_is_told_as_one() {
    let at = application("app").await;
    let settings = WorkerSettings { max_requests: 0, ..WorkerSettings::for_tests() };
    let lab = Lab::new(with(captured(at), &limit(json!({}))), settings);
    let stream = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
    let answer = Client::http1(stream).await.get("/").await;
    assert_eq!(
        (answer.status, &*answer.body),
        (StatusCode::SERVICE_UNAVAILABLE, "upstream overflow")
    );
    assert_eq!(
        (&answer.headers["x-envoy-overloaded"], &answer.headers["retry-after"]),
        (&"true".parse().unwrap(), &"1".parse().unwrap())
    );
}

/// Ten tokens an hour, and more fields.
fn limit(more: Value) -> Vec<HttpFilter> {
    let mut local = json!({"requests": 10, "interval": "1h"});
    local.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    filters(json!({"rateLimit": {"local": local}}))
}

/// The application has worked, and will tell nobody what that costs.
#[tokio::test]
async fn who_leaves_before_the_answer_pays_for_it() {
    let cost = |max: Option<u32>| {
        let mut response = json!({"header": "x-cost"});
        max.into_iter().for_each(|max| response["max"] = max.into());
        json!({"cost": {"request": 0, "response": response}})
    };
    for half in ["destination", "client"] {
        // What is stated; or else what the dearest response has cost, which is seven.
        for (max, left_before_empty) in [(Some(5), 2), (None, 1)] {
            let (at, script) = Script::start(&[Step::Head(200, "x-cost", "2")]).await;
            let mesh = if half == "client" { shop(at) } else { captured(at) };
            let lab = Lab::new(with(mesh, &limit(cost(max))), WorkerSettings::for_tests());
            let connect = async || match half {
                "client" => lab.dial("client", "echo").await,
                _ => lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await,
            };
            if max.is_none() {
                script.goes_on(Step::Head(200, "x-cost", "7"));
                let answer = Client::http1(connect().await).await.get("/").await;
                assert_eq!(answer.status, 200);
            }
            script.goes_on(LONG);
            let before = script.came().len();
            for number in 1..=left_before_empty {
                let mut leaving = connect().await;
                leaving.write_all(b"GET / HTTP/1.1\r\nhost: echo\r\n\r\n").await.unwrap();
                script.wait_for(before + number).await;
                leaving.set_zero_linger().unwrap();
                drop(leaving);
                lab.counted(
                    &["response_flags=\"UC\""],
                    u64::from(half == "client") * number as u64,
                )
                .await;
            }
            script.goes_on(Step::Status(200));
            // The record of a request ends a moment after its client has left.
            for attempt in 0.. {
                let answer = Client::http1(connect().await).await.get("/").await;
                if answer.status == 429 {
                    break;
                }
                assert!(attempt < 1000, "{half} {max:?}: it was free");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

#[tokio::test]
async fn no_spelling_of_a_path_leads_past_the_limit_of_a_rule() {
    for spec in [
        json!({"rateLimit": {"local": {"requests": 2, "interval": "1h"}}}),
        json!({"rateLimit": {"local": {"requests": 2, "interval": "1h", "keys": [{"type": "Route"}]}}}),
    ] {
        let at = application("app").await;
        let matches = |path: &str| {
            let path = PathMatch::Prefix(path.into());
            vec![HttpMatch { path, ..HttpMatch::default() }]
        };
        let limited = HttpRule {
            matches: matches("/admin"),
            filters: filters(spec.clone()),
            ..fixture::rule(vec![to("echo", 1)])
        };
        let rest = HttpRule { matches: matches("/"), ..fixture::rule(vec![to("echo", 1)]) };
        let mesh = captured(at).route(fixture::route("r", "echo", vec![limited, rest]));
        let lab = Lab::new(mesh, WorkerSettings::for_tests());
        let stream = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
        let mut client = Client::http1(stream).await;
        for expected in [200, 200, 429] {
            assert_eq!(client.get("/admin/a").await.status, expected);
        }
        for path in
            ["/%61dmin/a", "//admin/a", "/x/../admin/a", "/admin;v=1/a", "/%zz", "/a/..//admin"]
        {
            assert_eq!(client.get(path).await.status, 429, "{path} {spec}");
        }
        for path in ["/", "/%61/b", "/other//c"] {
            assert_eq!(client.get(path).await.status, 200, "{path}");
        }
    }
}
