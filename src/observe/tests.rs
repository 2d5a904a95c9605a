use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::base::ObjectKey;
use crate::telemetry::{Peer, Reporter, RequestFlow, ServiceLabels, Verdict};

fn peer(namespace: &str, name: &str) -> Arc<Peer> {
    Arc::new(Peer {
        namespace: namespace.into(),
        name: format!("{name}-7d9f").into(),
        workload: name.into(),
        principal: format!("spiffe://cluster.local/ns/{namespace}/sa/{name}").into(),
        ..Peer::default()
    })
}

fn connection() -> Flow {
    let address = |last| SocketAddr::from(([10, 0, 0, last], 9080));
    Flow {
        at: SystemTime::now(),
        reporter: Reporter::Destination,
        source: peer("shop", "web"),
        source_address: address(1),
        destination: Some(peer("bank", "ledger")),
        destination_address: Some(address(2)),
        service: Arc::new(ServiceLabels {
            namespace: "bank".into(),
            name: "accounts".into(),
            host: "accounts.bank.svc.cluster.local".into(),
        }),
        dialled: Some(address(3)),
        verdict: Verdict::Permitted,
        policy: Some(ObjectKey::new("bank", "allow-shop")),
        flags: "-",
        why: Str::new(),
        notes: Vec::new(),
        mutual_tls: true,
        in_process: false,
        waypoint: None,
        duration: Duration::from_millis(3),
        sent: 10,
        received: 20,
        trace: None,
        request: None,
    }
}

fn request(status: u16) -> Flow {
    let request = RequestFlow {
        method: http::Method::GET,
        path: "/balance?of=me".into(),
        authority: "accounts.bank".into(),
        protocol: "HTTP/1.1",
        route: "bank/all".into(),
        status,
        grpc_status: None,
        upstream_time: Some(Duration::from_millis(2)),
    };
    Flow { request: Some(request), ..connection() }
}

fn denied() -> Flow {
    Flow { verdict: Verdict::Denied, flags: "DENY", why: "no".into(), ..request(403) }
}

fn observe(flows: usize, pairs: usize) -> (Telemetry, Arc<Observe>) {
    let telemetry = Telemetry::without_log();
    let observe = Observe::new(&telemetry, "node-a".into(), Limits { flows, pairs });
    (telemetry, observe)
}

fn wanted(telemetry: &Telemetry) -> bool {
    telemetry.wants_flows().load(Ordering::Relaxed)
}

