//! Fuzz target of what an agent that is not one of ours could send to the controller, and what could be sent to an agent.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::broker::Broker;
use super::messages::{LimitId, Orders, Report};
use super::rounds::{InForce, Rounds};
use crate::base::ObjectKey;
use crate::filter::{Part, Pods, Rate};

/// A report for the broker, whose orders go to an honest node; and the same bytes as orders.
pub fn exchange(bytes: &[u8]) {
    let (now, wake) = (Instant::now(), Arc::new(Notify::new()));
    let mut honest = node(&wake);
    honest.begin();
    let joins = honest.look(now).and_then(|report| report.joins).unwrap_or_default();
    if let Ok(orders) = Orders::decode(bytes) {
        _ = honest.hear(&orders, now);
    }
    let Ok(report) = Report::decode(bytes) else { return };
    if report.check().is_err() {
        return;
    }
    let mut broker = Broker::new(now);
    let pods = Pods { here: 1, all: 2 };
    let [one, other] = ["one", "other"].map(|name| broker.enter(&name.into(), &wake));
    let limits = |joins: &super::messages::Joins| {
        let known = joins.limits.iter().filter_map(|it| Some((it.number, it.id()?, pods)));
        known.collect::<Vec<_>>()
    };
    broker.join(one, limits(&joins), Vec::new());
    broker.join(other, limits(&joins), Vec::new());
    for _ in 0..2 {
        if let Some(joins) = &report.joins {
            broker.join(other, limits(joins), vec![1]);
        }
        broker.hear(other, &report, now);
        while let Some(orders) = broker.take(one, now) {
            // Whatever one node says, another one is asked for no more than its bucket may hold, of its own limits.
            let most = 50_000;
            assert!(orders.asks.iter().all(|ask| ask.amount <= most), "{orders:?}");
            if let Some(answer) = honest.hear(&orders, now) {
                broker.hear(one, &answer, now);
            }
        }
        _ = broker.take(other, now);
    }
    broker.leave(other);
    broker.leave(one);
    assert_eq!(broker.census(), Default::default());
}

fn node(wake: &Arc<Notify>) -> Rounds {
    let mut rounds = Rounds::default();
    let id = LimitId {
        service: ObjectKey::new("shop", "web"),
        policy: ObjectKey::new("shop", "limit"),
        name: "shared".into(),
        rate: Rate { tokens: 100, interval: Duration::from_secs(1), burst: 100 },
    };
    let (part, pods) = (Arc::new(Part::default()), Pods { here: 1, all: 2 });
    rounds.follow(vec![InForce { id, cost: 1, part, pods }], wake);
    rounds
}
