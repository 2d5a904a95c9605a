//! Metrics of Tokio's runtimes, with ztunnel's names and the runtime's own as a label. They are read at each scrape and
//! cost the runtimes nothing in between.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::runtime::{Handle, RuntimeMetrics};

/// The runtimes that live as long as the agent.
#[derive(Clone, Default)]
pub(super) struct Runtimes(Arc<ArcSwap<Vec<Watched>>>);

/// Runtimes that count as one, and their threads as its workers.
#[derive(Clone)]
struct Watched {
    name: &'static str,
    runtimes: Vec<RuntimeMetrics>,
}

type Gauge = (&'static str, &'static str, fn(&RuntimeMetrics) -> usize);
type Counter = (&'static str, &'static str, fn(&RuntimeMetrics, usize) -> f64);

const GAUGES: [Gauge; 3] = [
    ("tokio_num_workers", "Threads of a runtime", RuntimeMetrics::num_workers),
    ("tokio_num_alive_tasks", "Live tasks of a runtime", RuntimeMetrics::num_alive_tasks),
    (
        "tokio_global_queue_depth",
        "Tasks in the global queue of a runtime",
        RuntimeMetrics::global_queue_depth,
    ),
];

/// By worker: one of the runtime's threads.
const COUNTERS: [Counter; 3] = [
    (
        "tokio_worker_total_busy_duration_seconds",
        "How long a thread was busy running tasks",
        |runtime, worker| runtime.worker_total_busy_duration(worker).as_secs_f64(),
    ),
    (
        "tokio_worker_park_count",
        "How often a thread parked because it had no task",
        |runtime, worker| runtime.worker_park_count(worker) as f64,
    ),
    (
        "tokio_worker_park_unpark_count",
        "How often a thread parked or unparked; odd while it is parked",
        |runtime, worker| runtime.worker_park_unpark_count(worker) as f64,
    ),
];

impl Runtimes {
    pub(super) fn watch(&self, name: &'static str, runtimes: &[Handle]) {
        let watched = Watched { name, runtimes: runtimes.iter().map(Handle::metrics).collect() };
        self.0.rcu(|all| {
            let others = all.iter().filter(|one| one.name != name).cloned();
            others.chain([watched.clone()]).collect::<Vec<_>>()
        });
    }
}

impl fmt::Debug for Runtimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runtimes")
    }
}

impl Collector for Runtimes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.0.load();
        for (name, help, value) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for Watched { name, runtimes } in all.iter() {
                let gauge = ConstGauge::new(runtimes.iter().map(value).sum::<usize>() as f64);
                gauge.encode(family.encode_family(&[("runtime", *name)])?)?;
            }
        }
        for (name, help, value) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for Watched { name, runtimes } in all.iter() {
                let of = |runtime: &RuntimeMetrics| 0..runtime.num_workers();
                let workers = runtimes.iter().flat_map(|it| of(it).map(move |worker| (it, worker)));
                for (number, (runtime, worker)) in workers.enumerate() {
                    let number = number.to_string();
                    let labels = [("runtime", *name), ("worker", number.as_str())];
                    let counter = ConstCounter::new(value(runtime, worker));
                    counter.encode(family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}
