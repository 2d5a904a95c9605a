//! The index against the evaluation of every rule, over policies and requests made of pieces that meet often.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::json;

use super::*;
use crate::base::{Identity, ObjectKey};
use crate::jwt::fixture::Issuer;
use crate::model::{
    Action, AuthorizationPolicy, Cidr, Condition, ConditionKey, Operation, Rule, Scope, Served,
    Source, TokenText, Values,
};
use crate::policy::bearer::Verified;
use crate::policy::facts::Principals;
use crate::policy::{Connection, Guard, PolicySet, Request, rule, values};
use crate::world::fixture::service;

const TEXTS: [&str; 12] =
    ["a", "ab", "b", "*", "a*", "ab*", "*b", "*ab", "x,y", "*y", "https://i/s", "GET"];
const PRINCIPALS: [&str; 9] = [
    "td/ns/a/sa/b",
    "td/ns/a/sa/ab",
    "td/ns/b/sa/b",
    "other/ns/a/sa/b",
    "td/ns/a/*",
    "td/*",
    "*/sa/b",
    "*",
    "nobody",
];
const PATHS: [&str; 22] = [
    "/a",
    "/a/b",
    "/a*",
    "/a/*",
    "*b",
    "*/b",
    "/*",
    "*",
    "/a/{*}",
    "/a/{*}/b",
    "/{*}/b",
    "/{**}",
    "/a/{**}",
    "/{**}/b",
    "/a/{**}/b",
    "/{*}/a/{**}/b/",
    "/a%2Fb",
    "/a%41",
    "/a//b",
    "/a;b",
    "/a/b/",
    "/%61*",
];
const REQUESTED: [&str; 24] = [
    "/a",
    "/a/b",
    "/a/b/",
    "/a/x/b",
    "/x/b",
    "/a/a/b/",
    "/",
    "",
    "*",
    "/a?b=/c",
    "/a%2Fb",
    "/aA",
    "/a%41",
    "/%61",
    "/a//b",
    "//a",
    "/a;b",
    "/a/../b",
    "/a/%2e%2e/b",
    "/a\\b",
    "/a%00",
    "/a%",
    "/x;/..//b",
    "/a/b#c",
];
const HOSTS: [&str; 17] = [
    "a.b", "A.b", "a.b:80", "a.b.", "a.b.:80", "*.b", "*.B:80", "*b", "a.*", "a*", "a.b:8*",
    "a.b.*", "*0", "*:80", "*", "[::1]", "x@a.b",
];
const ASKED: [&str; 20] = [
    "a.b",
    "A.B",
    "a.b:80",
    "a.b.",
    "a.b.:80",
    "a.b:",
    "x@a.b",
    "x:y@a.b:80",
    "[::1]",
    "[0::1]:80",
    "",
    "b",
    "x.a.b",
    "a.b:8080",
    "a.b..",
    "a.b.:",
    "a:80.",
    "a",
    "a.b@x",
    ".b",
];
const BLOCKS: [&str; 12] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.3",
    "10.0.0.0/9",
    "0.0.0.0/0",
    "::/0",
    "::ffff:10.1.0.0/112",
    "::ffff:0:0/96",
    "::ffff:0:0/95",
    "2001:db8::/32",
    "2001:db8::1",
    "10.2.0.0/16",
];
const ADDRESSES: [&str; 8] = [
    "10.1.2.3",
    "10.1.255.255",
    "10.2.0.0",
    "10.200.0.1",
    "192.0.2.1",
    "::ffff:10.1.2.3",
    "2001:db8::1",
    "2001:db9::",
];

fn values<T: Clone + std::fmt::Debug + 'static>(
    texts: &'static [&'static str],
    read: fn(&str) -> Result<T, String>,
) -> impl Strategy<Value = Values<T>> {
    let read = move |texts: Vec<&str>| -> Vec<T> {
        texts.into_iter().filter_map(|text| read(text).ok()).collect()
    };
    let any = prop_oneof![4 => Just(Vec::new()), 3 => subsequence(texts, 0..3)].prop_map(read);
    let none = prop_oneof![9 => Just(Vec::new()), 1 => subsequence(texts, 0..2)].prop_map(read);
    (any, none).prop_map(|(any, none)| Values { any, none })
}

