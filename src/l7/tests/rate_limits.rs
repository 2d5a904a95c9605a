//! What TrafficPolicies count: several limits, by what requests and their tokens say, and by what responses cost.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use super::destination::captured;
use super::support::*;
use crate::filter::{HttpFilter, PolicySpec, RuleContext};
use crate::jwt::fixture::Issuer;
use crate::l7::WorkerSettings;
use crate::model::*;
use crate::policy::fixture as policies;
use crate::world::fixture::{Fixture, identity, key};

const HOST: &str = "echo.shop.svc.cluster.local";

struct Policy;

impl RuleContext for Policy {}

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
    assert_eq!(statuses(&mut client, &[&[][..]; 4]).await, [200, 200, 200, 429]);
}
