//! The settings of one level: each section for both sides of a call.

use std::sync::Arc;

use super::super::Context;
use super::Expressions;
use super::both::Both;
use super::logging::{self, Logged};
use super::metrics::{self, Counted};
use super::providers::Providers;
use super::tracing::{self, Traced};
use crate::base::ObjectKey;
use crate::model::{Observed, Sides};
use crate::source::objects::TelemetrySpec;
use crate::telemetry::{MetricSet, Rules};

/// One level. A section that is `None` inherits.
#[derive(Clone, Default)]
pub(super) struct Level {
    tracing: Option<Both<Traced>>,
    logging: Option<Both<Logged>>,
    metrics: Option<Both<Counted>>,
}

/// The lowest level: the settings of the agents, and MeshConfig.
pub(super) fn of_settings(cx: &mut Context<'_>, providers: &Providers) -> Level {
    let traced = tracing::of_settings(cx, providers);
    Level {
        tracing: Some(Both { client: traced.clone(), server: traced }),
        logging: logging::of_settings(cx, providers),
        metrics: None,
    }
}

/// Reads a Telemetry, and complains of unsupported fields.
pub(super) fn read(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    spec: &TelemetrySpec,
    providers: &Providers,
    expressions: &mut Expressions,
) -> Level {
    Level {
        tracing: tracing::read(cx, key, &spec.tracing, providers),
        logging: logging::read(cx, key, &spec.access_logging, (providers, &mut *expressions)),
        metrics: metrics::read(cx, key, &spec.metrics, expressions),
    }
}

impl Level {
    /// A level that says this of both sides' spans, and nothing else.
    pub(super) fn of_tracing(traced: Traced) -> Self {
        let tracing = Some(Both { client: traced.clone(), server: traced });
        Self { tracing, ..Self::default() }
    }

    /// Takes the sections of a younger object that are not set yet. False if there are none.
    pub(super) fn fill(&mut self, younger: &Level) -> bool {
        let traced = fill(&mut self.tracing, &younger.tracing);
        let logged = fill(&mut self.logging, &younger.logging);
        let counted = fill(&mut self.metrics, &younger.metrics);
        traced || logged || counted
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tracing.is_none() && self.logging.is_none() && self.metrics.is_none()
    }

    /// Merges a narrower level into this one.
    pub(super) fn then(&self, narrower: Option<&Level>) -> Self {
        let Some(narrower) = narrower else { return self.clone() };
        Self {
            tracing: merge(&self.tracing, &narrower.tracing, Traced::then),
            logging: merge(&self.logging, &narrower.logging, Logged::then),
            metrics: merge(&self.metrics, &narrower.metrics, Counted::then),
        }
    }

    pub(super) fn sides(&self) -> Sides {
        let Self { tracing, logging, metrics } = self;
        Sides {
            client: observed(
                tracing.as_ref().map(|it| &it.client),
                logging.as_ref().map(|it| &it.client),
                metrics.as_ref().map(|it| &it.client),
            ),
            server: observed(
                tracing.as_ref().map(|it| &it.server),
                logging.as_ref().map(|it| &it.server),
                metrics.as_ref().map(|it| &it.server),
            ),
        }
    }

    /// `said` asks for spans, and the merged level has no provider that gets them.
    pub(super) fn records_nothing(&self, said: &Level) -> bool {
        let (Some(merged), Some(said)) = (&self.tracing, &said.tracing) else { return false };
        let deaf = |merged: &Traced, said: &Traced| said.asks() && merged.has_no_provider();
        deaf(&merged.client, &said.client) || deaf(&merged.server, &said.server)
    }
}

fn observed(
    traced: Option<&Traced>,
    logged: Option<&Logged>,
    counted: Option<&Counted>,
) -> Observed {
    let tracing = traced.and_then(Traced::tracing);
    let rules = Rules {
        access: logged.and_then(Logged::rules),
        disabled: counted.map(Counted::disabled).unwrap_or_default(),
        request_tags: counted.and_then(|it| it.tags(MetricSet::REQUESTS)),
        connection_tags: counted.and_then(|it| it.tags(MetricSet::CONNECTIONS)),
        span_tags: match (traced, &tracing) {
            (Some(traced), Some(_)) => traced.formatted_tags(),
            _ => Vec::new(),
        },
    };
    Observed { tracing, rules: (rules != Rules::default()).then(|| Arc::new(rules)) }
}

fn fill<T: Clone>(older: &mut Option<T>, younger: &Option<T>) -> bool {
    let is_free = older.is_none() && younger.is_some();
    if is_free {
        older.clone_from(younger);
    }
    is_free
}

fn merge<T: Clone>(
    wider: &Option<Both<T>>,
    narrower: &Option<Both<T>>,
    then: impl Fn(&T, &T) -> T,
) -> Option<Both<T>> {
    match (wider, narrower) {
        (Some(wider), Some(narrower)) => Some(Both {
            client: then(&wider.client, &narrower.client),
            server: then(&wider.server, &narrower.server),
        }),
        (one, two) => two.clone().or_else(|| one.clone()),
    }
}
