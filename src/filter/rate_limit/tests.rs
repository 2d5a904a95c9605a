use http::{Method, Uri};
use serde_json::{Value, json};

use super::*;
use crate::base::Identity;

struct Nothing;

impl RuleContext for Nothing {
    fn policy(&self) -> ObjectKey {
        ObjectKey::new("shop", "p")
    }
}

fn read(local: Value) -> Result<RateLimit, Fault> {
    let written: Written = serde_json::from_value(json!({ "local": local })).unwrap();
    RateLimit::read(&written, &Nothing)
}

/// A request of this user, by this account, to this pod.
fn pass(limit: &RateLimit, user: &'static str, account: &str, pod: &str) -> Flow {
    let identity = Identity::new("td", "ns", account);
    let user = (HeaderName::from_static("x-user"), HeaderValue::from_static(user));
    let mut headers = HeaderMap::from_iter([user]);
    let uri = Uri::from_static("/");
    let mut head = RequestHead { method: &Method::GET, uri: &uri, headers: &mut headers };
    let address = "10.0.0.1".parse().unwrap();
    let cx = Cx {
        port: 80,
        identity: Some(&identity),
        address,
        service: None,
        pod,
        route: None,
        level: None,
    };
    limit.request(&mut head, &cx)
}

fn is_next(flow: &Flow) -> bool {
    matches!(flow, Flow::Next)
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
    for (keys, others, same) in [
        (json!([{"type": "Header", "header": "x-user"}]), ("b", "one"), ("a", "two")),
        (json!([{"type": "Identity"}]), ("a", "two"), ("b", "one")),
    ] {
        let limit = read(json!({"requests": 1, "interval": "1h", "keys": keys})).unwrap();
        assert!(is_next(&pass(&limit, "a", "one", "pod")));
        assert!(is_next(&pass(&limit, others.0, others.1, "pod")), "{keys}");
        assert!(!is_next(&pass(&limit, same.0, same.1, "pod")), "{keys}");
    }
}

#[test]
fn in_shadow_mode_it_only_says_so() {
    let limit = read(json!({"requests": 1, "interval": "1h", "shadowMode": true})).unwrap();
    assert!(is_next(&pass(&limit, "a", "one", "pod")));
    let Flow::Note(note) = pass(&limit, "a", "one", "pod") else { panic!("it is noted") };
    assert_eq!(note.to_string(), "shop/p=would_limit");
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
