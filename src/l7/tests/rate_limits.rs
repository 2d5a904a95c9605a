//! What TrafficPolicies count: several limits, by what requests and their tokens say, and by what responses cost.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::authorizers::with_authorizer;
use super::destination::captured;
use super::support::*;
use crate::base::ObjectKey;
use crate::filter::{HttpFilter, PolicySpec, RuleContext};
use crate::jwt::fixture::Issuer;
use crate::l7::WorkerSettings;
use crate::model::*;
use crate::policy::fixture as policies;
use crate::world::fixture::{Fixture, identity, key};

const HOST: &str = "echo.shop.svc.cluster.local";

/// No headers.
const NONE: &[(&str, &str)] = &[];

struct Policy;

impl RuleContext for Policy {
    fn policy(&self) -> ObjectKey {
        ObjectKey::new("shop", "p")
    }
}

/// The service `echo` with these limits.
fn limited(mut fixture: Fixture, limits: Value) -> Fixture {
    let target = json!({"kind": "Service", "name": "echo"});
    let spec = json!({"targetRefs": [target], "rateLimit": limits});
    let spec: PolicySpec = serde_json::from_value(spec).unwrap();
    let filters: Vec<HttpFilter> =
        spec.filters(&Policy).into_iter().map(|it| it.unwrap()).collect();
    for service in &mut fixture.mesh.services {
        let filters = filters.clone();
        *service = Arc::new(Service { filters, ..Service::clone(service) });
    }
    fixture
}

/// The statuses of requests with these headers.
async fn statuses(client: &mut Client, all: &[&[(&str, &str)]]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for headers in all {
        let answer = client.send(Method::GET, "/", headers).await.unwrap();
        statuses.push(answer.status.as_u16());
    }
    statuses
}

#[tokio::test]
async fn each_limit_counts_what_is_its_own() {
    let at = application("app").await;
    let of_paid = json!({"requests": 3, "interval": "1h", "matches": [{"headers": [{"name": "x-plan", "value": "paid"}]}]});
    let of_free = json!({"requests": 1, "interval": "1h", "matches": [{"headers": [{"name": "x-plan", "value": "free"}]}]});
    let limits = json!({"headers": "Both", "limits": [{"name": "paid", "local": of_paid}, {"name": "free", "local": of_free}]});
    let lab = Lab::new(limited(captured(at), limits), WorkerSettings::for_tests());
    let stream = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
    let mut client = Client::http1(stream).await;
    let (paid, free) = (&[("x-plan", "paid")][..], &[("x-plan", "free")][..]);
    let first = client.send(Method::GET, "/", paid).await.unwrap();
    assert_eq!(first.headers["ratelimit"], "\"paid\";r=2;t=1200");
    assert_eq!(first.headers["ratelimit-policy"], "\"paid\";q=3;w=3600");
    assert_eq!(
        statuses(&mut client, &[paid, free, free, paid, paid, &[]]).await,
        [200, 200, 429, 200, 429, 200]
    );
    let refused = client.send(Method::GET, "/", free).await.unwrap();
    assert_eq!(refused.headers["x-ratelimit-remaining"], "0");
    assert!(
        refused.headers.contains_key("ratelimit") && refused.headers.contains_key("retry-after")
    );
}

/// At either half, and by tokens that were verified alone.
#[tokio::test]
async fn claims_of_verified_tokens_are_keys() {
    let at = application("app").await;
    let issuer = Issuer::new("k");
    let of = |user: &str| {
        let realm = json!({"roles": ["a", "b"], "user": user});
        let claims = json!({"iss": "https://issuer", "sub": "everybody", "realm": realm});
        format!("Bearer {}", issuer.token(&claims))
    };
    let scope = Scope::Targets(vec![PolicyTarget::Service("echo".into())]);
    let tokens = policies::tokens(&key("jwt"), scope, vec![policies::token_rule(&issuer)]);
    let keys = json!([{"type": "Claim", "claim": "realm.user"}]);
    let limits = json!({"local": {"requests": 1, "interval": "1h", "keys": keys}});
    let (alice, bob) = (of("alice"), of("bob"));
    for half in ["destination", "client"] {
        let mesh = if half == "client" { shop(at) } else { captured(at) };
        let mesh = limited(mesh.policy(tokens.clone()), limits.clone());
        let lab = Lab::new(mesh, WorkerSettings::for_tests());
        let stream = match half {
            "client" => lab.dial("client", "echo").await,
            _ => lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await,
        };
        let mut client = Client::http1(stream).await;
        let (alice, bob) = ([("authorization", &*alice)], [("authorization", &*bob)]);
        let all: [&[(&str, &str)]; 6] = [&alice, &alice, &bob, &bob, &[], &[]];
        assert_eq!(statuses(&mut client, &all).await, [200, 429, 200, 429, 200, 429], "{half}");
        let forged = [("authorization", "Bearer a.b.c")];
        assert_eq!(statuses(&mut client, &[&forged]).await, [401], "{half}");
    }
}

#[tokio::test]
async fn responses_cost_what_they_say() {
    let at = application("app").await;
    for half in ["destination", "client"] {
        let cost = json!({"request": 0, "response": {"header": "x-cost", "max": 20}});
        let limits = json!({"local": {"requests": 10, "interval": "1h", "cost": cost}});
        let mesh = if half == "client" { shop(at) } else { captured(at) };
        let lab = Lab::new(limited(mesh, limits), WorkerSettings::for_tests());
        let stream = match half {
            "client" => lab.dial("client", "echo").await,
            _ => lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await,
        };
        let mut client = Client::http1(stream).await;
        let of = |cost: &'static str| [("x-will-cost", cost)];
        let all: [&[(&str, &str)]; 5] = [&of("0"), &of("9"), &[], &of("1000000"), &[]];
        assert_eq!(statuses(&mut client, &all).await, [200, 200, 200, 200, 429], "{half}");
        let refused = client.get("/").await;
        let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
        // One was left, 20 of the million count: 19 are owed, and one more is asked for; at six minutes each.
        assert!((20 * 360 - 60..=20 * 360).contains(&wait), "{half}: {wait}");
    }
}

