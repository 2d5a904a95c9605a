//! The section `accessLogging`: which requests are logged, and in which format. There is one access log: that of the agent.

use std::sync::Arc;

use super::super::Context;
use super::Expressions;
use super::both::Both;
use super::providers::Providers;
use crate::base::ObjectKey;
use crate::expression::Expression;
use crate::source::objects::{AccessLogging, ConfigMap, Telemetry};
use crate::telemetry::{AccessFormat, AccessRules};

/// Istio's predefined provider: here the agent's log, in its own format.
const ENVOY: &str = "envoy";

const OTHER: &str = "is not a provider of access logs that is carried out: these are `envoy`, and those of `envoyFileAccessLog` in \
                     MeshConfig's extensionProviders";

/// The settings of one side. A field that is `None` inherits.
#[derive(Clone, Default)]
pub(super) struct Logged {
    format: Option<Option<Arc<AccessFormat>>>,
    said: Option<Said>,
}

/// The requests that are logged. An entry replaces that of a wider level, even if it has no filter.
#[derive(Clone)]
struct Said {
    disabled: bool,
    only: Option<Arc<Expression>>,
}

impl Logged {
    pub(super) fn then(&self, narrower: &Logged) -> Self {
        let Logged { format, said } = narrower.clone();
        Self {
            format: format.or_else(|| self.format.clone()),
            said: said.or_else(|| self.said.clone()),
        }
    }

    /// `None` if nothing differs from the settings and MeshConfig.
    pub(super) fn rules(&self) -> Option<Arc<AccessRules>> {
        let said = self.said.clone().unwrap_or(Said { disabled: false, only: None });
        let rules = AccessRules {
            disabled: said.disabled,
            only: said.only,
            format: self.format.clone().flatten(),
        };
        (rules != AccessRules::default()).then(|| Arc::new(rules))
    }
}

/// The first known provider of `defaultProviders.accessLogging`.
pub(super) fn of_settings(cx: &mut Context<'_>, providers: &Providers) -> Option<Both<Logged>> {
    let mesh = cx.mesh_config()?;
    let mut logged = Logged::default();
    for (index, name) in mesh.default_providers.access_logging.iter().enumerate() {
        let field = format!("data.mesh, defaultProviders.accessLogging[{index}]");
        let key = cx.mesh_config_key();
        match format_of(name, providers) {
            Some(_) if logged.format.is_some() => {
                cx.warn::<ConfigMap>(&key, field, "has no effect: there is one access log");
            }
            Some(format) => logged.format = Some(format),
            None => cx.warn::<ConfigMap>(&key, field, format!("{name:?} {OTHER}")),
        }
    }
    let said = logged.format.is_some();
    said.then(|| Both { client: logged.clone(), server: logged })
}

/// The format of a provider that is carried out; `Some(None)` for the agent's.
fn format_of(name: &str, providers: &Providers) -> Option<Option<Arc<AccessFormat>>> {
    if name == ENVOY { Some(None) } else { providers.format(name).cloned() }
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
    let mut format = None;
    for (index, provider) in entry.providers.iter().enumerate() {
        let field = format!("{field}.providers[{index}].name");
        match format_of(&provider.name, providers) {
            Some(_) if format.is_some() => {
                cx.warn::<Telemetry>(key, field, "has no effect: there is one access log");
            }
            Some(found) => format = Some(found),
            None => cx.warn::<Telemetry>(key, field, format!("{:?} {OTHER}", provider.name)),
        }
    }
    if format.is_none() && !entry.providers.is_empty() {
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
    Some(Logged { format, said: Some(Said { disabled, only }) })
}
