use http::{Method, Uri};
use serde_json::{Value, json};

use super::*;
use crate::base::Identity;
use crate::filter::Level;

struct Nothing;

impl RuleContext for Nothing {
    fn policy(&self) -> ObjectKey {
        ObjectKey::new("shop", "p")
    }
}

fn read(written: Value) -> Result<ConcurrencyLimit, Fault> {
    ConcurrencyLimit::read(&serde_json::from_value(written).unwrap(), &Nothing)
}

fn pass(limit: &ConcurrencyLimit, namespace: &str, pod: &str, level: Option<Level>) -> Flow {
    let identity = Identity::new("td", namespace, "a");
    let (uri, mut headers) = (Uri::from_static("/"), HeaderMap::new());
    let mut head = RequestHead { method: &Method::GET, uri: &uri, headers: &mut headers };
    let cx = Cx { identity: Some(&identity), pod, level, ..Cx::fixture() };
    limit.request(&mut head, &cx)
}

fn held(flow: Flow) -> Place {
    match flow {
        Flow::Hold { held: Held::Place(place), note: None } => place,
        Flow::Answer(answer) => panic!("it is answered: {}", answer.why),
        _ => panic!("it is not let in"),
    }
}

fn answer(flow: Flow) -> Answer {
    let Flow::Answer(answer) = flow else { panic!("it is let in") };
    answer
}

#[test]
fn what_is_beyond_the_limit_is_answered_at_once() {
    let limit = read(json!({"fixed": {"requests": 3}})).unwrap();
    let mut places: Vec<Place> =
        ["a", "b", "c"].map(|client| held(pass(&limit, client, "pod", None))).into();
    let refused = answer(pass(&limit, "d", "pod", None));
    assert_eq!((refused.status.as_u16(), refused.grpc), (503, Some(14)));
    assert_eq!(refused.reason, Reason::Overflow);
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.headers["x-envoy-overloaded"], "true");
    assert!(refused.why.contains("shop/p permits 3"), "{}", refused.why);
    places.push(held(pass(&limit, "d", "another pod", None)));
    places.remove(0);
    held(pass(&limit, "d", "pod", None));
}

#[test]
fn a_client_that_has_its_share_is_told_so() {
    let limit = read(json!({"fixed": {"requests": 3}})).unwrap();
    let _places = [(); 2].map(|()| held(pass(&limit, "a", "pod", None)));
    let refused = answer(pass(&limit, "a", "pod", None));
    assert_eq!((refused.status.as_u16(), refused.grpc), (429, Some(8)));
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(!refused.headers.contains_key("x-envoy-overloaded"));
    held(pass(&limit, "b", "pod", None));
    let unfair = read(json!({"fixed": {"requests": 3}, "fairShare": false})).unwrap();
    let _all = [(); 3].map(|()| held(pass(&unfair, "a", "pod", None)));
    assert_eq!(answer(pass(&unfair, "b", "pod", None)).status.as_u16(), 503);
}

#[test]
fn what_is_critical_goes_last() {
    let limit = read(json!({"fixed": {"requests": 10}, "fairShare": false})).unwrap();
    let mut places = Vec::new();
    for (level, most) in [(Level::Sheddable, 5), (Level::Normal, 9), (Level::Critical, 10)] {
        while places.len() < most {
            places.push(held(pass(&limit, "a", "pod", Some(level))));
        }
        let refused = answer(pass(&limit, "a", "pod", Some(level)));
        assert_eq!(refused.status.as_u16(), 503, "{level:?}");
    }
}

#[test]
fn in_shadow_mode_it_notes_what_it_would_shed() {
    let limit = read(json!({"fixed": {"requests": 1}, "shadowMode": true})).unwrap();
    let _place = held(pass(&limit, "a", "pod", None));
    let Flow::Hold { note: Some(note), .. } = pass(&limit, "a", "pod", None) else {
        panic!("it is noted")
    };
    assert_eq!(note.to_string(), "shop/p=would_shed");
}

