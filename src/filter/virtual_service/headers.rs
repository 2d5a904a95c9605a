//! `headers` of a rule and of a destination (Istio, Headers): `remove`, then `set`, then `add`, as Envoy does it.

use std::collections::BTreeMap;

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::Deserialize;

use crate::base::schema::Rule;
use crate::filter::{Fault, Filter, ResponseHead, RuleContext, Seen, header_modifier};
use Rule::Fields;

/// What is done to the headers of requests and responses.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Operations {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request: Vec<Step>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response: Vec<Step>,
    /// For the header Host of requests.
    #[serde(serialize_with = "header_modifier::value_option")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HeaderValue>,
}

/// One of these after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    #[serde(serialize_with = "names")]
    pub remove: Vec<HeaderName>,
    #[serde(serialize_with = "header_modifier::pairs")]
    pub set: Vec<(HeaderName, HeaderValue)>,
    #[serde(serialize_with = "header_modifier::pairs")]
    pub add: Vec<(HeaderName, HeaderValue)>,
}

/// `Headers`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    #[serde(default)]
    request: Option<WrittenOperations>,
    #[serde(default)]
    response: Option<WrittenOperations>,
}

/// `Headers.HeaderOperations`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenOperations {
    #[serde(default)]
    set: BTreeMap<String, String>,
    #[serde(default)]
    add: BTreeMap<String, String>,
    #[serde(default)]
    remove: Vec<String>,
}

impl Filter for Operations {
    type Manifest = Written;

    const SCHEMA: Rule = Fields(&[]);
    const CHANGES: bool = true;

    fn read(written: &Written, _rule: &dyn RuleContext) -> Result<Self, Fault> {
        let mut all = Self::default();
        if let Some(request) = &written.request {
            let named = |list: &BTreeMap<String, String>| {
                let mut hosts = list.iter().filter(|(name, _)| is_host(name));
                hosts.next().map(|(name, text)| value("request", name, text)).transpose()
            };
            // The value of `set` holds before that of `add`.
            all.host =
                named(&request.set)?.map_or_else(|| named(&request.add), |it| Ok(Some(it)))?;
            all.request.extend(request.read("request")?);
        }
        if let Some(response) = &written.response {
            all.response.extend(response.read("response")?);
        }
        Ok(all)
    }

    fn change(&self, _uri: &mut Uri, headers: &mut HeaderMap) {
        apply(&self.request, headers);
        if let Some(host) = &self.host {
            headers.insert(HOST, host.clone());
        }
    }

    fn response(&self, head: &mut ResponseHead<'_>, _seen: &Seen) {
        apply(&self.response, head.headers);
    }

    #[cfg(test)]
    fn samples() -> Vec<serde_json::Value> {
        vec![serde_json::json!({
            "request": {"set": {"x-set": "1", "host": "b"}, "add": {"x-add": "1"}, "remove": ["x-sent"]},
            "response": {"remove": ["server"]},
        })]
    }
}

impl WrittenOperations {
    /// `None` if there is nothing to be done.
    fn read(&self, side: &str) -> Result<Option<Step>, Fault> {
        let pairs = |list: &BTreeMap<String, String>| {
            let pairs = list.iter().filter(|(name, _)| !is_internal(name));
            let pair = pairs.map(|(key, text)| Ok((name(side, key)?, value(side, key, text)?)));
            pair.collect::<Result<Vec<_>, Fault>>()
        };
        let removed = self.remove.iter().filter(|name| !is_internal(name));
        let step = Step {
            remove: removed.map(|key| name(side, key)).collect::<Result<_, _>>()?,
            set: pairs(&self.set)?,
            add: pairs(&self.add)?,
        };
        Ok((step != Step::default()).then_some(step))
    }
}

impl Operations {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Of a rule with one destination, and of that: all that either removes goes first, and the destination has the last word but
    /// for the host.
    pub fn with_only_destination(mut self, destination: Self) -> Self {
        for (own, more) in
            [(&mut self.request, destination.request), (&mut self.response, destination.response)]
        {
            for mut step in more {
                if let Some(first) = own.first_mut() {
                    first.remove.append(&mut step.remove);
                }
                own.push(step);
            }
        }
        self.host = self.host.or(destination.host);
        self
    }

    /// Of a rule with several destinations, and of one of them: the rule has the last word but for the host.
    pub fn with_destination(mut self, destination: Self) -> Self {
        self.request.splice(0..0, destination.request);
        self.response.splice(0..0, destination.response);
        self.host = destination.host.or(self.host);
        self
    }

