//! The section `metrics`: which metrics of requests are recorded.

use super::super::Context;
use super::both::Both;
use crate::base::ObjectKey;
use crate::source::objects::{IstioMetric, Metrics, MetricsOverride, Telemetry};
use crate::telemetry::MetricRules;

/// Whether each metric of one side is disabled. `None` inherits.
#[derive(Clone, Copy, Default)]
pub(super) struct Counted {
    count: Option<bool>,
    duration: Option<bool>,
    request_size: Option<bool>,
    response_size: Option<bool>,
    request_messages: Option<bool>,
    response_messages: Option<bool>,
}

impl Counted {
    pub(super) fn then(&self, narrower: &Counted) -> Self {
        Self {
            count: narrower.count.or(self.count),
            duration: narrower.duration.or(self.duration),
            request_size: narrower.request_size.or(self.request_size),
            response_size: narrower.response_size.or(self.response_size),
            request_messages: narrower.request_messages.or(self.request_messages),
            response_messages: narrower.response_messages.or(self.response_messages),
        }
    }

    pub(super) fn rules(&self) -> MetricRules {
        MetricRules {
            count: self.count == Some(true),
            duration: self.duration == Some(true),
            request_size: self.request_size == Some(true),
            response_size: self.response_size == Some(true),
            request_messages: self.request_messages == Some(true),
            response_messages: self.response_messages == Some(true),
        }
    }

    fn all(disabled: bool) -> Self {
        let said = Some(disabled);
        Self {
            count: said,
            duration: said,
            request_size: said,
            response_size: said,
            request_messages: said,
            response_messages: said,
        }
    }

    /// `None` for a metric that is not of requests.
    fn of(metric: IstioMetric, disabled: bool) -> Option<Self> {
        let (none, said) = (Self::default(), Some(disabled));
        Some(match metric {
            IstioMetric::AllMetrics => Self::all(disabled),
            IstioMetric::RequestCount => Self { count: said, ..none },
            IstioMetric::RequestDuration => Self { duration: said, ..none },
            IstioMetric::RequestSize => Self { request_size: said, ..none },
            IstioMetric::ResponseSize => Self { response_size: said, ..none },
            IstioMetric::GrpcRequestMessages => Self { request_messages: said, ..none },
            IstioMetric::GrpcResponseMessages => Self { response_messages: said, ..none },
            _ => return None,
        })
    }
}

/// Reads the section; `None` if it is empty.
pub(super) fn read(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    written: &[Metrics],
) -> Option<Both<Counted>> {
    let mut both = Both::<Counted>::default();
    for (index, metrics) in written.iter().enumerate() {
        let field = format!("spec.metrics[{index}]");
        for (index, provider) in metrics.providers.iter().enumerate() {
            if !is_prometheus(cx, &provider.name) {
                let reason = format!(
                    "{:?} is not a provider of metrics that is carried out: `prometheus` is, which scrapes the agents",
                    provider.name
                );
                cx.warn::<Telemetry>(key, format!("{field}.providers[{index}].name"), reason);
            }
        }
        if metrics.reporting_interval.is_some() {
            let reason = "is not carried out: whoever scrapes decides how often";
            cx.warn::<Telemetry>(key, format!("{field}.reportingInterval"), reason);
        }
        // An entry that is about other providers only leaves the metrics alone.
        let ours = metrics.providers.is_empty()
            || metrics.providers.iter().any(|it| is_prometheus(cx, &it.name));
        for (index, change) in metrics.overrides.iter().enumerate() {
            let said = read_override(cx, (key, &format!("{field}.overrides[{index}]")), change);
            let Some(said) = said.filter(|_| ours) else { continue };
            let mode = change.of.as_ref().map(|of| of.mode).unwrap_or_default();
            both.change(mode, |before| before.then(&said));
        }
    }
    (!written.is_empty()).then_some(both)
}

/// `prometheus` is predefined in Istio.
fn is_prometheus(cx: &Context<'_>, name: &str) -> bool {
    let defined = cx.mesh_config().and_then(|mesh| mesh.provider(name));
    defined.map_or(name == "prometheus", |provider| provider.prometheus.is_some())
}

fn read_override(
    cx: &mut Context<'_>,
    (key, field): (&ObjectKey, &str),
    change: &MetricsOverride,
) -> Option<Counted> {
    if !change.tag_overrides.is_empty() {
        let reason = "is not carried out: labels are those of docs/metrics.md";
        cx.warn::<Telemetry>(key, format!("{field}.tagOverrides"), reason);
    }
    let of = change.of.as_ref();
    if let Some(custom) = of.and_then(|of| of.custom_metric.as_ref()) {
        let reason = format!("{custom:?} is not a metric of Istio; nothing is changed");
        cx.warn::<Telemetry>(key, format!("{field}.match.customMetric"), reason);
        return None;
    }
    let metric = of.and_then(|of| of.metric).unwrap_or_default();
    let said = Counted::of(metric, change.disabled?);
    if said.is_none() {
        let reason = "is not carried out: metrics of connections are always recorded";
        cx.warn::<Telemetry>(key, format!("{field}.match.metric"), reason);
    }
    said
}
