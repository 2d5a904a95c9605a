//! The ConfigMap with the currently trusted roots. Agents mount it, to authenticate the controller and to learn about
//! new roots.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rustls::pki_types::CertificateDer;
use serde_json::json;

use super::ROOTS_CONFIG_MAP;
use crate::controller::cluster::RequestError;
use crate::controller::{Context, FIELD_MANAGER};
use crate::identity::{CA_ROOTS, to_pem};

/// Writes these roots to the ConfigMap, unless it has them already.
pub(super) async fn publish(
    context: &Context,
    roots: &[CertificateDer<'static>],
) -> Result<(), RequestError> {
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    let wanted = to_pem(roots);
    let current = maps.get_opt(ROOTS_CONFIG_MAP).await?;
    let held = current.as_ref().and_then(|map| map.data.as_ref()?.get(CA_ROOTS));
    if held == Some(&wanted) {
        return Ok(());
    }
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": ROOTS_CONFIG_MAP },
        "data": { CA_ROOTS: wanted },
    });
    // It may have been created manually; the CA determines its content.
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    maps.patch(ROOTS_CONFIG_MAP, &parameters, &Patch::Apply(map)).await?;
    tracing::info!(
        config_map = ROOTS_CONFIG_MAP,
        roots = roots.len(),
        "published the trusted roots"
    );
    Ok(())
}
