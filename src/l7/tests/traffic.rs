//! What TrafficPolicies do: limits at the destination, faults at the client's half.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::destination::captured;
use super::support::*;
use crate::filter::{
    Cors, HeaderFilter, HttpFilter, OriginPattern, Permitted, PolicySpec, ResponseHeaders,
    RuleContext,
};
use crate::l7::WorkerSettings;
use crate::model::*;
use crate::world::fixture::{self, Fixture, backend as to, identity};

pub(super) const HOST: &str = "echo.shop.svc.cluster.local";

struct Policy;

impl RuleContext for Policy {}

pub(super) fn filters(mut spec: Value) -> Vec<HttpFilter> {
    spec["targetRefs"] = json!([{"kind": "Service", "name": "echo"}]);
    let spec: PolicySpec = serde_json::from_value(spec).unwrap();
    spec.filters(&Policy).into_iter().map(|it| it.unwrap()).collect()
}

fn limit(requests: u32) -> Vec<HttpFilter> {
    filters(json!({"rateLimit": {"local": {"requests": requests, "interval": "1h"}}}))
}

/// With these filters on the service `echo`.
pub(super) fn with(mut fixture: Fixture, filters: &[HttpFilter]) -> Fixture {
    for service in &mut fixture.mesh.services {
        let filters = filters.to_vec();
        *service = Arc::new(Service { filters, ..Service::clone(service) });
    }
    fixture
}

/// The statuses of so many requests.
async fn statuses(client: &mut Client, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(client.get("/").await.status.as_u16());
    }
    statuses
}

#[tokio::test]
async fn a_limit_holds_whatever_way_requests_came() {
    let at = application("app").await;
    let lab = Lab::new(with(captured(at), &limit(3)), WorkerSettings::for_tests());
    for (client, host, expected) in [
        (Some(identity("client")), Some(HOST), [200, 200]),
        (Some(identity("client")), None, [200, 429]),
        (None, None, [429, 429]),
    ] {
        let stream = lab.arrive("echo", at, client.clone(), host).await;
        let found = statuses(&mut Client::http1(stream).await, 2).await;
        assert_eq!(found, expected, "{client:?} {host:?}");
    }
    let stream = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
    let refused = Client::http1(stream).await.get("/").await;
    assert_eq!(refused.body, "local_rate_limited");
    assert_eq!(refused.headers["x-ratelimit-limit"], "3");
    assert!(refused.headers.contains_key("retry-after"));
    let stream = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
    let headers = [("content-type", "application/grpc")];
    let refused = Client::http2(stream).await.send(Method::POST, "/a.b/C", &headers).await.unwrap();
    assert_eq!(
        (refused.status, &refused.headers["grpc-status"]),
        (StatusCode::OK, &"8".parse().unwrap())
    );
    assert!(refused.headers.contains_key("retry-after"), "{:?}", refused.headers);
}

#[tokio::test]
async fn a_limit_comes_with_a_change_and_goes_on_across_others() {
    let at = application("app").await;
    let lab = Lab::new(captured(at), WorkerSettings::for_tests());
    let stream = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
    let mut client = Client::http1(stream).await;
    assert_eq!(statuses(&mut client, 3).await, [200; 3]);
    // Like this one what was open goes on: no worker parses it until the limit is there.
    lab.store.publish(with(captured(at), &limit(1)).mesh);
    let stream = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
    let mut client = Client::http1(stream).await;
    assert_eq!(statuses(&mut client, 2).await, [200, 429]);
}

#[tokio::test]
async fn a_rules_limit_holds_instead_of_the_services() {
    let at = application("app").await;
    let matches = |path: &str| {
        let path = PathMatch::Prefix(path.into());
        vec![HttpMatch { path, ..HttpMatch::default() }]
    };
    let special = HttpRule {
        matches: matches("/special"),
        filters: limit(3),
        ..fixture::rule(vec![to("echo", 1)])
    };
    let rest = HttpRule { matches: matches("/"), ..fixture::rule(vec![to("echo", 1)]) };
    let route = fixture::route("r", "echo", vec![special, rest]);
    let lab = Lab::new(with(captured(at), &limit(1)).route(route), WorkerSettings::for_tests());
    let stream = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
    let mut client = Client::http1(stream).await;
    assert_eq!(statuses(&mut client, 2).await, [200, 429]);
    for expected in [200, 200, 200, 429] {
        assert_eq!(client.get("/special").await.status, expected);
    }
}

/// A client's namespace may route its own requests otherwise, and what protects the server stays.
#[tokio::test]
async fn a_consumers_route_lifts_no_limit() {
    let at = application("app").await;
    let limited = HttpRule { filters: limit(1), ..fixture::rule(vec![to("echo", 1)]) };
    let producers = fixture::route("r", "echo", vec![limited]);
    let consumers = fixture::route("clients/r", "echo", vec![fixture::rule(vec![to("echo", 1)])]);
    let fixture = captured(at).route(producers).route(consumers);
    let lab = Lab::new(fixture, WorkerSettings::for_tests());
    for (client, expected) in [("clients/a", [200, 429]), ("other/b", [429, 429])] {
        let stream = lab.arrive("echo", at, Some(identity(client)), Some(HOST)).await;
        let found = statuses(&mut Client::http1(stream).await, 2).await;
        assert_eq!(found, expected, "{client}");
    }
}

