//! The section `tracing`.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderName;

use super::super::Context;
use super::both::Both;
use super::providers::{Collectors, Providers};
use crate::base::{ObjectKey, Str};
use crate::source::objects::{ConfigMap, CustomTag, NamedValue, Telemetry, Tracing};
use crate::telemetry::{AccessFormat, SpanTag};
use crate::trace::{self, Rate, Tag, TagValue};

/// The most tags of one object; each span has all of them.
pub(super) const MOST_TAGS: usize = 64;
/// The most bytes of a name or a literal; values of headers are cut to the same length.
const MOST_TEXT: usize = 1_024;

/// The settings of one side. A field that is `None` inherits.
#[derive(Clone, Default)]
pub(super) struct Traced {
    pub(super) providers: Option<Collectors>,
    pub(super) rate: Option<Rate>,
    pub(super) disabled: Option<bool>,
    pub(super) tags: Option<Tags>,
    pub(super) without_istio_tags: Option<bool>,
    pub(super) by_request_id: Option<bool>,
    pub(super) ends_here: Option<bool>,
    /// What policies of Gateways say beyond a Telemetry.
    pub(super) more: Option<More>,
}

/// The custom tags.
#[derive(Clone, Default)]
pub(super) struct Tags {
    pub(super) read: Arc<[Tag]>,
    /// Those whose values are known when a request ends.
    pub(super) formatted: Vec<SpanTag>,
    /// Attributes under other names: that name, and the attribute's own.
    pub(super) copies: Arc<[(Str, Str)]>,
}

/// Settings that a Telemetry does not have.
#[derive(Clone, Default)]
pub(super) struct More {
    pub(super) parent: trace::Parent,
    pub(super) span_name: Option<Str>,
    pub(super) service_name: Option<Str>,
}

/// One of them.
enum ReadTag {
    Read(Tag),
    Formatted(SpanTag),
}

impl Traced {
    pub(super) fn then(&self, narrower: &Traced) -> Self {
        let Traced {
            providers,
            rate,
            disabled,
            tags,
            without_istio_tags,
            by_request_id,
            ends_here,
            more,
        } = narrower.clone();
        Self {
            providers: providers.or_else(|| self.providers.clone()),
            rate: rate.or(self.rate),
            disabled: disabled.or(self.disabled),
            tags: tags.or_else(|| self.tags.clone()),
            without_istio_tags: without_istio_tags.or(self.without_istio_tags),
            by_request_id: by_request_id.or(self.by_request_id),
            ends_here: ends_here.or(self.ends_here),
            more: more.or_else(|| self.more.clone()),
        }
    }

    /// `None` where nothing is recorded (no provider, or reporting is disabled) and headers pass.
    pub(super) fn tracing(&self) -> Option<Arc<trace::Tracing>> {
        let ends_here = self.ends_here == Some(true);
        if self.has_no_provider() || self.disabled == Some(true) {
            let of_headers = || Arc::new(trace::Tracing { ends_here, ..Default::default() });
            return ends_here.then(of_headers);
        }
        let Collectors { providers, max_path } = self.providers.clone()?;
        let More { parent, span_name, service_name } = self.more.clone().unwrap_or_default();
        let tags = self.tags.clone().unwrap_or_default();
        Some(Arc::new(trace::Tracing {
            providers,
            rate: self.rate.unwrap_or(Rate::NONE),
            parent,
            span_name,
            service_name,
            copies: tags.copies,
            tags: tags.read,
            by_request_id: self.by_request_id == Some(true),
            without_istio_tags: self.without_istio_tags == Some(true),
            max_path,
            ends_here,
        }))
    }

    /// The tags whose values are formats.
    pub(super) fn formatted_tags(&self) -> Vec<SpanTag> {
        self.tags.as_ref().map(|tags| tags.formatted.clone()).unwrap_or_default()
    }

    pub(super) fn has_no_provider(&self) -> bool {
        self.providers.as_ref().is_none_or(|it| it.providers.is_empty())
    }