#[tokio::test]
async fn a_limit_in_shadow_mode_is_noted_beside_one_that_refuses() {
    let at = application("app").await;
    let local = |requests: u32, shadow: bool| json!({"requests": requests, "interval": "1h", "shadowMode": shadow});
    let limits = json!({"limits": [{"local": local(1, true)}, {"local": local(3, false)}]});
    let lab = Lab::new(limited(captured(at), limits), WorkerSettings::for_tests());
    let stream = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
    let mut client = Client::http1(stream).await;
    assert_eq!(statuses(&mut client, &[NONE; 4]).await, [200, 200, 200, 429]);
}

/// A message of gRPC with these bytes, and its status.
fn grpc(message: &[u8], status: &'static str) -> Response<BoxBody<Bytes, Infallible>> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let framed = [&[0][..], &length, message].concat();
    let name = http::HeaderName::from_static("grpc-status");
    let trailers = HeaderMap::from_iter([(name, HeaderValue::from_static(status))]);
    let body = Full::<Bytes>::from(framed).with_trailers(async { Some(Ok(trailers)) });
    Response::new(body.boxed())
}

/// A rate limit service that permits three of each descriptor, and knows a user about whom it says nothing. Gives what it was
/// asked last.
async fn limiter() -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let counts: Arc<Mutex<HashMap<Vec<u8>, u32>>> = Arc::default();
    let last: Arc<Mutex<Vec<u8>>> = Arc::default();
    let asked = last.clone();
    let answer = move |request: Request<Incoming>| {
        let (counts, last) = (counts.clone(), last.clone());
        async move {
            let path = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
            assert_eq!(request.uri().path(), path);
            let asked = request.into_body().collect().await.unwrap().to_bytes().to_vec();
            *last.lock() = asked.clone();
            if asked.windows(6).any(|part| part == b"nobody") {
                return Ok::<_, Infallible>(grpc(&[], "14"));
            }
            let mut counts = counts.lock();
            let count = counts.entry(asked).or_default();
            *count += 1;
            // overall_code, and response_headers_to_add.
            let code = if *count > 3 { 2 } else { 1 };
            let header = [&[10, 3][..], b"x-n", &[18, 1], count.to_string().as_bytes()].concat();
            let message =
                [&[8, code, 26, u8::try_from(header.len()).unwrap()][..], &header].concat();
            Ok(grpc(&message, "0"))
        }
    };
    tokio::spawn(async move {
        loop {
            let io = TokioIo::new(listener.accept().await.unwrap().0);
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(io, service_fn(answer.clone())));
        }
    });
    (address, asked)
}

fn globally(extra: Value) -> Value {
    let keys = json!([{"type": "Header", "header": "x-user"}, {"type": "Namespace"}]);
    let mut global = json!({"backendRef": {"name": "auth", "port": 80}, "domain": "shop-limits", "keys": keys, "timeout": "5s"});
    global.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"global": global})
}

#[tokio::test]
async fn a_rate_limit_service_is_asked_at_either_half() {
    let at = application("app").await;
    for half in ["destination", "client"] {
        let (limiter, asked) = limiter().await;
        let mesh = if half == "client" { shop(at) } else { captured(at) };
        let mesh = limited(mesh, globally(json!({"entries": [{"key": "plan", "value": "free"}]})));
        let lab = Lab::new(with_authorizer(mesh, limiter), WorkerSettings::for_tests());
        let stream = match half {
            "client" => lab.dial("client", "echo").await,
            _ => lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await,
        };
        let mut client = Client::http1(stream).await;
        let (alice, bob, nobody) =
            ([("x-user", "alice")], [("x-user", "bob")], [("x-user", "nobody")]);
        let first = client.send(Method::GET, "/", &alice).await.unwrap();
        assert_eq!(
            (first.status.as_u16(), &first.headers["x-n"]),
            (200, &HeaderValue::from_static("1")),
            "{half}"
        );
        let asked = String::from_utf8_lossy(&asked.lock()).into_owned();
        for part in ["shop-limits", "plan", "free", "x-user", "alice", "namespace", "shop"] {
            assert!(asked.contains(part), "{half}: {part}: {asked:?}");
        }
        let all: [&[(&str, &str)]; 4] = [&alice, &alice, &alice, &bob];
        assert_eq!(statuses(&mut client, &all).await, [200, 200, 429, 200], "{half}");
        let refused = client.send(Method::GET, "/", &alice).await.unwrap();
        assert_eq!(
            (refused.status.as_u16(), &refused.headers["x-n"]),
            (429, &HeaderValue::from_static("5"))
        );
        assert_eq!(statuses(&mut client, &[&nobody]).await, [500], "{half}: nobody says anything");
    }
}

#[tokio::test]
async fn a_rate_limit_service_that_is_away_fails_open_by_choice() {
    let at = application("app").await;
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let away = listener.local_addr().unwrap();
    drop(listener);
    for (extra, expected) in
        [(json!({}), 500), (json!({"failOpen": true}), 200), (json!({"shadowMode": true}), 200)]
    {
        let mesh = limited(captured(at), globally(extra.clone()));
        let lab = Lab::new(with_authorizer(mesh, away), WorkerSettings::for_tests());
        let stream = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
        let mut client = Client::http1(stream).await;
        // More than the circuit waits for.
        assert_eq!(statuses(&mut client, &[NONE; 8]).await, [expected; 8], "{extra}");
    }
}