fn account(text: &str) -> Result<ObjectKey, String> {
    values::service_account(&"a".into(), text)
}

fn sources() -> impl Strategy<Value = Source> {
    let who = (
        values(&PRINCIPALS, values::principal),
        values(&TEXTS, values::text),
        values(&["b", "a/b", "b/b"], account),
        values(&["td", "t*", "*r"], values::text),
    );
    let from = (
        values(&BLOCKS, values::cidr),
        values(&BLOCKS, values::cidr),
        values(&TEXTS, values::text),
    );
    (who, from).prop_map(
        |(
            (principals, namespaces, service_accounts, trust_domains),
            (ip_blocks, remote_ip_blocks, request_principals),
        )| Source {
            principals,
            namespaces,
            service_accounts,
            trust_domains,
            ip_blocks,
            remote_ip_blocks,
            request_principals,
        },
    )
}

fn operations() -> impl Strategy<Value = Operation> {
    (
        values(&["80", "8080", "81"], values::port),
        values(&HOSTS, values::text),
        values(&["GET", "P*", "*T", "*"], values::text),
        values(&PATHS, values::path),
    )
        .prop_map(|(ports, hosts, methods, paths)| Operation { ports, hosts, methods, paths })
}

fn conditions() -> impl Strategy<Value = Condition> {
    let header = |name: &'static str| ConditionKey::Header(HeaderName::from_static(name));
    let claim = |name: &str| ConditionKey::Token(TokenText::Claim(vec![name.into()]));
    // More headers and claims than are looked up.
    let keys = vec![
        ConditionKey::SourceNamespace,
        ConditionKey::SourceTrustDomain,
        ConditionKey::ServerName,
        header("x-a"),
        header("x-b"),
        header("x-c"),
        header("x-d"),
        header("x-e"),
        header("x-f"),
        header("x-g"),
        header("x-h"),
        header("x-i"),
        header("host"),
        ConditionKey::Token(TokenText::Principal),
        ConditionKey::Token(TokenText::Audiences),
        claim("groups"),
        claim("name"),
    ];
    let texts = (select(keys), values(&TEXTS, values::text));
    let principals = values(&PRINCIPALS, values::principal);
    let accounts = values(&["a/b", "b/ab"], values::text);
    let text = |key, values| Condition::Text { key, values };
    prop_oneof![
        1 => values(&BLOCKS, values::cidr).prop_map(Condition::SourceIp),
        1 => values(&BLOCKS, values::cidr).prop_map(Condition::DestinationIp),
        1 => values(&["80", "8080"], values::port).prop_map(Condition::DestinationPort),
        1 => principals.prop_map(move |values| text(ConditionKey::SourcePrincipal, values)),
        1 => accounts.prop_map(move |values| text(ConditionKey::SourceServiceAccount, values)),
        8 => texts.prop_map(move |(key, values)| text(key, values)),
    ]
}

fn rules() -> impl Strategy<Value = Rule> {
    let from = prop::collection::vec(sources(), 0..3);
    let to = prop::collection::vec(operations(), 0..3);
    let when = prop::collection::vec(conditions(), 0..2);
    (from, to, when).prop_map(|(from, to, when)| Rule { from, to, when })
}

fn policies() -> impl Strategy<Value = Vec<AuthorizationPolicy>> {
    let actions = vec![Action::Allow, Action::Deny, Action::Audit];
    let one = (select(actions), prop::collection::vec(rules(), 0..4), prop::bool::weighted(0.2));
    prop::collection::vec(one, 1..30).prop_map(|all| {
        let named = all.into_iter().enumerate();
        let policies = named.map(|(number, (action, rules, dry_run))| AuthorizationPolicy {
            key: ObjectKey::new("a", format!("p{number}")),
            action,
            scope: Scope::Namespace,
            rules,
            dry_run,
            broken: None,
            provider: None,
        });
        policies.collect()
    })
}

