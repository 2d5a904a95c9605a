//! Policies that decide nothing, and the index over many.

use proptest::prelude::*;

use super::{any, *};
use crate::base::PolicyEffect;

fn noted(attempt: &Attempt<'_>, world: &World) -> (bool, Vec<String>) {
    let (passes, notes) = match attempt.result(world) {
        Ok(permit) => (true, permit.notes),
        Err(denial) => (false, denial.notes),
    };
    (passes, notes.iter().map(ToString::to_string).collect())
}

fn dry(one: AuthorizationPolicy) -> AuthorizationPolicy {
    AuthorizationPolicy { dry_run: true, ..one }
}

fn of_curl(name: &str, action: Action) -> AuthorizationPolicy {
    policy(name, action, Scope::Namespace, vec![from(principal("curl"))])
}

#[test]
fn audit_marks_a_match_and_decides_nothing() {
    let world = shop(vec![of_curl("audit", Action::Audit)]);
    assert_eq!(noted(&by("curl"), &world), (true, vec!["shop/audit=audit".into()]));
    assert_eq!(noted(&by("other"), &world), (true, vec![]));
    let denied = shop(vec![of_curl("audit", Action::Audit), of_curl("deny", Action::Deny)]);
    assert_eq!(noted(&by("curl"), &denied), (false, vec!["shop/audit=audit".into()]));
}

#[test]
fn dry_run_says_what_it_would_have_done() {
    let deny = shop(vec![dry(of_curl("deny", Action::Deny))]);
    assert_eq!(noted(&by("curl"), &deny), (true, vec!["shop/deny=would_deny".into()]));
    assert_eq!(noted(&by("other"), &deny), (true, vec![]));
    let allow = shop(vec![dry(of_curl("allow", Action::Allow))]);
    assert_eq!(noted(&by("curl"), &allow), (true, vec!["shop/allow=would_allow".into()]));
    assert_eq!(noted(&by("other"), &allow), (true, vec!["shop/allow=would_deny".into()]));
    let other = policy("real", Action::Allow, Scope::Namespace, vec![from(principal("other"))]);
    let both = shop(vec![dry(of_curl("allow", Action::Allow)), other]);
    assert_eq!(noted(&by("other"), &both), (true, vec![]), "another ALLOW policy admits it");
    assert_eq!(noted(&by("curl"), &both), (false, vec!["shop/allow=would_allow".into()]));
}

#[test]
fn dry_run_judges_requests_and_their_notes_are_few() {
    let get = policy("get", Action::Deny, Scope::Namespace, vec![to(methods("GET"))]);
    let world = shop(vec![dry(get)]);
    let get = by("curl").asks("GET", "/");
    assert_eq!(noted(&get, &world), (true, vec!["shop/get=would_deny".into()]));
    assert_eq!(noted(&by("curl").asks("POST", "/"), &world), (true, vec![]));
    let many = shop((0..100).map(|it| dry(of_curl(&format!("p{it}"), Action::Deny))).collect());
    let permit = by("curl").result(&many).unwrap();
    assert!(permit.notes.len() < 10);
    assert!(permit.notes.iter().all(|note| note.effect == PolicyEffect::WouldDeny));
}

#[test]
fn trust_domains_are_compared() {
    let only = |values| Source { trust_domains: values, ..Source::default() };
    let allow =
        |values| shop(vec![policy("p", Action::Allow, Scope::Namespace, vec![from(only(values))])]);
    assert!(by("curl").passes(&allow(exact("cluster.local"))));
    assert!(!by("curl").passes(&allow(exact("elsewhere"))));
    assert!(!plaintext().passes(&allow(exact("cluster.local"))));
    let not = |text: &str| none(&[StringMatch::Exact(text.into())]);
    assert!(by("curl").passes(&allow(not("elsewhere"))));
    assert!(!by("curl").passes(&allow(not("cluster.local"))));
    assert!(!plaintext().passes(&allow(not("elsewhere"))), "who proves nothing is nobody");
}

/// Policies that name others than anybody who asks: they change nothing, but are enough for an index.
fn strangers(action: Action) -> Vec<AuthorizationPolicy> {
    let name = |it: usize| format!("stranger{it}");
    let of = |it| policy(&name(it), action, Scope::Namespace, vec![from(principal(&name(it)))]);
    (0..20).map(of).collect()
}

fn any_source() -> impl Strategy<Value = Source> {
    let name = || prop_oneof!["curl", "other", "wp", "x"];
    let values = |list: Vec<String>| any(&list.iter().map(|it| text_of(it)).collect::<Vec<_>>());
    (
        proptest::collection::vec(name(), 0..3),
        proptest::collection::vec(name(), 0..2),
        proptest::collection::vec(name(), 0..2),
    )
        .prop_map(move |(principals, not, accounts)| Source {
            principals: Values {
                none: not.iter().map(|it| text_of(it)).collect(),
                ..values(principals)
            },
            service_accounts: Values {
                any: accounts.iter().map(|it| key(it)).collect(),
                none: Vec::new(),
            },
            ..Source::default()
        })
}

fn text_of(name: &str) -> StringMatch {
    match name {
        "x" => StringMatch::Prefix("cluster.local/".into()),
        name => StringMatch::Exact(identity(name).principal().into()),
    }
}

proptest! {
    /// The index only leaves out what cannot match.
    #[test]
    fn strangers_policies_change_nothing(
        sources in proptest::collection::vec(any_source(), 0..3),
        deny in proptest::bool::ANY,
        client in proptest::option::of(prop_oneof![Just("curl"), Just("other")]),
        addressed in proptest::bool::ANY,
    ) {
        let action = if deny { Action::Deny } else { Action::Allow };
        let one = || policy("p", action, Scope::Namespace, vec![Rule { from: sources.clone(), ..Rule::default() }]);
        let few = shop(vec![one()]);
        let many = shop(strangers(action).into_iter().chain([one()]).collect());
        let host = addressed.then_some(WEB);
        let attempt = Attempt { client, host, ..plaintext() };
        prop_assert_eq!(attempt.passes(&few), attempt.passes(&many));
    }
}
