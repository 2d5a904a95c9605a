//! Complaints about MeshConfig: each field that is not carried out, by name. The rooms that carry a field out read it by
//! [`Context::mesh_config`].

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Context, Severity, ext_authz, http_retry};
use crate::base::ObjectKey;
use crate::model::DefaultRetry;
use crate::source::objects::{AccessLogEncoding, ConfigMap, ExtensionProvider, MeshConfig};
use crate::telemetry::AccessFormat;

const NOT_CARRIED_OUT: &str = "is not carried out; docs/resources.md lists the fields that are";

const NO_PROVIDER: &str = "this kind of provider is not carried out. An AuthorizationPolicy that names it denies; for \
                           telemetry it has no effect";

/// Checks the MeshConfig of the root namespace.
pub(super) fn check(cx: &mut Context<'_>) {
    let Some(mesh) = cx.mesh_config().cloned() else { return };
    let mut check = Check { key: cx.mesh_config_key(), cx };
    check.rest("", &mesh.rest);
    check.names(&mesh);
    check.not_carried_out(&mesh);
    check.providers(&mesh);
}

/// The format of the access log, where MeshConfig gives one, or an encoding.
pub(super) fn access_log(cx: &mut Context<'_>) -> Option<Arc<AccessFormat>> {
    let mesh = cx.mesh_config()?;
    let (written, encoding) = (mesh.access_log_format.clone(), mesh.access_log_encoding);
    let file = mesh.access_log_file.clone();
    let mut check = Check { key: cx.mesh_config_key(), cx };
    if let Some(file) = file.filter(|it| !matches!(it.as_str(), "" | "/dev/stdout")) {
        let reason = format!("{file:?} is not written: the access log goes to the standard output");
        check.warn("accessLogFile", reason);
    }
    let written = written.as_deref().filter(|it| !it.is_empty());
    let format = match encoding {
        None if written.is_none() => return None,
        Some(AccessLogEncoding::Json) => AccessFormat::json(written),
        None | Some(AccessLogEncoding::Text) => AccessFormat::text(written),
    };
    match format {
        Ok(format) => {
            for operator in format.unknown() {
                check.warn(
                    "accessLogFormat",
                    format!("{operator} is not known here and shows nothing"),
                );
            }
            Some(Arc::new(format))
        }
        Err(error) => {
            let reason = format!("{error}; the access log keeps its own keys");
            check.cx.error::<ConfigMap>(&check.key, "data.mesh, accessLogFormat", reason);
            None
        }
    }
}

/// How requests are retried where no route says it, if MeshConfig does.
pub(super) fn retries(cx: &mut Context<'_>) -> Option<Arc<DefaultRetry>> {
    let policy = cx.mesh_config()?.default_http_retry_policy.clone()?;
    let key = cx.mesh_config_key();
    let http_retry::Read { retry, each, complaints } = http_retry::read(&policy);
    for http_retry::Wrong { severity, field, reason } in complaints {
        let field = format!("data.mesh, defaultHttpRetryPolicy.{field}");
        match severity {
            Severity::Error => cx.error::<ConfigMap>(&key, field, reason),
            Severity::Warning | Severity::Note => cx.warn::<ConfigMap>(&key, field, reason),
        }
    }
    Some(Arc::new(DefaultRetry { retry, each }))
}

struct Check<'a, 'b> {
    cx: &'a mut Context<'b>,
    key: ObjectKey,
}

impl Check<'_, '_> {
    fn warn(&mut self, field: &str, reason: impl Into<String>) {
        self.cx.warn::<ConfigMap>(&self.key, format!("data.mesh, {field}"), reason);
    }

    /// Fields that nothing here carries out.
    fn rest(&mut self, within: &str, rest: &Map<String, Value>) {
        for name in rest.keys() {
            let field = if within.is_empty() { name.clone() } else { format!("{within}.{name}") };
            self.warn(&field, NOT_CARRIED_OUT);
        }
    }

    /// Names that the settings of the agents hold.
    fn names(&mut self, mesh: &MeshConfig) {
        let own = self.cx.settings.trust_domains.own().clone();
        if let Some(domain) = mesh.trust_domain.as_deref().filter(|it| own != **it) {
            let reason = format!(
                "has no effect: the agents issue certificates of {own:?}. Set `trust_domain` to {domain:?} in their settings"
            );
            self.warn("trustDomain", reason);
        }
        let domains = self.cx.settings.trust_domains.clone();
        for alias in mesh.trust_domain_aliases.iter().filter(|alias| !domains.contains(alias)) {
            let reason = format!(
                "policies that name {alias:?} mean {own:?} too, but peers whose certificates are of {alias:?} are not accepted: \
                 the agents' settings alone say whom they trust. If they are to be, add it to `trust_domain_aliases` there"
            );
            self.warn("trustDomainAliases", reason);
        }
        let root = self.cx.settings.root_namespace.clone();
        if let Some(namespace) = mesh.root_namespace.as_deref().filter(|it| root != **it) {
            let reason = format!(
                "has no effect: the agents read policies of the whole mesh in {root:?}. Set `root_namespace` to \
                 {namespace:?} in their settings"
            );
            self.warn("rootNamespace", reason);
        }
    }

