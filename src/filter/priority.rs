//! The priority of a TrafficPolicy (`priority`): which requests may use all of a concurrency limit, and which are shed first.
//!
//! The owner of the destination says so, by the rule of its route, the client's identity, or headers. A client's own header raises
//! nothing unless the policy names who may send it, or trusts everybody with it.

use http::HeaderMap;
use serde::Deserialize;

use super::{Fault, Filter, Half, HeaderMatch, HttpFilter, RuleContext};
use crate::base::schema::forms::{HEADER_NAME, HEADER_VALUE};
use crate::base::schema::{Objection, Rule, items};
use crate::base::{Identity, ObjectKey, Str};
use Rule::{Fields, List, OneOf, With};

/// What is shed first, and what last.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize,
)]
pub enum Level {
    /// Up to a half of the limit.
    Sheddable,
    /// Up to nine tenths.
    #[default]
    Normal,
    /// All of it.
    Critical,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Priority {
    /// The policy that sets it.
    pub policy: ObjectKey,
    /// Of requests that no class takes.
    pub default: Level,
    /// The first that takes a request says its level.
    pub classes: Vec<Class>,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Class {
    pub level: Level,
    /// Proven by mutual TLS. If there are any, or principals, the client is one of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<Str>,
    /// `trust-domain/ns/namespace/sa/account`, as AuthorizationPolicies write them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<Str>,
    /// The request matches all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    #[serde(default)]
    default: Level,
    #[serde(default)]
    classes: Vec<WrittenClass>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenClass {
    level: Level,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default)]
    principals: Vec<String>,
    #[serde(default)]
    headers: Vec<HeaderMatch>,
    #[serde(default)]
    trust_headers: bool,
}

const LEVELS: Rule = OneOf(&["Critical", "Normal", "Sheddable"]);

impl Level {
    /// How much of a limit requests of this level may use; at least one place.
    pub fn room(self, limit: u32) -> u32 {
        let share = |tenths: u64| u32::try_from(u64::from(limit) * tenths / 10).unwrap_or(limit);
        match self {
            Level::Critical => limit,
            Level::Normal => share(9).max(1),
            Level::Sheddable => share(5).max(1),
        }
    }
}

impl Filter for Priority {
    type Manifest = Written;

    const SCHEMA: Rule = Fields(&[
        ("default", LEVELS),
        (
            "classes",
            List(
                0,
                16,
                &With(
                    &Fields(&[
                        ("level", LEVELS),
                        (
                            "headers",
                            List(
                                0,
                                16,
                                &Fields(&[
                                    ("type", OneOf(&["Exact", "Prefix", "RegularExpression"])),
                                    ("name", Rule::Text(HEADER_NAME)),
                                    ("value", Rule::Text(HEADER_VALUE)),
                                ]),
                            ),
                        ),
                    ]),
                    &[says_who],
                ),
            ),
        ),
    ]);
    const HALF: Half = Half::Destination;

    fn read(written: &Written, rule: &dyn RuleContext) -> Result<Self, Fault> {
        let classes = written.classes.iter().enumerate().map(|(at, class)| {
            class.read().map_err(|why| Fault::field(format!("classes[{at}]"), why))
        });
        let classes = classes.collect::<Result<_, _>>()?;
        Ok(Self { policy: rule.policy(), default: written.default, classes })
    }

    #[cfg(test)]
    fn samples() -> Vec<serde_json::Value> {
        vec![
            serde_json::json!({"default": "Sheddable"}),
            serde_json::json!({"classes": [
                {"level": "Critical", "namespaces": ["checkout"]},
                {"level": "Sheddable", "headers": [{"name": "x-batch", "value": "1"}]},
            ]}),
        ]
    }
}

impl WrittenClass {
    fn read(&self) -> Result<Class, String> {
        let names_client = !self.namespaces.is_empty() || !self.principals.is_empty();
        if let Some(why) =
            fault(self.level, names_client, !self.headers.is_empty(), self.trust_headers)
        {
            return Err(why.to_owned());
        }
        let texts = |texts: &[String]| texts.iter().map(|it| it.as_str().into()).collect();
        Ok(Class {
            level: self.level,
            namespaces: texts(&self.namespaces),
            principals: texts(&self.principals),
            headers: self.headers.clone(),
        })
    }
}

/// What is wrong with a class that names clients or headers, or trusts these.
fn fault(
    level: Level,
    names_client: bool,
    has_headers: bool,
    trusts: bool,
) -> Option<&'static str> {
    if !names_client && !has_headers {
        return Some(
            "names neither namespaces, principals nor headers; what holds for all others is `default`",
        );
    }
    if !names_client && !trusts && level != Level::Sheddable {
        return Some(
            "every client could send these headers; name the namespaces or principals that may, or set trustHeaders",
        );
    }
    None
}

fn says_who(class: &serde_json::Value) -> Option<Objection> {
    let has = |field: &str| !items(class, field).is_empty();
    let level = match class.get("level")?.as_str()? {
        "Sheddable" => Level::Sheddable,
        _ => Level::Critical,
    };
    let trusts = class.get("trustHeaders").and_then(serde_json::Value::as_bool).unwrap_or(false);
    let names_client = has("namespaces") || has("principals");
    fault(level, names_client, has("headers"), trusts).map(|why| ("", why.to_owned()))
}

impl Class {
    fn takes(&self, client: Option<&Identity>, headers: &HeaderMap) -> bool {
        self.names(client) && self.headers.iter().all(|header| header.matches(headers))
    }

    fn names(&self, client: Option<&Identity>) -> bool {
        if self.namespaces.is_empty() && self.principals.is_empty() {
            return true;
        }
        let Some(client) = client else { return false };
        self.namespaces.contains(&client.namespace)
            || self.principals.iter().any(|principal| is_principal(principal, client))
    }
}

