use std::net::IpAddr;
use std::time::Duration;

use http::header::{COOKIE, HeaderName};
use http::{HeaderMap, Uri};
use tokio::time::advance;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn endpoint(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 8080))
}

fn destination(outliers: OutlierDetection) -> Arc<Destination> {
    let policy = Policy { outliers: Some(outliers), ..Policy::default() };
    Arc::new(Destination::new("Service shop/web, port 80".into(), policy))
}

/// `None`: no request may go there.
fn attempt(destination: &Arc<Destination>, number: u8, pool: u32) -> Option<Attempt> {
    let host = destination.records(&[endpoint(number)]).unwrap().remove(0);
    destination.are_some_out();
    host.is_open().then(|| destination.attempt(endpoint(number), &host, pool)).flatten()
}

/// What an attempt tells that began before anything else.
fn hear(destination: &Arc<Destination>, number: u8, heard: Heard, pool: u32) {
    let host = destination.records(&[endpoint(number)]).unwrap().remove(0);
    if let Some(mut attempt) = destination.attempt(endpoint(number), &host, pool) {
        attempt.heard(heard);
    }
}

fn ejected(destination: &Destination) -> Vec<SocketAddr> {
    destination.ejected().map(|it| it.endpoints().collect()).unwrap_or_default()
}

/// Which result ends a row of failures, and which one is the last of it.
#[tokio::test(start_paused = true)]
async fn each_field_counts_what_istios_reference_says() {
    use Heard::{Accepted, Failed, Status};
    let none = OutlierDetection { consecutive_errors: 0, ..OutlierDetection::default() };
    let errors = || OutlierDetection { consecutive_errors: 3, ..none.clone() };
    let gateway = || OutlierDetection { consecutive_gateway_errors: 2, ..none.clone() };
    let split = || OutlierDetection { consecutive_local_failures: Some(2), ..errors() };
    let codes = || OutlierDetection { codes: vec![429, 503], ..errors() };
    for (outliers, results, expected) in [
        (errors(), &[Status(500), Status(503), Status(599)][..], true),
        (errors(), &[Status(500), Status(200), Status(500), Status(500)], false),
        (errors(), &[Status(500), Status(404), Status(500), Status(500)], false),
        // Failures of local origin are errors, too.
        (errors(), &[Failed, Status(500), Failed], true),
        (errors(), &[Failed, Failed, Accepted, Failed], false),
        (errors(), &[Failed, Failed, Failed], true),
        (gateway(), &[Status(502), Status(504)], true),
        (gateway(), &[Status(502), Status(500), Status(504)], false),
        (gateway(), &[Failed, Status(503)], true),
        // Split off, they are counted for themselves, and do not interrupt a row of errors.
        (split(), &[Failed, Failed], true),
        (split(), &[Failed, Status(500), Failed], false),
        (split(), &[Failed, Accepted, Failed], false),
        (split(), &[Status(500), Failed, Status(500), Status(500)], true),
        // The named statuses are errors, and no others.
        (codes(), &[Status(429), Status(503), Status(429)], true),
        (codes(), &[Status(500), Status(500), Status(500)], false),
        (none.clone(), &[Status(500), Status(500), Status(500), Failed], false),
    ] {
        let destination = destination(outliers.clone());
        for heard in results {
            hear(&destination, 1, *heard, 10);
        }
        assert_eq!(!ejected(&destination).is_empty(), expected, "{outliers:?} {results:?}");
    }
}

fn fail(destination: &Arc<Destination>, number: u8, pool: u32) {
    for _ in 0..5 {
        hear(destination, number, Heard::Failed, pool);
    }
}

