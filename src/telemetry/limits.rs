//! The concurrency limits of TrafficPolicies, each with the pod and port that it holds for; read at each scrape.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::filter::{LimitInUse, Shed, limits_in_use};

/// More are not shown: a node has some hundred pods.
const MOST: usize = 2000;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    policy: String,
    /// The service and its port.
    destination: String,
    pod: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShedLabels {
    policy: String,
    /// The service and its port.
    destination: String,
    pod: String,
    cause: &'static str,
}

fn labels(limit: &LimitInUse) -> Labels {
    let of = &limit.of;
    let service = of.service.as_ref().map(ToString::to_string).unwrap_or_default();
    Labels {
        policy: of.policy.to_string(),
        destination: format!("{service}:{}", of.port),
        pod: of.pod.to_string(),
    }
}

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut limits = limits_in_use();
    limits.truncate(MOST);
    let help = "Requests that a concurrencyLimit permits at once, of a pod and port";
    gauges(encoder, "isthmus_concurrency_limit", help, &limits, |it| it.limit)?;
    let help = "Requests in progress under a concurrencyLimit";
    gauges(encoder, "isthmus_concurrency_in_progress", help, &limits, |it| it.in_progress)?;
    let help =
        "Requests that a concurrencyLimit did not let in, or would not have let in shadow mode";
    let name = "isthmus_concurrency_shed";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for limit in &limits {
        for (cause, count) in Shed::ALL.iter().zip(limit.shed) {
            let Labels { policy, destination, pod } = labels(limit);
            let labels = ShedLabels { policy, destination, pod, cause: cause.as_str() };
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn gauges(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    limits: &[LimitInUse],
    value: impl Fn(&LimitInUse) -> u32,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for limit in limits {
        let gauge = ConstGauge::new(i64::from(value(limit)));
        gauge.encode(family.encode_family(&labels(limit))?)?;
    }
    Ok(())
}
