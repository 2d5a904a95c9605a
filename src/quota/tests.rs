//! The bound, with real parts and a real broker, over a network that delays, reorders and loses messages.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::broker::{Broker, Number};
use super::messages::{LimitId, Orders, Report};
use super::rounds::{InForce, Rounds};
use super::{LIFETIME, ROUND};
use crate::base::ObjectKey;
use crate::filter::{Part, Pods, Rate, rate_of_part};

const STEP: Duration = Duration::from_millis(5);
const KEY: u64 = 42;

fn limit(tokens: u64, interval: Duration, burst: u64) -> LimitId {
    LimitId {
        service: ObjectKey::new("shop", "web"),
        policy: ObjectKey::new("shop", "limit"),
        name: "shared".into(),
        rate: Rate { tokens, interval, burst },
    }
}

/// A node with its agent, and requests that come to it.
struct Node {
    rounds: Rounds,
    part: Arc<Part>,
    rate: Rate,
    session: Option<Number>,
    wake: Arc<Notify>,
    next: Instant,
    /// Requests a second.
    demand: f64,
    due: f64,
    passed: u64,
}

enum Message {
    Up(Number, Report),
    Down(usize, Number, Orders),
}

/// What the network does to a message.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    /// In milliseconds; each message takes up to so long.
    delay: u64,
    /// Of a hundred messages.
    lost: u64,
}

struct Lab {
    id: LimitId,
    pods: Vec<u32>,
    broker: Broker,
    nodes: Vec<Node>,
    on_the_way: Vec<(Instant, Message)>,
    weather: Weather,
    random: fastrand::Rng,
    /// When requests passed.
    passed: Vec<Instant>,
}

impl Lab {
    fn new(id: LimitId, pods: &[u32], demand: &[f64], weather: Weather, seed: u64) -> Self {
        let now = Instant::now();
        let all = pods.iter().sum();
        let node = |(here, demand): (&u32, &f64)| {
            let part = Arc::new(Part::default());
            let (wake, pods) = (Arc::new(Notify::new()), Pods { here: *here, all });
            let mut rounds = Rounds::default();
            let limit = InForce { id: id.clone(), cost: 1, part: part.clone(), pods };
            rounds.follow(vec![limit], &wake);
            let rate = rate_of_part(id.rate, pods, 1);
            let (demand, due, passed) = (*demand, 0.0, 0);
            Node { rounds, part, rate, session: None, wake, next: now, demand, due, passed }
        };
        let nodes = pods.iter().zip(demand).map(node).collect();
        let (on_the_way, passed) = (Vec::new(), Vec::new());
        let (broker, random) = (Broker::new(now), fastrand::Rng::with_seed(seed));
        Self { id, pods: pods.to_vec(), broker, nodes, on_the_way, weather, random, passed }
    }

    fn connect(&mut self, at: usize) {
        let all = self.pods.iter().sum();
        let node = &mut self.nodes[at];
        let session = self.broker.enter(&format!("node{at}").as_str().into(), &node.wake);
        node.rounds.begin();
        node.session = Some(session);
        // As the controller does, once it knows where the pods are.
        let report = node.rounds.look(Instant::now()).unwrap();
        let pods = Pods { here: self.pods[at], all };
        let joins = report.joins.unwrap().limits.into_iter();
        let joins = joins.map(|it| (it.number, it.id().unwrap(), pods)).collect();
        self.broker.join(session, joins, Vec::new());
    }

    fn connect_all(&mut self) {
        (0..self.nodes.len()).for_each(|at| self.connect(at));
    }

    fn disconnect(&mut self, at: usize) {
        if let Some(session) = self.nodes[at].session.take() {
            self.broker.leave(session);
        }
    }

    /// Another replica leads, or the same one anew.
    fn restart(&mut self) {
        self.broker = Broker::new(Instant::now());
        self.nodes.iter_mut().for_each(|node| node.session = None);
    }