#[tokio::test(start_paused = true)]
async fn an_ejection_grows_and_quiet_intervals_make_up_for_it() {
    let outliers = OutlierDetection { interval: 5 * SECOND, ..OutlierDetection::default() };
    let destination = destination(outliers);
    // The request that probes it fails at 31 s; the second ejection ends at 95 s, a multiple of 5.
    for (seconds, rest) in [(29, 2), (59, 6)] {
        fail(&destination, 1, 3);
        advance(seconds * SECOND).await;
        assert_eq!(ejected(&destination), [endpoint(1)], "{seconds}");
        advance(rest * SECOND).await;
        assert_eq!(ejected(&destination), [], "{seconds}");
    }
    hear(&destination, 1, Heard::Accepted, 3);
    // Errors before the ejection do not count any more.
    for _ in 0..4 {
        hear(&destination, 1, Heard::Failed, 3);
    }
    assert_eq!(ejected(&destination), []);
    advance(100 * SECOND).await;
    hear(&destination, 1, Heard::Failed, 3);
    assert_eq!(ejected(&destination), [endpoint(1)]);
    advance(35 * SECOND).await;
    assert_eq!(ejected(&destination), [], "it is the first one again");
    for _ in 0..40 {
        fail(&destination, 2, 3);
        advance(policy::LONGEST_EJECTION + 6 * SECOND).await;
        assert_eq!(ejected(&destination), [], "no ejection is longer");
    }
}

/// A stream that lasts, or a client that never ends its body: it must not keep the endpoint away from all others.
#[tokio::test(start_paused = true)]
async fn a_probe_that_lasts_does_not_keep_an_endpoint_away() {
    let interval = OutlierDetection::default().interval;
    let destination = destination(OutlierDetection::default());
    fail(&destination, 1, 3);
    advance(31 * SECOND).await;
    let mut held = attempt(&destination, 1, 3).unwrap();
    advance(interval - SECOND).await;
    assert!(attempt(&destination, 1, 3).is_none(), "it is waited for");
    advance(SECOND).await;
    let mut second = attempt(&destination, 1, 3).unwrap();
    assert!(attempt(&destination, 1, 3).is_none(), "one at a time");
    second.heard(Heard::Status(200));
    assert!(!destination.are_some_out());
    // What the first one says then is too late, and so is that it ends.
    held.heard(Heard::Status(500));
    drop(held);
    assert_eq!((ejected(&destination), destination.are_some_out()), (vec![], false));
    // A late word counts while nobody else has said anything.
    fail(&destination, 2, 3);
    advance(50 * SECOND).await;
    let mut held = attempt(&destination, 2, 3).unwrap();
    advance(2 * interval).await;
    assert!(destination.are_some_out());
    held.heard(Heard::Status(500));
    assert_eq!(ejected(&destination), [endpoint(2)]);
}

#[tokio::test(start_paused = true)]
async fn one_request_probes_an_endpoint_before_it_serves_again() {
    let destination = destination(OutlierDetection::default());
    fail(&destination, 1, 3);
    assert!(attempt(&destination, 1, 3).is_none(), "ejected");
    advance(31 * SECOND).await;
    let probe = attempt(&destination, 1, 3).unwrap();
    assert!(attempt(&destination, 1, 3).is_none(), "one at a time");
    // One that its client gave up says nothing, and makes room for another.
    drop(probe);
    let mut probe = attempt(&destination, 1, 3).unwrap();
    probe.heard(Heard::Status(500));
    // At once, and for twice as long, however many failures in a row the policy wants.
    assert_eq!(ejected(&destination), [endpoint(1)]);
    advance(50 * SECOND).await;
    assert_eq!(ejected(&destination), [endpoint(1)]);
    advance(20 * SECOND).await;
    let mut probe = attempt(&destination, 1, 3).unwrap();
    probe.heard(Heard::Status(200));
    let all: Vec<_> = (0..9).map(|_| attempt(&destination, 1, 3).unwrap()).collect();
    drop(all);
    assert!(!destination.are_some_out());
}

