//! Each field of a rule, one table row per case.

use super::*;

/// What an ALLOW with only this rule, and a DENY with only this rule, make of the attempt: does the rule match?
fn matches_as(action: Action, rule: &Rule, attempt: &Attempt<'_>) -> bool {
    let world = shop(vec![policy("p", action, Scope::Namespace, vec![rule.clone()])]);
    attempt.passes(&world) == (action == Action::Allow)
}

fn matches(rule: &Rule, attempt: &Attempt<'_>) -> bool {
    let allow = matches_as(Action::Allow, rule, attempt);
    assert_eq!(
        allow,
        matches_as(Action::Deny, rule, attempt),
        "unambiguous facts match alike: {rule:?}"
    );
    allow
}

fn cidrs(blocks: &[&str]) -> Values<Cidr> {
    Values { any: blocks.iter().map(|block| block.parse().unwrap()).collect(), none: Vec::new() }
}

fn text(key: ConditionKey, values: Values<StringMatch>) -> Rule {
    Rule { when: vec![Condition::Text { key, values }], ..Rule::default() }
}

fn header(values: Values<StringMatch>) -> Rule {
    text(ConditionKey::Header(HeaderName::from_static("x-role")), values)
}

fn prefix(text: &str) -> StringMatch {
    StringMatch::Prefix(text.into())
}

fn suffix(text: &str) -> StringMatch {
    StringMatch::Suffix(text.into())
}

#[test]
fn identities() {
    let principals = |values| from(Source { principals: values, ..Source::default() });
    let namespaces = |values| from(Source { namespaces: values, ..Source::default() });
    let accounts = |any: &[&str], none: &[&str]| {
        let keys = |names: &[&str]| names.iter().copied().map(key).collect();
        let service_accounts = Values { any: keys(any), none: keys(none) };
        from(Source { service_accounts, ..Source::default() })
    };
    for (rule, expected) in [
        (principals(exact("cluster.local/ns/shop/sa/curl")), true),
        (principals(exact("cluster.local/ns/shop/sa/cur")), false),
        (principals(exact("other.mesh/ns/shop/sa/curl")), false),
        (principals(any(&[prefix("cluster.local/ns/shop/")])), true),
        (principals(any(&[prefix("cluster.local/ns/sho")])), true),
        (principals(any(&[suffix("/sa/curl")])), true),
        (principals(any(&[suffix("l/ns/shop/sa/curl")])), true),
        (principals(any(&[suffix("/sa/url")])), false),
        (principals(any(&[StringMatch::Present])), true),
        (principals(none(&[StringMatch::Present])), false),
        (principals(none(&[suffix("/sa/curl")])), false),
        (principals(none(&[suffix("/sa/other")])), true),
        (namespaces(exact("shop")), true),
        (namespaces(exact("sho")), false),
        (namespaces(none(&[prefix("sh")])), false),
        (accounts(&["shop/curl"], &[]), true),
        (accounts(&["other/curl"], &[]), false),
        (accounts(&[], &["shop/curl"]), false),
        (accounts(&[], &["other/curl"]), true),
        (text(ConditionKey::SourcePrincipal, any(&[suffix("/curl")])), true),
        (text(ConditionKey::SourceNamespace, none(&[prefix("shop")])), false),
        (text(ConditionKey::SourceServiceAccount, exact("shop/curl")), true),
        (text(ConditionKey::SourceServiceAccount, exact("shop/other")), false),
        (text(ConditionKey::SourceTrustDomain, exact("cluster.local")), true),
        (text(ConditionKey::SourceTrustDomain, exact("other.mesh")), false),
    ] {
        assert_eq!(matches(&rule, &by("curl")), expected, "{rule:?}");
    }
}

#[test]
fn addresses_and_ports() {
    // The source is 10.0.9.9, the destination 10.0.0.1:8080.
    let source = |ip_blocks| from(Source { ip_blocks, ..Source::default() });
    let remote = |remote_ip_blocks| from(Source { remote_ip_blocks, ..Source::default() });
    let when = |condition| Rule { when: vec![condition], ..Rule::default() };
    let ports = |any: &[u16], none: &[u16]| Values { any: any.to_vec(), none: none.to_vec() };
    let on = |ports| to(Operation { ports, ..Operation::default() });
    let except = |blocks| Values { any: Vec::new(), none: cidrs(blocks).any };
    for (rule, expected) in [
        (source(cidrs(&["10.0.9.0/24"])), true),
        (source(cidrs(&["10.0.8.0/24"])), false),
        (source(except(&["10.0.9.9/32"])), false),
        (source(cidrs(&["::ffff:10.0.9.0/120"])), true),
        (source(cidrs(&["::/0"])), false),
        (remote(cidrs(&["10.0.9.9/32"])), true),
        (when(Condition::SourceIp(cidrs(&["10.0.9.9/32"]))), true),
        (when(Condition::RemoteIp(except(&["10.0.0.0/8"]))), false),
        (when(Condition::DestinationIp(cidrs(&["10.0.0.1/32"]))), true),
        (when(Condition::DestinationPort(ports(&[80], &[]))), false),
        (when(Condition::DestinationPort(ports(&[8080], &[]))), true),
        (on(ports(&[8080, 9090], &[])), true),
        (on(ports(&[80], &[])), false),
        (on(ports(&[], &[8080])), false),
    ] {
        assert_eq!(matches(&rule, &by("curl")), expected, "{rule:?}");
    }
}

