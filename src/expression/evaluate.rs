//! Evaluates an expression over a request. `None` is CEL's error; `&&` and `||` ignore it if the other side decides.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::Attribute;
use super::compile::{Calculation, Comparison, Node, TextTest};

/// The longest text that concatenation makes.
const MAX_TEXT: usize = 4_096;

/// The attributes of a request.
pub trait Facts {
    /// `None` if the request does not have it.
    fn get(&self, attribute: Attribute) -> Option<Value<'_>>;
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    Bool(bool),
    Int(i64),
    Double(f64),
    /// In nanoseconds.
    Duration(i64),
    Text(Cow<'a, str>),
}

impl<'a> Value<'a> {
    pub fn text(text: &'a str) -> Self {
        Value::Text(Cow::Borrowed(text))
    }

    /// A count; the greatest number instead of one that is too large.
    pub fn count(count: u64) -> Self {
        Value::Int(i64::try_from(count).unwrap_or(i64::MAX))
    }

    pub(super) fn into_text(self) -> Option<String> {
        Some(match self {
            Value::Bool(it) => it.to_string(),
            Value::Int(it) => it.to_string(),
            Value::Double(it) => it.to_string(),
            Value::Duration(it) => format!("{}s", it as f64 / 1e9),
            Value::Text(it) => it.into_owned(),
        })
    }

    fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(it) = self { Some(*it) } else { None }
    }

    fn as_text(&self) -> Option<&str> {
        if let Value::Text(it) = self { Some(it) } else { None }
    }
}

pub(super) fn value<'a>(node: &'a Node, facts: &'a dyn Facts) -> Option<Value<'a>> {
    match node {
        Node::Bool(it) => Some(Value::Bool(*it)),
        Node::Int(it) => Some(Value::Int(*it)),
        Node::Double(it) => Some(Value::Double(*it)),
        Node::Duration(it) => Some(Value::Duration(*it)),
        Node::Text(it) => Some(Value::text(it)),
        Node::Attribute(attribute) => facts.get(*attribute),
        Node::Has(attribute) => Some(Value::Bool(facts.get(*attribute).is_some())),
        Node::Not(of) => Some(Value::Bool(!truth(of, facts)?)),
        Node::Negate(of) => match value(of, facts)? {
            Value::Int(it) => it.checked_neg().map(Value::Int),
            Value::Double(it) => Some(Value::Double(-it)),
            Value::Duration(it) => it.checked_neg().map(Value::Duration),
            _ => None,
        },
        Node::And(of) => either(of, facts, false),
        Node::Or(of) => either(of, facts, true),
        Node::If(parts) => {
            let [condition, then, otherwise] = &**parts;
            value(if truth(condition, facts)? { then } else { otherwise }, facts)
        }
        Node::Compare(how, of) => {
            let [one, two] = &**of;
            compare(*how, &value(one, facts)?, &value(two, facts)?).map(Value::Bool)
        }
        Node::Calculate(how, of) => {
            let [one, two] = &**of;
            calculate(*how, value(one, facts)?, value(two, facts)?)
        }
        Node::In(what, within) => {
            let what = value(what, facts)?;
            let mut items = within.iter().filter_map(|item| value(item, facts));
            Some(Value::Bool(items.any(|item| order(&what, &item) == Some(Ordering::Equal))))
        }
        Node::Compared(how, of) => {
            let [one, two] = &**of;
            let (one, two) = (value(one, facts)?, value(two, facts)?);
            let (text, part) = (one.as_text()?, two.as_text()?);
            Some(Value::Bool(match how {
                TextTest::StartsWith => text.starts_with(part),
                TextTest::EndsWith => text.ends_with(part),
                TextTest::Contains => text.contains(part),
            }))
        }
        Node::Matches(text, regex) => {
            Some(Value::Bool(regex.is_match(value(text, facts)?.as_text()?)))
        }
        Node::Size(of) => Some(Value::count(value(of, facts)?.as_text()?.chars().count() as u64)),
        Node::ToText(of) => value(of, facts)?.into_text().map(|it| Value::Text(Cow::Owned(it))),
        Node::ToInt(of) => match value(of, facts)? {
            Value::Int(it) => Some(Value::Int(it)),
            Value::Double(it) => Some(Value::Int(it as i64)),
            Value::Text(it) => it.parse().ok().map(Value::Int),
            Value::Bool(_) | Value::Duration(_) => None,
        },
    }
}

fn truth(node: &Node, facts: &dyn Facts) -> Option<bool> {
    value(node, facts)?.as_bool()
}

/// `&&` and `||`: one side that decides is enough.
fn either<'a>(of: &[Node; 2], facts: &dyn Facts, decides: bool) -> Option<Value<'a>> {
    let [one, two] = of;
    let one = truth(one, facts);
    if one == Some(decides) {
        return Some(Value::Bool(decides));
    }
    match truth(two, facts) {
        Some(two) if two == decides => Some(Value::Bool(decides)),
        two => one.and(two).map(Value::Bool),
    }
}

fn compare(how: Comparison, one: &Value<'_>, two: &Value<'_>) -> Option<bool> {
    let order = order(one, two);
    Some(match how {
        // Values of different types are not equal.
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::NotEqual => order != Some(Ordering::Equal),
        Comparison::Less => order?.is_lt(),
        Comparison::LessOrEqual => order?.is_le(),
        Comparison::Greater => order?.is_gt(),
        Comparison::GreaterOrEqual => order?.is_ge(),
    })
}

fn order(one: &Value<'_>, two: &Value<'_>) -> Option<Ordering> {
    match (one, two) {
        (Value::Bool(one), Value::Bool(two)) => Some(one.cmp(two)),
        (Value::Int(one), Value::Int(two)) | (Value::Duration(one), Value::Duration(two)) => {
            Some(one.cmp(two))
        }
        (Value::Double(one), Value::Double(two)) => one.partial_cmp(two),
        (Value::Int(one), Value::Double(two)) => (*one as f64).partial_cmp(two),
        (Value::Double(one), Value::Int(two)) => one.partial_cmp(&(*two as f64)),
        (Value::Text(one), Value::Text(two)) => Some(one.cmp(two)),
        _ => None,
    }
}

fn calculate<'a>(how: Calculation, one: Value<'a>, two: Value<'a>) -> Option<Value<'a>> {
    match (one, two) {
        (Value::Int(one), Value::Int(two)) => whole(how, one, two).map(Value::Int),
        (Value::Duration(one), Value::Duration(two)) => match how {
            Calculation::Add | Calculation::Subtract => whole(how, one, two).map(Value::Duration),
            _ => None,
        },
        (Value::Double(one), Value::Double(two)) => Some(Value::Double(match how {
            Calculation::Add => one + two,
            Calculation::Subtract => one - two,
            Calculation::Multiply => one * two,
            Calculation::Divide => one / two,
            Calculation::Remainder => return None,
        })),
        (Value::Text(one), Value::Text(two)) => {
            let fits = one.len() + two.len() <= MAX_TEXT && matches!(how, Calculation::Add);
            fits.then(|| Value::Text(one + two))
        }
        _ => None,
    }
}

fn whole(how: Calculation, one: i64, two: i64) -> Option<i64> {
    match how {
        Calculation::Add => one.checked_add(two),
        Calculation::Subtract => one.checked_sub(two),
        Calculation::Multiply => one.checked_mul(two),
        Calculation::Divide => one.checked_div(two),
        Calculation::Remainder => one.checked_rem(two),
    }
}
