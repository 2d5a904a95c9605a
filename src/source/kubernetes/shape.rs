//! What of an object is read. All else is skipped while its JSON is parsed, so that it costs no memory, and so that its
//! changes (statuses that others write, heartbeats, bookkeeping of the API server) are no changes here.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::{Map, Value};

use crate::source::objects::MIRROR;

/// What is kept of a JSON value. One of another type than its shape expects is kept whole: whether it is an error, its
/// kind's reader decides.
#[derive(Clone, Copy)]
pub(super) enum Keep {
    All,
    Nothing,
    /// Of these fields what each says, of all others the last.
    Fields(&'static [(&'static str, Keep)], &'static Keep),
    /// The fields with such a name.
    Named(fn(&str) -> bool),
    /// Of each element so much; then the elements that look so.
    Each(&'static Keep, fn(&Value) -> bool),
}

use Keep::{All, Each, Fields, Named, Nothing};

/// What is kept of all objects that one watch tells of.
pub(super) trait Shape: Clone + fmt::Debug + 'static {
    const KEEP: Keep;
}

/// A copy of the object as `kubectl apply` sent it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The domain whose annotations on pods mean something here. Our own say where a pod of a directory is (its node, its
/// network namespace): in a cluster the scheduler and the runtime know, and whoever may make pods must not be able to send
/// the agent into a namespace of the node's or of somebody else's.
const DOMAIN: &str = "istio.io/";

/// Of `metadata`, for every kind, but for annotations.
macro_rules! metadata {
    ($($more:expr),*) => {
        Fields(
            &[
                ("creationTimestamp", All), ("deletionTimestamp", All), ("generation", All), ("labels", All),
                ("name", All), ("namespace", All), ("resourceVersion", All), ("uid", All), $($more),*
            ],
            &Nothing,
        )
    };
}

/// Kinds whose spec is read strictly: every field is known or an error.
#[derive(Clone, Debug)]
pub(super) struct Strict;

impl Shape for Strict {
    const KEEP: Keep = Fields(
        &[
            ("metadata", metadata!(("annotations", Named(|name| name != LAST_APPLIED)))),
            ("status", Nothing),
        ],
        &All,
    );
}

/// EndpointSlices, whose annotations say when they were changed.
#[derive(Clone, Debug)]
pub(super) struct Slice;

impl Shape for Slice {
    const KEEP: Keep = Fields(&[("metadata", metadata!())], &All);
}

/// Nodes, and kinds that are not carried out: their labels.
#[derive(Clone, Debug)]
pub(super) struct Labels;

impl Shape for Labels {
    const KEEP: Keep = Fields(&[("metadata", metadata!())], &Nothing);
}

/// Namespaces: their labels and annotations.
#[derive(Clone, Debug)]
pub(super) struct Annotated;

impl Shape for Annotated {
    const KEEP: Keep = Fields(
        &[("metadata", metadata!(("annotations", Named(|name| name != LAST_APPLIED))))],
        &Nothing,
    );
}

/// Pods: a twentieth of what they say.
#[derive(Clone, Debug)]
pub(super) struct Pods;

const CONTAINERS: Keep = Each(
    &Fields(
        &[
            ("restartPolicy", All),
            (
                "ports",
                Each(
                    &Fields(&[("name", All), ("containerPort", All), ("protocol", All)], &Nothing),
                    |_| true,
                ),
            ),
        ],
        &Nothing,
    ),
    |container| container.get("ports").is_some(),
);

impl Shape for Pods {
    const KEEP: Keep = Fields(
        &[
            (
                "metadata",
                metadata!(
                    ("annotations", Named(|name| name.contains(DOMAIN) || name == MIRROR)),
                    (
                        "ownerReferences",
                        Each(
                            &Fields(&[("controller", All), ("kind", All), ("name", All)], &Nothing,),
                            |owner| owner.get("controller") == Some(&Value::Bool(true)),
                        )
                    )
                ),
            ),
            (
                "spec",
                Fields(
                    &[
                        ("serviceAccountName", All),
                        ("nodeName", All),
                        ("hostNetwork", All),
                        ("hostname", All),
                        ("subdomain", All),
                        ("containers", CONTAINERS),
                        ("initContainers", CONTAINERS),
                    ],
                    &Nothing,
                ),
            ),
            (
                "status",
                Fields(
                    &[
                        ("phase", All),
                        ("podIP", All),
                        ("podIPs", All),
                        // Not when it was probed or changed last.
                        (
                            "conditions",
                            Each(
                                &Fields(&[("type", All), ("status", All)], &Nothing),
                                |condition| {
                                    condition.get("type").and_then(Value::as_str) == Some("Ready")
                                },
                            ),
                        ),
                    ],
                    &Nothing,
                ),
            ),
        ],
        &Nothing,
    );
}

impl Keep {
    fn of_field(&self, name: &str) -> Keep {
        match self {
            Fields(fields, rest) => {
                fields.iter().find(|(field, _)| *field == name).map_or(**rest, |(_, keep)| *keep)
            }
            Named(wanted) if !wanted(name) => Nothing,
            _ => All,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Keep {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        match self {
            All => Value::deserialize(from),
            Nothing => from.deserialize_ignored_any(IgnoredAny).map(|_| Value::Null),
            _ => from.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Keep {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(field) = map.next_key_seed(Field(self))? {
            match field {
                Some((name, keep)) => _ = fields.insert(name, map.next_value_seed(keep)?),
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(Value::Object(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let (keep, wanted): (_, fn(&Value) -> bool) = match self {
            Each(keep, wanted) => (*keep, wanted),
            _ => (All, |_| true),
        };
        let mut elements = Vec::new();
        while let Some(element) = list.next_element_seed(keep)? {
            if wanted(&element) {
                elements.push(element);
            }
        }
        Ok(Value::Array(elements))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

/// The name of a field, where anything of it is kept, and what.
struct Field(Keep);

impl<'de> DeserializeSeed<'de> for Field {
    type Value = Option<(String, Keep)>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Field {
    type Value = Option<(String, Keep)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        let keep = self.0.of_field(name);
        Ok((!matches!(keep, Nothing)).then(|| (name.to_owned(), keep)))
    }
}

#[cfg(test)]
mod tests;