    /// Sets a rate or tags without naming a provider. An unknown name has its own complaint.
    pub(super) fn asks(&self) -> bool {
        let wants = self.rate.is_some_and(|it| it != Rate::NONE) || self.tags.is_some();
        wants && self.disabled != Some(true) && self.providers.is_none()
    }
}

/// The lowest level: the settings of the agents, and MeshConfig.
pub(super) fn of_settings(cx: &mut Context<'_>, providers: &Providers) -> Traced {
    let settings = cx.settings.tracing.clone();
    let collectors = providers.defaults(cx).unwrap_or_else(|| Collectors {
        providers: settings.providers.clone(),
        max_path: settings.max_path,
    });
    let sampling =
        cx.mesh_config().and_then(|mesh| mesh.default_config.as_ref()?.tracing.as_ref()?.sampling);
    if sampling.is_some_and(|it| !(0.0..=100.0).contains(&it)) {
        let reason = "must be from 0 to 100; the nearest of them holds";
        let key = cx.mesh_config_key();
        cx.error::<ConfigMap>(&key, "data.mesh, defaultConfig.tracing.sampling", reason);
    }
    Traced {
        providers: Some(collectors),
        rate: Some(sampling.map_or(settings.rate, Rate::of_percentage)),
        ..Traced::default()
    }
}

/// Reads the section; `None` if it is empty.
pub(super) fn read(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    written: &[Tracing],
    providers: &Providers,
) -> Option<Both<Traced>> {
    let mut both = Both::<Traced>::default();
    for (index, tracing) in written.iter().enumerate() {
        let reader = Reader { key, field: format!("spec.tracing[{index}]") };
        let side = reader.read(cx, tracing, providers);
        let mode = tracing.of.as_ref().map(|of| of.mode).unwrap_or_default();
        both.change(mode, |before| before.then(&side));
    }
    (!written.is_empty()).then_some(both)
}

/// Reads one entry, and complains of it.
struct Reader<'a> {
    key: &'a ObjectKey,
    field: String,
}

