//! CUSTOM, DENY, ALLOW: providers are asked first, and the others decide about the request as the providers made it.

use serde_json::json;

use super::*;
use crate::ext_authz::{Changes, Mutations};
use crate::jwt::Fault;
use crate::jwt::fixture::Issuer;
use crate::policy::fixture;

fn provider(name: &str) -> Arc<ExtAuthz> {
    Arc::new(ExtAuthz {
        name: name.into(),
        service: ProviderService::Host { namespace: None, hostname: "auth.shop".into() },
        port: 80,
        timeout: std::time::Duration::from_secs(1),
        fail_open: false,
        status_on_error: 403,
        body: None,
        protocol: CheckProtocol::Grpc { include_headers: Vec::new() },
    })
}

fn asking(name: &str, scope: Scope, rule: Rule) -> AuthorizationPolicy {
    let provider = Some(provider("auth"));
    AuthorizationPolicy { provider, ..policy(name, Action::Custom, scope, vec![rule]) }
}

fn custom() -> AuthorizationPolicy {
    asking("custom", on_service("web"), Rule::default())
}

fn header(name: &'static str, value: &str) -> Rule {
    let key = ConditionKey::Header(HeaderName::from_static(name));
    Rule { when: vec![Condition::Text { key, values: exact(value) }], ..Rule::default() }
}

fn sets(name: &'static str, value: &'static str) -> Mutations {
    let set = [(HeaderName::from_static(name), HeaderValue::from_static(value))];
    let mut mutations = Mutations::default();
    mutations.add(Changes { set: HeaderMap::from_iter(set), ..Changes::default() });
    mutations
}

fn removes(name: &'static str) -> Mutations {
    let mut mutations = Mutations::default();
    let removed = vec![HeaderName::from_static(name)];
    mutations.add(Changes { removed, ..Changes::default() });
    mutations
}

/// A request of `curl` to the service.
fn get() -> Attempt<'static> {
    by("curl").addressed(WEB).asks("GET", "/")
}

/// Whether it passes, once the providers are asked that must be.
fn passes(attempt: &Attempt<'_>, world: &World, mutations: &Mutations) -> bool {
    let first = attempt.result(world).unwrap();
    assert_eq!(first.asks.len(), 1, "one provider is asked");
    let second = attempt.result_after(world, Providers::Permit(mutations));
    second.is_ok_and(|permit| permit.asks.is_empty())
}

/// What becomes of the request after the providers permitted it, by the set that the other policy is in.
#[test]
fn deny_and_allow_decide_about_the_request_as_the_providers_made_it() {
    let none = || Mutations::default();
    let rows: [(&str, Action, Rule, Mutations, bool); 9] = [
        ("nobody set it", Action::Allow, header("x-user", "alice"), none(), false),
        ("set", Action::Allow, header("x-user", "alice"), sets("x-user", "alice"), true),
        ("replaced", Action::Allow, header("x-role", "admin"), sets("x-role", "user"), false),
        ("removed", Action::Allow, header("x-role", "admin"), removes("x-role"), false),
        ("the client's", Action::Allow, header("x-role", "admin"), none(), true),
        (
            "set to what is denied",
            Action::Deny,
            header("x-user", "eve"),
            sets("x-user", "eve"),
            false,
        ),
        ("denied as sent", Action::Deny, header("x-role", "admin"), none(), false),
        ("removed before DENY", Action::Deny, header("x-role", "admin"), removes("x-role"), true),
        ("another path", Action::Deny, to(paths(StringMatch::Exact("/a".into()))), none(), true),
    ];
    for (name, action, rule, mutations, expected) in rows {
        for scope in [on_service("web"), Scope::Namespace] {
            let other = policy("other", action, scope.clone(), vec![rule.clone()]);
            for policies in [[custom(), other.clone()], [other, custom()]] {
                let attempt = get().sends("x-role", "admin");
                let passed = passes(&attempt, &shop(policies.to_vec()), &mutations);
                assert_eq!(passed, expected, "{name}, {scope:?}");
            }
        }
    }
}

