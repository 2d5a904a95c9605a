//! What the API server would refuse although it can be read: patterns, enumerations, bounds and rules of the schemas of Gateway
//! API (v1), Istio (v1) and the core's validation, for the fields that mean something here.
//!
//! In a cluster the API server has checked every object, with the definitions that are installed there, and nobody asks this
//! room. A file's object is checked: one that the API server would refuse does not take the place of its last good version.
//! Types and unknown fields are its reader's to judge; a value of another type than a rule expects passes.

mod core;
mod forms;
mod gateway_api;
mod istio;

use serde_json::Value;

use super::{FieldError, Kind};
use forms::Form;

/// What a value must be like.
enum Rule {
    Text(Form),
    OneOf(&'static [&'static str]),
    /// From and to.
    Number(i64, i64),
    /// One of these.
    Code(&'static [i64]),
    /// At least and at most so many.
    List(usize, usize, &'static Rule),
    /// By the name of the field; others are free.
    Fields(&'static [(&'static str, Rule)]),
    /// Keys, and values, and at most so many.
    Map(usize, Form, &'static Rule),
    /// A rule, and what the value as a whole must be like.
    With(&'static Rule, &'static [Check]),
}

/// The field, below the value, and what is wrong with it.
type Check = fn(&Value) -> Option<(&'static str, String)>;

/// Whether the API server would take the object.
pub fn check(kind: Kind, object: &Value) -> Result<(), FieldError> {
    let spec = match kind {
        Kind::HTTPRoute => &gateway_api::HTTP_ROUTE,
        Kind::GRPCRoute => &gateway_api::GRPC_ROUTE,
        Kind::Gateway => &gateway_api::GATEWAY,
        Kind::AuthorizationPolicy => &istio::AUTHORIZATION_POLICY,
        Kind::PeerAuthentication => &istio::PEER_AUTHENTICATION,
        Kind::ServiceEntry => &istio::SERVICE_ENTRY,
        Kind::WorkloadEntry => &istio::WORKLOAD_ENTRY,
        Kind::Service => &core::SERVICE,
        Kind::Pod => {
            judge(&core::METADATA, object.get("metadata"), "metadata")?;
            return judge(&core::POD, Some(object), "");
        }
        Kind::EndpointSlice => {
            judge(&core::METADATA, object.get("metadata"), "metadata")?;
            return judge(&core::ENDPOINT_SLICE, Some(object), "");
        }
        _ => return judge(&core::METADATA, object.get("metadata"), "metadata"),
    };
    judge(&core::METADATA, object.get("metadata"), "metadata")?;
    judge(spec, object.get("spec"), "spec")
}

/// What is not there breaks no rule. The depth is bounded by that of the rules.
fn judge(rule: &Rule, value: Option<&Value>, path: &str) -> Result<(), FieldError> {
    let Some(value) = value else { return Ok(()) };
    let wrong = |reason: String| Err(FieldError { field: path.to_owned(), reason });
    match (rule, value) {
        (Rule::Text(form), Value::String(text)) => match form.objection(text) {
            Some(reason) => wrong(reason),
            None => Ok(()),
        },
        (Rule::OneOf(names), Value::String(text)) if !names.contains(&text.as_str()) => {
            wrong(format!("{text:?} is none of {}", names.join(", ")))
        }
        (Rule::Number(least, most), Value::Number(number)) => match number.as_i64() {
            Some(number) if (*least..=*most).contains(&number) => Ok(()),
            _ => wrong(format!("{number} is not from {least} to {most}")),
        },
        (Rule::Code(codes), Value::Number(number)) => match number.as_i64() {
            Some(number) if codes.contains(&number) => Ok(()),
            _ => wrong(format!("{number} is none of {codes:?}")),
        },
        (Rule::List(least, most, of), Value::Array(items)) => {
            if !(*least..=*most).contains(&items.len()) {
                return wrong(format!("has {} items, not from {least} to {most}", items.len()));
            }
            let mut items = items.iter().enumerate();
            items.try_for_each(|(at, item)| judge(of, Some(item), &format!("{path}[{at}]")))
        }
        (Rule::Fields(fields), Value::Object(_)) => fields.iter().try_for_each(|(name, rule)| {
            let path = if path.is_empty() { (*name).to_owned() } else { format!("{path}.{name}") };
            judge(rule, value.get(name), &path)
        }),
        (Rule::Map(most, keys, of), Value::Object(entries)) => {
            if entries.len() > *most {
                return wrong(format!("has {} entries, more than {most}", entries.len()));
            }
            entries.iter().try_for_each(|(key, value)| {
                if let Some(reason) = keys.objection(key) {
                    return wrong(format!("key {reason}"));
                }
                judge(of, Some(value), &format!("{path}.{key}"))
            })
        }
        (Rule::With(rule, checks), value) => {
            judge(rule, Some(value), path)?;
            match checks.iter().find_map(|check| check(value)) {
                Some(("", reason)) => wrong(reason),
                Some((field, reason)) if path.is_empty() => {
                    Err(FieldError { field: field.to_owned(), reason })
                }
                Some((field, reason)) => {
                    Err(FieldError { field: format!("{path}.{field}"), reason })
                }
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// The items of a list; none when it is none.
fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A text that says something.
fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The first item whose field says the same as another's before it.
fn repeated<'a>(list: &'a [Value], field: &str) -> Option<&'a str> {
    let mut seen = std::collections::HashSet::new();
    list.iter().filter_map(|item| text(item, field)).find(|text| !seen.insert(*text))
}

#[cfg(test)]
mod tests;
