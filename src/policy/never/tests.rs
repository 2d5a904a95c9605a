use super::super::values;
use super::*;

const ALLOW: Role = Role { action: Action::Allow, negative: false };
const DENY: Role = Role { action: Action::Deny, negative: false };

fn domains() -> TrustDomains {
    TrustDomains::new("cluster.local".into(), &["old.mesh".into()])
}

/// Which of the values are complained of.
fn table(
    values: &[(&str, bool)],
    read: fn(&str) -> Result<StringMatch, String>,
    why_never: impl Fn(&StringMatch) -> Option<String>,
) {
    for (text, expected) in values {
        let value = read(text).unwrap();
        let said = why_never(&value);
        assert_eq!(said.is_some(), *expected, "{text:?}: {said:?}");
    }
}

#[test]
fn methods() {
    let values = [
        ("GET", false),
        ("get", true),
        ("Post", true),
        ("ge*", true),
        ("*ost", true),
        ("G*", false),
        ("*", false),
        ("GET ", true),
        ("GET,POST", true),
        ("PROPFIND", false),
        ("my-own", false),
    ];
    table(&values, values::text, |it| method(it, DENY));
    assert!(method(&StringMatch::Exact("CONNECT".into()), ALLOW).is_some());
    assert!(method(&StringMatch::Exact("CONNECT".into()), DENY).is_none());
}

#[test]
fn hosts() {
    let values = [
        ("a.example", false),
        ("A.Example", false),
        ("a.example:8080", false),
        ("a.example:*", false),
        ("*.example", false),
        ("*:8080", false),
        ("a.*", false),
        ("details.", false),
        ("[::1]:80", false),
        ("[::1]", false),
        ("http://a.example", true),
        ("a.example/", true),
        ("a.example/path*", true),
        ("a.*.example", true),
        ("a example", true),
        ("caf\u{e9}.example", true),
        ("a..example", true),
        (".example", true),
        ("a.example:", true),
        ("a.example:http", true),
        ("a.example:0", true),
        ("a.example:080", true),
        ("a.example:65536", true),
        ("user@a.example", true),
        ("10.0.0.1:80", false),
        ("1.example", false),
        ("a.0x", false),
        ("010.0.0.1", true),
        ("10.1", true),
        ("0x7f000001", true),
        ("10.0.0.256", true),
        ("fd10::1", true),
        ("[fd10::1", true),
        ("[a.example]", true),
        ("a[0]", true),
    ];
    table(&values, values::text, host);
}

#[test]
fn paths() {
    let values = [
        ("/a", false),
        ("/a*", false),
        ("*.html", false),
        ("*", false),
        ("/{*}/b", false),
        ("{**}/b", false),
        ("a", true),
        ("api/*", true),
        ("{*}/b", true),
        ("/a?b=c", true),
        ("/a?*", true),
        ("*?b", true),
        ("/a#b", true),
        ("/a/*/b", true),
        ("/caf\u{e9}", false),
        ("/a%20b", false),
    ];
    table(&values, values::path, |value| path(value, ALLOW));
    table(&values, values::path, |value| path(value, DENY));
    table(&[("/a b", true)], values::path, |value| path(value, ALLOW));
    // A DENY sees what is decoded.
    table(&[("/a b", false)], values::path, |value| path(value, DENY));
}

#[test]
fn principals_namespaces_and_trust_domains() {
    let values = [
        ("cluster.local/ns/shop/sa/web", false),
        ("old.mesh/ns/shop/sa/web", false),
        ("spiffe://cluster.local/ns/shop/sa/web", false),
        ("*", false),
        ("cluster.local/*", false),
        ("cluster*", false),
        ("cluster.local/n*", false),
        ("cluster.local/ns/shop/*", false),
        ("cluster.local/ns/shop/sa/w*", false),
        ("*/sa/web", false),
        ("*/ns/shop/sa/web", false),
        ("*eb", false),
        ("cluster.local/sa/web", true),
        ("shop/web", true),
        ("web", true),
        ("cluster.local/ns/shop/web", true),
        ("cluster.local/ns/shop/sa/web/x", true),
        ("other.mesh/ns/shop/sa/web", true),
        ("other*", true),
        ("cluster.local/sa/*", true),
        ("cluster.local/ns/Shop/*", true),
        ("cluster.local/ns/shop/sa/", true),
        ("*/ns/web", true),
        ("*/a/b/c/d/e/f", true),
        ("spiffe://other/*", true),
    ];
    table(&values, values::principal, |value| principal(value, DENY, &domains()));
    let namespaces =
        [("shop", false), ("sh*", false), ("Shop", true), ("shop/web", true), ("a_b", true)];
    table(&namespaces, values::text, namespace);
    let trust = [
        ("cluster.local", false),
        ("old*", false),
        ("*", false),
        ("cluster", true),
        ("*.org", true),
    ];
    table(&trust, values::text, |value| trust_domain(value, DENY, &domains()));
    let except = Role { negative: true, ..DENY };
    let foreign = [("other.mesh", false)];
    table(&foreign, values::text, |value| trust_domain(value, except, &domains()));
    let foreign = [("other.mesh/ns/shop/sa/web", false), ("other.mesh/web", true)];
    table(&foreign, values::principal, |value| principal(value, except, &domains()));
}

#[test]
fn blocks_and_headers() {
    for (text, expected) in [
        ("10.0.0.0/8", false),
        ("0.0.0.0/0", false),
        ("::/0", false),
        ("169.254.0.0/16", false),
        ("0.0.0.0", true),
        ("::", true),
        ("127.0.0.1", true),
        ("::1", true),
        ("224.0.0.0/4", true),
        ("255.255.255.255", true),
        ("ff02::/16", true),
    ] {
        assert_eq!(block(&values::cidr(text).unwrap(), DENY).is_some(), expected, "{text}");
    }
    let values = [
        ("a", false),
        ("a b", false),
        (" a", true),
        ("a ", true),
        ("a *", false),
        ("a\u{1}", true),
    ];
    table(&values, values::text, header);
}

#[test]
fn what_follows_depends_on_the_action_and_the_list() {
    let rule = |operation| Rule { to: vec![operation], ..Rule::default() };
    let methods = |any: &[&str], none: &[&str]| {
        let values =
            |texts: &[&str]| texts.iter().map(|it| StringMatch::Exact((*it).into())).collect();
        let methods = Values { any: values(any), none: values(none) };
        rule(Operation { methods, ..Operation::default() })
    };
    for (action, rule, field, outcome) in [
        (Action::Allow, methods(&["get"], &[]), "methods", "it allows nothing"),
        (Action::Allow, methods(&[], &["get"]), "notMethods", "what it was to keep out is allowed"),
        (Action::Deny, methods(&["get"], &[]), "methods", "what it was to refuse gets through"),
        (Action::Deny, methods(&[], &["get"]), "notMethods", "it exempts nothing"),
    ] {
        let found = complaints(action, &[rule], &domains());
        let [(place, reason)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(*place, format!("spec.rules[0].to[0].operation.{field}"));
        assert!(reason.contains(outcome), "{reason}");
    }
    let many: Vec<Rule> = (0..30).map(|_| methods(&["get"], &[])).collect();
    let found = complaints(Action::Deny, &many, &domains());
    assert_eq!(found.len(), MOST + 1);
    assert_eq!(found[MOST].1, "10 more values can never match");
}