#[tokio::test]
async fn a_ports_limit_holds_instead_of_the_services() {
    let at = application("app").await;
    let of_port = |port: u16, filters: Vec<HttpFilter>| {
        let mut fixture = with(captured(at), &limit(1));
        for service in &mut fixture.mesh.services {
            let port_filters = vec![PortFilters { port, filters: filters.clone() }];
            *service = Arc::new(Service { port_filters, ..Service::clone(service) });
        }
        Lab::new(fixture, WorkerSettings::for_tests())
    };
    for (port, expected) in [(80, [200, 200, 200, 429]), (81, [200, 429, 429, 429])] {
        let lab = of_port(port, limit(3));
        let stream = lab.arrive("echo", at, Some(identity("client")), Some(HOST)).await;
        let found = statuses(&mut Client::http1(stream).await, 4).await;
        assert_eq!(found, expected, "port {port}");
    }
}

#[tokio::test]
async fn where_nobody_judges_the_clients_half_keeps_the_limit() {
    let at = application("app").await;
    let lab = Lab::new(with(shop(at), &limit(2)), WorkerSettings::for_tests());
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    assert_eq!(statuses(&mut client, 3).await, [200, 200, 429]);
    lab.counted(&["response_flags=\"RL\"", "response_code=\"429\""], 1).await;
}

/// As for requests: those of the service, except of a type that the rule has itself.
#[tokio::test]
async fn filters_of_services_see_responses() {
    let at = application("app").await;
    let names = |by: &str| -> HttpFilter {
        let set = vec![("x-by".parse().unwrap(), by.parse().unwrap())];
        HttpFilter::ResponseHeaders(ResponseHeaders(HeaderFilter {
            set,
            ..HeaderFilter::default()
        }))
    };
    let cors = HttpFilter::Cors(Cors {
        origins: vec![OriginPattern::Any],
        credentials: false,
        methods: Permitted::None,
        headers: Permitted::None,
        exposed: Permitted::None,
        max_age: 5,
    });
    let of_service = [names("service"), cors];
    let answered_by = async |fixture: Fixture| {
        let lab = Lab::new(fixture, WorkerSettings::for_tests());
        let mut client = Client::http1(lab.dial("client", "echo").await).await;
        let answer = client.send(Method::GET, "/", &[("origin", "https://a.example")]).await;
        let headers = answer.unwrap().headers;
        assert_eq!(headers["access-control-allow-origin"], "*", "{headers:?}");
        headers["x-by"].clone()
    };
    assert_eq!(answered_by(with(shop(at), &of_service)).await, "service");

    let rule = HttpRule { filters: vec![names("rule")], ..fixture::rule(vec![to("echo", 1)]) };
    let route = fixture::route("r", "echo", vec![rule]);
    assert_eq!(answered_by(with(shop(at), &of_service).route(route)).await, "rule");
    let route = fixture::route("r", "echo", vec![fixture::rule(vec![to("echo", 1)])]);
    assert_eq!(answered_by(with(shop(at), &of_service).route(route)).await, "service");
}

#[tokio::test]
async fn faults_are_injected_and_recorded() {
    let at = application("app").await;
    let headers = json!([{"name": "x-trial", "value": "1"}]);
    let fault = filters(json!({"fault": {"abort": {"httpStatus": 503}, "headers": headers}}));
    let lab = Lab::new(with(shop(at), &fault), WorkerSettings::for_tests());
    let mut client = Client::http1(lab.dial("client", "echo").await).await;
    assert_eq!(client.get("/").await.status, 200);
    let aborted = client.send(Method::GET, "/", &[("x-trial", "1")]).await.unwrap();
    assert_eq!((aborted.status.as_u16(), aborted.body.as_str()), (503, "fault filter abort"));
    lab.counted(&["response_flags=\"FI\"", "response_code=\"503\""], 1).await;

    let fault = filters(json!({"fault": {"delay": {"fixedDelay": "50ms"}}}));
    lab.store.publish(with(shop(at), &fault).mesh);
    let begun = tokio::time::Instant::now();
    assert_eq!(client.get("/").await.status, 200);
    assert!(begun.elapsed() >= std::time::Duration::from_millis(50), "{:?}", begun.elapsed());
    lab.counted(&["response_flags=\"DI\"", "response_code=\"200\""], 1).await;

    let fault = filters(json!({"fault": {"delay": {"fixedDelay": "1h"}}}));
    lab.store.publish(with(shop(at), &fault).mesh);
    let mut leaving = Client::http2(lab.dial("client", "echo").await).await;
    let waiting = leaving.send(Method::GET, "/", &[]);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(100), waiting).await.is_err());
    lab.counted(&["response_flags=\"UC\"", "response_code=\"0\""], 1).await;
}
