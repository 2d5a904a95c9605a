//! Does a pod with this service account run on this node? The API server is asked each time: query and answer are small
//! (the server indexes a node's pods), and no cached copy can be stale.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PartialObjectMeta};
use kube::{Api, Client};
use tokio::time::timeout;

use super::authorize::Caller;
use super::refusal::{Kind, Refusal};
use crate::base::Identity;
use crate::controller::cluster::told;

/// The timeout of the API server.
const PATIENCE: Duration = Duration::from_secs(5);

/// Rejects unless a pod of the identity is scheduled to the caller's node and has not finished.
pub(super) async fn check(
    client: &Client,
    identity: &Identity,
    caller: &Caller,
) -> Result<(), Refusal> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &identity.namespace);
    let found = timeout(PATIENCE, pods.list_metadata(&selection(identity, caller))).await;
    let unavailable = |why: String| {
        let advice = "check the API server, and that the controller may list pods";
        Refusal::new(Kind::ApiServer, format!("cannot list the pods: {why}; {advice}"))
    };
    let found = found
        .map_err(|_| unavailable(format!("no answer within {PATIENCE:?}")))?
        .map_err(|error| unavailable(told(&error)))?;
    let found: Vec<PartialObjectMeta<Pod>> = found.items;
    if found.is_empty() {
        let Identity { namespace, service_account, .. } = identity;
        let node = &caller.node;
        return Err(Refusal::new(
            Kind::NotOnNode,
            format!(
                "no pod with the service account {namespace}/{service_account} runs on node {node}, where the agent \
                 {} is; check where the pod is scheduled (kubectl get pods -o wide -n {namespace}); a static pod has no \
                 service account and stays out of the mesh with the label istio.io/dataplane-mode: none",
                caller.pod
            ),
        ));
    }
    Ok(())
}

/// The values contain no comma and no `=`: an identity's parts are path segments, and the node comes from the API
/// server.
fn selection(identity: &Identity, caller: &Caller) -> ListParams {
    let account = &identity.service_account;
    let fields = format!(
        "spec.nodeName={},spec.serviceAccountName={account},status.phase!=Succeeded,status.phase!=Failed",
        caller.node
    );
    ListParams::default().fields(&fields).limit(1)
}