/// What was sent before the ejection neither ends it nor begins another one.
#[tokio::test(start_paused = true)]
async fn only_the_probe_decides() {
    let destination = destination(OutlierDetection::default());
    let mut before: Vec<_> = (0..4).map(|_| attempt(&destination, 1, 3).unwrap()).collect();
    fail(&destination, 1, 3);
    before[0].heard(Heard::Accepted);
    assert_eq!(ejected(&destination), [endpoint(1)]);
    advance(31 * SECOND).await;
    let probe = attempt(&destination, 1, 3).unwrap();
    before[1].heard(Heard::Accepted);
    before[2].heard(Heard::Failed);
    assert!(attempt(&destination, 1, 3).is_none(), "the probe is on its way");
    drop(probe);
    assert!(attempt(&destination, 1, 3).is_some());
}

/// While others are ejected, as many as may be, a probe that fails changes nothing: the endpoint serves, as it would have without.
#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_does_not_exceed_the_percentage() {
    let destination = destination(OutlierDetection::default());
    fail(&destination, 1, 3);
    advance(31 * SECOND).await;
    let mut probe = attempt(&destination, 1, 3).unwrap();
    fail(&destination, 2, 3);
    assert_eq!(ejected(&destination), [endpoint(2)]);
    probe.heard(Heard::Failed);
    assert_eq!(ejected(&destination), [endpoint(2)]);
    assert!(attempt(&destination, 1, 3).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_endpoint_any_more_is_forgotten() {
    let destination = destination(OutlierDetection::default());
    let all = |numbers: &[u8]| {
        let listed: Vec<_> = numbers.iter().map(|it| (endpoint(*it), true)).collect();
        destination.follow(&listed);
    };
    all(&[1, 2, 3]);
    fail(&destination, 1, 3);
    all(&[2, 3]);
    assert_eq!(ejected(&destination), []);
    assert!(!destination.are_some_out());
    // A pod that gets the address is another one; one that Kubernetes calls unready for a while is not.
    all(&[1, 2, 3]);
    assert!(attempt(&destination, 1, 3).is_some());
    fail(&destination, 1, 3);
    destination.follow(&[(endpoint(1), false), (endpoint(2), true), (endpoint(3), true)]);
    assert_eq!(ejected(&destination), [endpoint(1)]);
    fail(&destination, 2, 3);
    assert_eq!(ejected(&destination), [endpoint(1)], "one at a time");
}

#[tokio::test(start_paused = true)]
async fn new_endpoints_warm_up_and_those_that_were_there_do_not() {
    let warmup = Some(Warmup { duration: 100 * SECOND, least: 0.1, aggression: 1.0 });
    let outliers = Some(OutlierDetection::default());
    let policy = Policy { warmup, outliers, ..Policy::default() };
    let destination = Arc::new(Destination::new("web".into(), policy));
    let part = |number: u8| {
        let host = destination.records(&[endpoint(number)]).unwrap().remove(0);
        destination.parts().map_or(1.0, |part| part(&host))
    };
    destination.follow(&[(endpoint(1), true), (endpoint(2), false)]);
    assert!(destination.parts().is_none(), "the agent knows nothing of their age");
    advance(50 * SECOND).await;
    destination.follow(&[(endpoint(1), true), (endpoint(2), true), (endpoint(3), false)]);
    assert_eq!((part(1), part(2), part(3)), (1.0, 0.1, 1.0));
    advance(50 * SECOND).await;
    assert!((part(2) - 0.5).abs() < 0.001);
    advance(51 * SECOND).await;
    assert!(destination.parts().is_none(), "nobody is asked any more");
    // From the probe on, too.
    fail(&destination, 1, 3);
    advance(40 * SECOND).await;
    let mut probe = attempt(&destination, 1, 3).unwrap();
    probe.heard(Heard::Accepted);
    assert_eq!((part(1), part(2)), (0.1, 1.0));
}

#[tokio::test(start_paused = true)]
async fn a_dump_shows_what_is_not_as_usual() {
    let warmup = Some(Warmup { duration: 100 * SECOND, least: 0.1, aggression: 1.0 });
    let outliers = Some(OutlierDetection::default());
    let balancer = Some(Balancer::PeakEwma);
    let policy = Policy { warmup, outliers, balancer, ..Policy::default() };
    let destination = Arc::new(Destination::new("web".into(), policy));
    destination.follow(&[(endpoint(1), true), (endpoint(4), true)]);
    fail(&destination, 1, 30);
    advance(31 * SECOND).await;
    destination.follow(&[1, 2, 3, 4].map(|number| (endpoint(number), true)));
    fail(&destination, 2, 30);
    let shown = serde_json::to_value(&*destination).unwrap();
    let states: Vec<_> = shown["endpoints"].as_array().unwrap().iter().collect();
    let state = |index: usize| states[index]["state"].as_str().unwrap();
    assert_eq!((state(0), state(1), state(2)), ("probing", "ejected", "warming"));
    assert_eq!(states.len(), 3, "{states:?}");
    assert_eq!(states[1]["times"], 1);
    assert_eq!(shown["ejected"], serde_json::json!(["10.0.0.2:8080"]));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_returns_at_an_interval() {
    let destination = destination(OutlierDetection::default());
    advance(3 * SECOND).await;
    fail(&destination, 1, 3);
    // 33 s are not a multiple of 10 s.
    advance(36 * SECOND).await;
    assert_eq!(ejected(&destination), [endpoint(1)]);
    advance(SECOND).await;
    assert_eq!(ejected(&destination), []);
}

#[tokio::test(start_paused = true)]
async fn no_more_are_ejected_than_the_policy_says_and_never_the_last() {
    for (max_ejection_percent, pool, expected) in [
        // At least one.
        (10, 3, 1),
        (10, 30, 3),
        (50, 4, 2),
        (99, 3, 2),
        (10, 2, 1),
        (10, 1, 0),
        (99, 1, 0),
        // Told to.
        (100, 1, 1),
        (100, 3, 3),
    ] {
        let outliers = OutlierDetection { max_ejection_percent, ..OutlierDetection::default() };
        let destination = destination(outliers);
        for number in 1..=u8::try_from(pool).unwrap() {
            fail(&destination, number, pool);
        }
        let count = ejected(&destination).len();
        assert_eq!(count, expected, "{max_ejection_percent} % of {pool}");
    }
}

#[tokio::test(start_paused = true)]
async fn with_few_healthy_endpoints_all_are_used() {
    for (min_health_percent, ejected, pool, expected) in [
        (0, 3, 3, true),
        (50, 1, 2, true),
        (50, 2, 3, false),
        (51, 1, 2, false),
        (100, 1, 9, false),
    ] {
        let outliers = OutlierDetection { min_health_percent, ..OutlierDetection::default() };
        let left_out = destination(outliers).may_leave_out(ejected, pool);
        assert_eq!(left_out, expected, "{min_health_percent} {ejected} {pool}");
    }
}

/// Whoever hears of failures at the same time, each endpoint is ejected once, and no more of them than may be.
#[test]
fn threads_agree() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _inside = runtime.enter();
    let outliers = OutlierDetection { max_ejection_percent: 50, ..OutlierDetection::default() };
    let destination = destination(outliers);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let _inside = runtime.enter();
                for number in (1..=20).cycle().take(2000) {
                    hear(&destination, number, Heard::Failed, 20);
                }
            });
        }
    });
    let list = ejected(&destination);
    let distinct: std::collections::HashSet<_> = list.iter().collect();
    assert_eq!((list.len(), distinct.len()), (10, 10));
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_is_kept_while_the_policy_is_the_same() {
    let ports = |outliers: OutlierDetection| Ports::from([(80, destination(outliers))]);
    let mut before = Traffic::default();
    before.set(None, ports(OutlierDetection::default()));
    before.set(Some("shop".into()), ports(OutlierDetection::default()));
    fail(before.of_client("other", &[], 80).unwrap(), 1, 3);
    for (consecutive_errors, expected) in [(5, 1), (6, 0)] {
        let mut after = Traffic::default();
        after.set(
            None,
            ports(OutlierDetection { consecutive_errors, ..OutlierDetection::default() }),
        );
        after.set(Some("shop".into()), ports(OutlierDetection::default()));
        after.inherit(&before);
        assert_eq!(ejected(after.of_client("other", &[], 80).unwrap()).len(), expected);
        assert_eq!(ejected(after.of_client("shop", &[], 80).unwrap()).len(), 0, "one of its own");
        assert!(after.of_client("shop", &[], 81).is_none());
    }
}

