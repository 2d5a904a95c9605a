//! Policies over small worlds: a pod `web` behind a service `web`, and who gets in.

mod authority;
mod custom;
mod fields;
mod guards;
mod notes;
mod ports;
mod properties;
mod server_names;
mod tokens;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;
use crate::model::*;
use crate::policy::{Denial, Request};
use crate::world::World;
use crate::world::fixture::{
    self, Fixture, bound_to, identity, key, policy, service, waypoint, workload,
};

fn exact(text: &str) -> Values<StringMatch> {
    any(&[StringMatch::Exact(text.into())])
}

fn any(values: &[StringMatch]) -> Values<StringMatch> {
    Values { any: values.to_vec(), none: Vec::new() }
}

fn none(values: &[StringMatch]) -> Values<StringMatch> {
    Values { any: Vec::new(), none: values.to_vec() }
}

fn from(source: Source) -> Rule {
    Rule { from: vec![source], ..Rule::default() }
}

fn to(operation: Operation) -> Rule {
    Rule { to: vec![operation], ..Rule::default() }
}

fn principal(name: &str) -> Source {
    Source { principals: exact(&identity(name).principal()), ..Source::default() }
}

fn methods(method: &str) -> Operation {
    Operation { methods: exact(method), ..Operation::default() }
}

fn paths(value: StringMatch) -> Operation {
    Operation { paths: any(&[value]), ..Operation::default() }
}

fn on_service(name: &str) -> Scope {
    Scope::Targets(vec![PolicyTarget::Service(name.into())])
}

/// Pod `web` (10.0.0.1:8080) behind service `web`, bound to waypoint `wp`, with these policies.
fn shop(policies: Vec<AuthorizationPolicy>) -> Arc<World> {
    let pod = workload("web", "10.0.0.1");
    let service = Service { waypoint: bound_to("wp"), ..service("web", "10.96.0.1", &[&pod]) };
    let base = Fixture::default().workload(pod).service(service).waypoint(waypoint("wp"));
    policies.into_iter().fold(base, Fixture::policy).build()
}

/// What `client` gets: `None` for plaintext.
struct Attempt<'a> {
    client: Option<&'a str>,
    host: Option<&'a str>,
    request: Option<(&'a str, &'a str)>,
    headers: HeaderMap,
}

fn by(client: &str) -> Attempt<'_> {
    Attempt { client: Some(client), host: None, request: None, headers: HeaderMap::new() }
}

fn plaintext() -> Attempt<'static> {
    Attempt { client: None, host: None, request: None, headers: HeaderMap::new() }
}

impl<'a> Attempt<'a> {
    fn addressed(self, host: &'a str) -> Self {
        Self { host: Some(host), ..self }
    }

    fn asks(self, method: &'a str, path: &'a str) -> Self {
        Self { request: Some((method, path)), ..self }
    }

    fn sends(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).unwrap();
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    fn result(&self, world: &World) -> Result<Permit, Denial> {
        self.result_after(world, Providers::NotAsked)
    }

    fn result_after(&self, world: &World, providers: Providers<'_>) -> Result<Permit, Denial> {
        let workload = world.workload_at("10.0.0.1".parse().unwrap()).unwrap();
        let client = self.client.map(identity);
        let addressed = super::addressed(world, workload, 8080, self.host, client.as_ref());
        let connection = Connection {
            client: client.as_ref(),
            source: "10.0.9.9".parse().unwrap(),
            destination: "10.0.0.1:8080".parse().unwrap(),
            server_name: None,
        };
        let method = self.request.map(|(method, _)| method.parse::<Method>().unwrap());
        let request = self.request.zip(method.as_ref()).map(|((_, path), method)| Request {
            method,
            path,
            host: "web.shop",
            headers: &self.headers,
        });
        let views = request.as_ref().map(|it| Views { providers, ..Views::same(it) });
        Gate::new(world, workload, 8080, &addressed).decide_views(&connection, views)
    }

    fn passes(&self, world: &World) -> bool {
        self.result(world).is_ok()
    }
}

const WEB: &str = "web.shop.svc.cluster.local";

#[test]
fn without_policies_everybody_passes() {
    let world = shop(vec![]);
    assert!(by("curl").passes(&world));
    assert!(plaintext().passes(&world));
}

