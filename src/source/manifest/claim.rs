//! What a document that is refused would define.

use serde_json::Value;

use crate::base::schema::forms::LABEL;
use crate::base::{ObjectKey, Str};
use crate::source::objects::{DEFAULT_NAMESPACE, Guard, Guards, ISTIO_SECURITY_GROUP, Kind};

/// An object that a refused document seems to define.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// As it is written; empty when it could not be read.
    pub kind_name: Str,
    /// When it is one that is read here.
    pub kind: Option<Kind>,
    /// What it would deny.
    pub guard: Option<Guard>,
    /// When it could be read.
    pub key: Option<ObjectKey>,
    /// `None`: it may be any.
    pub namespace: Option<Str>,
}

/// Groups of others that have kinds of these names.
const OTHERS: [&str; 1] = ["policy.linkerd.io"];

/// Whether a namespace may be called so. One that is not, such as a variable that nobody has filled in, may mean any.
pub(super) fn is_namespace(text: &str) -> bool {
    LABEL.objection(text).is_none()
}

/// The security kinds, without one of which something is let past that should be denied.
fn kinds() -> impl Iterator<Item = (Kind, Guard)> {
    Kind::all().filter_map(|kind| match kind.row().guards {
        Guards::Denies(guard) => Some((kind, guard)),
        Guards::Nothing | Guards::Limits => None,
    })
}

impl Guard {
    /// What an object of this kind would deny: one of Istio's kinds, or whatever has their group.
    pub(super) fn of(api_version: Option<&str>, kind: Option<&str>) -> Option<Self> {
        let group = api_version.and_then(|text| text.split_once('/')).map(|(group, _)| group);
        if group.is_some_and(|group| OTHERS.contains(&group)) {
            return None;
        }
        let named = kinds().find(|(known, _)| Some(known.name()) == kind).map(|(_, guard)| guard);
        named.or_else(|| (group == Some(ISTIO_SECURITY_GROUP)).then_some(Guard::Requests))
    }

    /// The security kind that a word names, alone or as a list of it.
    pub(super) fn named(word: &str) -> Option<&'static str> {
        let is = |name: &&str| *name == word || word.strip_suffix("List") == Some(*name);
        kinds().map(|(kind, _)| kind.name()).find(is)
    }

    /// A kind that nobody has, by its group or its name.
    pub(super) fn is_misspelt(api_version: &str, kind: &str) -> bool {
        let group = api_version.split_once('/').map(|(group, _)| group);
        let is = |known: Kind| Some(known.group()) == group && known.name() == kind;
        let known = kinds().any(|(known, _)| is(known));
        !known && Guard::of(Some(api_version), Some(kind)).is_some()
    }

    /// The kind by which it denies.
    pub fn kind(self) -> Kind {
        match self {
            Guard::Requests => Kind::AuthorizationPolicy,
            Guard::Plaintext => Kind::PeerAuthentication,
        }
    }
}

impl Claim {
    /// Of an object that is known.
    pub(in crate::source) fn held(kind: Kind, key: &ObjectKey) -> Self {
        Self {
            kind_name: kind.name().into(),
            kind: Some(kind),
            guard: Guard::of(None, Some(kind.name())),
            key: Some(key.clone()),
            namespace: Some(key.namespace.clone()),
        }
    }

    /// By the object itself; `None` when it does not say what it is called and the kind is not known either.
    pub(super) fn of_value(kind: Option<Kind>, value: &Value) -> Option<Self> {
        let text = |value: &Value, field: &str| Some(value.get(field)?.as_str()?.to_owned());
        let kind_name = text(value, "kind").unwrap_or_default();
        let metadata = value.get("metadata").filter(|metadata| metadata.is_object());
        let namespace = match metadata.map(|metadata| metadata.get("namespace")) {
            None => None,
            Some(None | Some(Value::Null)) => Some(DEFAULT_NAMESPACE),
            Some(Some(Value::String(text))) if text.is_empty() => Some(DEFAULT_NAMESPACE),
            Some(Some(other)) => other.as_str().filter(|text| is_namespace(text)),
        };
        let namespaced = kind.is_none_or(Kind::is_namespaced);
        let namespace = if namespaced { namespace } else { Some("") };
        let name = metadata.and_then(|it| text(it, "name")).filter(|name| !name.is_empty());
        let key = name.zip(namespace).map(|(name, namespace)| ObjectKey::new(namespace, name));
        let guard = kind.and_then(|kind| Guard::of(None, Some(kind.name())));
        (kind.is_some() || key.is_some()).then(|| Self {
            kind_name: kind.map_or_else(|| Str::from(kind_name), |kind| kind.name().into()),
            kind,
            guard,
            key,
            namespace: namespace.map(Str::from),
        })
    }
}