    /// Changes the headers of an answer as those of a response.
    pub fn respond(&self, headers: &mut HeaderMap) {
        apply(&self.response, headers);
    }
}

fn apply(steps: &[Step], headers: &mut HeaderMap) {
    for Step { remove, set, add } in steps {
        remove.iter().for_each(|name| _ = headers.remove(name));
        set.iter().for_each(|(name, value)| _ = headers.insert(name, value.clone()));
        add.iter().for_each(|(name, value)| _ = headers.append(name, value.clone()));
    }
}

/// What stands for the authority of a request.
fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

/// No header that could be changed.
fn is_internal(name: &str) -> bool {
    name.starts_with(':') || name.eq_ignore_ascii_case("host")
}

fn name(side: &str, text: &str) -> Result<HeaderName, Fault> {
    HeaderName::try_from(text)
        .map_err(|_| Fault::field(side, format!("{text:?} is not a header name")))
}

/// Envoy puts values of a request or connection in place of `%NAME%`, and writes `%%` for a percent sign.
fn value(side: &str, name: &str, text: &str) -> Result<HeaderValue, Fault> {
    let literal = text.replace("%%", "");
    if literal.contains('%') {
        let why = format!(
            "the value {text:?} of {name} has an operator of Envoy (%NAME%), which is not carried out; write %% for a percent sign"
        );
        return Err(Fault::field(side, why));
    }
    HeaderValue::try_from(text.replace("%%", "%")).map_err(|_| {
        Fault::field(side, format!("the value of {name} holds bytes that no header may have"))
    })
}

fn names<S: serde::Serializer>(values: &[HeaderName], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(HeaderName::as_str))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    struct Nothing;

    impl RuleContext for Nothing {}

    fn read(written: Value) -> Operations {
        Operations::read(&serde_json::from_value(written).unwrap(), &Nothing).unwrap()
    }

    fn changed(operations: &Operations) -> String {
        let sent = [("host", "old"), ("x-a", "sent"), ("x-gone", "sent")];
        let sent = sent
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers = HeaderMap::from_iter(sent);
        operations.change(&mut Uri::from_static("/"), &mut headers);
        let mut all: Vec<String> = (headers.iter())
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect();
        all.sort();
        all.join(" ")
    }

    #[test]
    fn removed_then_set_then_added() {
        for (written, expected) in [
            (json!({}), "host=old x-a=sent x-gone=sent"),
            (
                json!({"request": {"set": {"x-a": "1"}, "add": {"x-a": "2"}, "remove": ["x-a", "x-gone"]}}),
                "host=old x-a=1 x-a=2",
            ),
            (
                json!({"request": {"set": {"Host": "new", "x-p": "5%%"}}}),
                "host=new x-a=sent x-gone=sent x-p=5%",
            ),
            (
                json!({"request": {"add": {":authority": "added"}, "remove": ["host", ":path"]}}),
                "host=added x-a=sent x-gone=sent",
            ),
        ] {
            assert_eq!(changed(&read(written.clone())), expected, "{written}");
        }
    }

    #[test]
    fn one_destination_has_the_last_word_and_the_rule_among_several() {
        let rule = read(json!({"request": {"set": {"x-a": "rule", "host": "rule"}}}));
        let to =
            read(json!({"request": {"set": {"x-a": "to", "host": "to"}, "remove": ["x-gone"]}}));
        let only = rule.clone().with_only_destination(to.clone());
        assert_eq!(changed(&only), "host=rule x-a=to");
        assert_eq!(changed(&rule.with_destination(to)), "host=to x-a=rule");
    }

    #[test]
    fn what_cannot_be_done_is_a_fault() {
        for (written, why) in [
            (json!({"request": {"set": {"a b": "1"}}}), "not a header name"),
            (json!({"request": {"add": {"x": "%REQ(y)%"}}}), "operator of Envoy"),
            (json!({"response": {"set": {"x": "a\nb"}}}), "bytes that no header may have"),
        ] {
            let parsed = serde_json::from_value(written.clone()).unwrap();
            match Operations::read(&parsed, &Nothing) {
                Err(Fault::Field { why: found, .. }) => assert!(found.contains(why), "{found}"),
                other => panic!("{written}: {other:?}"),
            }
        }
    }
}
