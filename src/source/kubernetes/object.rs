//! Objects as the API server sends them: kept as plain JSON until the kind's own reader has judged them, so that one
//! which cannot be understood never breaks a watch.

use std::borrow::Cow;

use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta, Resource};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::base::{ObjectKey, Str};
use crate::source::objects::{FieldError, Kind, Object};

/// Written by the API server for itself and often half of an object.
const MANAGED_FIELDS: &str = "managedFields";
/// A copy of the object as `kubectl apply` sent it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Any object, with as much of its metadata as a watch needs.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    metadata: ObjectMeta,
    value: Value,
}

/// An object, read or refused.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) key: ObjectKey,
    /// `metadata.resourceVersion`: the same text means the same object.
    pub(super) version: Str,
    /// `metadata.generation`; 0 for kinds that have none.
    pub(super) generation: i64,
    pub(super) object: Result<Object, FieldError>,
    /// The whole document of one that was refused.
    pub(super) document: Option<Value>,
}

impl Raw {
    pub(super) fn key(&self, kind: Kind) -> ObjectKey {
        crate::source::objects::key_of(kind, &self.metadata)
    }

    pub(super) fn version(&self) -> &str {
        self.metadata.resource_version.as_deref().unwrap_or_default()
    }

    pub(super) fn read(mut self, kind: Kind, api_version: &str) -> Read {
        let key = self.key(kind);
        let version = self.version().into();
        // The items of a list do not say what they are.
        if let Value::Object(fields) = &mut self.value {
            fields.insert("apiVersion".into(), api_version.into());
            fields.insert("kind".into(), kind.name().into());
        }
        let object = kind.read(&self.value);
        let document = object.is_err().then_some(self.value);
        let generation = self.metadata.generation.unwrap_or_default();
        Read { key, version, generation, object, document }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let text = |name: &str| Some(value.get("metadata")?.get(name)?.as_str()?.to_owned());
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            generation: value.get("metadata").and_then(|it| it.get("generation")?.as_i64()),
            ..ObjectMeta::default()
        };
        if let Some(Value::Object(fields)) = value.get_mut("metadata") {
            fields.swap_remove(MANAGED_FIELDS);
            if let Some(Value::Object(annotations)) = fields.get_mut("annotations") {
                annotations.swap_remove(LAST_APPLIED);
            }
        }
        Ok(Raw { metadata, value })
    }
}

impl Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&of.kind)
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&of.group)
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&of.version)
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&of.plural)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
