//! What holds for every policy and every request.

use proptest::prelude::*;

use super::{any, *};

fn any_value() -> impl Strategy<Value = StringMatch> {
    let text = || {
        prop_oneof![
            "GET",
            "/",
            "/a",
            "shop",
            "cluster.local/ns/shop/sa/curl",
            "curl",
            "[a-c/]{0,3}"
        ]
    };
    prop_oneof![
        text().prop_map(|text| StringMatch::Exact(text.into())),
        text().prop_map(|text| StringMatch::Prefix(text.into())),
        text().prop_map(|text| StringMatch::Suffix(text.into())),
        text().prop_map(|text| StringMatch::Template(text.into())),
        Just(StringMatch::Present),
    ]
}

fn any_values() -> impl Strategy<Value = Values<StringMatch>> {
    let list = || proptest::collection::vec(any_value(), 0..2);
    (list(), list()).prop_map(|(any, none)| Values { any, none })
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let source = (any_values(), any_values()).prop_map(|(principals, namespaces)| Source {
        principals,
        namespaces,
        ..Source::default()
    });
    let operation =
        (any_values(), any_values(), any_values()).prop_map(|(methods, paths, hosts)| Operation {
            methods,
            paths,
            hosts,
            ..Operation::default()
        });
    let condition = any_values().prop_map(|values| Condition::Text {
        key: ConditionKey::Header(HeaderName::from_static("x-role")),
        values,
    });
    (
        proptest::collection::vec(source, 0..2),
        proptest::collection::vec(operation, 0..2),
        proptest::collection::vec(condition, 0..2),
    )
        .prop_map(|(from, to, when)| Rule { from, to, when })
}

fn any_path() -> impl Strategy<Value = String> {
    "/[ab/.%2eF;\\\\]{0,10}"
}

fn attempt<'a>(client: Option<&'a str>, method: &'a str, path: &'a str, role: &str) -> Attempt<'a> {
    let mut attempt = Attempt { client, ..plaintext() }.asks(method, path);
    if !role.is_empty() {
        attempt = attempt.sends("x-role", role).sends("x-role", "a");
    }
    attempt
}

proptest! {
    /// A DENY rule that does not refuse bytes does not refuse a request either: what is ignored denies more.
    #[test]
    fn bytes_are_denied_wherever_a_request_is(
        rule in any_rule(),
        client in proptest::option::of(Just("curl")),
        path in any_path(),
        role in "[a-c]{0,2}",
    ) {
        let world = shop(vec![policy("p", Action::Deny, Scope::Namespace, vec![rule])]);
        let request = attempt(client, "GET", &path, &role);
        let bytes = Attempt { client, ..plaintext() };
        prop_assert!(request.passes(&world) || !bytes.passes(&world));
    }

    /// An ALLOW rule that admits bytes admits every request of that client: nothing in it asks for HTTP.
    #[test]
    fn an_allow_that_admits_bytes_admits_requests(
        rule in any_rule(),
        client in proptest::option::of(Just("curl")),
        path in any_path(),
    ) {
        let world = shop(vec![policy("p", Action::Allow, Scope::Namespace, vec![rule])]);
        let bytes = Attempt { client, ..plaintext() };
        prop_assert!(!bytes.passes(&world) || attempt(client, "GET", &path, "").passes(&world));
    }

    /// Read towards refusing, a rule matches whatever it matches when read towards admitting.
    #[test]
    fn deny_matches_wherever_allow_does(
        rule in any_rule(),
        client in proptest::option::of(Just("curl")),
        path in any_path(),
        role in "[a-c]{0,2}",
    ) {
        let of = |action| shop(vec![policy("p", action, Scope::Namespace, vec![rule.clone()])]);
        let attempt = attempt(client, "GET", &path, &role);
        prop_assert!(!attempt.passes(&of(Action::Allow)) || !attempt.passes(&of(Action::Deny)));
    }

    /// One more DENY policy never lets anybody in.
    #[test]
    fn more_denies_admit_no_more(first in any_rule(), second in any_rule(), path in any_path()) {
        let deny = |name, rule: &Rule| policy(name, Action::Deny, Scope::Namespace, vec![rule.clone()]);
        let attempt = attempt(Some("curl"), "GET", &path, "b");
        let few = attempt.passes(&shop(vec![deny("first", &first)]));
        let more = attempt.passes(&shop(vec![deny("first", &first), deny("second", &second)]));
        prop_assert!(few || !more);
    }

    /// Proving less never admits to more, except where plaintext itself is what a policy names.
    #[test]
    fn plaintext_passes_no_allow_that_names_somebody(name in "[a-z]{1,4}") {
        let named = [StringMatch::Exact(name.into())];
        for source in [
            Source { principals: any(&named), ..Source::default() },
            Source { namespaces: any(&named), ..Source::default() },
            Source { principals: none(&named), ..Source::default() },
            Source { namespaces: none(&named), ..Source::default() },
        ] {
            let world = shop(vec![policy("p", Action::Allow, Scope::Namespace, vec![from(source)])]);
            prop_assert!(!plaintext().passes(&world));
        }
    }

    #[test]
    fn arbitrary_texts_never_panic(path in ".{0,40}", host in ".{0,20}", rule in any_rule()) {
        let world = shop(vec![policy("p", Action::Deny, Scope::Namespace, vec![rule])]);
        let workload = world.workload_at("10.0.0.1".parse().unwrap()).unwrap();
        let headers = HeaderMap::new();
        let request = Request { method: &Method::GET, path: &path, host: &host, headers: &headers };
        let connection = Connection {
            client: None,
            source: "10.0.9.9".parse().unwrap(),
            destination: "10.0.0.1:8080".parse().unwrap(),
            server_name: None,
        };
        let addressed = addressed(&world, workload, 8080, Some(&host), None);
        let _ = Gate::new(&world, workload, 8080, &addressed).decide(&connection, Some(&request));
    }
}