#[test]
fn allow_without_rules_denies_and_with_an_empty_rule_allows() {
    let of = |rules| shop(vec![policy("p", Action::Allow, Scope::Namespace, rules)]);
    assert!(!by("curl").passes(&of(vec![])));
    assert!(by("curl").passes(&of(vec![Rule::default()])));
    let deny = |rules| shop(vec![policy("p", Action::Deny, Scope::Namespace, rules)]);
    assert!(by("curl").passes(&deny(vec![])));
    assert!(!by("curl").passes(&deny(vec![Rule::default()])));
}

#[test]
fn deny_wins_over_allow_and_names_itself() {
    let world = shop(vec![
        policy("allow", Action::Allow, Scope::Namespace, vec![Rule::default()]),
        policy("deny", Action::Deny, Scope::Namespace, vec![from(principal("curl"))]),
    ]);
    let denial = by("curl").result(&world).unwrap_err();
    assert_eq!(denial.why, "AuthorizationPolicy shop/deny denies (DENY rule)");
    assert_eq!(by("other").result(&world).unwrap().policy, Some(key("allow")));
}

#[test]
fn a_broken_policy_denies_and_dry_run_does_not() {
    let rules = || vec![Rule::default()];
    let broken = AuthorizationPolicy {
        broken: Some("bad CIDR".into()),
        ..policy("p", Action::Allow, Scope::Namespace, rules())
    };
    assert!(!by("curl").passes(&shop(vec![broken])));
    let dry = AuthorizationPolicy {
        dry_run: true,
        ..policy("p", Action::Deny, Scope::Namespace, rules())
    };
    assert!(by("curl").passes(&shop(vec![dry])));
}

#[test]
fn plaintext_is_nobody() {
    let star = [StringMatch::Present];
    let x = [StringMatch::Exact("x".into())];
    for (source, allow_admits, deny_refuses) in [
        (Source { principals: any(&star), ..Source::default() }, false, false),
        (Source { principals: none(&star), ..Source::default() }, true, true),
        (Source { principals: none(&x), ..Source::default() }, false, true),
        (Source { namespaces: none(&x), ..Source::default() }, false, true),
        (Source::default(), false, true),
    ] {
        let of =
            |action| shop(vec![policy("p", action, Scope::Namespace, vec![from(source.clone())])]);
        assert_eq!(plaintext().passes(&of(Action::Allow)), allow_admits, "ALLOW {source:?}");
        assert_eq!(!plaintext().passes(&of(Action::Deny)), deny_refuses, "DENY {source:?}");
    }
}

#[test]
fn strict_refuses_plaintext_only() {
    let mut pod = workload("web", "10.0.0.1");
    pod.peer_authentication.mode = Mode::Strict;
    pod.peer_authentication.ports.insert(9090, Mode::Permissive);
    let world = Fixture::default().workload(pod).build();
    assert!(by("curl").passes(&world));
    assert!(plaintext().result(&world).unwrap_err().why.contains("STRICT"));
}

#[test]
fn http_fields_on_bytes_that_are_not_http() {
    let rule = || Rule { from: vec![principal("curl")], ..to(methods("DELETE")) };
    let allow = shop(vec![policy("p", Action::Allow, Scope::Namespace, vec![rule()])]);
    assert!(!by("curl").passes(&allow), "ALLOW cannot match");
    let deny = shop(vec![policy("p", Action::Deny, Scope::Namespace, vec![rule()])]);
    assert!(!by("curl").passes(&deny), "DENY ignores the HTTP part");
    assert!(by("other").passes(&deny));
    assert!(by("curl").asks("GET", "/").passes(&deny));
    assert!(!by("curl").asks("DELETE", "/").passes(&deny));
}

#[test]
fn pod_traffic_must_pass_what_guards_the_service() {
    let rule = Rule { from: vec![principal("curl")], ..to(methods("GET")) };
    let world = shop(vec![policy("p", Action::Allow, on_service("web"), vec![rule])]);
    for addressed in [Some(WEB), None, Some("unknown.example"), Some("other.shop")] {
        let attempt = |client, method| Attempt { host: addressed, ..by(client).asks(method, "/") };
        assert!(attempt("curl", "GET").passes(&world), "{addressed:?}");
        assert!(!attempt("curl", "DELETE").passes(&world), "{addressed:?}");
        assert!(!attempt("other", "GET").passes(&world), "{addressed:?}");
    }
    assert!(!plaintext().asks("GET", "/").passes(&world));
}

