//! The providers that MeshConfig names (`extensionProviders`): collectors of spans, and formats of the access log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::super::{Context, ext_authz};
use crate::base::Str;
use crate::base::schema::parse_istio_duration;
use crate::source::objects::{
    ConfigMap, FileAccessLog, LogFormat, OpenTelemetry, OtelAccessLog, OtlpHeader, OtlpHttp,
};
use crate::telemetry::{AccessFormat, FormatError, RecordSink};
use crate::trace::{Protocol, Provider};

/// The longest that an export may take.
const MOST_TIME: Duration = Duration::from_secs(60);

/// Istio's name of a log where none is given.
const LOG_NAME: &str = "otel_envoy_accesslog";

/// Istio's: bytes of a request's path in a span.
pub(super) const MAX_TAG_LENGTH: u32 = 256;

/// The collector of spans, and the length of a request's path in them.
#[derive(Clone, Default)]
pub(super) struct Collectors {
    pub(super) providers: Arc<[Arc<Provider>]>,
    pub(super) max_path: Option<usize>,
}

/// By name.
#[derive(Default)]
pub(super) struct Providers {
    collectors: BTreeMap<String, Collectors>,
    /// `None` for the agent's own format.
    formats: BTreeMap<String, Option<Arc<AccessFormat>>>,
    sinks: BTreeMap<String, Arc<RecordSink>>,
}

impl Providers {
    pub(super) fn read(cx: &mut Context<'_>) -> Self {
        let Some(mesh) = cx.mesh_config() else { return Self::default() };
        let mut providers = Self::default();
        for (index, provider) in mesh.extension_providers.iter().enumerate() {
            if let Some(written) = &provider.envoy_file_access_log {
                let field = format!("extensionProviders[{index}].envoyFileAccessLog");
                let format = Reader { cx, field }.format(written);
                providers.formats.entry(provider.name.clone()).or_insert(format);
            }
            if let Some(written) = &provider.envoy_otel_als {
                let field = format!("extensionProviders[{index}].envoyOtelAls");
                let sink = Reader { cx, field }.sink(&provider.name, written);
                if let Some(sink) = sink {
                    providers.sinks.entry(provider.name.clone()).or_insert(Arc::new(sink));
                }
            }
            let Some(written) = &provider.opentelemetry else { continue };
            let field = format!("extensionProviders[{index}].opentelemetry");
            let mut reader = Reader { cx, field };
            let Some(read) = reader.read(&provider.name, written) else { continue };
            let max_path = written.max_tag_length.unwrap_or(MAX_TAG_LENGTH) as usize;
            let collectors =
                Collectors { providers: [Arc::new(read)].into(), max_path: Some(max_path) };
            // The first provider of a name counts.
            providers.collectors.entry(provider.name.clone()).or_insert(collectors);
        }
        providers
    }

    pub(super) fn named(&self, name: &str) -> Option<Collectors> {
        self.collectors.get(name).cloned()
    }

    /// The format of a provider of access logs.
    pub(super) fn format(&self, name: &str) -> Option<&Option<Arc<AccessFormat>>> {
        self.formats.get(name)
    }

    /// The collector of a provider of access logs.
    pub(super) fn sink(&self, name: &str) -> Option<&Arc<RecordSink>> {
        self.sinks.get(name)
    }

    /// The first of `defaultProviders.tracing`; `None` when it names none.
    pub(super) fn defaults(&self, cx: &mut Context<'_>) -> Option<Collectors> {
        let (first, others) = cx.mesh_config()?.default_providers.tracing.split_first()?;
        if !others.is_empty() {
            let reason = "has no effect: as in Istio, there is one provider";
            tell(cx, "defaultProviders.tracing[1]", reason);
        }
        let found = self.named(first);
        if found.is_none() {
            let reason = format!(
                "{first:?} is no `opentelemetry` provider of extensionProviders; nothing is recorded"
            );
            tell(cx, "defaultProviders.tracing[0]", reason);
        }
        Some(found.unwrap_or_default())
    }
}

fn tell(cx: &mut Context<'_>, field: &str, reason: impl Into<String>) {
    let key = cx.mesh_config_key();
    cx.warn::<ConfigMap>(&key, format!("data.mesh, {field}"), reason);
}

/// Reads a provider, and complains of it.
struct Reader<'a, 'b> {
    cx: &'a mut Context<'b>,
    field: String,
}

impl Reader<'_, '_> {
    fn tell(&mut self, field: &str, reason: impl Into<String>) {
        let field = format!("{}.{field}", self.field);
        tell(self.cx, &field, reason);
    }

    fn read(&mut self, name: &str, written: &OpenTelemetry) -> Option<Provider> {
        for rest in written.rest.keys() {
            self.tell(rest, "is not carried out; docs/tracing.md lists the fields that are");
        }
        let (namespace, host) = self.host(&written.service, written.port)?;
        let headers = written.http.iter().flat_map(|http| &http.headers).enumerate();
        let headers = headers.filter_map(|(index, header)| self.header(index, header)).collect();
        Some(Provider {
            name: name.into(),
            host,
            namespace,
            tenant: None,
            port: written.port,
            protocol: match &written.http {
                Some(http) => Protocol::Http { path: self.path(http) },
                None => Protocol::Grpc,
            },
            timeout: self.timeout(written.http.as_ref().and_then(|http| http.timeout.as_deref())),
            headers,
        })
    }