    fn send(&mut self, message: Message) {
        if self.random.u64(0..100) >= self.weather.lost {
            let delay = Duration::from_millis(self.random.u64(0..=self.weather.delay));
            self.on_the_way.push((Instant::now() + delay, message));
        }
    }

    async fn run(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.step();
            tokio::time::advance(STEP).await;
        }
    }

    fn step(&mut self) {
        let now = Instant::now();
        for at in 0..self.nodes.len() {
            self.requests(at, now);
            let node = &mut self.nodes[at];
            if let Some(session) = node.session
                && now >= node.next
            {
                node.next = now + ROUND;
                if let Some(report) = node.rounds.look(now) {
                    self.send(Message::Up(session, report));
                }
            }
            if let Some(session) = self.nodes[at].session
                && let Some(orders) = self.broker.take(session, now)
            {
                self.send(Message::Down(at, session, orders));
            }
        }
        // In any order.
        let arrived = self.on_the_way.extract_if(.., |(at, _)| *at <= now).collect::<Vec<_>>();
        for (_, message) in arrived {
            match message {
                Message::Up(session, report) => self.broker.hear(session, &report, now),
                Message::Down(at, session, orders) if self.nodes[at].session == Some(session) => {
                    if let Some(answer) = self.nodes[at].rounds.hear(&orders, now) {
                        self.send(Message::Up(session, answer));
                    }
                }
                Message::Down(..) => {}
            }
        }
    }

    fn requests(&mut self, at: usize, now: Instant) {
        let node = &mut self.nodes[at];
        node.due += node.demand * STEP.as_secs_f64();
        while node.due >= 1.0 {
            node.due -= 1.0;
            let hash = node.part.buckets.hash(&KEY);
            if node.part.take(KEY, hash, node.rate, 1).taken {
                node.passed += 1;
                self.passed.push(now);
            }
        }
    }

    /// In no window more than the burst, what comes back in it and in a lifetime, and two for each node.
    fn check(&self) -> Result<(), String> {
        let Rate { tokens, interval, burst } = self.id.rate;
        let each_second = tokens as f64 / interval.as_secs_f64();
        let most = burst as f64
            + each_second * (LIFETIME + STEP).as_secs_f64()
            + 2.0 * self.nodes.len() as f64;
        let (mut level, mut before) = (0.0f64, None);
        for at in &self.passed {
            let since = before.map_or(Duration::ZERO, |before| at.duration_since(before));
            level = (level - each_second * since.as_secs_f64()).max(0.0) + 1.0;
            before = Some(*at);
            if level > most + 1e-6 {
                return Err(format!("{level} at once, of {most}"));
            }
        }
        Ok(())
    }

    fn shares(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.passed).collect()
    }

    fn reset(&mut self) {
        self.passed.clear();
        self.nodes.iter_mut().for_each(|node| node.passed = 0);
    }
}

const SECOND: Duration = Duration::from_secs(1);
const CALM: Weather = Weather { delay: 4, lost: 0 };