/// What is asked, and by whom.
#[derive(Clone, Debug)]
struct Asked {
    client: Option<Identity>,
    waypoint: bool,
    source: IpAddr,
    dialled: Vec<u16>,
    method: Method,
    path: &'static str,
    host: &'static str,
    headers: HeaderMap,
    token: Option<usize>,
    is_http: bool,
}

fn identities() -> impl Strategy<Value = Option<Identity>> {
    let names = || select(vec!["a", "b", "ab"]);
    let who = (select(vec!["td", "other"]), names(), names());
    prop::option::weighted(0.8, who.prop_map(|(td, ns, sa)| Identity::new(td, ns, sa)))
}

fn asked() -> impl Strategy<Value = Asked> {
    let header = (
        select(vec!["x-a", "x_a", "x-b", "x-c", "x-i", "host"]),
        select(vec!["a", "ab", "b", "x", "y", "x,y", ""]),
    );
    let headers = prop::collection::vec(header, 0..5).prop_map(|all| {
        let pair = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut map = HeaderMap::new();
        for (name, value) in all.into_iter().map(pair) {
            map.append(name, value);
        }
        map
    });
    let connection = (
        identities(),
        any::<bool>(),
        select(&ADDRESSES[..]).prop_map(|text| text.parse().unwrap()),
        prop::collection::vec(select(vec![80u16, 81]), 0..2),
    );
    let request = (
        select(vec![Method::GET, Method::POST, Method::PUT]),
        select(&REQUESTED[..]),
        select(&ASKED[..]),
        headers,
        prop::option::of(0..2usize),
        prop::bool::weighted(0.9),
    );
    (connection, request).prop_map(
        |((client, waypoint, source, dialled), (method, path, host, headers, token, is_http))| {
            let waypoint = waypoint && client.is_some();
            Asked { client, waypoint, source, dialled, method, path, host, headers, token, is_http }
        },
    )
}

/// Of two bearers.
static TOKENS: LazyLock<[Verified; 2]> = LazyLock::new(|| {
    let issuer = Issuer::new("k");
    let claims = [
        json!({"iss": "https://i", "sub": "s", "aud": ["a", "b"], "groups": ["ab", "y"]}),
        json!({"iss": "i", "aud": "ab", "name": "b"}),
    ];
    claims.map(|claims| Verified::unchecked(&issuer.token(&claims)))
});

