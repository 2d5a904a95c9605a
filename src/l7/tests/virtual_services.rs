//! VirtualServices at a waypoint: what their rules do to requests, from the manifest to the application.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::scripted::{Script, Step};
use super::support::*;
use crate::l7::WorkerSettings;
use crate::model::*;
use crate::source;
use crate::traffic::{Named, Ports, Subset};
use crate::world::fixture::{self, Fixture, bound_to, identity, policy};

/// A service `echo` with two applications as its endpoints, the subsets `v1` and `v2`, one without an endpoint, and a service
/// `other`; with what the VirtualService makes of its rules.
async fn lab(http: Value) -> (Lab, [SocketAddr; 3]) {
    let (one, two, three) =
        (application("one").await, application("two").await, application("three").await);
    (Lab::new(mesh([one, two, three], http), WorkerSettings::for_tests()), [one, two, three])
}

fn mesh([one, two, three]: [SocketAddr; 3], http: Value) -> Fixture {
    let mut mesh = shop(one);
    let mut echo = mesh.mesh.services[0].as_ref().clone();
    let second = outsider("two", two);
    let mut endpoint = echo.endpoints[0].clone();
    endpoint.workload = Some(second.uid.clone());
    endpoint.ports[0].target = two.port();
    echo.endpoints.push(endpoint);
    for (number, endpoint) in (0..).zip(&mut echo.endpoints) {
        endpoint.subsets = [number].into_iter().collect();
    }
    let of = |labels: u32| Subset { labels: Some(labels), ports: Ports::default() };
    let subsets = [("v1", of(0)), ("v2", of(1)), ("empty", of(2))];
    let subsets: Named = subsets.into_iter().map(|(name, it)| (name.into(), it)).collect();
    echo.traffic.set_subsets(None, subsets);
    mesh.mesh.services[0] = echo.into();
    let third = outsider("three", three);
    let other = bound("other", "10.96.0.2", &third, three);
    let mut mesh = mesh.workload(second).workload(third).service(other);
    let spec = json!({"hosts": ["echo"], "http": http});
    let routes = source::compiled_virtual_service(&mesh.mesh.services, "shop", "rules", &spec);
    mesh.mesh.routes.extend(routes);
    mesh
}

fn to(host: &str, subset: &str) -> Value {
    json!([{"destination": {"host": host, "subset": subset}}])
}

async fn client(lab: &Lab) -> Client {
    Client::http1(lab.dial("client", "echo").await).await
}

