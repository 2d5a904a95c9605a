//! The API server, as all parts of the controller reach it.

use std::path::Path;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A client with the access that the kubeconfig says, or the pod's service account without one. Nothing is asked yet.
///
/// # Errors
/// The kubeconfig cannot be used, or this is no pod with a service account.
pub async fn connect(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)
                .with_context(|| format!("the kubeconfig {} cannot be read", path.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("the kubeconfig {} cannot be used", path.display()))?
        }
        None => Config::incluster().context(
            "there is no service account to reach the API server with; run in a pod, or set source.kubeconfig",
        )?,
    };
    Client::try_from(config).context("the client for the API server cannot be made")
}

/// The error in one sentence: the server's own message if it has answered, otherwise all causes.
pub(super) fn told(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return format!("the API server refused ({}): {}", status.code, status.message);
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    format!("the API server cannot be asked: {text}")
}

/// Whether another writer has changed, or created, the object in between.
pub(super) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == http::StatusCode::CONFLICT)
}
