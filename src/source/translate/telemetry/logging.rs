//! The section `accessLogging`: which requests and connections are logged, in which format, and which collectors get them. There is
//! one log: that of the agent.

use std::sync::Arc;

use super::super::Context;
use super::Expressions;
use super::both::Both;
use super::providers::Providers;
use crate::base::ObjectKey;
use crate::expression::Expression;
use crate::source::objects::{AccessLogging, ConfigMap, Telemetry};
use crate::telemetry::{AccessFormat, AccessRules, RecordSink};

/// Istio's predefined provider: here the agent's log, in its own format.
const ENVOY: &str = "envoy";

const OTHER: &str = "is not a provider of access logs that is carried out: these are `envoy`, and those of `envoyFileAccessLog` and \
                     `envoyOtelAls` in MeshConfig's extensionProviders";

const ONE_LOG: &str = "has no effect: the agent has one log";

/// The settings of one side. A field that is `None` inherits.
#[derive(Clone, Default)]
pub(super) struct Logged {
    outputs: Option<Outputs>,
    said: Option<Said>,
}

/// Where the records go.
#[derive(Clone, Default)]
struct Outputs {
    /// The agent's log, and its format if that is not the agent's.
    log: Option<Option<Arc<AccessFormat>>>,
    sinks: Vec<Arc<RecordSink>>,
}

impl Outputs {
    fn is_empty(&self) -> bool {
        self.log.is_none() && self.sinks.is_empty()
    }

    /// Adds a provider, or tells why it has no effect.
    fn add(&mut self, name: &str, providers: &Providers) -> Result<(), String> {
        if let Some(sink) = providers.sink(name) {
            if !self.sinks.contains(sink) {
                self.sinks.push(sink.clone());
            }
            return Ok(());
        }
        let known = if name == ENVOY { Some(&None) } else { providers.format(name) };
        let Some(format) = known else { return Err(format!("{name:?} {OTHER}")) };
        if self.log.is_some() {
            return Err(ONE_LOG.to_owned());
        }
        self.log = Some(format.clone());
        Ok(())
    }
}

/// The requests that are logged. An entry replaces that of a wider level, even if it has no filter.
#[derive(Clone)]
struct Said {
    disabled: bool,
    only: Option<Arc<Expression>>,
}

impl Logged {
    pub(super) fn then(&self, narrower: &Logged) -> Self {
        let Logged { outputs, said } = narrower.clone();
        Self {
            outputs: outputs.or_else(|| self.outputs.clone()),
            said: said.or_else(|| self.said.clone()),
        }
    }

    /// `None` if nothing differs from the settings and MeshConfig.
    pub(super) fn rules(&self) -> Option<Arc<AccessRules>> {
        let said = self.said.clone().unwrap_or(Said { disabled: false, only: None });
        let only_exports = self.outputs.as_ref().is_some_and(|outputs| outputs.log.is_none());
        let Outputs { log, sinks } = self.outputs.clone().unwrap_or_default();
        let rules = AccessRules {
            disabled: said.disabled,
            only: said.only,
            format: log.flatten(),
            exports: sinks,
            only_exports,
        };
        (rules != AccessRules::default()).then(|| Arc::new(rules))
    }
}

/// The known providers of `defaultProviders.accessLogging`.
pub(super) fn of_settings(cx: &mut Context<'_>, providers: &Providers) -> Option<Both<Logged>> {
    let mesh = cx.mesh_config()?;
    let mut outputs = Outputs::default();
    for (index, name) in mesh.default_providers.access_logging.iter().enumerate() {
        if let Err(why) = outputs.add(name, providers) {
            let field = format!("data.mesh, defaultProviders.accessLogging[{index}]");
            let key = cx.mesh_config_key();
            cx.warn::<ConfigMap>(&key, field, why);
        }
    }
    if outputs.is_empty() {
        return None;
    }
    let logged = Logged { outputs: Some(outputs), said: None };
    Some(Both { client: logged.clone(), server: logged })
}

/// Reads the section; `None` if it is empty.
pub(super) fn read(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    written: &[AccessLogging],
    (providers, expressions): (&Providers, &mut Expressions),
) -> Option<Both<Logged>> {
    let mut both = Both::<Logged>::default();
    for (index, entry) in written.iter().enumerate() {
        let field = format!("spec.accessLogging[{index}]");
        let Some(side) = read_entry(cx, (key, &field), entry, (providers, &mut *expressions))
        else {
            continue;
        };
        let mode = entry.of.as_ref().map(|of| of.mode).unwrap_or_default();
        both.change(mode, |before| before.then(&side));
    }
    (!written.is_empty()).then_some(both)
}

/// `None` if the entry names only providers that are not supported.
fn read_entry(
    cx: &mut Context<'_>,
    (key, field): (&ObjectKey, &str),
    entry: &AccessLogging,
    (providers, expressions): (&Providers, &mut Expressions),
) -> Option<Logged> {
    let mut outputs = Outputs::default();
    for (index, provider) in entry.providers.iter().enumerate() {
        if let Err(why) = outputs.add(&provider.name, providers) {
            cx.warn::<Telemetry>(key, format!("{field}.providers[{index}].name"), why);
        }
    }
    if outputs.is_empty() && !entry.providers.is_empty() {
        return None;
    }
    let written = entry.filter.as_ref().map(|filter| filter.expression.as_str());
    let only = match written.filter(|text| !text.is_empty()).map(|text| expressions.parse(text)) {
        None => None,
        Some(Ok(expression)) => Some(expression),
        Some(Err(error)) => {
            let reason = format!("{error}; all requests are logged");
            cx.error::<Telemetry>(key, format!("{field}.filter.expression"), reason);
            None
        }
    };
    let disabled = entry.disabled == Some(true);
    let outputs = (!outputs.is_empty()).then_some(outputs);
    Some(Logged { outputs, said: Some(Said { disabled, only }) })
}