#[tokio::test]
async fn subsets_take_their_shares() {
    let rules = json!([
        {"match": [{"headers": {"end-user": {"exact": "jason"}}}], "route": to("echo", "v2")},
        {"match": [{"uri": {"prefix": "/empty"}}], "route": to("echo", "empty")},
        {"match": [{"uri": {"prefix": "/other"}}], "route": to("other", "")},
        {"match": [{"uri": {"prefix": "/v1"}}], "route": to("echo", "v1")},
        {"route": [
            {"destination": {"host": "echo", "subset": "v1"}, "weight": 90},
            {"destination": {"host": "echo", "subset": "v2"}, "weight": 10},
        ]},
    ]);
    let (lab, _) = lab(rules).await;
    let mut client = client(&lab).await;
    let mut second = 0;
    for _ in 0..100 {
        assert_eq!(client.get("/v1").await.headers["x-from"], "one");
        second += usize::from(client.get("/").await.headers["x-from"] == "two");
        let jason = client.send(Method::GET, "/", &[("end-user", "jason")]).await.unwrap();
        assert_eq!(jason.headers["x-from"], "two");
    }
    assert_eq!(second, 10);
    assert_eq!(client.get("/other").await.headers["x-from"], "three");
    let nobody = client.get("/empty").await;
    assert_eq!(
        (nobody.status, &*nobody.body),
        (StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream")
    );
}

#[tokio::test]
async fn a_subset_that_goes_away_is_answered_503_and_nobody_elses_endpoints_take_it() {
    let (lab, _) = lab(json!([{"route": to("echo", "v2")}])).await;
    let mut client = client(&lab).await;
    assert_eq!(client.get("/").await.headers["x-from"], "two");
    let mut mesh = lab.world().mesh.clone();
    let mut echo =
        mesh.services.iter().find(|it| &*it.key.name == "echo").unwrap().as_ref().clone();
    echo.traffic.set_subsets(None, Named::default());
    let place = mesh.services.iter().position(|it| it.key == echo.key).unwrap();
    mesh.services[place] = echo.into();
    lab.store.publish(mesh);
    let answer = client.get("/").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    lab.counted(&["response_flags=\"NR\"", "response_code=\"503\""], 1).await;
}

#[tokio::test]
async fn paths_and_headers_are_changed_as_envoy_does() {
    let operations = json!({
        "request": {"set": {"x-rule": "1"}, "add": {"x-sent": "second"}, "remove": ["x-gone"]},
        "response": {"set": {"x-answered": "yes"}, "remove": ["x-from"]},
    });
    let rules = json!([
        {"match": [{"uri": {"prefix": "/old"}}, {"uri": {"exact": "/exact"}}], "rewrite": {"uri": "/new"}, "route": to("other", "")},
        {"match": [{"uri": {"prefix": "/regex"}}], "rewrite": {"uriRegexRewrite": {"match": "^/regex/(.*)/(.*)$", "rewrite": r"/\2/\1"}}, "route": to("other", "")},
        {"match": [{"uri": {"prefix": "/host"}}], "rewrite": {"authority": "rewritten"}, "route": to("other", "")},
        {"route": to("other", ""), "headers": operations},
    ]);
    let (lab, _) = lab(rules).await;
    for http2 in [false, true] {
        let stream = lab.dial("client", "echo").await;
        let mut client = match http2 {
            true => Client::http2(stream).await,
            false => Client::http1(stream).await,
        };
        for (path, expected) in [
            ("/oldest?a=b", "/newest?a=b\n"),
            ("/exact?a=b", "/new?a=b\n"),
            ("/regex/one/two?a", "/two/one?a\n"),
            ("/host/x", "rewritten"),
        ] {
            let answer = client.get(path).await;
            assert!(answer.body.contains(expected), "{path}: {}", answer.body);
        }
        let answer =
            client.send(Method::GET, "/", &[("x-sent", "first"), ("x-gone", "1")]).await.unwrap();
        assert!(answer.body.contains("x-rule: 1\n"), "{}", answer.body);
        assert!(answer.body.contains("x-sent: first\nx-sent: second\n"), "{}", answer.body);
        assert!(!answer.body.contains("x-gone"), "{}", answer.body);
        assert_eq!(answer.headers["x-answered"], "yes");
        assert!(!answer.headers.contains_key("x-from"));
    }
}

#[tokio::test]
async fn redirects_and_direct_responses_reach_nobody() {
    let rules = json!([
        {"match": [{"uri": {"prefix": "/redirect"}}], "redirect": {"uri": "/x", "authority": "other.example", "redirectCode": 302},
         "headers": {"response": {"set": {"x-rule": "1"}}}},
        {"match": [{"uri": {"prefix": "/part"}}], "redirect": {"prefixRewrite": "/whole", "scheme": "https"}},
        {"match": [{"uri": {"prefix": "/bytes"}}], "directResponse": {"status": 200, "body": {"bytes": "AAEC"}}},
        {"directResponse": {"status": 503, "body": {"string": "{\"error\": 1}"}},
         "headers": {"response": {"set": {"content-type": "application/json"}}}},
    ]);
    let (lab, _) = lab(rules).await;
    let mut client = client(&lab).await;
    let answer = client.get("/redirect?a").await;
    assert_eq!(
        (answer.status.as_u16(), answer.headers["location"].to_str().unwrap()),
        (302, "http://other.example/x?a")
    );
    assert_eq!(answer.headers["x-rule"], "1");
    let answer = client.get("/part/y").await;
    assert_eq!(
        (answer.status.as_u16(), answer.headers["location"].to_str().unwrap()),
        (301, "https://echo/whole/y")
    );
    assert_eq!(client.get("/bytes").await.body.as_bytes(), [0, 1, 2]);
    let answer = client.get("/").await;
    assert_eq!((answer.status.as_u16(), &*answer.body), (503, "{\"error\": 1}"));
    assert_eq!(answer.headers["content-type"], "application/json");
}

#[tokio::test]
async fn faults_hit_their_share_and_timeouts_end_requests() {
    let rules = json!([
        {"match": [{"uri": {"prefix": "/half"}}], "fault": {"abort": {"httpStatus": 418, "percentage": {"value": 50}}}, "route": to("echo", "v1")},
        {"match": [{"uri": {"prefix": "/grpc"}}], "fault": {"abort": {"grpcStatus": "UNAVAILABLE", "percentage": {"value": 100}}}, "route": to("echo", "v1")},
        {"match": [{"uri": {"prefix": "/never"}}], "fault": {"abort": {"httpStatus": 418}}, "route": to("echo", "v1")},
        {"match": [{"uri": {"prefix": "/slow"}}], "fault": {"delay": {"fixedDelay": "300ms", "percentage": {"value": 100}}}, "timeout": "20s", "route": to("echo", "v1")},
        {"timeout": "100ms", "route": to("other", "")},
    ]);
    let (at, _script) = Script::start(&[Step::Slow(Duration::from_secs(600))]).await;
    let mesh = mesh([application("one").await, application("two").await, at], rules);
    let lab = Lab::new(mesh, WorkerSettings::for_tests());
    let mut client = client(&lab).await;
    let mut aborted = 0;
    for _ in 0..100 {
        aborted += usize::from(client.get("/half").await.status == StatusCode::IM_A_TEAPOT);
        assert_eq!(client.get("/never").await.status, StatusCode::OK);
    }
    assert_eq!(aborted, 50);
    assert_eq!(client.get("/grpc").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let begun = Instant::now();
    assert_eq!(client.get("/slow").await.status, StatusCode::OK);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(client.get("/").await.status, StatusCode::GATEWAY_TIMEOUT);
    lab.counted(&["response_flags=\"UT\""], 1).await;
}

/// As the rule says, and never to an endpoint outside of the subset.
#[tokio::test]
async fn requests_are_sent_again_within_the_subset() {
    let rules = json!([
        {
            "match": [{"uri": {"prefix": "/slow"}}],
            "retries": {"attempts": 1, "retryOn": "reset", "perTryTimeout": "200ms"},
            "route": to("other", ""),
        },
        {"retries": {"attempts": 1, "retryOn": "503"}, "route": to("echo", "v1")},
    ]);
    let steps = [Step::Status(503), Step::Status(200), Step::Status(503)];
    let (one, flaky) = Script::start(&steps).await;
    let long = Step::Slow(Duration::from_secs(600));
    let (three, slow) = Script::start(&[long, Step::Status(200)]).await;
    let mesh = mesh([one, application("two").await, three], rules);
    let lab = Lab::new(mesh, WorkerSettings::for_tests());
    let mut client = client(&lab).await;
    assert_eq!(client.get("/").await.status, StatusCode::OK);
    assert_eq!(client.get("/").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(flaky.came().len(), 4);
    assert_eq!(client.get("/slow").await.status, StatusCode::OK);
    assert_eq!(slow.came().len(), 2);
}

#[tokio::test]
async fn a_copy_goes_to_the_mirrors_subset_with_its_own_host() {
    let (at, script) = Script::start(&[]).await;
    let rules = json!([{
        "route": to("other", ""),
        "mirrors": [{"destination": {"host": "echo", "subset": "v2"}, "percentage": {"value": 100}}],
        "rewrite": {"uri": "/copied"},
    }]);
    let mesh = mesh([application("one").await, at, application("three").await], rules);
    let lab = Lab::new(mesh, WorkerSettings::for_tests());
    let mut client = client(&lab).await;
    for _ in 0..5 {
        let answer =
            client.exchange(Method::POST, "/", &[], Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(answer.headers["x-from"], "three");
    }
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while script.came().len() < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{:?}", script.came());
    for came in script.came() {
        assert_eq!(
            (&*came.target, &came.headers["host"]),
            ("/copied", &"echo-shadow".parse().unwrap())
        );
    }
}

#[tokio::test]
async fn browsers_are_answered_by_the_policy() {
    let policy = json!({"allowOrigins": [{"prefix": "https://a."}], "allowMethods": ["PUT"], "exposeHeaders": ["x-from"]});
    let (lab, _) = lab(json!([{"corsPolicy": policy, "route": to("echo", "v1")}])).await;
    let mut client = client(&lab).await;
    let asks = [("origin", "https://a.example"), ("access-control-request-method", "PUT")];
    let answer = client.send(Method::OPTIONS, "/", &asks).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["access-control-allow-methods"], "PUT");
    assert!(!answer.headers.contains_key("x-from"), "the application is not asked");
    let answer = client.send(Method::GET, "/", &asks[..1]).await.unwrap();
    assert_eq!(answer.headers["access-control-allow-origin"], "https://a.example");
    assert_eq!(answer.headers["access-control-expose-headers"], "x-from");
    let other = [("origin", "https://b.example"), asks[1]];
    let answer = client.send(Method::OPTIONS, "/", &other).await.unwrap();
    assert_eq!(answer.headers["x-from"], "one", "it is forwarded");
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
}

/// A service of another namespace that permits these clients, and what a VirtualService of `namespace` makes of requests to `echo`.
fn beside(at: [SocketAddr; 2], allowed: &[&str], namespace: &str, rule: Value) -> Fixture {
    let [front, api] = at;
    let pod = outsider("pay/api", api);
    let mut service = bound("pay/api", "10.96.0.8", &pod, api);
    service.waypoint = bound_to("pay/waypoint");
    let principals = allowed.iter().map(|it| StringMatch::Exact(identity(it).principal().into()));
    let principals = Values { any: principals.collect(), none: Vec::new() };
    let rules =
        vec![Rule { from: vec![Source { principals, ..Source::default() }], ..Rule::default() }];
    let scope = Scope::Targets(vec![PolicyTarget::Service("api".into())]);
    let mut mesh = shop(front)
        .workload(fixture::workload("prod/client", "127.0.0.8"))
        .workload(pod)
        .service(service)
        .waypoint(fixture::waypoint("pay/waypoint"))
        .policy(policy("pay/only", Action::Allow, scope, rules));
    let spec = json!({"hosts": ["echo.shop.svc.cluster.local"], "http": [rule]});
    let services = &mesh.mesh.services;
    let routes = source::compiled_virtual_service(services, namespace, "rules", &spec);
    mesh.mesh.routes.extend(routes);
    mesh
}

fn to_api() -> Value {
    json!({"host": "api.pay.svc.cluster.local", "port": {"number": 80}})
}

/// Whoever calls a service lends its owner no name: there the owner leads it where the owner itself may go, as a waypoint of Istio, which
/// calls in its own name.
#[tokio::test]
async fn no_owner_of_a_service_uses_a_clients_name_in_a_third_namespace() {
    let at = [application("front").await, application("api").await];
    let (prod, waypoint) = ("prod/client", "waypoint");
    for (author, client, allowed, status) in [
        ("shop", prod, &[prod][..], 403),
        ("shop", prod, &[waypoint], 403),
        ("shop", prod, &[prod, waypoint], 200),
        // What the client's own namespace says, or the operator, is in the client's name.
        ("prod", prod, &[prod], 200),
        ("istio-system", prod, &[prod], 200),
        ("shop", "client", &["client"], 200),
    ] {
        let rule = json!({"rewrite": {"uri": "/pay"}, "route": [{"destination": to_api()}]});
        let lab = Lab::new(beside(at, allowed, author, rule), WorkerSettings::for_tests());
        let mut client = Client::http1(lab.dial(client, "echo").await).await;
        let answer = client.get("/").await;
        assert_eq!(answer.status, status, "{author} {allowed:?}: {}", answer.body);
        assert_eq!(answer.body.contains("/pay"), status == 200, "{}", answer.body);
    }
}

#[tokio::test]
async fn no_copy_is_sent_in_a_clients_name_to_a_third_namespace() {
    let front = application("front").await;
    let prod = "prod/client";
    for (allowed, count) in [(&[prod][..], 0), (&[prod, "waypoint"], 1)] {
        let (api, script) = Script::start(&[Step::Status(200)]).await;
        let destination = json!({"host": "echo.shop.svc.cluster.local"});
        let rule = json!({"route": [{"destination": destination}], "mirror": to_api()});
        let mesh = beside([front, api], allowed, "shop", rule);
        let lab = Lab::new(mesh, WorkerSettings::for_tests());
        let mut client = Client::http1(lab.dial(prod, "echo").await).await;
        assert_eq!(client.get("/").await.status, StatusCode::OK);
        let mirrors = lab.telemetry.mirror();
        let begun = Instant::now();
        while mirrors.answered.get() + mirrors.failed.get() == 0 {
            assert!(begun.elapsed() < Duration::from_secs(10), "the copy has no end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(script.wait_for(count).await.len(), count, "{allowed:?}");
    }
}
