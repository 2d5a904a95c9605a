//! RequestAuthentications: whose requests with a token are refused, and as what.

use super::*;

fn tokens(name: &str, scope: Scope) -> AuthorizationPolicy {
    let places =
        vec![TokenPlace::Header { name: "authorization".into(), prefix: "Bearer ".into() }];
    let rules = vec![Rule { when: vec![Condition::Token(places)], ..Rule::default() }];
    let key = AuthorizationPolicy::of_tokens(&key(name));
    AuthorizationPolicy { key, ..policy("unused", Action::Authenticate, scope, rules) }
}

#[test]
fn tokens_are_refused_wherever_it_reaches_and_nothing_else_is() {
    let gateway = Scope::Targets(vec![PolicyTarget::Gateway("wp".into())]);
    let other = Scope::Targets(vec![PolicyTarget::Service("other".into())]);
    for (name, scope, reaches) in [
        ("jwt", Scope::Namespace, true),
        ("istio-system/jwt", Scope::Mesh, true),
        ("jwt", on_service("web"), true),
        ("jwt", gateway, true),
        ("jwt", other, false),
        ("evil/jwt", Scope::Namespace, false),
        ("evil/jwt", on_service("web"), false),
    ] {
        let world = shop(vec![tokens(name, scope.clone())]);
        for host in [Some(WEB), None] {
            let ask = || Attempt { host, ..by("curl").asks("GET", "/") };
            let result = ask().sends("authorization", "Bearer t").result(&world);
            assert_eq!(result.is_err(), reaches, "{name} {scope:?} {host:?}");
            if let Err(denial) = result {
                assert!(denial.unauthenticated);
                assert!(denial.why.starts_with(&format!("RequestAuthentication {}", key(name))));
            }
            assert!(ask().passes(&world), "{name} {scope:?} {host:?}: without a token");
            assert!(ask().sends("authorization", "Basic x").passes(&world));
            assert!(Attempt { host, ..by("curl") }.passes(&world), "bytes bring no token");
        }
    }
}

/// It is no policy of what somebody may do: one that admits does not let a token past, and it admits nobody itself.
#[test]
fn who_somebody_is_comes_before_what_he_may() {
    let allow = || policy("all", Action::Allow, Scope::Namespace, vec![Rule::default()]);
    let deny = || policy("none", Action::Deny, Scope::Namespace, vec![Rule::default()]);
    let with_token = || by("curl").asks("GET", "/").sends("authorization", "Bearer t");
    let world = shop(vec![allow(), tokens("jwt", Scope::Namespace)]);
    assert!(with_token().result(&world).unwrap_err().unauthenticated);
    let world = shop(vec![deny(), tokens("jwt", Scope::Namespace)]);
    assert!(with_token().result(&world).unwrap_err().unauthenticated);
    assert!(!by("curl").asks("GET", "/").result(&world).unwrap_err().unauthenticated);
}

/// Both kinds may have an object of one name.
#[test]
fn a_policy_of_the_same_name_is_another_object() {
    let mut pod = workload("web", "10.0.0.1");
    let jwt = tokens("p", Scope::Workloads);
    pod.policies = vec![jwt.key.clone(), key("p")];
    let world = Fixture::default()
        .workload(pod)
        .policy(policy("p", Action::Deny, Scope::Workloads, vec![to(methods("DELETE"))]))
        .policy(jwt)
        .build();
    assert!(by("curl").asks("GET", "/").passes(&world));
    assert!(!by("curl").asks("DELETE", "/").passes(&world));
    assert!(!by("curl").asks("GET", "/").sends("authorization", "Bearer t").passes(&world));
}
