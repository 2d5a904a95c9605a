//! Rules that values of manifests keep: patterns, enumerations, bounds and rules of schemas of the API server.
//!
//! Types and unknown fields are a reader's to judge; a value of another type than a rule expects passes.

mod duration;
pub mod forms;

use serde_json::Value;

pub use duration::{parse_duration, parse_istio_duration};
use forms::Form;

/// A field's path and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Empty for the object as a whole.
    pub field: String,
    pub reason: String,
}

/// The largest number of the format `int32`.
pub const INT32: i64 = 2_147_483_647;

/// What a value must be like.
pub enum Rule {
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

/// What a value as a whole must be like.
pub type Check = fn(&Value) -> Option<Objection>;

/// The field, below the value, and what is wrong with it.
pub type Objection = (&'static str, String);

/// What is not there breaks no rule. The depth is bounded by that of the rules.
pub fn judge(rule: &Rule, value: Option<&Value>, path: &str) -> Result<(), FieldError> {
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
pub fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A text that says something.
pub fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The first item whose field says the same as another's before it.
pub fn repeated<'a>(list: &'a [Value], field: &str) -> Option<&'a str> {
    let mut seen = std::collections::HashSet::new();
    list.iter().filter_map(|item| text(item, field)).find(|text| !seen.insert(*text))
}
