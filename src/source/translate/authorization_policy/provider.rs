//! The providers of CUSTOM policies.

use std::sync::Arc;

use super::Broken;
use crate::base::ObjectKey;
use crate::model::{ExtAuthz, Operation, ProviderService, Rule, Scope};
use crate::source::objects::{AuthorizationPolicy, PolicyProvider};
use crate::source::translate::attachment::Attachment;
use crate::source::translate::{Context, ext_authz};

/// Whom a CUSTOM policy asks. One that names nobody who can be asked denies.
pub(super) fn named(
    cx: &Context<'_>,
    named: Option<&PolicyProvider>,
    broken: &mut Vec<Broken>,
) -> Option<Arc<ExtAuthz>> {
    let Some(name) = named.map(|it| it.name.as_str()).filter(|name| !name.is_empty()) else {
        broken.push(Broken::new("spec.provider.name", "CUSTOM needs the name of a provider"));
        return None;
    };
    let entry = cx.mesh_config().and_then(|mesh| mesh.provider(name));
    let why = match entry.map(ext_authz::provider) {
        Some(Some(Ok(provider))) => return Some(Arc::new(provider)),
        Some(Some(Err((field, why)))) => {
            format!("the provider {name:?} of MeshConfig cannot be asked: {field}: {why}")
        }
        Some(None) => format!(
            "the provider {name:?} of MeshConfig is not one of external authorization (envoyExtAuthzHttp, envoyExtAuthzGrpc)"
        ),
        None => format!(
            "there is no provider {name:?} in extensionProviders of MeshConfig (the ConfigMap istio of {})",
            cx.settings.root_namespace
        ),
    };
    broken.push(Broken::unsupported("spec.provider.name", why));
    None
}

/// Warns of a policy that guards the provider too: agents would ask it about being asked, and deny instead.
pub(super) fn complain_of_itself(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    attachment: &Attachment,
    rules: &[Rule],
    provider: &ExtAuthz,
) {
    let ProviderService::Host { namespace, hostname } = &provider.service else { return };
    // Of a Service `name.namespace.svc`.
    let own = namespace.as_deref().or_else(|| hostname.split('.').nth(1));
    let reaches = match attachment {
        Attachment::Scope(Scope::Mesh) => true,
        Attachment::Scope(Scope::Namespace) => own.is_some_and(|own| key.namespace == own),
        Attachment::Scope(_) | Attachment::Selector(_) => false,
    };
    if !reaches || !rules.iter().any(may_match_it) {
        return;
    }
    let reason = format!(
        "the policy also guards its provider {hostname}, which cannot be asked about being asked: what the rules match there \
         is denied, checks included; leave it out, for example with notPorts, or attach the policy to what it is about"
    );
    cx.warn::<AuthorizationPolicy>(key, "spec.rules", reason);
}

/// Nothing in the rule is likely to leave the provider out: it says nothing of clients, and of no port.
fn may_match_it(rule: &Rule) -> bool {
    let any_port = |operation: &Operation| operation.ports.is_empty();
    rule.from.is_empty()
        && rule.when.is_empty()
        && (rule.to.is_empty() || rule.to.iter().any(any_port))
}

#[cfg(test)]
mod tests {
    use crate::source::tests::translated;

    #[test]
    fn a_policy_that_guards_its_provider_is_told_of() {
        let mesh = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    \
                    extensionProviders:\n    - name: p\n      envoyExtAuthzGrpc: {service: opa.auth.svc.cluster.local, port: 9000}\n---\n";
        for (namespace, rest, told) in [
            ("istio-system", "rules: [{}]", true),
            ("auth", "rules: [{}]", true),
            ("auth", "rules: [{to: [{operation: {notPaths: [/health]}}]}]", true),
            ("auth", "rules: [{to: [{operation: {notPorts: ['9000']}}]}]", false),
            ("istio-system", "rules: [{from: [{source: {namespaces: [shop]}}]}]", false),
            ("auth", "selector: {matchLabels: {app: web}}, rules: [{}]", false),
            ("shop", "rules: [{}]", false),
        ] {
            let policy = format!(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: {namespace}}}\n\
                 spec: {{action: CUSTOM, provider: {{name: p}}, {rest}}}\n"
            );
            let complaints = translated(&format!("{mesh}{policy}")).complaints;
            let about = |reason: &str| reason.contains("also guards its provider opa.auth.svc");
            let is_told = complaints.iter().any(|it| it.field == "spec.rules" && about(&it.reason));
            assert_eq!(is_told, told, "{namespace} {rest}: {complaints:?}");
        }
    }
}
