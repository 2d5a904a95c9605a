//! RequestAuthentications: whose requests with a bad token are refused, and as what; what a good one gives.

use serde_json::json;

use super::*;
use crate::jwt::Fault;
use crate::jwt::fixture::Issuer;
use crate::policy::fixture;

fn tokens(name: &str, scope: Scope) -> AuthorizationPolicy {
    let rule = fixture::token_rule(&Issuer::new("k"));
    fixture::tokens(&key(name), scope, vec![rule])
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
                assert!(denial.token.is_some());
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
    assert!(with_token().result(&world).unwrap_err().token.is_some());
    let world = shop(vec![deny(), tokens("jwt", Scope::Namespace)]);
    assert!(with_token().result(&world).unwrap_err().token.is_some());
    assert!(by("curl").asks("GET", "/").result(&world).unwrap_err().token.is_none());
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

/// What Istio's pages say of `requestPrincipals` and `request.auth`, for a good token and without one.
#[test]
fn policies_decide_by_what_a_token_says() {
    let issuer = Issuer::new("k");
    let claims = json!({
        "iss": "https://issuer", "sub": "alice", "aud": ["shop", "bank"], "azp": "app",
        "groups": ["staff", "admins"], "scope": "read write", "a": {"b": "c"}, "n": 1,
    });
    let token = format!("Bearer {}", issuer.token(&claims));
    let text = |it: &str| crate::policy::values::text(it).unwrap();
    let who = |values| from(Source { request_principals: values, ..Source::default() });
    let says = |wanted: &TokenText, values| Rule {
        when: vec![Condition::Text { key: ConditionKey::Token(wanted.clone()), values }],
        ..Rule::default()
    };
    let claim = |path: &[&str]| TokenText::Claim(path.iter().map(|it| Str::from(*it)).collect());
    let principal = TokenText::Principal;
    let matching = [
        who(any(&[text("https://issuer/alice")])),
        who(any(&[text("https://issuer/*")])),
        who(any(&[text("*/alice")])),
        who(any(&[text("*")])),
        says(&principal, any(&[text("https://issuer/alice")])),
        says(&TokenText::Audiences, any(&[text("bank")])),
        says(&TokenText::Presenter, any(&[text("app")])),
        says(&claim(&["groups"]), any(&[text("admins")])),
        says(&claim(&["groups"]), none(&[text("guests")])),
        says(&claim(&["scope"]), any(&[text("write")])),
        says(&claim(&["a", "b"]), any(&[text("c")])),
        says(&claim(&["iss"]), any(&[text("https://issuer")])),
    ];
    let failing = [
        who(any(&[text("https://issuer/bob")])),
        who(none(&[text("*")])),
        says(&claim(&["groups"]), none(&[text("admins")])),
        says(&claim(&["scope"]), any(&[text("read write")])),
        says(&claim(&["a"]), any(&[text("*")])),
        says(&claim(&["n"]), any(&[text("1")])),
        says(&claim(&["missing"]), any(&[text("*")])),
    ];
    let jwt = fixture::tokens(&key("jwt"), Scope::Namespace, vec![fixture::token_rule(&issuer)]);
    let cases = matching.iter().map(|it| (it, true)).chain(failing.iter().map(|it| (it, false)));
    for (rule, matches) in cases {
        let of = |action| policy("p", action, Scope::Namespace, vec![rule.clone()]);
        let ask = |action| {
            by("curl")
                .asks("GET", "/")
                .sends("authorization", &token)
                .passes(&shop(vec![of(action), jwt.clone()]))
        };
        assert_eq!(ask(Action::Allow), matches, "{rule:?}");
        assert_eq!(ask(Action::Deny), !matches, "{rule:?}");
        // Nobody verified it: it says nothing.
        let unverified = by("curl").asks("GET", "/").sends("authorization", &token);
        let nobody = *rule == who(none(&[text("*")]));
        assert_eq!(unverified.passes(&shop(vec![of(Action::Allow)])), nobody, "{rule:?}");
        // What is not HTTP brings no token.
        assert!(!by("curl").passes(&shop(vec![of(Action::Allow), jwt.clone()])), "{rule:?}");
        assert!(!by("curl").passes(&shop(vec![of(Action::Deny), jwt.clone()])), "{rule:?}");
    }
    let wanted = policy("p", Action::Deny, Scope::Namespace, vec![who(none(&[text("*")]))]);
    assert!(!by("curl").asks("GET", "/").passes(&shop(vec![wanted, jwt])), "without a token");
}

/// Headers that tell of claims are the agent's, and policies see them as the application does.
#[test]
fn nobody_but_the_agent_tells_of_claims() {
    let issuer = Issuer::new("k");
    let rule = TokenRule {
        payload_header: Some(HeaderName::from_static("x-payload")),
        claim_headers: vec![
            ClaimHeader { name: HeaderName::from_static("x-user"), claim: "sub".into() },
            ClaimHeader { name: HeaderName::from_static("x-deep"), claim: "a.b".into() },
        ],
        ..fixture::token_rule(&issuer)
    };
    let jwt = fixture::tokens(&key("jwt"), Scope::Namespace, vec![rule]);
    let header = ConditionKey::Header(HeaderName::from_static("x-user"));
    let alice = Condition::Text { key: header, values: exact("alice") };
    let rules = vec![Rule { when: vec![alice], ..Rule::default() }];
    let world = shop(vec![policy("p", Action::Allow, Scope::Namespace, rules), jwt]);
    let token = |name| issuer.token(&json!({"iss": "https://issuer", "sub": name, "a": {"b": 7}}));
    let forged = || by("curl").asks("GET", "/").sends("x-user", "alice").sends("x_user", "alice");
    assert!(!forged().passes(&world));
    assert!(!forged().sends("authorization", &format!("Bearer {}", token("bob"))).passes(&world));
    let path = format!("/a?b=1&access_token={}", token("alice"));
    let asked = by("curl").asks("GET", &path).sends("x-user", "bob").sends("x_payload", "x");
    let told = asked.result(&world).unwrap().told.unwrap();
    let mut request = http::Request::get(&path).body(()).unwrap();
    *request.headers_mut() = asked.headers.clone();
    told.apply(&mut request);
    assert_eq!(request.uri(), "/a?b=1");
    let headers = request.headers();
    assert_eq!(
        (&headers["x-user"], &headers["x-deep"]),
        (&"alice".parse().unwrap(), &"7".parse().unwrap())
    );
    assert_eq!(headers.len(), 3, "{headers:?}");
    assert_eq!(headers["x-payload"], token("alice").split('.').nth(1).unwrap());
}

#[test]
fn a_request_has_one_token() {
    let (one, two) = (Issuer::new("k"), Issuer::new("k"));
    let other = TokenRule { issuer: "https://other".into(), ..fixture::token_rule(&two) };
    let rules = vec![fixture::token_rule(&one), other];
    let world = shop(vec![fixture::tokens(&key("jwt"), Scope::Namespace, rules)]);
    let first = one.token(&json!({"iss": "https://issuer", "sub": "alice"}));
    let second = two.token(&json!({"iss": "https://other", "sub": "bob"}));
    let crossed = two.token(&json!({"iss": "https://issuer", "sub": "bob"}));
    let bearer = |token: &str| format!("Bearer {token}");
    for (headers, path, fault) in [
        (vec![&first], "/".to_owned(), None),
        (vec![&second], "/".to_owned(), None),
        (vec![&first, &first], format!("/?access_token={first}"), None),
        (vec![&first, &second], "/".to_owned(), Some(Fault::Multiple)),
        (vec![&first], format!("/?access_token={second}"), Some(Fault::Multiple)),
        (vec![], format!("/?access_token={first}&access_token=x"), Some(Fault::Multiple)),
        (vec![&crossed], "/".to_owned(), Some(Fault::BadSignature)),
    ] {
        let asked = by("curl").asks("GET", &path);
        let asked =
            headers.iter().fold(asked, |it, token| it.sends("authorization", &bearer(token)));
        let refused = asked.result(&world).err().and_then(|denial| denial.token);
        assert_eq!(refused, fault, "{path:.60}");
    }
}