#[tokio::test(start_paused = true)]
async fn one_busy_node_has_the_whole_limit() {
    for pods in [&[1, 1][..], &[1, 3], &[1; 10], &[1; 50]] {
        let mut demand = vec![0.0; pods.len()];
        demand[0] = 300.0;
        let mut lab = Lab::new(limit(100, SECOND, 100), pods, &demand, CALM, 1);
        lab.connect_all();
        lab.run(3 * SECOND).await;
        lab.check().unwrap();
        lab.reset();
        lab.run(10 * SECOND).await;
        let passed = lab.shares()[0];
        assert!((930..=1010).contains(&passed), "{passed} over {} nodes", pods.len());
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_node_does_not_use_another_has() {
    let mut lab = Lab::new(limit(100, SECOND, 100), &[1, 1], &[150.0, 20.0], CALM, 2);
    lab.connect_all();
    lab.run(3 * SECOND).await;
    lab.reset();
    lab.run(10 * SECOND).await;
    lab.check().unwrap();
    let [busy, calm] = lab.shares()[..] else { unreachable!() };
    assert!((930..=1010).contains(&(busy + calm)), "{busy} and {calm}");
    assert!(calm >= 170, "{calm} of 200: a node keeps its part");
}

#[tokio::test(start_paused = true)]
async fn nodes_that_all_want_more_have_their_parts() {
    let mut lab = Lab::new(limit(100, SECOND, 10), &[1, 3], &[500.0, 500.0], CALM, 3);
    lab.connect_all();
    lab.run(10 * SECOND).await;
    lab.check().unwrap();
    let [one, three] = lab.shares()[..] else { unreachable!() };
    assert!((245..=270).contains(&one) && (740..=780).contains(&three), "{one} and {three}");
}

#[tokio::test(start_paused = true)]
async fn without_exchange_each_node_has_its_part() {
    let mut lab = Lab::new(limit(100, SECOND, 100), &[1, 1], &[500.0, 0.0], CALM, 4);
    lab.run(10 * SECOND).await;
    lab.check().unwrap();
    let passed = lab.shares()[0];
    assert!((545..=555).contains(&passed), "{passed}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_limit_is_not_wasted() {
    let minute = 60 * SECOND;
    let mut lab = Lab::new(limit(10, minute, 10), &[1, 1], &[1.0 / 3.0, 0.0], CALM, 5);
    lab.connect_all();
    lab.run(3 * minute).await;
    lab.check().unwrap();
    lab.reset();
    lab.run(10 * minute).await;
    lab.check().unwrap();
    let passed = lab.shares()[0];
    assert!((90..=104).contains(&passed), "{passed} in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn a_burst_that_is_smaller_than_the_mesh_is_found_by_one_node() {
    let mut demand = vec![0.0; 10];
    demand[0] = 20.0;
    let mut lab = Lab::new(limit(5, 3600 * SECOND, 5), &[1; 10], &demand, CALM, 6);
    lab.connect_all();
    lab.run(10 * SECOND).await;
    lab.check().unwrap();
    let passed = lab.shares()[0];
    assert!((3..=6).contains(&passed), "{passed}");
}

#[tokio::test(start_paused = true)]
async fn silence_costs_no_message() {
    let mut lab = Lab::new(limit(100, SECOND, 100), &[1, 1], &[40.0, 45.0], CALM, 7);
    lab.connect_all();
    for _ in 0..2000 {
        lab.step();
        assert!(lab.on_the_way.is_empty());
        tokio::time::advance(STEP).await;
    }
    assert!(lab.passed.len() >= 848, "all that came: {}", lab.passed.len());
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_starts_anew_goes_on_where_the_last_one_stopped() {
    let mut lab = Lab::new(limit(100, SECOND, 100), &[1, 1, 1], &[200.0, 0.0, 0.0], CALM, 8);
    lab.connect_all();
    lab.run(2 * SECOND).await;
    lab.restart();
    lab.run(2 * SECOND).await;
    lab.connect_all();
    lab.run(2 * SECOND).await;
    lab.check().unwrap();
    lab.reset();
    lab.run(10 * SECOND).await;
    let passed = lab.shares()[0];
    assert!((930..=1010).contains(&passed), "{passed}");
}

/// It gives what it does not have, and says that it has more.
#[tokio::test(start_paused = true)]
async fn a_node_that_lies_adds_its_own_part_at_the_most() {
    let mut lab = Lab::new(limit(100, SECOND, 100), &[1, 1, 2], &[1000.0, 0.0, 1000.0], CALM, 9);
    lab.connect_all();
    let end = Instant::now() + 10 * SECOND;
    while Instant::now() < end {
        let session = lab.nodes[1].session.unwrap();
        if let Some(orders) = lab.broker.take(session, Instant::now()) {
            let gifts = orders.asks.iter().map(|ask| super::messages::Gift {
                limit: ask.limit,
                key: ask.key,
                amount: u64::MAX,
                left: u64::MAX,
            });
            let (gifts, stamp) = (gifts.collect(), orders.stamp);
            let report = Report { stamp, gifts, ..Report::default() };
            for _ in 0..3 {
                lab.broker.hear(session, &report, Instant::now());
            }
        }
        lab.step();
        tokio::time::advance(STEP).await;
    }
    lab.check().unwrap();
    assert!(lab.passed.len() <= 100 + 1100, "{}", lab.passed.len());
}

/// It comes back as another connection, or with other limits and then with the same again, and has a full bucket each time.
#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_has_no_other_bucket() {
    let mut lab = Lab::new(limit(10, 60 * SECOND, 100), &[1, 1, 2], &[100.0, 0.0, 0.0], CALM, 10);
    lab.connect_all();
    for round in 0..40 {
        lab.run(Duration::from_millis(250)).await;
        if round % 2 == 0 {
            lab.disconnect(1);
            lab.connect(1);
        }
        let (part, rate) = (lab.nodes[1].part.clone(), lab.nodes[1].rate);
        let hash = part.buckets.hash(&KEY);
        // As if it had used nothing.
        part.buckets.give_back(hash, rate, 25_000);
    }
    // The burst, what came back in ten seconds, and what is rounded.
    assert!(lab.passed.len() <= 100 + 2 + 8, "{}", lab.passed.len());
}

/// A limit of this name, and its number on a connection.
fn named(number: u32) -> (u32, LimitId, Pods) {
    let name = format!("limit-{number}").as_str().into();
    (number, LimitId { name, ..limit(100, SECOND, 100) }, Pods { here: 1, all: 2 })
}

/// Limits that nobody else has, over as many connections as a node may have, and keys of one that others have.
#[tokio::test(start_paused = true)]
async fn a_node_that_lies_leaves_the_others_their_places() {
    let (now, wake) = (Instant::now(), Arc::new(Notify::new()));
    let mut broker = Broker::new(now);
    let enter = |broker: &mut Broker, node: &str| broker.enter(&node.into(), &wake);
    let mut liars = Vec::new();
    for connection in 0..3 {
        let liar = enter(&mut broker, "liar");
        let first = 10 + 512 * connection;
        broker.join(liar, (first..first + 512).map(named).collect(), Vec::new());
        assert!(broker.take(liar, now).is_none(), "what it has alone is nobody's matter");
        liars.push(liar);
    }
    // Two that lie together share what one of them may.
    let accomplice = enter(&mut broker, "accomplice");
    broker.join(accomplice, (10..522).map(named).collect(), Vec::new());
    assert_eq!(broker.take(accomplice, now).unwrap().refused.len(), 256);
    broker.leave(accomplice);
    let honest = ["one", "two"].map(|node| enter(&mut broker, node));
    for session in honest.into_iter().chain([liars[2]]) {
        broker.join(session, vec![named(1)], Vec::new());
    }
    let want = |key: u64| super::messages::Amount { limit: 1, key, amount: 1000 };
    for number in 0..8 {
        let wants = (0..256).map(|at| want(1000 + 256 * number + at)).collect();
        broker.hear(liars[2], &Report { number, wants, ..Report::default() }, now);
    }
    assert_eq!(broker.census().keys, 256, "its part");
    _ = broker.take(honest[1], now);
    broker.hear(honest[0], &Report { number: 1, wants: vec![want(7)], ..Report::default() }, now);
    let asks = broker.take(honest[1], now).unwrap().asks;
    assert!(asks.iter().any(|ask| ask.key == 7), "{asks:?}");
    for session in liars.into_iter().chain(honest) {
        broker.leave(session);
    }
    assert_eq!(broker.census(), Default::default());
}

/// The owner of one namespace writes as many limits as it likes, and its clients lack as many tokens.
#[tokio::test(start_paused = true)]
async fn each_namespace_has_its_part_of_a_nodes_exchange() {
    let wake = Arc::new(Notify::new());
    let in_force = |namespace: &str, (_, id, pods): (u32, LimitId, Pods)| {
        let id = LimitId { service: ObjectKey::new(namespace, "web"), ..id };
        InForce { id, cost: 1, part: Arc::new(Part::default()), pods }
    };
    let mut limits: Vec<InForce> = (0..600).map(|at| in_force("greedy", named(at))).collect();
    limits.push(in_force("modest", named(0)));
    let mut rounds = Rounds::default();
    rounds.follow(limits.clone(), &wake);
    rounds.begin();
    let take = |limit: &InForce, key: u64, tokens: u64| {
        let hash = limit.part.buckets.hash(&key);
        let rate = rate_of_part(limit.id.rate, limit.pods, 1);
        while limit.part.take(key, hash, rate, tokens).taken {}
    };
    for key in 1..=300 {
        take(&limits[0], key, 40);
    }
    take(&limits[600], 7, 1);
    let report = rounds.look(Instant::now()).unwrap();
    let joins = report.joins.unwrap().limits;
    let of_modest =
        joins.iter().find(|limit| limit.namespace == "modest").expect("it has its part");
    assert_eq!((joins.len(), report.wants.len()), (512, 256));
    assert!(report.wants.iter().any(|want| want.limit == of_modest.number && want.key == 7));
}

#[test]
fn a_rate_that_no_policy_may_set_is_no_limit() {
    let id = limit(1_000_000, 24 * 3600 * SECOND, 1_000_000);
    let written = super::messages::Limit::new(1, &id);
    assert_eq!(written.id(), Some(id));
    for wrong in [
        super::messages::Limit { tokens: 1_000_001, ..written.clone() },
        super::messages::Limit { burst: u64::MAX, ..written.clone() },
        super::messages::Limit { interval: u64::MAX, ..written.clone() },
        super::messages::Limit { interval: 0, ..written.clone() },
        super::messages::Limit { tokens: 0, ..written },
    ] {
        assert_eq!(wrong.id(), None, "{wrong:?}");
    }
}

/// What happens to the mesh, and when.
#[derive(Clone, Copy, Debug)]
enum Event {
    Connect(usize),
    Disconnect(usize),
    Restart,
    Demand(usize, u32),
}

fn event() -> impl Strategy<Value = (u64, Event)> {
    let what = prop_oneof![
        2 => (0usize..8).prop_map(Event::Connect),
        1 => (0usize..8).prop_map(Event::Disconnect),
        1 => Just(Event::Restart),
        4 => (0usize..8, 0u32..400).prop_map(|(at, demand)| Event::Demand(at, demand)),
    ];
    (0u64..2000, what)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the network does, and whoever comes and goes.
    #[test]
    fn never_more_than_the_bound(
        pods in proptest::collection::vec(1u32..5, 1..8),
        events in proptest::collection::vec(event(), 1..20),
        (tokens, interval, burst) in (1u64..200, 1u64..5000, 1u64..200),
        (delay, lost) in (0u64..400, 0u64..50),
        seed: u64,
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let id = limit(tokens, Duration::from_millis(interval), burst);
            let weather = Weather { delay, lost };
            let mut lab = Lab::new(id, &pods, &vec![0.0; pods.len()], weather, seed);
            lab.connect_all();
            for (after, event) in events {
                lab.run(Duration::from_millis(after)).await;
                let of = |at: usize| at % pods.len();
                match event {
                    Event::Connect(at) => {
                        lab.disconnect(of(at));
                        lab.connect(of(at));
                    }
                    Event::Disconnect(at) => lab.disconnect(of(at)),
                    Event::Restart => lab.restart(),
                    Event::Demand(at, demand) => lab.nodes[of(at)].demand = f64::from(demand),
                }
            }
            lab.run(Duration::from_secs(2)).await;
            lab.check()
        }).map_err(TestCaseError::fail)?;
    }
}