impl Reader<'_> {
    fn error(&self, cx: &mut Context<'_>, field: &str, reason: impl Into<String>) {
        cx.error::<Telemetry>(self.key, format!("{}.{field}", self.field), reason);
    }

    fn warn(&self, cx: &mut Context<'_>, field: &str, reason: impl Into<String>) {
        cx.warn::<Telemetry>(self.key, format!("{}.{field}", self.field), reason);
    }

    fn read(&self, cx: &mut Context<'_>, tracing: &Tracing, providers: &Providers) -> Traced {
        let percentage = tracing.random_sampling_percentage;
        if percentage.is_some_and(|it| !(0.0..=100.0).contains(&it)) {
            let reason = "must be from 0 to 100; the nearest of them holds";
            self.error(cx, "randomSamplingPercentage", reason);
        }
        Traced {
            providers: self.collectors(cx, tracing, providers),
            rate: percentage.map(Rate::of_percentage),
            disabled: tracing.disable_span_reporting,
            tags: tracing.custom_tags.as_ref().map(|tags| self.tags(cx, tags)),
            without_istio_tags: tracing.enable_istio_tags.map(|it| !it),
            by_request_id: tracing.use_request_id_for_trace_sampling,
            ends_here: tracing.disable_context_propagation,
            more: None,
        }
    }

    fn tags(&self, cx: &mut Context<'_>, tags: &BTreeMap<String, CustomTag>) -> Tags {
        if tags.len() > MOST_TAGS {
            let reason = format!("are more than {MOST_TAGS}; the first by name hold");
            self.error(cx, "customTags", reason);
        }
        let (mut read, mut formatted) = (Vec::new(), Vec::new());
        for (name, tag) in tags.iter().take(MOST_TAGS) {
            match self.tag(cx, name, tag) {
                Some(ReadTag::Read(tag)) => read.push(tag),
                Some(ReadTag::Formatted(tag)) => formatted.push(tag),
                None => {}
            }
        }
        Tags { read: read.into(), formatted, ..Tags::default() }
    }

    /// Providers that are not known export nothing, rather than to those of a wider level.
    fn collectors(
        &self,
        cx: &mut Context<'_>,
        tracing: &Tracing,
        providers: &Providers,
    ) -> Option<Collectors> {
        let (first, others) = tracing.providers.split_first()?;
        if !others.is_empty() {
            self.warn(cx, "providers[1]", "has no effect: as in Istio, there is one provider");
        }
        let found = providers.named(&first.name);
        if found.is_none() {
            let reason = format!(
                "{:?} is no `opentelemetry` provider of MeshConfig's extensionProviders; nothing is recorded",
                first.name
            );
            self.error(cx, "providers[0].name", reason);
        }
        Some(found.unwrap_or_default())
    }

    fn tag(&self, cx: &mut Context<'_>, name: &str, tag: &CustomTag) -> Option<ReadTag> {
        let field = format!("customTags[{name}]");
        if name.is_empty() || name.len() > MOST_TEXT {
            let reason =
                format!("the name must have from 1 to {MOST_TEXT} bytes; the tag is left out");
            self.error(cx, &field, reason);
            return None;
        }
        let value = match (&tag.literal, &tag.environment, &tag.header, &tag.formatter) {
            (Some(literal), None, None, None) => Some(TagValue::Literal(text(&literal.value))),
            (None, Some(variable), None, None) => self.variable(cx, &field, variable),
            (None, None, Some(header), None) => self.header(cx, &field, header),
            (None, None, None, Some(format)) => {
                let format = self.formatter(cx, &format!("{field}.formatter"), &format.value)?;
                return Some(ReadTag::Formatted(SpanTag { name: name.into(), format }));
            }
            _ => {
                let reason = "must be one of literal, environment, header and formatter; the tag is left out";
                self.error(cx, &field, reason);
                None
            }
        };
        Some(ReadTag::Read(Tag { name: name.into(), value: value? }))
    }

    fn formatter(
        &self,
        cx: &mut Context<'_>,
        field: &str,
        written: &str,
    ) -> Option<Arc<AccessFormat>> {
        let fault = match AccessFormat::text(Some(written)) {
            Ok(_) if written.is_empty() => "is empty".to_owned(),
            Ok(format) => {
                for operator in format.unknown() {
                    let reason = format!("{operator} is not known here and shows `-`");
                    self.warn(cx, field, reason);
                }
                return Some(Arc::new(format));
            }
            Err(error) => error.to_string(),
        };
        self.error(cx, field, format!("{fault}; the tag is left out"));
        None
    }

    /// Tenants must not read the environment, since it is the agent's.
    fn variable(
        &self,
        cx: &mut Context<'_>,
        field: &str,
        NamedValue { name, default_value }: &NamedValue,
    ) -> Option<TagValue> {
        let default = default_value.as_deref().map(text);
        if !cx.is_root(&self.key.namespace) {
            let reason = "a variable of the agent's environment is read for objects of the root namespace only; the default \
                          holds";
            self.warn(cx, &format!("{field}.environment"), reason);
            return default.map(TagValue::Literal);
        }
        let value = std::env::var(name).ok();
        value.as_deref().map(text).or(default).map(TagValue::Literal)
    }

    fn header(
        &self,
        cx: &mut Context<'_>,
        field: &str,
        NamedValue { name, default_value }: &NamedValue,
    ) -> Option<TagValue> {
        let Ok(name) = HeaderName::try_from(name.as_str()) else {
            let reason = format!("{name:?} is not the name of a header; the tag is left out");
            self.error(cx, &format!("{field}.header.name"), reason);
            return None;
        };
        Some(TagValue::Header { name, default: default_value.as_deref().map(text) })
    }
}

/// The text, cut to the length that spans show.
pub(super) fn text(written: &str) -> Str {
    Str::from(&written[..written.floor_char_boundary(MOST_TEXT)])
}