/// An edit of the number neither forgets what is in progress nor lets a second as many in.
#[test]
fn what_is_in_progress_stays_counted_after_an_edit() {
    let before = read(json!({"fixed": {"requests": 2}, "fairShare": false})).unwrap();
    let places = [(); 2].map(|()| held(pass(&before, "a", "pod", None)));
    let mut after = read(json!({"fixed": {"requests": 3}, "fairShare": false})).unwrap();
    after.inherit(&before);
    let third = held(pass(&after, "a", "pod", None));
    assert_eq!(answer(pass(&after, "a", "pod", None)).status.as_u16(), 503);
    drop((places, third));
    let _all = [(); 3].map(|()| held(pass(&after, "a", "pod", None)));
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_learns_from_responses() {
    let limit = read(json!({"adaptive": {"minRequests": 2}, "fairShare": false})).unwrap();
    for _ in 0..60 {
        let place = held(pass(&limit, "a", "pod", None));
        tokio::time::sleep(Duration::from_millis(10)).await;
        place.answered(None);
    }
    let enter = || match pass(&limit, "a", "pod", None) {
        Flow::Hold { held: Held::Place(place), .. } => Some(place),
        _ => None,
    };
    // With all that it permits in progress at once it grows, while the latency stays as it was.
    let mut most = 0;
    for _ in 0..100 {
        let places: Vec<Place> = std::iter::from_fn(enter).collect();
        most = most.max(places.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
        places.iter().for_each(|place| place.answered(None));
    }
    assert!(most > 20, "{most}");
    // Ten times as slow: it shrinks.
    for _ in 0..12 {
        let places: Vec<Place> = std::iter::from_fn(enter).collect();
        most = places.len();
        tokio::time::sleep(Duration::from_millis(100)).await;
        places.iter().for_each(|place| place.answered(None));
    }
    assert!(most < 20, "{most}");
}

/// A client that sends its body slowly must not make the application look slow.
#[tokio::test(start_paused = true)]
async fn the_time_that_a_client_takes_to_send_does_not_count() {
    let limit = read(json!({"adaptive": {"minRequests": 2}, "fairShare": false})).unwrap();
    let mut most = 0;
    for _ in 0..200 {
        let places: Vec<Place> = std::iter::from_fn(|| match pass(&limit, "a", "pod", None) {
            Flow::Hold { held: Held::Place(place), .. } => Some(place),
            _ => None,
        })
        .collect();
        most = places.len();
        tokio::time::sleep(Duration::from_millis(fastrand::u64(1..200))).await;
        let sent = tokio::time::Instant::now();
        tokio::time::sleep(Duration::from_millis(10)).await;
        places.iter().for_each(|place| place.answered(Some(sent)));
    }
    assert!(most > 20, "{most}");
}

#[test]
fn what_cannot_be_carried_out_is_a_fault_of_its_field() {
    for (written, field) in [
        (json!({}), "fixed"),
        (json!({"fixed": {"requests": 1}, "adaptive": {}}), "fixed"),
        (json!({"fixed": {"requests": 0}}), "fixed.requests"),
        (json!({"fixed": {"requests": 1_000_001}}), "fixed.requests"),
        (json!({"adaptive": {"minRequests": 0}}), "adaptive.minRequests"),
        (json!({"adaptive": {"minRequests": 9, "maxRequests": 8}}), "adaptive.maxRequests"),
        (json!({"adaptive": {"percentile": 100}}), "adaptive.percentile"),
        (json!({"adaptive": {"window": "soon"}}), "adaptive.window"),
        (json!({"adaptive": {"minRtt": {"interval": "0s"}}}), "adaptive.minRtt.interval"),
        (json!({"adaptive": {"minRtt": {"jitter": 101}}}), "adaptive.minRtt.jitter"),
        (json!({"adaptive": {"minRtt": {"fixed": "2h"}}}), "adaptive.minRtt.fixed"),
    ] {
        match read(written.clone()) {
            Err(Fault::Field { field: found, .. }) => assert_eq!(found, field, "{written}"),
            other => panic!("{written}: {other:?}"),
        }
    }
}

#[test]
fn defaults_are_envoys() {
    let limit = read(json!({"adaptive": {}})).unwrap();
    let Limit::Adaptive(by) = &limit.limit else { panic!("it is adaptive") };
    assert_eq!((by.min, by.max, by.percentile), (3, 1000, 50));
    assert_eq!(by.window, Duration::from_millis(100));
    let MinRtt { interval, requests, jitter, buffer, fixed } = by.min_rtt;
    assert_eq!((requests, jitter, buffer, fixed), (50, 15, 25, None));
    assert_eq!(interval, Duration::from_secs(60));
}
