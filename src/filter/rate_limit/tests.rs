use http::{Method, Uri};
use serde_json::{Value, json};

use super::*;
use std::borrow::Cow;

use http::{HeaderMap, HeaderValue};

use crate::base::Identity;
use crate::filter::Claims;

struct Nothing;

impl RuleContext for Nothing {
    fn policy(&self) -> ObjectKey {
        ObjectKey::new("shop", "p")
    }
}

fn read(local: Value) -> Result<RateLimit, Fault> {
    read_all(json!({ "local": local }))
}

fn read_all(written: Value) -> Result<RateLimit, Fault> {
    let written: Written = serde_json::from_value(written).unwrap();
    RateLimit::read(&written, &Nothing)
}

/// The claim `group` of a token.
struct Group(&'static [&'static str]);

impl Claims for Group {
    fn texts(&self, path: &str) -> Vec<Cow<'_, str>> {
        assert_eq!(path, "group");
        self.0.iter().map(|text| (*text).into()).collect()
    }
}

/// Of a request, what a limit may look at.
struct Sent {
    user: &'static str,
    account: (&'static str, &'static str),
    address: &'static str,
    route: usize,
    group: &'static [&'static str],
    target: &'static str,
}

const SENT: Sent = Sent {
    user: "a",
    account: ("ns", "one"),
    address: "10.0.0.1",
    route: 0,
    group: &[],
    target: "/",
};

fn send(limit: &RateLimit, sent: &Sent) -> Flow {
    let identity = Identity::new("td", sent.account.0, sent.account.1);
    let user = (HeaderName::from_static("x-user"), HeaderValue::from_static(sent.user));
    let mut headers = HeaderMap::from_iter([user]);
    let uri = Uri::from_static(sent.target);
    let mut head = RequestHead { method: &Method::GET, uri: &uri, headers: &mut headers };
    let (address, route) = (sent.address.parse().unwrap(), ObjectKey::new("shop", "r"));
    let (group, route) = (Group(sent.group), Some((&route, sent.route)));
    let claims: Option<&dyn Claims> = if sent.group.is_empty() { None } else { Some(&group) };
    let identity = Some(&identity);
    let cx = Cx { identity, address, route, claims, ..Cx::fixture() };
    limit.request(&mut head, &cx)
}

/// A request of this user, by this account, to this pod.
fn pass(limit: &RateLimit, user: &'static str, account: &str, pod: &str) -> Flow {
    let identity = Identity::new("td", "ns", account);
    let user = (HeaderName::from_static("x-user"), HeaderValue::from_static(user));
    let mut headers = HeaderMap::from_iter([user]);
    let uri = Uri::from_static("/");
    let mut head = RequestHead { method: &Method::GET, uri: &uri, headers: &mut headers };
    let cx = Cx { identity: Some(&identity), pod, ..Cx::fixture() };
    limit.request(&mut head, &cx)
}

fn is_next(flow: &Flow) -> bool {
    !matches!(flow, Flow::Answer(_))
}

#[test]
fn refuses_with_what_the_client_can_know() {
    let limit = read(json!({"requests": 2, "interval": "1h", "burst": 3})).unwrap();
    for _ in 0..3 {
        assert!(is_next(&pass(&limit, "a", "one", "pod")));
    }
    let Flow::Answer(answer) = pass(&limit, "b", "two", "pod") else { panic!("it is refused") };
    assert_eq!((answer.status.as_u16(), answer.reason), (429, Reason::RateLimited));
    assert_eq!(answer.grpc, Some(RESOURCE_EXHAUSTED));
    assert!(answer.why.contains("shop/p"), "{}", answer.why);
    let said = |name: &str| answer.headers[name].to_str().unwrap().parse::<u64>().unwrap();
    assert_eq!((said("x-ratelimit-limit"), said("x-ratelimit-remaining")), (3, 0));
    assert!((1790..=1800).contains(&said("retry-after")), "half an hour for one of two an hour");
    assert!((5390..=5400).contains(&said("x-ratelimit-reset")), "for all three");
    assert!(is_next(&pass(&limit, "a", "one", "another pod")), "each pod counts for itself");
}

