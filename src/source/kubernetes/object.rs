//! Objects as the API server sends them: kept as plain JSON until the kind's own reader has judged them, so that one
//! which cannot be understood never breaks a watch.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;

use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta, Resource};
use serde::de::DeserializeSeed;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::shape::Shape;
use crate::base::ObjectKey;
use crate::source::objects::{FieldError, Kind, Object, key_of};

/// An object, as much of it as is read, with as much of its metadata as a watch needs.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    metadata: ObjectMeta,
    value: Value,
}

/// An object of this shape.
#[derive(Clone, Debug)]
pub(super) struct Shaped<S> {
    pub(super) raw: Raw,
    shape: PhantomData<fn() -> S>,
}

/// An object, read or refused.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) key: ObjectKey,
    /// Of `metadata.resourceVersion`: the same one means the same object.
    pub(super) version: u64,
    /// Of all that is read of the object: another version may say the same.
    pub(super) content: u64,
    /// `metadata.generation`; 0 for kinds that have none.
    pub(super) generation: i64,
    pub(super) object: Result<Object, FieldError>,
    /// The whole document of one that was refused.
    pub(super) document: Option<Value>,
}

impl Raw {
    pub(super) fn key(&self, kind: Kind) -> ObjectKey {
        key_of(kind, self.metadata.namespace.as_deref(), self.metadata.name.as_deref())
    }

    pub(super) fn version(&self) -> u64 {
        digest(&self.metadata.resource_version)
    }

    pub(super) fn read(mut self, kind: Kind, api_version: &str) -> Read {
        let (key, version) = (self.key(kind), self.version());
        // The items of a list do not say what they are.
        if let Value::Object(fields) = &mut self.value {
            fields.insert("apiVersion".into(), api_version.into());
            fields.insert("kind".into(), kind.name().into());
        }
        let content = digest(&self.value);
        let object = kind.read(&self.value);
        let document = object.is_err().then_some(self.value);
        let generation = self.metadata.generation.unwrap_or_default();
        Read { key, version, content, generation, object, document }
    }
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl<'de, S: Shape> Deserialize<'de> for Shaped<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = S::KEEP.deserialize(deserializer)?;
        // Another version alone is no change.
        let version = value.get_mut("metadata").and_then(Value::as_object_mut);
        let version = version.and_then(|fields| fields.shift_remove("resourceVersion"));
        let text = |name: &str| Some(value.get("metadata")?.get(name)?.as_str()?.to_owned());
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: version.and_then(|it| it.as_str().map(str::to_owned)),
            generation: value.get("metadata").and_then(|it| it.get("generation")?.as_i64()),
            ..ObjectMeta::default()
        };
        Ok(Shaped { raw: Raw { metadata, value }, shape: PhantomData })
    }
}

impl<S: Shape> Resource for Shaped<S> {
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
        &self.raw.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.raw.metadata
    }
}