/// The events that are there now.
async fn events(watch: &mut Watch) -> Vec<Event> {
    let (mut text, mut idle) = (Vec::new(), 0);
    // Tokio's queues stand still after some items, until the task has yielded.
    while idle < 2 {
        let lines = poll_fn(|cx| match watch.poll_lines(cx) {
            Poll::Ready(lines) => Poll::Ready(lines),
            Poll::Pending => Poll::Ready(None),
        });
        match lines.await {
            Some(lines) => text.extend_from_slice(&lines),
            None => idle += 1,
        }
        tokio::task::yield_now().await;
    }
    let text = String::from_utf8(text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn lines(events: Vec<Event>) -> Vec<Line> {
    let flow = |event| match event {
        Event::Flow(line) => *line,
        Event::Lost { lost } => panic!("{lost} lost"),
    };
    events.into_iter().map(flow).collect()
}

#[test]
fn a_filter_wants_what_it_says_and_nothing_else() {
    let all = [connection(), request(200), request(503), denied()];
    // For each query, which of these it wants.
    for (query, expected) in [
        ("", [true, true, true, true]),
        ("namespace=shop", [true, true, true, true]),
        ("namespace=bank", [true, true, true, true]),
        ("namespace=other", [false, false, false, false]),
        ("workload=shop/web", [true, true, true, true]),
        ("workload=bank/ledger-7d9f", [true, true, true, true]),
        ("workload=bank/web", [false, false, false, false]),
        ("service=bank/accounts", [true, true, true, true]),
        ("service=shop/accounts", [false, false, false, false]),
        ("verdict=denied", [false, false, false, true]),
        ("verdict=permitted", [true, true, true, false]),
        ("verdict=failed", [false, false, false, false]),
        ("status=5xx", [false, false, true, false]),
        ("status=403", [false, false, false, true]),
        ("status=200", [false, true, false, false]),
        ("layer=4", [true, false, false, false]),
        ("layer=7", [false, true, true, true]),
        ("layer=7&verdict=permitted&status=2xx&namespace=shop", [false, true, false, false]),
    ] {
        let filter = Query::parse(query).unwrap().filter;
        assert_eq!(all.each_ref().map(|flow| filter.wants(flow)), expected, "{query}");
    }
}

#[tokio::test]
async fn what_is_remembered_comes_first_and_then_what_is_new() {
    let (_telemetry, observe) = observe(3, 0);
    (0..5).for_each(|number| observe.take(Flow { sent: number, ..connection() }));
    let query = Query { follow: true, last: Some(2), ..Query::default() };
    let mut watch = observe.watch(query).unwrap();
    let sent = |lines: &[Line]| lines.iter().map(|line| line.bytes_sent).collect::<Vec<_>>();
    let before = lines(events(&mut watch).await);
    assert_eq!(sent(&before), [3, 4], "the last two of three");
    let line = &before[0];
    assert_eq!((&*line.node, line.layer, &*line.reporter), ("node-a", 4, "destination"));
    assert_eq!(line.policy.as_deref(), Some("bank/allow-shop"));
    assert_eq!(line.source.identity, "spiffe://cluster.local/ns/shop/sa/web");
    assert!(line.at().is_some_and(|at| at <= SystemTime::now()), "{}", line.time);
    observe.take(Flow { sent: 9, ..request(200) });
    let new = lines(events(&mut watch).await);
    assert_eq!(sent(&new), [9]);
    assert_eq!(
        new[0].http.as_ref().map(|http| (&*http.path, http.status)),
        Some(("/balance?of=me", 200))
    );
    let recent = Query { since: Some(Duration::from_secs(60)), ..Query::default() };
    let old = Flow { at: UNIX_EPOCH, ..connection() };
    observe.take(old);
    let mut watch = observe.watch(recent).unwrap();
    assert_eq!(lines(events(&mut watch).await).len(), 2, "and not the one of 1970");
}

#[tokio::test]
async fn a_slow_observer_loses_flows_and_is_told_how_many() {
    let (telemetry, observe) = observe(0, 0);
    let denied_only = Query::parse("follow=true&verdict=denied").unwrap();
    let mut watch = observe.watch(denied_only).unwrap();
    let more = 7;
    (0..QUEUE + more).for_each(|_| {
        observe.take(denied());
        observe.take(connection());
    });
    assert_eq!(telemetry.observe().dropped.get(), more as u64);
    let events = events(&mut watch).await;
    assert_eq!(events[0], Event::Lost { lost: more as u64 });
    assert_eq!(lines(events[1..].to_vec()).len(), QUEUE);
    observe.take(denied());
    assert_eq!(lines(super::tests::events(&mut watch).await).len(), 1, "it has caught up");
}

#[test]
fn flows_are_made_only_while_somebody_wants_them_and_few_may_follow() {
    let (telemetry, observe) = observe(0, 0);
    assert!(!wanted(&telemetry));
    let follow = || observe.watch(Query { follow: true, ..Query::default() });
    let all: Vec<_> = (0..MAX_OBSERVERS).map(|_| follow().unwrap()).collect();
    assert!(wanted(&telemetry));
    assert_eq!(telemetry.observe().observers.get(), MAX_OBSERVERS as i64);
    assert!(follow().is_err());
    drop(all);
    assert!(!wanted(&telemetry));
    assert!(follow().is_ok(), "there is room again");
    assert!(wanted(&super::tests::observe(1, 0).0) && wanted(&super::tests::observe(0, 1).0));
}

#[test]
fn pairs_are_counted_apart_by_what_decides() {
    let (_telemetry, observe) = observe(0, 100);
    let other = Flow { source: peer("shop", "cart"), ..request(200) };
    for flow in [request(200), request(500), request(200), denied(), connection(), other] {
        observe.take(flow);
    }
    let summary = observe.summary(&[]);
    let text = serde_json::to_string(&summary).unwrap();
    let read: Summary = serde_json::from_str(&text).unwrap();
    assert_eq!(read, summary, "what goes over the wire comes back");
    let of = |layer: u8, verdict: Verdict, workload: &str| {
        let is = |pair: &&PairLine| {
            (pair.layer, pair.verdict, &*pair.source.workload) == (layer, verdict, workload)
        };
        let found: Vec<_> = summary.pairs.iter().filter(is).collect();
        assert_eq!(found.len(), 1, "{layer} {verdict:?} {workload}");
        found[0]
    };
    assert_eq!(summary.pairs.len(), 4);
    let pair = of(7, Verdict::Permitted, "web");
    assert_eq!((pair.count, pair.total, pair.unsuccessful), (3, 3, 1));
    assert_eq!((pair.bytes_sent, pair.bytes_received, pair.port), (30, 60, 9080));
    assert_eq!((&*pair.method, &*pair.route), ("GET", "bank/all"));
    assert_eq!((&*pair.example.path, &*pair.example.host), ("/balance", "accounts.bank"));
    let pair = of(7, Verdict::Denied, "web");
    assert_eq!((pair.count, &*pair.example.reason), (1, "no"));
    assert_eq!(of(4, Verdict::Permitted, "web").method, "");
    assert_eq!(of(7, Verdict::Permitted, "cart").count, 1);
}

#[test]
fn what_is_an_hour_old_is_forgotten() {
    let pairs = Pairs::new(100);
    let now = SystemTime::now();
    let ago = |minutes: u64| now - Duration::from_secs(60 * minutes);
    for minutes in [80, 61, 59, 30, 30, 0] {
        pairs.count(&Flow { at: ago(minutes), ..connection() });
    }
    let lines = pairs.lines(now);
    assert_eq!((lines[0].count, lines[0].total), (4, 6));
    assert_eq!(pairs.lines(now + Duration::from_secs(60 * 31))[0].count, 1);
    assert!(pairs.lines(now + Duration::from_secs(60 * 61)).is_empty());
}

#[test]
fn a_hundred_thousand_flows_take_a_bounded_memory_and_the_latest_pairs_stay() {
    let (telemetry, observe) = observe(1_000, 64);
    for number in 0..100_000_u32 {
        let source = peer("shop", &format!("web-{}", number / 10));
        let at =
            UNIX_EPOCH + Duration::from_secs(1_800_000_000) + Duration::from_millis(number.into());
        observe.take(Flow { source, at, ..request(200) });
    }
    assert_eq!(observe.ring.as_ref().unwrap().all().len(), 1_000);
    let pairs = observe.pairs.as_ref().unwrap();
    let lines = pairs.lines(UNIX_EPOCH + Duration::from_secs(1_800_000_100));
    assert!(lines.len() <= 64 && lines.len() > 32, "{}", lines.len());
    assert!(lines.iter().any(|line| line.source.workload == "web-9999"));
    let evicted = telemetry.observe().evicted.get();
    assert_eq!(evicted + lines.len() as u64, 10_000, "each pair is there or counted");
}

#[test]
fn threads_that_write_at_once_lose_nothing_that_is_not_counted() {
    let (telemetry, observe) = observe(10_000, 10);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..2_000).for_each(|_| observe.take(request(200))));
        }
    });
    let kept = observe.ring.as_ref().unwrap().all().len() as u64;
    assert_eq!(kept + telemetry.observe().dropped.get(), 8_000);
    assert_eq!(observe.summary(&[]).pairs[0].total, 8_000);
}