#[test]
fn keys_tell_requests_apart() {
    let both = json!([{"type": "Namespace"}, {"type": "Address", "ipv4PrefixLength": 24}]);
    for (keys, other, same) in [
        (
            json!([{"type": "Header", "header": "x-user"}]),
            Sent { user: "b", ..SENT },
            Sent { route: 1, ..SENT },
        ),
        (
            json!([{"type": "Identity"}]),
            Sent { account: ("ns", "two"), ..SENT },
            Sent { user: "b", ..SENT },
        ),
        (
            json!([{"type": "Namespace"}]),
            Sent { account: ("other", "one"), ..SENT },
            Sent { account: ("ns", "two"), ..SENT },
        ),
        (
            json!([{"type": "Address"}]),
            Sent { address: "10.0.0.2", ..SENT },
            Sent { user: "b", ..SENT },
        ),
        (
            json!([{"type": "Route"}]),
            Sent { route: 1, ..SENT },
            Sent { address: "10.0.0.2", ..SENT },
        ),
        (
            json!([{"type": "Claim", "claim": "group"}]),
            Sent { group: &["g"], ..SENT },
            Sent { user: "b", ..SENT },
        ),
        (
            both.clone(),
            Sent { account: ("other", "one"), ..SENT },
            Sent { address: "10.0.0.9", ..SENT },
        ),
        (both, Sent { address: "10.0.1.1", ..SENT }, Sent { user: "b", ..SENT }),
    ] {
        let limit = read(json!({"requests": 1, "interval": "1h", "keys": keys})).unwrap();
        assert!(is_next(&send(&limit, &SENT)));
        assert!(is_next(&send(&limit, &other)), "{keys}");
        assert!(!is_next(&send(&limit, &same)), "{keys}");
        assert_eq!(limit.reads_claims(), keys[0]["type"] == "Claim");
    }
}

#[test]
fn what_others_refuse_takes_nothing() {
    let all = |requests| json!({"requests": requests, "interval": "1h"});
    let of_user =
        json!({"requests": 1, "interval": "1h", "keys": [{"type": "Header", "header": "x-user"}]});
    let limits =
        json!({"limits": [{"name": "all", "local": all(3)}, {"name": "user", "local": of_user}]});
    let limit = read_all(limits).unwrap();
    assert!(is_next(&send(&limit, &SENT)));
    for _ in 0..5 {
        let Flow::Answer(answer) = send(&limit, &SENT) else { panic!("one of a user") };
        assert!(answer.why.contains("the limit user of"), "{}", answer.why);
    }
    assert!(is_next(&send(&limit, &Sent { user: "b", ..SENT })), "a's refusals took none from all");
    assert!(is_next(&send(&limit, &Sent { user: "c", ..SENT })));
    let Flow::Answer(answer) = send(&limit, &Sent { user: "d", ..SENT }) else {
        panic!("three of all")
    };
    assert!(answer.why.contains("the limit all of"), "{}", answer.why);
}

#[test]
fn a_limit_counts_what_it_matches() {
    let local = json!({"requests": 1, "interval": "1h", "matches": [{"path": {"value": "/a"}}]});
    let limit = read(local).unwrap();
    assert!(is_next(&send(&limit, &Sent { target: "/a/x", ..SENT })));
    assert!(is_next(&send(&limit, &SENT)), "another path");
    assert!(!is_next(&send(&limit, &Sent { target: "/x/../a", ..SENT })));
}

#[test]
fn a_response_costs_what_it_says_within_bounds() {
    for (told, max, left) in [
        (&["3"][..], 100, 7),
        (&["2", "3"], 100, 5),
        (&["many"], 4, 6),
        (&["-1"], 4, 6),
        (&["18446744073709551615", "1"], 4, 6),
        (&["0"], 4, 10),
        (&[], 4, 10),
        (&["10"], 100, 0),
    ] {
        let cost = json!({"request": 0, "response": {"header": "x-tokens", "max": max}});
        let limit = read(json!({"requests": 10, "interval": "24h", "cost": cost})).unwrap();
        let Flow::Pass(passing) = send(&limit, &SENT) else { panic!("it is to be charged") };
        let mut headers = HeaderMap::new();
        told.iter().for_each(|text| _ = headers.append("x-tokens", text.parse().unwrap()));
        passing.charges.unwrap().settle(&headers);
        let mut tokens = read(json!({"requests": 10, "interval": "24h"})).unwrap();
        tokens.inherit(&limit);
        let found = (0..20).filter(|_| is_next(&send(&tokens, &SENT)));
        assert_eq!(found.count(), left, "{told:?} {max}");
    }
}

#[test]
fn a_bucket_owes_what_responses_cost_beyond_it() {
    for (tokens, hours) in [("9", 1), ("19", 11), ("1000", 22)] {
        let cost = json!({"response": {"header": "x-tokens", "max": 30}});
        let limit = read(json!({"requests": 10, "interval": "10h", "cost": cost})).unwrap();
        let Flow::Pass(passing) = send(&limit, &SENT) else { panic!("tokens are left") };
        let told = (HeaderName::from_static("x-tokens"), HeaderValue::from_static(tokens));
        passing.charges.unwrap().settle(&HeaderMap::from_iter([told]));
        let Flow::Answer(answer) = send(&limit, &SENT) else { panic!("nothing is left") };
        let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        // A margin for the time that the test takes.
        assert!((hours * 3600 - 60..=hours * 3600).contains(&wait), "{tokens}: {wait}");
    }
}