    /// Fields that are read and that nothing carries out yet.
    fn not_carried_out(&mut self, mesh: &MeshConfig) {
        let MeshConfig { default_providers, .. } = mesh;
        for (field, is_given) in [(
            "defaultProviders.metrics",
            default_providers.metrics.iter().any(|it| it != "prometheus"),
        )] {
            if is_given {
                self.warn(field, NOT_CARRIED_OUT);
            }
        }
        let has_collector = mesh.extension_providers.iter().any(|it| it.opentelemetry.is_some());
        if mesh.enable_tracing && !has_collector {
            let reason = "has no effect by itself: define an `opentelemetry` provider in extensionProviders, and name it in \
                          defaultProviders.tracing or in a Telemetry";
            self.warn("enableTracing", reason);
        }
        self.rest("defaultProviders", &default_providers.rest);
        if let Some(visibility) = &mesh.service_entry_visibility {
            self.rest("serviceEntryVisibility", &visibility.rest);
        }
        let Some(default) = &mesh.default_config else { return };
        self.rest("defaultConfig", &default.rest);
        if let Some(tracing) = &default.tracing {
            self.rest("defaultConfig.tracing", &tracing.rest);
        }
    }

    fn providers(&mut self, mesh: &MeshConfig) {
        let mut names = BTreeSet::new();
        for (index, provider) in mesh.extension_providers.iter().enumerate() {
            let field = format!("extensionProviders[{index}]");
            if provider.name.is_empty() || !names.insert(provider.name.as_str()) {
                let reason = "must be a name that no other provider has; the first provider of a name counts";
                self.cx.error::<ConfigMap>(&self.key, format!("data.mesh, {field}.name"), reason);
            }
            self.provider(&field, provider);
        }
    }

    fn provider(&mut self, field: &str, provider: &ExtensionProvider) {
        for kind in provider.rest.keys() {
            self.warn(&format!("{field}.{kind}"), NO_PROVIDER);
        }
        if let Some(Err((wrong, why))) = ext_authz::provider(provider) {
            let reason = format!("{why}; an AuthorizationPolicy that names it denies");
            self.cx.error::<ConfigMap>(&self.key, format!("data.mesh, {field}.{wrong}"), reason);
        }
        let rest = [
            ("envoyExtAuthzHttp", provider.envoy_ext_authz_http.as_ref().map(|it| &it.rest)),
            ("envoyExtAuthzGrpc", provider.envoy_ext_authz_grpc.as_ref().map(|it| &it.rest)),
        ];
        for (kind, rest) in rest {
            if let Some(rest) = rest {
                self.rest(&format!("{field}.{kind}"), rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::source::tests::translated;

    #[test]
    fn each_field_that_is_not_carried_out_is_named() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    \
                    trustDomain: other\n    trustDomainAliases: [cluster.local, old]\n    enableAutoMtls: true\n    \
                    outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}\n    extensionProviders:\n    - {name: a, zipkin: {}}\n    \
                    - {name: a, skywalking: {}}\n";
        let complaints = translated(text).complaints;
        let fields: Vec<_> = complaints.iter().map(|it| it.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "data.mesh, enableAutoMtls",
                "data.mesh, extensionProviders[0].zipkin",
                "data.mesh, extensionProviders[1].name",
                "data.mesh, extensionProviders[1].skywalking",
                "data.mesh, outboundTrafficPolicy.mode",
                "data.mesh, trustDomain",
                "data.mesh, trustDomainAliases",
            ],
            "{complaints:#?}"
        );
        // The same text elsewhere is somebody else's.
        let elsewhere = text.replace("istio-system", "shop");
        assert!(translated(&elsewhere).complaints.is_empty());
    }

    /// What the fields mean stands where they are read.
    #[test]
    fn the_default_retry_policy_is_read_and_its_faults_are_named() {
        let with = |policy: &str| {
            translated(&format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    \
                 defaultHttpRetryPolicy: {policy}\n"
            ))
        };
        let good = with("{attempts: 3, retryOn: 'gateway-error,429', perTryTimeout: 2s}");
        assert!(good.complaints.is_empty(), "{:?}", good.complaints);
        let default = good.mesh.retry.expect("a policy");
        assert_eq!((default.retry.attempts, default.each), (3, Some(Duration::from_secs(2))));
        assert_eq!(default.retry.on.codes, [429u16]);
        assert!(with("{attempts: 0}").mesh.retry.expect("a policy").retry.is_off());
        assert!(translated("").mesh.retry.is_none());
        let bad = with("{attempts: 99, retryOn: 'cancelled,no', perTryTimeout: long, other: 1}");
        let fields: Vec<_> = bad.complaints.iter().map(|it| it.field.as_str()).collect();
        let expected = [".attempts", ".other", ".perTryTimeout", ".retryOn"];
        let within = "data.mesh, defaultHttpRetryPolicy";
        assert_eq!(fields, expected.map(|field| format!("{within}{field}")));
    }
}