#[test]
fn the_waypoints_principal_comes_with_service_traffic_only() {
    let own = policy("p", Action::Allow, Scope::Namespace, vec![from(principal("wp"))]);
    let world = shop(vec![own]);
    let permit = by("curl").addressed(WEB).result(&world).unwrap();
    assert_eq!(permit.waypoint, Some(identity("wp")));
    assert!(!by("curl").passes(&world), "pod IP");
    assert!(!plaintext().passes(&world));
    let clients = policy("p", Action::Allow, Scope::Namespace, vec![from(principal("curl"))]);
    assert!(by("curl").addressed(WEB).passes(&shop(vec![clients])), "names the client still");
    let except = Source {
        principals: none(&[StringMatch::Exact(identity("wp").principal().into())]),
        ..Source::default()
    };
    let world = shop(vec![policy("p", Action::Allow, Scope::Namespace, vec![from(except)])]);
    assert!(!by("curl").addressed(WEB).passes(&world), "a negation matches when neither is listed");
    assert!(by("curl").passes(&world));
}

#[test]
fn a_waypoint_that_cannot_be_used_closes_the_gate() {
    let pod = workload("web", "10.0.0.1");
    for waypoint in [
        bound_to("gone"),
        Binding::Unusable { waypoint: key("gone"), why: "it does not exist".into() },
    ] {
        let service = Service { waypoint, ..service("web", "10.96.0.1", &[&pod]) };
        let world = Fixture::default().workload(pod.clone()).service(service).build();
        assert!(!by("curl").addressed(WEB).passes(&world));
        assert!(!by("curl").passes(&world));
    }
}

#[test]
fn hidden_paths_and_doubled_headers_do_not_evade() {
    let deny = |rule| shop(vec![policy("p", Action::Deny, on_service("web"), vec![rule])]);
    let admin = deny(to(paths(StringMatch::Prefix("/admin".into()))));
    for path in ["/admin", "/x/../admin", "//admin", "/%61dmin", "/x/%2e%2e/admin?q"] {
        assert!(!by("curl").asks("GET", path).passes(&admin), "{path}");
    }
    assert!(by("curl").asks("GET", "/public").passes(&admin));
    let allow = to(paths(StringMatch::Prefix("/public".into())));
    let public = shop(vec![policy("p", Action::Allow, on_service("web"), vec![allow])]);
    assert!(by("curl").asks("GET", "/public/a").passes(&public));
    assert!(!by("curl").asks("GET", "/public/../admin").passes(&public));
    let header = Condition::Text {
        key: ConditionKey::Header(HeaderName::from_static("x-role")),
        values: exact("evil"),
    };
    let evil = deny(Rule { when: vec![header.clone()], ..Rule::default() });
    let get = || by("curl").asks("GET", "/");
    assert!(!get().sends("x-role", "good").sends("x-role", "evil").passes(&evil));
    assert!(get().sends("x-role", "good").passes(&evil));
    let rule = Rule { when: vec![header], ..Rule::default() };
    let only = shop(vec![policy("p", Action::Allow, on_service("web"), vec![rule])]);
    assert!(!get().sends("x-role", "good").sends("x-role", "evil").passes(&only));
    assert!(get().sends("x-role", "evil").passes(&only));
}

#[test]
fn gateway_and_class_targets_guard_what_is_bound() {
    for (name, target) in [
        ("shop/p", PolicyTarget::Gateway("wp".into())),
        ("istio-system/p", PolicyTarget::GatewayClass("istio-waypoint".into())),
    ] {
        let scope = Scope::Targets(vec![target]);
        let world = shop(vec![policy(name, Action::Deny, scope, vec![to(methods("DELETE"))])]);
        assert!(!by("curl").addressed(WEB).asks("DELETE", "/").passes(&world));
        assert!(by("curl").addressed(WEB).asks("GET", "/").passes(&world));
    }
}