#[test]
fn clients_are_told_in_the_fields_that_the_policy_says() {
    let of = |headers: &str| {
        let local = json!({"requests": 2, "interval": "1h"});
        read_all(json!({"headers": headers, "limits": [{"name": "a", "local": local}]})).unwrap()
    };
    for (style, with_pass, with_refusal) in [
        (
            "XRateLimit",
            &[][..],
            &["retry-after", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"][..],
        ),
        (
            "RateLimit",
            &["ratelimit-policy", "ratelimit"],
            &["retry-after", "ratelimit-policy", "ratelimit"],
        ),
        (
            "Both",
            &["ratelimit-policy", "ratelimit"],
            &[
                "retry-after",
                "x-ratelimit-limit",
                "x-ratelimit-remaining",
                "x-ratelimit-reset",
                "ratelimit-policy",
                "ratelimit",
            ],
        ),
        ("None", &[], &["retry-after"]),
    ] {
        let limit = of(style);
        let passed = match send(&limit, &SENT) {
            Flow::Pass(passing) => passing.headers,
            _ => HeaderMap::new(),
        };
        assert!(is_next(&send(&limit, &SENT)));
        let Flow::Answer(answer) = send(&limit, &SENT) else { panic!("it is refused") };
        for (headers, expected) in [(&passed, with_pass), (&answer.headers, with_refusal)] {
            let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
            let mut expected = expected.to_vec();
            names.sort();
            expected.sort();
            assert_eq!(names, expected, "{style}");
        }
        if let Some(state) = passed.get("ratelimit") {
            assert_eq!(state, "\"a\";r=1;t=1800");
            assert_eq!(passed["ratelimit-policy"], "\"a\";q=2;w=3600");
            let wait = answer.headers["retry-after"].to_str().unwrap();
            assert_eq!(
                answer.headers["ratelimit"],
                format!("\"a\";r=0;t={wait}"),
                "the same moment"
            );
        }
    }
}

#[test]
fn in_shadow_mode_it_only_says_so() {
    let limit = read(json!({"requests": 1, "interval": "1h", "shadowMode": true})).unwrap();
    assert!(is_next(&pass(&limit, "a", "one", "pod")));
    let Flow::Pass(passing) = pass(&limit, "a", "one", "pod") else { panic!("it is noted") };
    assert_eq!(passing.notes[0].to_string(), "shop/p=would_limit");
}

#[test]
fn an_edit_does_not_fill_buckets() {
    let limit = |requests| read(json!({"requests": requests, "interval": "1h"})).unwrap();
    let (before, mut after) = (limit(1), limit(1));
    assert!(is_next(&pass(&before, "a", "one", "pod")));
    after.inherit(&before);
    assert!(!is_next(&pass(&after, "a", "one", "pod")));
    let keys = json!([{"type": "Address"}]);
    let mut other = read(json!({"requests": 1, "interval": "1h", "keys": keys})).unwrap();
    other.inherit(&before);
    assert!(is_next(&pass(&other, "a", "one", "pod")), "other keys are other buckets");
}

#[test]
fn what_is_no_limit_is_a_fault() {
    for (local, field) in [
        (json!({"requests": 0, "interval": "1s"}), "local.requests"),
        (json!({"requests": 1, "interval": "0s"}), "local.interval"),
        (json!({"requests": 1, "interval": "x"}), "local.interval"),
        (json!({"requests": 1, "interval": "25h"}), "local.interval"),
        (json!({"requests": 1, "interval": "1s", "burst": 0}), "local.burst"),
        (json!({"requests": 1, "interval": "1s", "cost": {"request": 2}}), "local.cost.request"),
        (json!({"requests": 1, "interval": "1s", "cost": {"request": 0}}), "local.cost.request"),
        (
            json!({"requests": 1, "interval": "1s", "cost": {"response": {"header": "a b"}}}),
            "local.cost.response.header",
        ),
        (
            json!({"requests": 1, "interval": "1s", "cost": {"response": {"header": "a", "max": 0}}}),
            "local.cost.response.max",
        ),
        (
            json!({"requests": 1, "interval": "1s", "matches": [{"path": {"value": "a"}}]}),
            "local.matches[0].path.value",
        ),
        (
            json!({"requests": 1, "interval": "1s", "keys": [{"type": "Claim"}]}),
            "local.keys[0].claim",
        ),
        (
            json!({"requests": 1, "interval": "1s", "keys": [{"type": "Address", "ipv4PrefixLength": 33}]}),
            "local.keys[0].ipv4PrefixLength",
        ),
        (
            json!({"requests": 1, "interval": "1s", "keys": [{"type": "Header"}]}),
            "local.keys[0].header",
        ),
        (
            json!({"requests": 1, "interval": "1s", "keys": [{"type": "Route", "header": "a"}]}),
            "local.keys[0].header",
        ),
    ] {
        match read(local.clone()) {
            Err(Fault::Field { field: found, .. }) => assert_eq!(found, field, "{local}"),
            other => panic!("{local}: {other:?}"),
        }
    }
}

#[test]
fn what_is_no_list_of_limits_is_a_fault() {
    let local = json!({"requests": 1, "interval": "1s"});
    let named = |name: &str| json!({"name": name, "local": local});
    for (written, field) in [
        (json!({}), "local"),
        (json!({"limits": [{"name": "a"}]}), "limits[0]"),
        (json!({"limits": [{"local": local, "shared": local}]}), "limits[0]"),
        (json!({"limits": [named("a"), named("a")]}), "limits[1].name"),
        (json!({"local": local, "limits": [named("local")]}), "limits[0].name"),
        (json!({"limits": [named("a\"b")]}), "limits[0].name"),
        (json!({"limits": vec![json!({"local": local}); 17]}), "limits"),
        (
            json!({"limits": [{"shared": {"requests": 0, "interval": "1s"}}]}),
            "limits[0].shared.requests",
        ),
    ] {
        match read_all(written.clone()) {
            Err(Fault::Field { field: found, .. }) => assert_eq!(found, field, "{written}"),
            other => panic!("{written}: {other:?}"),
        }
    }
}

#[derive(Debug)]
struct Spreading(Pods);

impl shared::Spread for Spreading {
    fn version(&self) -> u64 {
        u64::from(self.0.all)
    }

    fn pods(&self) -> Pods {
        self.0
    }
}

/// Requests of a user to a pod of a service that pass, of a hundred.
fn passed(limit: &RateLimit, service: &str, pod: &str, user: &'static str, pods: Pods) -> usize {
    let (service, spread) = (ObjectKey::new("shop", service), Spreading(pods));
    let passes = || {
        let user = (HeaderName::from_static("x-user"), HeaderValue::from_static(user));
        let mut headers = HeaderMap::from_iter([user]);
        let uri = Uri::from_static("/");
        let mut head = RequestHead { method: &Method::GET, uri: &uri, headers: &mut headers };
        let cx = Cx { service: Some(&service), pod, spread: Some(&spread), ..Cx::fixture() };
        is_next(&limit.request(&mut head, &cx))
    };
    (0..100).filter(|_| passes()).count()
}

#[test]
fn pods_of_a_node_have_its_part_of_a_shared_limit_together() {
    let user = json!([{"type": "Header", "header": "x-user"}]);
    let shared = json!({"shared": {"requests": 40, "interval": "24h", "keys": user}});
    let limit = read_all(shared.clone()).unwrap();
    let pods = Pods { here: 2, all: 4 };
    assert_eq!(passed(&limit, "web", "one", "a", pods), 20, "half of all pods");
    assert_eq!(passed(&limit, "web", "two", "a", pods), 0, "another pod has no bucket of its own");
    assert_eq!(passed(&limit, "web", "two", "b", pods), 20, "another key has");
    assert_eq!(passed(&limit, "db", "one", "a", pods), 20, "and another service");
    // Pods that leave make the part larger, but fill no bucket.
    assert_eq!(passed(&limit, "web", "one", "a", Pods { here: 2, all: 2 }), 0);
    let mut edited = read_all(shared).unwrap();
    edited.inherit(&limit);
    assert_eq!(passed(&edited, "web", "one", "a", pods), 0);
    let found: Vec<_> = edited.shared().map(|it| (it.rate.tokens, it.cost)).collect();
    assert_eq!(found, [(40, 1)]);
}

#[test]
fn a_request_that_another_limit_refuses_takes_nothing_of_a_shared_one() {
    let limit = |requests: u32| json!({"requests": requests, "interval": "24h"});
    let written = json!({"limits": [{"shared": limit(10)}, {"name": "pod", "local": limit(3)}]});
    let limits = read_all(written).unwrap();
    let pods = Pods { here: 1, all: 1 };
    assert_eq!(passed(&limits, "web", "one", "a", pods), 3);
    assert_eq!(passed(&limits, "web", "two", "a", pods), 3);
    assert_eq!(passed(&limits, "web", "three", "a", pods), 3);
    assert_eq!(passed(&limits, "web", "four", "a", pods), 1, "of ten");
}