#[test]
fn a_rule_that_selects_a_client_comes_before_its_namespaces() {
    let ports = |name: &str| {
        let policy =
            Policy { by: name.into(), balancer: Some(Balancer::Random), ..Policy::default() };
        Ports::from([(80, Arc::new(Destination::new("web".into(), policy)))])
    };
    let mut traffic = Traffic::default();
    traffic.set(None, ports("all"));
    traffic.set(Some("shop".into()), ports("shop"));
    let subsets = |names: &[&str]| -> Named {
        names.iter().map(|name| (Str::from(*name), Subset::default())).collect()
    };
    traffic.set_subsets(None, subsets(&["v1"]));
    traffic.set_selected("shop".into(), "first".into(), ports("first"), subsets(&["v2"]));
    traffic.set_selected("shop".into(), "second".into(), ports("second"), Named::default());
    for (namespace, rules, expected) in [
        ("shop", &["second", "first"][..], "first"),
        ("shop", &["second"], "second"),
        ("shop", &["other"], "shop"),
        ("shop", &[], "shop"),
        // Another namespace's rule of that name.
        ("other", &["first"], "all"),
    ] {
        let rules: Vec<Str> = rules.iter().map(|it| Str::from(*it)).collect();
        let found = traffic.of_client(namespace, &rules, 80).unwrap();
        assert_eq!(found.policy.by, expected, "{namespace} {rules:?}");
        let subsets: Vec<&Str> = traffic.subsets_of(namespace, &rules).keys().collect();
        let of_rule = match expected {
            "first" => vec!["v2"],
            "second" => vec![],
            _ => vec!["v1"],
        };
        assert_eq!(subsets, of_rule, "{namespace} {rules:?}");
    }
    for (namespace, name, expected) in
        [("shop", "v1", 1), ("shop", "v2", 1), ("other", "v2", 0), ("other", "v1", 1)]
    {
        assert_eq!(traffic.subsets_named(namespace, name).count(), expected);
    }
    let named = vec![Str::from("first")];
    assert!(traffic.of_client("shop", &named, 81).is_none());
}

