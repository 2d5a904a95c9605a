//! The condition `connection.sni`: what it matches, and that nothing passes before the name is known where it counts.

use super::*;

fn asks_for(values: Values<StringMatch>) -> Rule {
    let key = ConditionKey::ServerName;
    Rule { when: vec![Condition::Text { key, values }], ..Rule::default() }
}

fn decide(
    world: &World,
    server_name: Option<&str>,
    request: Option<&Request<'_>>,
) -> Result<Permit, Denial> {
    let workload = world.workload_at("10.0.0.1".parse().unwrap()).unwrap();
    let client = identity("curl");
    let connection = Connection {
        client: Some(&client),
        source: "10.0.9.9".parse().unwrap(),
        destination: "10.0.0.1:8080".parse().unwrap(),
        server_name,
    };
    Gate::new(world, workload, 8080, &Addressed::Workload).decide(&connection, request)
}

fn world(action: Action, rule: &Rule) -> Arc<World> {
    shop(vec![policy("p", action, Scope::Namespace, vec![rule.clone()])])
}

#[test]
fn names() {
    let suffix = |text: &str| StringMatch::Suffix(text.into());
    let one = |value: StringMatch| asks_for(any(&[value]));
    for (rule, name, expected) in [
        (asks_for(exact("a.example.org")), "a.example.org", true),
        (asks_for(exact("a.example.org")), "b.example.org", false),
        (asks_for(exact("a.example.org")), "", false),
        (one(suffix(".example.org")), "a.example.org", true),
        (one(suffix(".example.org")), "example.org", false),
        (one(StringMatch::Prefix("a.".into())), "a.example.org", true),
        (one(StringMatch::Present), "a", true),
        (one(StringMatch::Present), "", false),
        (asks_for(none(&[suffix(".example.org")])), "a.example.org", false),
        (asks_for(none(&[suffix(".example.org")])), "a.example.com", true),
        // As in Envoy, who asks for no server asks for none of these.
        (asks_for(none(&[suffix(".example.org")])), "", true),
        (asks_for(none(&[StringMatch::Present])), "", true),
    ] {
        let allow = decide(&world(Action::Allow, &rule), Some(name), None).is_ok();
        let deny = decide(&world(Action::Deny, &rule), Some(name), None).is_err();
        assert_eq!((allow, deny), (expected, expected), "{rule:?} {name:?}");
    }
}

#[test]
fn nothing_passes_before_the_name_is_known() {
    let only = asks_for(exact("a"));
    let on = |port: u16| {
        let ports = Values { any: vec![port], none: Vec::new() };
        Rule { to: vec![Operation { ports, ..Operation::default() }], ..only.clone() }
    };
    let besides = |port: u16| {
        let ports = Values { any: Vec::new(), none: vec![port] };
        Rule { when: vec![Condition::DestinationPort(ports)], ..only.clone() }
    };
    for action in [Action::Allow, Action::Deny] {
        for (rule, unread) in [
            (only.clone(), true),
            (on(8080), true),
            // Rules of other ports need no name on this one.
            (on(9090), false),
            (
                Rule { when: [besides(8080).when, only.when.clone()].concat(), ..Rule::default() },
                false,
            ),
            (
                Rule { when: [besides(9090).when, only.when.clone()].concat(), ..Rule::default() },
                true,
            ),
        ] {
            let decided = decide(&world(action, &rule), None, None);
            let is_unread = decided.as_ref().is_err_and(|denial| denial.unread);
            assert_eq!(is_unread, unread, "{action:?} {rule:?}: {decided:?}");
        }
    }
}

#[test]
fn what_decides_nothing_has_nothing_read() {
    let rule = asks_for(exact("a"));
    let audit = world(Action::Audit, &rule);
    let dry = AuthorizationPolicy {
        dry_run: true,
        ..policy("p", Action::Deny, Scope::Namespace, vec![rule])
    };
    for world in [audit, shop(vec![dry])] {
        assert!(decide(&world, None, None).unwrap().notes.is_empty(), "it is not known to match");
        assert_eq!(decide(&world, Some("a"), None).unwrap().notes.len(), 1);
    }
}

#[test]
fn parsed_requests_ask_for_no_server() {
    let headers = HeaderMap::new();
    let request = Request { method: &Method::GET, path: "/", host: "a", headers: &headers };
    for (rule, matches) in
        [(asks_for(exact("a")), false), (asks_for(none(&[StringMatch::Present])), true)]
    {
        let decided = decide(&world(Action::Allow, &rule), None, Some(&request));
        assert_eq!(decided.is_ok(), matches, "{rule:?}");
        let decided = decide(&world(Action::Deny, &rule), None, Some(&request));
        assert_eq!(decided.is_err(), matches, "{rule:?}");
    }
}

#[test]
fn strict_mutual_tls_refuses_before_anything_is_read() {
    let strict = PeerAuthentication { mode: Mode::Strict, ..PeerAuthentication::default() };
    let pod = Workload { peer_authentication: strict, ..workload("web", "10.0.0.1") };
    let rules = vec![asks_for(exact("a"))];
    let policy = policy("p", Action::Allow, Scope::Namespace, rules);
    let world = Fixture::default().workload(pod).policy(policy).build();
    let workload = world.workload_at("10.0.0.1".parse().unwrap()).unwrap();
    let connection = Connection {
        client: None,
        source: "10.0.9.9".parse().unwrap(),
        destination: "10.0.0.1:8080".parse().unwrap(),
        server_name: None,
    };
    let denial = Gate::new(&world, workload, 8080, &Addressed::Workload).decide(&connection, None);
    assert!(!denial.unwrap_err().unread);
}
