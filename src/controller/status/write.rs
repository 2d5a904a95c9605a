//! Single writes to the API server.

use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde_json::Value;

use super::feed::value;
use super::{Subject, Write};
use crate::controller::FIELD_MANAGER;

/// The API server's message for an unknown path, rather than an unknown object.
const NO_RESOURCE: &str = "could not find the requested resource";

/// The outcome of writing a status.
pub(super) enum Written {
    /// The object's new state.
    Done(Value),
    /// The object changed meanwhile, or is gone.
    Outdated,
    /// Another manager owns the fields; the API server's message.
    Owned(String),
    Failed(String),
}

/// The outcome of creating an object.
pub(super) enum Made {
    /// By us or, at the same moment, by another writer.
    Done,
    Failed(String),
}

pub(super) async fn status(client: Client, subject: Subject, write: Write) -> Written {
    let resource = resource(&subject, &write.body);
    let params = PatchParams { force: write.force, ..PatchParams::apply(FIELD_MANAGER) };
    let patch = Patch::Apply(&write.body);
    let api = api(client, &subject, &resource);
    match api.patch_status(&subject.key.name, &params, &patch).await {
        Ok(object) => Written::Done(value(&resource, object)),
        Err(kube::Error::Api(status)) => match status.code {
            // Not the object: its definition has no status.
            404 if status.message.contains(NO_RESOURCE) => Written::Failed(status.to_string()),
            404 => Written::Outdated,
            // Without force a conflict is about fields, with it about the version.
            409 if write.force => Written::Outdated,
            409 => Written::Owned(status.message.clone()),
            _ => Written::Failed(status.to_string()),
        },
        Err(error) => Written::Failed(error.to_string()),
    }
}

pub(super) async fn make(client: Client, subject: Subject, object: Value) -> Made {
    let resource = resource(&subject, &object);
    let object: DynamicObject = match serde_json::from_value(object) {
        Ok(object) => object,
        Err(error) => return Made::Failed(error.to_string()),
    };
    let params =
        PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match api(client, &subject, &resource).create(&params, &object).await {
        Ok(_) => Made::Done,
        Err(kube::Error::Api(status)) if status.code == 409 => Made::Done,
        Err(error) => Made::Failed(error.to_string()),
    }
}

fn api(client: Client, subject: &Subject, resource: &ApiResource) -> Api<DynamicObject> {
    match subject.key.namespace.as_str() {
        "" => Api::all_with(client, resource),
        namespace => Api::namespaced_with(client, namespace, resource),
    }
}

fn resource(subject: &Subject, body: &Value) -> ApiResource {
    let api_version = body.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let version = api_version.split_once('/').map_or(api_version, |(_, version)| version);
    let kind = GroupVersionKind::gvk(subject.kind.group(), version, subject.kind.name());
    ApiResource::from_gvk_with_plural(&kind, subject.kind.plural())
}
