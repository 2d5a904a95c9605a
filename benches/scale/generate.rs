//! Puts the generated objects on an API server: one without a controller manager, which would remove pods of nodes that
//! do not exist.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use futures_util::stream::{StreamExt, iter};
use isthmus::source::kubernetes::client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Error};
use serde_json::{Value, json};

use crate::objects::Size;

/// How many requests are under way at once.
const AT_ONCE: usize = 48;

pub async fn run(size: Size, kubeconfig: &Path) -> Result<()> {
    let client = client(Some(kubeconfig)).await?;
    create(&client, size.namespaces()).await?;
    let accounts = size.services().map(|service| {
        let metadata = &service["metadata"];
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    });
    create(&client, accounts).await?;
    create(&client, size.services()).await?;
    create(&client, size.pods()).await
}

async fn create(client: &Client, objects: impl Iterator<Item = Value>) -> Result<()> {
    let done = AtomicUsize::new(0);
    let mut results = iter(objects.map(|object| one(client, object))).buffer_unordered(AT_ONCE);
    while let Some(result) = results.next().await {
        result?;
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(5000) {
            println!("{done} objects");
        }
    }
    Ok(())
}

async fn one(client: &Client, mut object: Value) -> Result<()> {
    let status = object.as_object_mut().and_then(|fields| fields.remove("status"));
    if object["kind"] == "Pod" {
        object["spec"]["automountServiceAccountToken"] = json!(false);
    }
    let name = object["metadata"]["name"].as_str().context("a name")?.to_owned();
    let api = api(client, &object)?;
    let object: DynamicObject = serde_json::from_value(object)?;
    match api.create(&PostParams::default(), &object).await {
        Err(Error::Api(status)) if status.code == 409 => {}
        other => _ = other.with_context(|| format!("create {name}"))?,
    }
    if let Some(status) = status {
        let patch = Patch::Merge(json!({"status": status}));
        api.patch_status(&name, &PatchParams::default(), &patch).await?;
    }
    Ok(())
}

/// The API of this object's kind and namespace.
pub fn api(client: &Client, object: &Value) -> Result<Api<DynamicObject>> {
    let version = object["apiVersion"].as_str().context("apiVersion")?;
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = object["kind"].as_str().context("kind")?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Ok(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    })
}