#[test]
fn the_key_is_what_the_policy_names() {
    let source: IpAddr = "10.0.9.1".parse().unwrap();
    let cookie = |ttl| {
        HashKey::Cookie(Cookie {
            name: "user".into(),
            path: "/shop".into(),
            ttl,
            attributes: "; SameSite=Lax".into(),
        })
    };
    let header = HashKey::Header(HeaderName::from_static("x-user"));
    let of = |key: &HashKey, uri: &str, headers: &[(HeaderName, &str)]| {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        key.of(&uri.parse::<Uri>().unwrap(), &headers, source)
    };
    let user = HeaderName::from_static("x-user");
    for (key, one, same, other, none) in [
        (
            &header,
            ("/", vec![(user.clone(), "ann")]),
            ("/b?c", vec![(user.clone(), "ann")]),
            ("/", vec![(user.clone(), "bob")]),
            Some(("/?x-user=ann", vec![])),
        ),
        (
            &HashKey::Query("user".into()),
            ("/?user=ann", vec![]),
            ("/b?x=1&user=%61nn&user=bob", vec![]),
            ("/?user=bob", vec![]),
            Some(("/user=ann", vec![(user.clone(), "ann")])),
        ),
        (
            &cookie(None),
            ("/", vec![(COOKIE, "user=ann")]),
            ("/", vec![(COOKIE, "theme=dark; user=\"ann\"; x=y")]),
            ("/", vec![(COOKIE, "user=bob; user=ann")]),
            Some(("/", vec![(COOKIE, "users=ann; User=ann; user=")])),
        ),
    ] {
        let keys = [one, same, other].map(|(uri, headers)| of(key, uri, &headers).unwrap().key);
        assert_eq!(keys[0], keys[1], "{key:?}");
        assert_ne!(keys[0], keys[2], "{key:?}");
        if let Some((uri, headers)) = none {
            assert_eq!(of(key, uri, &headers), None, "{key:?}");
        }
    }
    let address = of(&HashKey::SourceIp, "/", &[]).unwrap().key;
    assert_eq!(address, of_address("::ffff:10.0.9.1".parse().unwrap()));
    for (ttl, age) in [(0, ""), (90, "; Max-Age=90")] {
        let given = of(&cookie(Some(Duration::from_secs(ttl))), "/", &[]).unwrap();
        let text = given.set_cookie.unwrap();
        let (pair, rest) = text.to_str().unwrap().split_once(';').unwrap();
        assert_eq!(format!(";{rest}"), format!("{age}; Path=/shop; SameSite=Lax; HttpOnly"));
        let again = of(&cookie(None), "/", &[(COOKIE, pair)]).unwrap();
        assert_eq!(again.key, given.key, "the client comes back to the same endpoint");
    }
}

