//! MeshConfig: the ConfigMap `istio` of the root namespace, whose key `mesh` holds YAML (Istio, "Global Mesh Options"). Fields that
//! are not carried out are kept by name, so that the translation can tell of them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    ConnectionPool, DEFAULT_NAMESPACE, FieldError, HttpRetry, LabelSelector, Labelled, Labels,
    LocalitySetting, RawOutlierDetection, read_as,
};
use crate::tls::{Material, Pem};

/// The name of the ConfigMap; that of a revision, `istio-REVISION`, is not read.
pub const MESH_CONFIG: &str = "istio";
/// Its key.
const KEY: &str = "mesh";
/// The key of certificates of an authority (Gateway API, BackendTLSPolicy `caCertificateRefs`).
const CA: &str = "ca.crt";

/// A ConfigMap. Of all but `istio` the key `ca.crt` is read, and nothing else.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub struct ConfigMap {
    pub metadata: ObjectMeta,
    /// `None` if this is another ConfigMap, or has no key `mesh`.
    pub mesh: Option<Box<MeshConfig>>,
    /// The key `ca.crt`, for BackendTLSPolicies.
    pub ca: Option<Material>,
}

#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    data: Option<Value>,
}

/// The fields that are read; `rest` has the others.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshConfig {
    #[serde(default)]
    pub extension_providers: Vec<ExtensionProvider>,
    #[serde(default)]
    pub default_providers: DefaultProviders,
    #[serde(default)]
    pub enable_tracing: bool,
    /// `ProxyConfig`.
    #[serde(default)]
    pub default_config: Option<DefaultConfig>,
    #[serde(default)]
    pub trust_domain: Option<String>,
    #[serde(default)]
    pub trust_domain_aliases: Vec<String>,
    #[serde(default)]
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    #[serde(default)]
    pub default_http_retry_policy: Option<HttpRetry>,
    #[serde(default)]
    pub service_entry_visibility: Option<ServiceEntryVisibility>,
    /// `exportTo` of ServiceEntries that have none.
    #[serde(default)]
    pub default_service_export_to: Vec<String>,
    /// `exportTo` of VirtualServices that have none.
    #[serde(default)]
    pub default_virtual_service_export_to: Vec<String>,
    /// `exportTo` of DestinationRules that have none.
    #[serde(default)]
    pub default_destination_rule_export_to: Vec<String>,
    /// A [`DefaultTrafficPolicy`], as written: what is wrong with it does not make the rest unreadable.
    #[serde(default)]
    pub default_traffic_policy: Option<Value>,
    #[serde(default)]
    pub locality_lb_setting: Option<LocalitySetting>,
    #[serde(default)]
    pub access_log_file: Option<String>,
    #[serde(default)]
    pub access_log_format: Option<String>,
    #[serde(default)]
    pub access_log_encoding: Option<AccessLogEncoding>,
    #[serde(default)]
    pub root_namespace: Option<String>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `MeshConfig.DefaultProviders`: names of providers.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct DefaultProviders {
    #[serde(default)]
    pub tracing: Vec<String>,
    #[serde(default, rename = "accessLogging")]
    pub access_logging: Vec<String>,
    #[serde(default)]
    pub metrics: Vec<String>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `ProxyConfig`, as far as it means something here.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct DefaultConfig {
    #[serde(default)]
    pub tracing: Option<DefaultTracing>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `Tracing` of `ProxyConfig`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct DefaultTracing {
    /// 0 to 100.
    #[serde(default)]
    pub sampling: Option<f64>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `MeshConfig.DefaultTrafficPolicy`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DefaultTrafficPolicy {
    #[serde(default)]
    pub connection_pool: Option<ConnectionPool>,
    #[serde(default)]
    pub outlier_detection: Option<RawOutlierDetection>,
}

/// `MeshConfig.OutboundTrafficPolicy`.
#[derive(Clone, Debug, Deserialize)]
pub struct OutboundTrafficPolicy {
    #[serde(default)]
    pub mode: Option<String>,
}

/// `MeshConfig.ServiceEntryVisibility`: whose clients see the ServiceEntries of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceEntryVisibility {
    #[serde(default)]
    pub default_visibility: Option<EntryVisibility>,
    #[serde(default)]
    pub policies: Vec<VisibilityPolicy>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EntryVisibility {
    Public,
    Namespace,
    None,
}

/// What holds for the entries of namespaces that one of the rules selects.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VisibilityPolicy {
    pub visibility: EntryVisibility,
    #[serde(default)]
    pub matching_rules: Vec<VisibilityRule>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VisibilityRule {
    pub namespace_selector: LabelSelector,
}

/// `MeshConfig.AccessLogEncoding`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum AccessLogEncoding {
    Text,
    Json,
}

/// `MeshConfig.ExtensionProvider`: a name and one provider. `rest` has the provider, if it is of a kind that is not read.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionProvider {
    pub name: String,
    #[serde(default)]
    pub envoy_ext_authz_http: Option<ExtAuthzHttp>,
    #[serde(default)]
    pub envoy_ext_authz_grpc: Option<ExtAuthzGrpc>,
    #[serde(default)]
    pub opentelemetry: Option<OpenTelemetry>,
    #[serde(default)]
    pub envoy_file_access_log: Option<FileAccessLog>,
    #[serde(default)]
    pub envoy_otel_als: Option<OtelAccessLog>,
    /// Without fields that mean anything.
    #[serde(default)]
    pub prometheus: Option<Map<String, Value>>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `EnvoyExternalAuthorizationHttpProvider`. Durations and the status are as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtAuthzHttp {
    pub service: String,
    pub port: u16,
    #[serde(default)]
    pub timeout: Option<String>,
    #[serde(default)]
    pub path_prefix: Option<String>,
    #[serde(default)]
    pub fail_open: bool,
    #[serde(default)]
    pub status_on_error: Option<String>,
    #[serde(default, alias = "includeHeadersInCheck")]
    pub include_request_headers_in_check: Vec<String>,
    #[serde(default)]
    pub include_additional_headers_in_check: BTreeMap<String, String>,
    #[serde(default)]
    pub include_request_body_in_check: Option<CheckedBody>,
    #[serde(default)]
    pub headers_to_upstream_on_allow: Vec<String>,
    #[serde(default)]
    pub headers_to_downstream_on_deny: Vec<String>,
    #[serde(default)]
    pub headers_to_downstream_on_allow: Vec<String>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `EnvoyExternalAuthorizationGrpcProvider`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtAuthzGrpc {
    pub service: String,
    pub port: u16,
    #[serde(default)]
    pub timeout: Option<String>,
    #[serde(default)]
    pub fail_open: bool,
    #[serde(default)]
    pub status_on_error: Option<String>,
    #[serde(default)]
    pub include_request_body_in_check: Option<CheckedBody>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `EnvoyExternalAuthorizationRequestBody`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckedBody {
    /// Bytes.
    pub max_request_bytes: u32,
    #[serde(default)]
    pub allow_partial_message: bool,
    #[serde(default)]
    pub pack_as_bytes: bool,
}

/// `EnvoyFileAccessLogProvider`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileAccessLog {
    #[serde(default)]
    pub path: String,
    #[serde(default)]
    pub log_format: Option<LogFormat>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `EnvoyOpenTelemetryLogProvider`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OtelAccessLog {
    /// `[namespace/]hostname`
    pub service: String,
    pub port: u16,
    #[serde(default)]
    pub log_name: Option<String>,
    /// The text is the body of records, the labels are their attributes.
    #[serde(default)]
    pub log_format: Option<LogFormat>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `EnvoyFileAccessLogProvider.LogFormat`: one of these; and that of `EnvoyOpenTelemetryLogProvider`, which may have both.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct LogFormat {
    #[serde(default)]
    pub text: Option<String>,
    /// JSON.
    #[serde(default)]
    pub labels: Option<Map<String, Value>>,
}

/// `OpenTelemetryTracingProvider`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenTelemetry {
    /// `[namespace/]hostname`
    pub service: String,
    pub port: u16,
    /// How long the path of a request is in a span, at the most.
    #[serde(default)]
    pub max_tag_length: Option<u32>,
    /// OTLP over HTTP instead of gRPC.
    #[serde(default)]
    pub http: Option<OtlpHttp>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `MeshConfig.ExtensionProvider.HttpService`.
#[derive(Clone, Debug, Deserialize)]
pub struct OtlpHttp {
    #[serde(default)]
    pub path: Option<String>,
    #[serde(default)]
    pub timeout: Option<String>,
    #[serde(default)]
    pub headers: Vec<OtlpHeader>,
}

/// A header of each export.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OtlpHeader {
    pub name: String,
    #[serde(default)]
    pub value: Option<String>,
    /// An environment variable of the proxy that holds the value.
    #[serde(default)]
    pub env_name: Option<String>,
}

impl MeshConfig {
    /// The policy for destinations without one, or the field that is wrong.
    pub fn default_traffic_policy(&self) -> Option<Result<DefaultTrafficPolicy, FieldError>> {
        self.default_traffic_policy.as_ref().map(read_as)
    }

    /// The provider of a name: the first one.
    pub fn provider(&self, name: &str) -> Option<&ExtensionProvider> {
        self.extension_providers.iter().find(|it| it.name == name)
    }
}

impl TryFrom<Written> for ConfigMap {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { metadata, data } = written;
        let is_ours = metadata.name.as_deref() == Some(MESH_CONFIG);
        let text = data.as_ref().filter(|_| is_ours).and_then(|data| data.get(KEY));
        let mesh = match text {
            None => None,
            Some(Value::String(text)) => Some(Box::new(read(text)?)),
            Some(_) => return Err(format!("data.{KEY}: must be a text that holds YAML")),
        };
        let ca = data.as_ref().and_then(|data| data.get(CA)?.as_str()).map(|text| {
            let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
            let from = format!(
                "ConfigMap {}/{}",
                namespace.unwrap_or(DEFAULT_NAMESPACE),
                name.unwrap_or_default()
            );
            Material::Pem(Pem::new(from, text.as_bytes()))
        });
        Ok(Self { metadata, mesh, ca })
    }
}

/// Reads the text of the key.
fn read(text: &str) -> Result<MeshConfig, String> {
    let value: Value = serde_saphyr::from_str(text)
        .map_err(|error| format!("data.{KEY}: its text is not YAML: {error}"))?;
    if value.is_null() {
        return Ok(MeshConfig::default());
    }
    read_as::<MeshConfig>(&value).map_err(|FieldError { field, reason }| {
        let place = if field.is_empty() { String::new() } else { format!(", {field}") };
        format!("data.{KEY}{place}: {reason}")
    })
}

impl Labelled for ConfigMap {
    fn labels(&self) -> Option<&Labels> {
        self.metadata.labels()
    }

    fn annotations(&self) -> Option<&Labels> {
        self.metadata.annotations()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(name: &str, mesh: &str) -> Result<ConfigMap, FieldError> {
        read_as(&json!({ "metadata": { "name": name }, "data": { "mesh": mesh } }))
    }

    #[test]
    fn known_fields_are_read_and_the_others_are_kept_by_name() {
        let text = "trustDomainAliases: [old]\nextensionProviders:\n- name: opa\n  envoyExtAuthzGrpc: {service: opa.x, port: 9191}\n\
                    - name: z\n  zipkin: {service: z, port: 1}\nenableAutoMtls: true\naccessLogEncoding: JSON\n";
        let mesh = config("istio", text).expect("readable").mesh.expect("a MeshConfig");
        assert_eq!(mesh.trust_domain_aliases, ["old"]);
        assert_eq!(mesh.rest.keys().collect::<Vec<_>>(), ["enableAutoMtls"]);
        let [opa, zipkin] = &mesh.extension_providers[..] else { panic!("{mesh:?}") };
        assert_eq!(opa.envoy_ext_authz_grpc.as_ref().map(|it| it.port), Some(9191));
        assert_eq!(zipkin.rest.keys().collect::<Vec<_>>(), ["zipkin"]);
        assert_eq!(mesh.access_log_encoding, Some(AccessLogEncoding::Json));
    }

    #[test]
    fn an_error_names_the_field_within_the_text() {
        let text =
            "extensionProviders:\n- name: opa\n  envoyExtAuthzGrpc: {service: opa.x, port: many}\n";
        let error = config("istio", text).expect_err("a port is a number").reason;
        assert!(error.starts_with("data.mesh, extensionProviders[0]"), "{error}");
        let error = config("istio", "a: [").expect_err("no YAML").reason;
        assert!(error.starts_with("data.mesh: its text is not YAML"), "{error}");
    }

    #[test]
    fn other_config_maps_are_nobodys_business_here() {
        assert!(config("game", "a: [").expect("not looked at").mesh.is_none());
        let empty = config("istio", "").expect("empty").mesh.expect("a MeshConfig");
        assert!(empty.extension_providers.is_empty() && empty.rest.is_empty());
    }
}