/// Runs a check with the facts of what is asked.
fn with_facts<T>(asked: &Asked, set: &Arc<PolicySet>, run: impl FnOnce(&Facts<'_>) -> T) -> T {
    let destination: SocketAddr = "10.1.2.3:8080".parse().unwrap();
    let (client, source) = (asked.client.as_ref(), asked.source);
    let server_name = (!asked.is_http).then_some("ab");
    let connection = Connection { client, source, destination, server_name };
    let request = Request {
        method: &asked.method,
        path: asked.path,
        host: asked.host,
        headers: &asked.headers,
    };
    let waypoint = Identity::new("td", "b", "b");
    let service = Arc::new(service("web", "10.2.0.0", &[]));
    let served = |port: &u16| Served { service: service.clone(), service_port: *port };
    let guard = Guard::new(set.clone(), &|| asked.dialled.iter().map(served).collect());
    let mut facts = Facts::new(&connection, Some(&request).filter(|_| asked.is_http));
    facts.principals =
        Principals { client: asked.client.as_ref(), waypoint: asked.waypoint.then_some(&waypoint) };
    facts.destination = guard.destination(destination);
    if let Some(token) = asked.token {
        facts.bearer = Bearer::Known(&TOKENS[token]);
    }
    run(&facts)
}

/// Every unit that matches, with the index and without.
fn matching(
    policies: &[Arc<AuthorizationPolicy>],
    refuses: bool,
    facts: &Facts<'_>,
) -> [Vec<(u32, u32)>; 2] {
    let index = Index::of(policies, refuses);
    let matches = |(policy, rule): &(u32, u32)| {
        rule::matches(&policies[*policy as usize].rules[*rule as usize], facts, refuses)
    };
    let mut seen = Vec::new();
    let all_seen = each(&index, facts, refuses, |unit| {
        seen.push((unit.policy, unit.rule));
        ControlFlow::Continue(())
    });
    assert!(all_seen.is_continue());
    seen.retain(matches);
    seen.sort_unstable();
    seen.dedup();
    let numbered = policies.iter().zip(0u32..);
    let all = numbered
        .flat_map(|(policy, at)| (0u32..).zip(&policy.rules).map(move |(rule, _)| (at, rule)));
    [seen, all.filter(matches).collect()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_index_leaves_out_nothing_that_matches(
        policies in policies(),
        asked in prop::collection::vec(asked(), 1..12),
    ) {
        let policies: Vec<_> = policies.into_iter().map(Arc::new).collect();
        let plain: Arc<PolicySet> = Arc::new(policies.iter().cloned().collect());
        let indexed: Arc<PolicySet> = Arc::new(policies.iter().cloned().collect());
        indexed.prepare();
        for asked in &asked {
            for refuses in [false, true] {
                let [seen, all] = with_facts(asked, &plain, |facts| matching(&policies, refuses, facts));
                prop_assert_eq!(seen, all, "{} {:?}", refuses, asked);
            }
            // Which one of several policies is named may differ, and nothing else.
            let decided = |set: &Arc<PolicySet>| with_facts(asked, set, |facts| {
                let mut notes = Vec::new();
                let decided = set.decide(facts, &mut notes);
                (decided.map(|by| by.is_some()).map_err(|_| ()), notes.len())
            });
            prop_assert_eq!(decided(&plain), decided(&indexed), "{:?}", asked);
        }
    }

    #[test]
    fn hosts_of_any_spelling_are_found(value in "[aA0.:*@\\[]{1,5}", host in "[aA0.:@\\[]{0,6}") {
        let Ok(value) = values::text(&value) else { return Ok(()) };
        let values = Values { any: vec![value], none: Vec::new() };
        found(Operation { hosts: values, ..Operation::default() }, "/", &host)?;
    }

    #[test]
    fn paths_of_any_spelling_are_found(value in "/([ab]|%61|%2F|/|;|\\.){0,4}\\*?", path in "/([ab]|%61|%2F|/|;|\\.|%){0,6}") {
        let Ok(value) = values::path(&value) else { return Ok(()) };
        let values = Values { any: vec![value], none: Vec::new() };
        found(Operation { paths: values, ..Operation::default() }, &path, "a")?;
    }

    #[test]
    fn templates_are_found(
        value in "(/(a|b|ab|\\{\\*\\})){0,3}(/\\{\\*\\*\\}(/(a|b)){0,2})?/?",
        path in "(/(a|b|ab)?){1,6}",
    ) {
        let Ok(value) = values::path(&value) else { return Ok(()) };
        let values = Values { any: vec![value], none: Vec::new() };
        found(Operation { paths: values, ..Operation::default() }, &path, "a")?;
    }
}

/// An operation is found for a request exactly when it matches.
fn found(operation: Operation, path: &str, host: &str) -> Result<(), TestCaseError> {
    let rules = vec![Rule { to: vec![operation], ..Rule::default() }];
    let policy = AuthorizationPolicy {
        key: ObjectKey::new("a", "p"),
        action: Action::Deny,
        scope: Scope::Namespace,
        rules,
        dry_run: false,
        broken: None,
        provider: None,
    };
    let policies = [Arc::new(policy)];
    let connection = Connection {
        client: None,
        source: "10.0.0.1".parse().unwrap(),
        destination: "10.1.2.3:8080".parse().unwrap(),
        server_name: None,
    };
    let headers = HeaderMap::new();
    let request = Request { method: &Method::GET, path, host, headers: &headers };
    let facts = Facts::new(&connection, Some(&request));
    for refuses in [false, true] {
        let [seen, all] = matching(&policies, refuses, &facts);
        prop_assert_eq!(seen, all, "{} {:?} {} {}", refuses, &policies[0].rules, path, host);
    }
    Ok(())
}

/// A rule by its number, of policies that differ in what the name says.
type Sort<'a> = (&'static str, Box<dyn Fn(u32) -> Rule + 'a>);

/// Of a thousand policies that differ in one thing, one is looked at.
#[test]
fn what_tells_policies_apart_is_what_they_are_filed_by() {
    let text = |text: String| vec![values::text(&text).unwrap()];
    let path = |text: String| vec![values::path(&text).unwrap()];
    let any = |any| Values { any, none: Vec::new() };
    let from = |source| Rule { from: vec![source], ..Rule::default() };
    let to = |operation| Rule { to: vec![operation], ..Rule::default() };
    let source = Source::default;
    let operation = Operation::default;
    let sorts: [Sort; 9] = [
        (
            "principals",
            Box::new(|n| {
                from(Source { principals: any(text(format!("td/ns/a/sa/s{n}"))), ..source() })
            }),
        ),
        (
            "namespaces",
            Box::new(|n| from(Source { namespaces: any(text(format!("n{n}"))), ..source() })),
        ),
        (
            "addresses",
            Box::new(|n| {
                let block: Cidr = format!("10.{}.{}.0/24", n / 256, n % 256).parse().unwrap();
                let ip_blocks = Values { any: vec![block], none: Vec::new() };
                from(Source { ip_blocks, ..source() })
            }),
        ),
        (
            "paths",
            Box::new(|n| to(Operation { paths: any(path(format!("/items/{n}"))), ..operation() })),
        ),
        (
            "prefixes",
            Box::new(|n| {
                to(Operation { paths: any(path(format!("/items/{n}/*"))), ..operation() })
            }),
        ),
        (
            "suffixes",
            Box::new(|n| to(Operation { paths: any(path(format!("*/{n}"))), ..operation() })),
        ),
        (
            "templates",
            Box::new(|n| {
                to(Operation {
                    paths: any(path(format!("/items/{{*}}/{n}/{{**}}"))),
                    ..operation()
                })
            }),
        ),
        (
            "hosts",
            Box::new(|n| {
                to(Operation { hosts: any(text(format!("h{n}.example"))), ..operation() })
            }),
        ),
        (
            "headers",
            Box::new(|n| {
                let key = ConditionKey::Header(HeaderName::from_static("x-tenant"));
                let values = any(text(format!("t{n}")));
                Rule { when: vec![Condition::Text { key, values }], ..Rule::default() }
            }),
        ),
    ];
    let client = Identity::new("td", "a", "s7");
    let in_seven = Identity::new("td", "n7", "s");
    let mut headers = HeaderMap::new();
    headers.insert("x-tenant", HeaderValue::from_static("t7"));
    for (sort, rule_of) in &sorts {
        let policy = |n| AuthorizationPolicy {
            key: ObjectKey::new("a", format!("p{n}")),
            action: Action::Allow,
            scope: Scope::Namespace,
            rules: vec![rule_of(n)],
            dry_run: false,
            broken: None,
            provider: None,
        };
        let policies: Vec<_> = (0..1000).map(|n| Arc::new(policy(n))).collect();
        let index = Index::of(&policies, false);
        let connection = Connection {
            client: Some(if *sort == "namespaces" { &in_seven } else { &client }),
            source: "10.0.7.1".parse().unwrap(),
            destination: "10.1.2.3:8080".parse().unwrap(),
            server_name: None,
        };
        let path = match *sort {
            "paths" => "/items/7",
            "suffixes" => "/x/7",
            "templates" => "/items/x/7/y",
            _ => "/items/7/y",
        };
        let request =
            Request { method: &Method::GET, path, host: "h7.example:80", headers: &headers };
        let facts = Facts::new(&connection, Some(&request));
        let mut seen = Vec::new();
        let _ = each(&index, &facts, false, |unit| {
            seen.push(unit.policy);
            ControlFlow::Continue(())
        });
        assert_eq!(seen, [7], "{sort}");
        assert!(rule::matches(&policies[7].rules[0], &facts, false), "{sort}");
    }
}