fn limited(limits: Limits) -> Destination {
    let policy = Policy { limits: Some(Box::new(limits)), ..Policy::default() };
    Destination::new("Service shop/web, port 80".into(), policy)
}

/// `None` while it waits.
async fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::ZERO, future).await.ok()
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_a_connection_and_only_so_many() {
    let destination = limited(Limits {
        max_connections: Some(1),
        max_pending_requests: Some(1),
        ..Limits::default()
    });
    let destination = Arc::new(destination);
    let first = destination.request(true).await.unwrap();
    let waiting = tokio::spawn({
        let destination = destination.clone();
        async move { destination.request(true).await.map(|_| ()) }
    });
    tokio::task::yield_now().await;
    let overflow = now(destination.request(true)).await.unwrap().unwrap_err();
    assert!(overflow.to_string().contains("http.http1MaxPendingRequests"), "{overflow}");
    // Requests over HTTP/2 share a connection.
    assert!(now(destination.request(false)).await.unwrap().unwrap().is_none());
    assert!(destination.connection().is_err(), "one of layer 4 does not wait");
    drop(first);
    waiting.await.unwrap().unwrap();
    assert!(now(destination.request(true)).await.unwrap().is_ok());
    // One that gives up waiting makes room for another.
    let held = destination.request(true).await.unwrap();
    assert!(now(destination.request(true)).await.is_none());
    assert!(now(destination.request(true)).await.is_none());
    drop(held);
    assert!(destination.connection().is_ok());
}

#[tokio::test]
async fn each_limit_is_kept_and_given_back() {
    let destination = limited(Limits {
        max_requests: Some(2),
        max_retries: Some(1),
        max_connections: Some(2),
        ..Limits::default()
    });
    for own_connection in [true, false] {
        let held = [
            destination.request(own_connection).await.unwrap(),
            destination.request(own_connection).await.unwrap(),
        ];
        let overflow = destination.request(own_connection).await.unwrap_err();
        assert!(overflow.to_string().contains("http.http2MaxRequests"), "{overflow}");
        drop(held);
    }
    let retry = destination.retry().unwrap();
    assert!(destination.retry().unwrap_err().to_string().contains("http.maxRetries"));
    drop(retry);
    assert!(destination.retry().is_ok());
    let none = limited(Limits::default());
    assert!(!none.limits_requests());
    assert!(none.retry().is_ok() && none.connection().unwrap().is_none());
}

mod machine;
