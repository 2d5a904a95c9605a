//! Reads structures from mappings only. The readers that serde derives take a sequence as well, value after value by the place
//! of its field: `spec: []` would be a policy that says nothing.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Error as _, IntoDeserializer, Unexpected, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};
use serde_json::{Error, Value};

/// A value, and all that it holds.
#[derive(Clone, Copy)]
pub(super) struct Strict<'a>(pub(super) &'a Value);

impl<'de> IntoDeserializer<'de, Error> for Strict<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Strict<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| (name.as_str(), Strict(value)));
                let mut fields = MapDeserializer::new(fields);
                let read = visitor.visit_map(&mut fields)?;
                fields.end().map(|()| read)
            }
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.iter().map(Strict));
                let read = visitor.visit_seq(&mut items)?;
                items.end().map(|()| read)
            }
            scalar => scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(_) => Err(Error::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Kind, Object};

    /// Each of these would be read as if the structure said nothing, or something else.
    #[test]
    fn a_list_is_no_structure() {
        let object = |kind: Kind, spec: serde_json::Value| {
            let api = format!("{}/v1", kind.group());
            kind.read(&json!({"apiVersion": api, "kind": kind.name(), "metadata": {"name": "a"}, "spec": spec}))
        };
        for (kind, spec, field) in [
            (Kind::AuthorizationPolicy, json!([]), "spec"),
            (Kind::AuthorizationPolicy, json!({"selector": []}), "spec.selector"),
            (Kind::AuthorizationPolicy, json!({"selector": [{"app": "x"}]}), "spec.selector"),
            (Kind::AuthorizationPolicy, json!({"rules": [[]]}), "spec.rules[0]"),
            (
                Kind::AuthorizationPolicy,
                json!({"rules": [{"from": [{"source": []}]}]}),
                "spec.rules[0].from[0].source",
            ),
            (Kind::PeerAuthentication, json!([]), "spec"),
            (Kind::PeerAuthentication, json!({"mtls": []}), "spec.mtls"),
            (Kind::ServiceEntry, json!([["x.example"]]), "spec"),
            (Kind::HTTPRoute, json!({"rules": [{"matches": [[]]}]}), "spec.rules[0].matches[0]"),
        ] {
            let error = object(kind, spec.clone()).expect_err(&spec.to_string());
            assert_eq!(error.field, field, "{spec}: {}", error.reason);
            assert!(error.reason.starts_with("invalid type: sequence"), "{}", error.reason);
        }
        let good = json!({"rules": [{"from": [{"source": {"namespaces": ["x"]}}]}]});
        let read = object(Kind::AuthorizationPolicy, good);
        assert!(
            matches!(read, Ok(Object::AuthorizationPolicy(policy)) if policy.spec.rules.len() == 1)
        );
    }
}