#[test]
fn mapped_addresses_are_ipv4() {
    let rule = from(Source { ip_blocks: cidrs(&["10.0.9.0/24"]), ..Source::default() });
    let world = shop(vec![policy("p", Action::Deny, Scope::Namespace, vec![rule])]);
    let workload = world.workload_at("10.0.0.1".parse().unwrap()).unwrap();
    let connection = Connection {
        client: None,
        source: "::ffff:10.0.9.9".parse().unwrap(),
        destination: "10.0.0.1:8080".parse().unwrap(),
        server_name: None,
    };
    let gate = Gate::new(&world, workload, 8080, &Addressed::Workload);
    assert!(gate.decide(&connection, None).is_err());
}

#[test]
fn requests() {
    let of = |operation| to(operation);
    let hosts = |values| of(Operation { hosts: values, ..Operation::default() });
    let get = || by("curl").asks("GET", "/a/b?c=/d").sends("x-role", "admin");
    for (rule, expected) in [
        (of(methods("GET")), true),
        (of(methods("get")), false),
        (
            of(Operation {
                methods: none(&[StringMatch::Exact("GET".into())]),
                ..Operation::default()
            }),
            false,
        ),
        (of(paths(StringMatch::Exact("/a/b".into()))), true),
        (of(paths(prefix("/a/"))), true),
        (of(paths(suffix("/b"))), true),
        (of(paths(suffix("/d"))), false),
        (of(paths(StringMatch::Template("/a/{*}".into()))), true),
        (of(paths(StringMatch::Template("/a/{*}/c".into()))), false),
        (hosts(exact("WEB.shop")), true),
        (hosts(exact("web")), false),
        (hosts(none(&[suffix(".shop")])), false),
        (header(exact("admin")), true),
        (header(any(&[prefix("ad")])), true),
        (header(exact("Admin")), false),
        (header(any(&[StringMatch::Present])), true),
        (header(none(&[StringMatch::Present])), false),
        (
            text(
                ConditionKey::Header(HeaderName::from_static("x-none")),
                none(&[StringMatch::Present]),
            ),
            true,
        ),
        (Rule { to: vec![methods("DELETE"), methods("GET")], ..Rule::default() }, true),
        (Rule { from: vec![principal("curl")], ..to(methods("DELETE")) }, false),
    ] {
        assert_eq!(matches(&rule, &get()), expected, "{rule:?}");
    }
}

#[test]
fn a_header_sent_twice_is_one_joined_by_commas_and_each_of_them() {
    let twice = || by("curl").asks("GET", "/").sends("x-role", "a").sends("x-role", "b");
    for (value, allow, deny) in
        [("a,b", true, true), ("a", false, true), ("b", false, true), ("c", false, false)]
    {
        let rule = header(exact(value));
        assert_eq!(matches_as(Action::Allow, &rule, &twice()), allow, "ALLOW {value}");
        assert_eq!(matches_as(Action::Deny, &rule, &twice()), deny, "DENY {value}");
    }
    // A part that fits says nothing of what else was sent.
    let [a, b] = [StringMatch::Prefix("a".into()), StringMatch::Suffix("b".into())];
    for (value, other, allow) in [
        (&a, "b", false),
        (&a, "a2", true),
        (&b, "ab", false),
        (&StringMatch::Present, "b", true),
        (&StringMatch::Present, "", false),
    ] {
        let rule = header(any(std::slice::from_ref(value)));
        let twice = || by("curl").asks("GET", "/").sends("x-role", "a").sends("x-role", other);
        assert_eq!(matches_as(Action::Allow, &rule, &twice()), allow, "{value:?} {other}");
        assert!(matches_as(Action::Deny, &rule, &twice()), "{value:?} {other}");
        let rule = header(none(std::slice::from_ref(value)));
        assert_eq!(matches_as(Action::Deny, &rule, &twice()), !allow, "{value:?} {other}");
        assert!(!matches_as(Action::Allow, &rule, &twice()), "{value:?} {other}");
    }
}

#[test]
fn plaintext_itself_is_written_with_a_star() {
    for list in
        [vec![StringMatch::Present], vec![StringMatch::Exact("x".into()), StringMatch::Present]]
    {
        let rule = from(Source { principals: none(&list), ..Source::default() });
        assert!(matches(&rule, &plaintext()) && !matches(&rule, &by("curl")));
        let rule = text(ConditionKey::SourcePrincipal, none(&list));
        assert!(matches(&rule, &plaintext()) && !matches(&rule, &by("curl")));
    }
    // Trap 2 of `tests/it/traps.rs`.
    for key in [
        ConditionKey::SourceNamespace,
        ConditionKey::SourceServiceAccount,
        ConditionKey::SourceTrustDomain,
    ] {
        let rule = text(key, none(&[StringMatch::Present]));
        assert!(!matches_as(Action::Allow, &rule, &plaintext()));
        assert!(matches_as(Action::Deny, &rule, &plaintext()));
    }
}

#[test]
fn what_an_application_says_of_itself_does_not_count() {
    // Trap 25 of `tests/it/traps.rs`.
    let world =
        shop(vec![policy("p", Action::Allow, Scope::Namespace, vec![from(principal("boss"))])]);
    let attempt = by("curl")
        .asks("GET", "/")
        .sends("baggage", "k8s.namespace.name=shop,service.name=boss")
        .sends("forwarded", "for=10.0.0.7;host=web.shop.svc.cluster.local")
        .sends("x-forwarded-for", "10.0.0.7")
        .sends("x-istio-source", "boss");
    assert!(!attempt.passes(&world));
}