/// Which of two waypoints a connection has passed, only its client's node could say.
#[test]
fn both_waypoints_policies_must_permit_while_one_is_tried() {
    let of = |gateway: &str, name: &str, action, method: &str| {
        let scope = Scope::Targets(vec![PolicyTarget::Gateway(gateway.into())]);
        policy(name, action, scope, vec![to(methods(method))])
    };
    let world = |weight: Option<u8>, policies: Vec<AuthorizationPolicy>| {
        let pod = workload("web", "10.0.0.1");
        let canary = weight.map(|weight| Canary { waypoint: key("next"), weight });
        let service =
            Service { waypoint: bound_to("wp"), canary, ..service("web", "10.96.0.1", &[&pod]) };
        let base = Fixture::default().workload(pod).service(service);
        let base = base.waypoint(waypoint("wp")).waypoint(waypoint("next"));
        policies.into_iter().fold(base, Fixture::policy).build()
    };
    let passes = |world: &World, method: &str| {
        let addressed = by("curl").addressed(WEB).asks(method, "/").passes(world);
        // Whatever the client says that it has addressed.
        assert_eq!(addressed, by("curl").asks(method, "/").passes(world));
        addressed
    };
    let deny = |gateway| of(gateway, "shop/deny", Action::Deny, "DELETE");
    for (weight, gateway, denied) in [
        (Some(5), "next", true),
        (Some(5), "wp", true),
        (Some(100), "wp", true),
        // It gets no connection, and so has no say.
        (Some(0), "next", false),
        (None, "next", false),
    ] {
        let world = world(weight, vec![deny(gateway)]);
        assert_eq!(passes(&world, "DELETE"), !denied, "{weight:?} {gateway}");
        assert!(passes(&world, "GET"), "{weight:?} {gateway}");
    }
    // What one allows, the other must allow too.
    let allow = |gateway, name, method| of(gateway, name, Action::Allow, method);
    let world = world(
        Some(5),
        vec![
            allow("wp", "shop/a", "GET"),
            allow("next", "shop/b", "GET"),
            allow("next", "shop/c", "PUT"),
        ],
    );
    assert!(passes(&world, "GET"));
    assert!(!passes(&world, "PUT"));
}

#[test]
fn http_is_parsed_only_where_something_needs_it() {
    let needs = |policies, host| {
        let world = shop(policies);
        let workload = world.workload_at("10.0.0.1".parse().unwrap()).unwrap();
        Gate::new(&world, workload, 8080, &super::addressed(&world, workload, 8080, host, None))
            .needs_http()
    };
    assert!(!needs(vec![], Some(WEB)));
    let layer4 = || policy("p", Action::Allow, on_service("web"), vec![from(principal("a"))]);
    assert!(!needs(vec![layer4()], Some(WEB)));
    let layer7 = || policy("p", Action::Deny, Scope::Namespace, vec![to(methods("GET"))]);
    assert!(needs(vec![layer7()], None), "selector policies with HTTP fields are enforced whole");
}

#[test]
fn a_route_to_another_services_pods_is_believed_only_when_verified() {
    let (web, back) = (workload("web", "10.0.0.1"), workload("back", "10.0.0.2"));
    let bound = |service| Service { waypoint: bound_to("wp"), ..service };
    let route = fixture::route("r", "front", vec![fixture::rule(vec![fixture::backend("web", 1)])]);
    let world = Fixture::default()
        .service(bound(service("front", "10.96.0.2", &[&back])))
        .service(bound(service("web", "10.96.0.1", &[&web])))
        .workload(web)
        .workload(back)
        .waypoint(waypoint("wp"))
        .route(route)
        .policy(policy("p", Action::Deny, on_service("web"), vec![to(methods("DELETE"))]))
        .build();
    let workload = world.workload_at("10.0.0.1".parse().unwrap()).unwrap();
    let front = "front.shop.svc.cluster.local";
    let Addressed::Route { service, ports, verified: false } =
        super::addressed(&world, workload, 8080, Some(front), None)
    else {
        panic!("front reaches web by its route");
    };
    let attempt = by("curl").addressed(front).asks("DELETE", "/");
    assert!(!attempt.passes(&world), "unverified: web's own policies hold");
    let verified = Addressed::Route { service, ports, verified: true };
    let verified = Gate::new(&world, workload, 8080, &verified);
    let client = identity("curl");
    let connection = Connection {
        client: Some(&client),
        source: "10.0.9.9".parse().unwrap(),
        destination: "10.0.0.1:8080".parse().unwrap(),
        server_name: None,
    };
    assert!(verified.decide(&connection, None).is_ok());
}