    /// The host of a collector, and its namespace where one is named.
    fn host(&mut self, service: &str, port: u16) -> Option<(Option<Str>, Str)> {
        match ext_authz::host(service) {
            Ok(host) if port != 0 => return Some(host),
            Ok(_) => {
                self.tell("port", "must be from 1 to 65535; nothing is exported to this provider");
            }
            Err((field, why)) => {
                self.tell(&field, format!("{why}; nothing is exported to this provider"));
            }
        }
        None
    }

    fn sink(&mut self, name: &str, written: &OtelAccessLog) -> Option<RecordSink> {
        for rest in written.rest.keys() {
            self.tell(rest, "is not carried out; docs/observability.md lists the fields that are");
        }
        let (namespace, host) = self.host(&written.service, written.port)?;
        let provider = Provider {
            name: name.into(),
            host,
            namespace,
            tenant: None,
            port: written.port,
            protocol: Protocol::Grpc,
            timeout: Provider::TIMEOUT,
            headers: Vec::new(),
        };
        let LogFormat { text, labels } = written.log_format.clone().unwrap_or_default();
        let body = self.known(AccessFormat::text(text.as_deref()));
        let labels = labels.map(|labels| Value::Object(labels).to_string());
        let attributes = labels.and_then(|labels| self.known(AccessFormat::json(Some(&labels))));
        let log_name = written.log_name.as_deref().filter(|name| !name.is_empty());
        Some(RecordSink {
            provider: Arc::new(provider),
            name: log_name.unwrap_or(LOG_NAME).into(),
            body: body.or_else(|| AccessFormat::text(None).ok().map(Arc::new))?,
            attributes,
        })
    }

    fn format(&mut self, written: &FileAccessLog) -> Option<Arc<AccessFormat>> {
        for rest in written.rest.keys() {
            self.tell(rest, "is not carried out");
        }
        if !matches!(written.path.as_str(), "" | "/dev/stdout") {
            let reason = "is not written: the access log goes to the standard output";
            self.tell("path", format!("{:?} {reason}", written.path));
        }
        let format = match written.log_format.as_ref()? {
            LogFormat { text: Some(text), .. } => AccessFormat::text(Some(text)),
            LogFormat { labels: Some(labels), .. } => {
                AccessFormat::json(Some(&Value::Object(labels.clone()).to_string()))
            }
            LogFormat { text: None, labels: None } => return None,
        };
        self.known(format)
    }

    /// The format, if it is one.
    fn known(&mut self, format: Result<AccessFormat, FormatError>) -> Option<Arc<AccessFormat>> {
        match format {
            Ok(format) => {
                for operator in format.unknown() {
                    self.tell(
                        "logFormat",
                        format!("{operator} is not known here and shows nothing"),
                    );
                }
                Some(Arc::new(format))
            }
            Err(error) => {
                self.tell("logFormat", format!("{error}; the usual format holds"));
                None
            }
        }
    }

    fn path(&mut self, http: &OtlpHttp) -> Str {
        let path = http.path.as_deref().unwrap_or_default();
        if path.starts_with('/') && path.parse::<http::Uri>().is_ok() {
            return path.into();
        }
        if !path.is_empty() {
            self.tell("http.path", "must be a path that begins with `/`; /v1/traces holds");
        }
        Protocol::PATH
    }

    fn timeout(&mut self, written: Option<&str>) -> Duration {
        let Some(written) = written else { return Provider::TIMEOUT };
        let read = parse_istio_duration(written).filter(|timeout| !timeout.is_zero());
        if read.is_none() {
            let reason = format!("{written:?} is not a duration; {:?} hold", Provider::TIMEOUT);
            self.tell("http.timeout", reason);
        }
        read.map_or(Provider::TIMEOUT, |timeout| timeout.min(MOST_TIME))
    }

    /// The value, or that of a variable of the agent's environment, since operators of the mesh write MeshConfig.
    fn header(&mut self, index: usize, written: &OtlpHeader) -> Option<(Str, Str)> {
        let variable = written.env_name.as_ref();
        let value = written.value.clone().or_else(|| std::env::var(variable?).ok());
        let fault = match &value {
            None => "has no value, or names a variable that the agent's environment does not have",
            Some(value) if HeaderValue::from_str(value).is_err() => {
                "has a value that no header has"
            }
            Some(_) if HeaderName::try_from(written.name.as_str()).is_err() => {
                "has a name that no header has"
            }
            Some(value) => {
                return Some((written.name.to_ascii_lowercase().into(), value.as_str().into()));
            }
        };
        self.tell(&format!("http.headers[{index}]"), format!("{fault}; it is left out"));
        None
    }
}
