//! The section `metrics`: which metrics are recorded, and with which labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::Context;
use super::Expressions;
use super::both::Both;
use crate::base::{ObjectKey, Str};
use crate::expression::Expression;
use crate::source::objects::{
    IstioMetric, Metrics, MetricsOverride, TagOperation, TagOverride, Telemetry,
};
use crate::telemetry::{Metric, MetricSet, TagChanges, TagRules, names_a_side};

/// The most labels that an override changes: each is a part of every series.
const MOST_TAGS: usize = 32;

/// The most bytes of the name of a label.
const MOST_NAME: usize = 128;

/// The settings of one side. A metric that is not here inherits, and so does a label.
#[derive(Clone, Default)]
pub(super) struct Counted {
    disabled: BTreeMap<Metric, bool>,
    tags: BTreeMap<Metric, TagChanges>,
}

impl Counted {
    pub(super) fn then(&self, narrower: &Counted) -> Self {
        let Counted { mut disabled, mut tags } = self.clone();
        disabled.extend(&narrower.disabled);
        for (metric, changes) in &narrower.tags {
            let changes = changes.iter().map(|(name, value)| (name.clone(), value.clone()));
            tags.entry(*metric).or_default().extend(changes);
        }
        Self { disabled, tags }
    }

    /// The metrics that are not recorded.
    pub(super) fn disabled(&self) -> MetricSet {
        self.disabled.iter().filter(|(_, disabled)| **disabled).map(|(metric, _)| *metric).collect()
    }

    /// The changes to the labels of these metrics.
    pub(super) fn tags(&self, of: MetricSet) -> Option<Arc<TagRules>> {
        let tags = self.tags.iter().map(|(metric, changes)| (*metric, changes));
        TagRules::of(tags.filter(|(metric, _)| of.has(*metric)))
    }
}

/// Reads the section; `None` if it is empty.
pub(super) fn read(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    written: &[Metrics],
    expressions: &mut Expressions,
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
            let reason = "has no effect: counters grow while a connection lasts, so that each scrape is up to date, and whoever \
                          scrapes decides how often";
            cx.warn::<Telemetry>(key, format!("{field}.reportingInterval"), reason);
        }
        // An entry that is about other providers only leaves the metrics alone.
        let ours = metrics.providers.is_empty()
            || metrics.providers.iter().any(|it| is_prometheus(cx, &it.name));
        for (index, change) in metrics.overrides.iter().enumerate() {
            let field = format!("{field}.overrides[{index}]");
            let said = read_override(cx, (key, &field), change, expressions);
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
    expressions: &mut Expressions,
) -> Option<Counted> {
    let of = change.of.as_ref();
    if let Some(custom) = of.and_then(|of| of.custom_metric.as_ref()) {
        let reason = format!("{custom:?} is not a metric of Istio; nothing is changed");
        cx.warn::<Telemetry>(key, format!("{field}.match.customMetric"), reason);
        return None;
    }
    let field = format!("{field}.tagOverrides");
    let written = &change.tag_overrides;
    if written.len() > MOST_TAGS {
        let reason = format!("are more than {MOST_TAGS}; the first by name hold");
        cx.error::<Telemetry>(key, &field, reason);
    }
    let mut changes = TagChanges::new();
    for (name, written) in written.iter().take(MOST_TAGS) {
        let field = format!("{field}[{name}]");
        let value = read_tag(cx, (key, &field), (name, written), expressions);
        changes.extend(value.map(|value| (Str::from(name.as_str()), value)));
    }
    let metrics = metrics(of.and_then(|of| of.metric).unwrap_or_default());
    let disabled = metrics.iter().filter_map(|metric| Some((*metric, change.disabled?)));
    let mut said = Counted { disabled: disabled.collect(), tags: BTreeMap::new() };
    if !changes.is_empty() {
        said.tags = metrics.iter().map(|metric| (*metric, changes.clone())).collect();
    }
    Some(said)
}

/// The value that a label gets, `Some(None)` if it is removed; `None` if the change is not carried out.
fn read_tag(
    cx: &mut Context<'_>,
    (key, field): (&ObjectKey, &str),
    (name, written): (&str, &TagOverride),
    expressions: &mut Expressions,
) -> Option<Option<Arc<Expression>>> {
    if !is_label(name) {
        let reason = "is not the name of a label: letters, digits and `_`, neither a digit nor `__` first, and not `le`; \
                      it is left out";
        cx.error::<Telemetry>(key, field, reason);
        return None;
    }
    if written.operation == TagOperation::Remove {
        return Some(None);
    }
    // Series of all tenants are scraped from one agent: nobody writes those of others.
    if names_a_side(name) && !cx.is_root(&key.namespace) {
        let reason = "says who speaks with whom; only an object of the root namespace gives it another value. It can be \
                      removed, and its value put into a label by another name";
        cx.error::<Telemetry>(key, field, reason);
        return None;
    }
    let text = written.value.as_deref().unwrap_or_default();
    match expressions.parse(text) {
        Ok(expression) => Some(Some(expression)),
        Err(error) => {
            let reason = format!("{error}; the label stays as it is");
            cx.error::<Telemetry>(key, format!("{field}.value"), reason);
            None
        }
    }
}

/// A name that Prometheus takes. `le` is that of a histogram's buckets.
fn is_label(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let begins = name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    begins
        && name.bytes().all(is_part)
        && name.len() <= MOST_NAME
        && !name.starts_with("__")
        && name != "le"
}

fn metrics(of: IstioMetric) -> Vec<Metric> {
    let one = match of {
        IstioMetric::AllMetrics => return Metric::ALL.to_vec(),
        IstioMetric::RequestCount => Metric::RequestCount,
        IstioMetric::RequestDuration => Metric::RequestDuration,
        IstioMetric::RequestSize => Metric::RequestSize,
        IstioMetric::ResponseSize => Metric::ResponseSize,
        IstioMetric::TcpOpenedConnections => Metric::TcpOpenedConnections,
        IstioMetric::TcpClosedConnections => Metric::TcpClosedConnections,
        IstioMetric::TcpSentBytes => Metric::TcpSentBytes,
        IstioMetric::TcpReceivedBytes => Metric::TcpReceivedBytes,
        IstioMetric::GrpcRequestMessages => Metric::GrpcRequestMessages,
        IstioMetric::GrpcResponseMessages => Metric::GrpcResponseMessages,
    };
    vec![one]
}