fn is_principal(principal: &str, client: &Identity) -> bool {
    let rest = principal.strip_prefix(client.trust_domain.as_str());
    let rest = rest.and_then(|rest| rest.strip_prefix("/ns/"));
    let rest = rest.and_then(|rest| rest.strip_prefix(client.namespace.as_str()));
    let account = rest.and_then(|rest| rest.strip_prefix("/sa/"));
    account.is_some_and(|account| account == client.service_account)
}

impl Priority {
    fn level(&self, client: Option<&Identity>, headers: &HeaderMap) -> Level {
        let class = self.classes.iter().find(|class| class.takes(client, headers));
        class.map_or(self.default, |class| class.level)
    }
}

/// The level that the filters of a request give it; `None` where none of them speaks of priority. The first one holds.
pub fn level<'a>(
    filters: impl IntoIterator<Item = &'a HttpFilter>,
    headers: &HeaderMap,
    client: Option<&Identity>,
) -> Option<Level> {
    filters.into_iter().find_map(|filter| match filter {
        HttpFilter::Priority(priority) => Some(priority.level(client, headers)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use serde_json::{Value, json};

    use super::*;

    struct Nothing;

    impl RuleContext for Nothing {}

    fn read(written: Value) -> Result<Priority, Fault> {
        Priority::read(&serde_json::from_value(written).unwrap(), &Nothing)
    }

    fn headers(value: Option<&'static str>) -> HeaderMap {
        let name = HeaderName::from_static("x-priority");
        value.map(|value| (name, HeaderValue::from_static(value))).into_iter().collect()
    }

    /// Who is marked as critical: the trust decision in one table.
    #[test]
    fn a_class_takes_whom_it_names() {
        let api = Identity::new("cluster.local", "pay", "api");
        let other = Identity::new("cluster.local", "web", "front");
        let header = json!([{"name": "x-priority", "value": "high"}]);
        let principal = "cluster.local/ns/pay/sa/api";
        for (class, client, sent, critical) in [
            (json!({"namespaces": ["pay"]}), Some(&api), None, true),
            (json!({"namespaces": ["pay"]}), Some(&other), None, false),
            (json!({"namespaces": ["pay"]}), None, None, false),
            (json!({"principals": [principal]}), Some(&api), None, true),
            (json!({"principals": [principal]}), Some(&other), None, false),
            (json!({"principals": ["cluster.local/ns/pay/sa/ap"]}), Some(&api), None, false),
            (json!({"principals": ["other.example/ns/pay/sa/api"]}), Some(&api), None, false),
            (json!({"namespaces": ["x"], "principals": [principal]}), Some(&api), None, true),
            (json!({"namespaces": ["pay"], "headers": header}), Some(&api), Some("high"), true),
            (json!({"namespaces": ["pay"], "headers": header}), Some(&api), Some("low"), false),
            (json!({"namespaces": ["pay"], "headers": header}), Some(&api), None, false),
            (json!({"namespaces": ["pay"], "headers": header}), Some(&other), Some("high"), false),
            (json!({"namespaces": ["pay"], "headers": header}), None, Some("high"), false),
            (json!({"headers": header, "trustHeaders": true}), None, Some("high"), true),
            (json!({"headers": header, "trustHeaders": true}), Some(&other), None, false),
        ] {
            let mut class = class;
            class["level"] = json!("Critical");
            let priority = read(json!({"classes": [class]})).unwrap();
            let expected = if critical { Level::Critical } else { Level::Normal };
            assert_eq!(
                priority.level(client, &headers(sent)),
                expected,
                "{class} {client:?} {sent:?}"
            );
        }
    }

    #[test]
    fn the_first_class_holds_and_then_the_default() {
        let priority = read(json!({"default": "Sheddable", "classes": [
            {"level": "Normal", "namespaces": ["pay"], "headers": [{"name": "x-priority", "value": "low"}]},
            {"level": "Critical", "namespaces": ["pay"]},
        ]}))
        .unwrap();
        let client = Identity::new("cluster.local", "pay", "api");
        assert_eq!(priority.level(Some(&client), &headers(Some("low"))), Level::Normal);
        assert_eq!(priority.level(Some(&client), &headers(None)), Level::Critical);
        assert_eq!(priority.level(None, &headers(None)), Level::Sheddable);
    }

    /// A client that asks for more than it is due by a header alone.
    #[test]
    fn headers_alone_raise_nothing_unless_they_are_trusted() {
        let header = json!([{"name": "x-priority", "value": "high"}]);
        for (class, good) in [
            (json!({"level": "Critical", "headers": header}), false),
            (json!({"level": "Normal", "headers": header}), false),
            (json!({"level": "Sheddable", "headers": header}), true),
            (json!({"level": "Critical", "headers": header, "trustHeaders": true}), true),
            (json!({"level": "Critical", "headers": header, "namespaces": ["pay"]}), true),
            (json!({"level": "Critical"}), false),
            (json!({"level": "Sheddable"}), false),
        ] {
            assert_eq!(read(json!({"classes": [class]})).is_ok(), good, "{class}");
            assert_eq!(says_who(&class).is_none(), good, "{class}");
        }
    }

    #[test]
    fn levels_have_their_part_of_a_limit() {
        for (limit, normal, sheddable) in [(1, 1, 1), (2, 1, 1), (10, 9, 5), (100, 90, 50)] {
            assert_eq!(Level::Critical.room(limit), limit);
            assert_eq!(Level::Normal.room(limit), normal, "{limit}");
            assert_eq!(Level::Sheddable.room(limit), sheddable, "{limit}");
        }
    }
}