/// A provider costs nothing for a client that is refused whatever it sends.
#[test]
fn what_needs_no_request_comes_before_the_providers() {
    let on = |action, rules| policy("other", action, Scope::Namespace, rules);
    let both = Rule { from: vec![principal("other")], ..header("x-user", "alice") };
    let broken = AuthorizationPolicy {
        broken: Some("unreadable".into()),
        ..on(Action::Allow, vec![Rule::default()])
    };
    let jwt = fixture::token_rule(&Issuer::new("k"));
    let jwt = fixture::tokens(&key("jwt"), Scope::Namespace, vec![jwt]);
    let elsewhere = asking("custom", Scope::Namespace, to(methods("DELETE")));
    for (name, other, asks) in [
        ("a DENY of the client", on(Action::Deny, vec![from(principal("curl"))]), false),
        ("a DENY of another client", on(Action::Deny, vec![from(principal("other"))]), true),
        ("a DENY of a request", on(Action::Deny, vec![to(methods("GET"))]), true),
        ("an ALLOW of other clients", on(Action::Allow, vec![from(principal("other"))]), false),
        ("an ALLOW of nobody", on(Action::Allow, vec![]), false),
        ("an ALLOW of the client", on(Action::Allow, vec![from(principal("curl"))]), true),
        ("an ALLOW of others' requests", on(Action::Allow, vec![both]), true),
        ("a policy that cannot be read", broken, false),
        ("a token that is not good", jwt, false),
        ("a CUSTOM policy that does not match", elsewhere, true),
    ] {
        let attempt = get().sends("authorization", "Bearer t");
        let result = attempt.result(&shop(vec![other, custom()]));
        assert_eq!(result.is_ok(), asks, "{name}");
        assert!(result.is_ok_and(|permit| permit.asks.len() == 1) == asks, "{name}");
    }
    assert!(by("curl").addressed(WEB).result(&shop(vec![custom()])).is_err(), "no request");
}

/// As in Istio, where `jwt_authn` stands before `ext_authz`: the token is the one that the client sent.
#[test]
fn a_token_that_a_provider_sets_proves_nothing() {
    let issuer = Issuer::new("k");
    let token = issuer.token(&json!({"iss": "https://issuer", "sub": "alice", "exp": 1u64 << 40}));
    let bearer: &'static str = Box::leak(format!("Bearer {token}").into_boxed_str());
    let jwt = fixture::tokens(&key("jwt"), Scope::Namespace, vec![fixture::token_rule(&issuer)]);
    let alice = Source { request_principals: exact("https://issuer/alice"), ..Source::default() };
    let allow = policy("allow", Action::Allow, Scope::Namespace, vec![from(alice)]);
    let world = shop(vec![custom(), jwt, allow]);
    let mutations = sets("authorization", bearer);
    assert!(!passes(&get(), &world, &mutations), "a provider's");
    assert!(passes(&get().sends("authorization", bearer), &world, Mutations::NONE));
    assert!(passes(&get().sends("authorization", bearer), &world, &sets("authorization", "x")));
    let bad = get().sends("authorization", "Bearer x").result(&world).unwrap_err();
    assert!(bad.token.is_some_and(|fault| fault != Fault::UnknownIssuer));
}

#[test]
fn a_policy_in_dry_run_asks_nobody_and_says_so() {
    let dry = AuthorizationPolicy { dry_run: true, ..custom() };
    let permit = get().result(&shop(vec![dry])).unwrap();
    assert!(permit.asks.is_empty());
    let notes: Vec<String> = permit.notes.iter().map(ToString::to_string).collect();
    assert_eq!(notes, ["shop/custom=would_ask"]);
}

/// Streams that last are judged again, and nobody is asked again.
#[test]
fn a_policy_that_comes_later_asks_nobody_about_what_lasts_but_one_without_provider_ends_it() {
    let permitted =
        |policies| get().result_after(&shop(policies), Providers::Permit(Mutations::NONE)).is_ok();
    assert!(permitted(vec![custom()]));
    let broken = AuthorizationPolicy { provider: None, ..custom() };
    assert!(!permitted(vec![broken]));
    let deny = policy("deny", Action::Deny, Scope::Namespace, vec![to(methods("GET"))]);
    assert!(!permitted(vec![custom(), deny]));
}
