//! `rewrite` (Istio, HTTPRewrite): what is forwarded instead.

use std::borrow::Cow;
use std::ops::ControlFlow;

use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Uri};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::{path, replaced_start};
use crate::base::schema::Rule;
use crate::base::{Regex, RegexError, Str};
use crate::filter::{Fault, Filter, RuleContext, header_modifier};
use Rule::Fields;

/// The longest target that a request can have. What an expression would make longer stays as it is.
const LONGEST: usize = u16::MAX as usize - 1;

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct UriRewrite {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<NewPath>,
    /// For the header Host.
    #[serde(serialize_with = "header_modifier::value_option")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<HeaderValue>,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum NewPath {
    Whole(Str),
    /// In place of the first `length` bytes: the prefix by which the rule matches.
    Start {
        length: usize,
        with: Str,
    },
    Pattern(Pattern),
}

/// What is put in place of everything that an expression matches.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Pattern {
    #[serde(serialize_with = "crate::filter::text")]
    regex: Regex,
    with: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
enum Piece {
    Text(Str),
    /// `\1`
    Group(usize),
}

/// `HTTPRewrite`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    #[serde(default)]
    uri: Option<String>,
    #[serde(default)]
    authority: Option<String>,
    #[serde(default)]
    uri_regex_rewrite: Option<WrittenPattern>,
}

/// `RegexRewrite`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenPattern {
    #[serde(default, rename = "match", deserialize_with = "compiled")]
    matched: Option<Result<Regex, String>>,
    #[serde(default)]
    rewrite: String,
}

impl Filter for UriRewrite {
    type Manifest = Written;

    const SCHEMA: Rule = Fields(&[]);
    const CHANGES: bool = true;

    /// The prefix of the rule is replaced; the whole path, where the rule matches in another way.
    fn read(written: &Written, rule: &dyn RuleContext) -> Result<Self, Fault> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let new_path = match (given(&written.uri), &written.uri_regex_rewrite) {
            (None, None) => None,
            (Some(uri), None) => {
                let with = path("uri", &uri)?;
                Some(match rule.prefix() {
                    Some(prefix) => NewPath::Start { length: prefix.len(), with },
                    None => NewPath::Whole(with),
                })
            }
            (None, Some(pattern)) => Some(NewPath::Pattern(pattern.read()?)),
            (Some(_), Some(_)) => {
                return Err(Fault::field("uriRegexRewrite", "must not stand beside uri"));
            }
        };
        let authority = given(&written.authority).map(|text| authority(&text)).transpose()?;
        if new_path.is_none() && authority.is_none() {
            return Err(Fault::field("", "says nothing; give uri, uriRegexRewrite or authority"));
        }
        Ok(Self { path: new_path, authority })
    }

    fn change(&self, uri: &mut Uri, headers: &mut HeaderMap) {
        if let Some(path) = &self.path {
            path.apply(uri);
        }
        if let Some(authority) = &self.authority {
            headers.insert(HOST, authority.clone());
        }
    }

    #[cfg(test)]
    fn samples() -> Vec<serde_json::Value> {
        let pattern = serde_json::json!({"match": "^/sent/(.*)$", "rewrite": r"/new/\1"});
        vec![
            serde_json::json!({"uri": "/v1/bookRatings", "authority": "ratings:9080"}),
            serde_json::json!({"uriRegexRewrite": pattern}),
        ]
    }
}

impl NewPath {
    /// The query stays. A path that no request can have is not taken.
    fn apply(&self, uri: &mut Uri) {
        let path = uri.path();
        let new: Cow<'_, str> = match self {
            NewPath::Whole(whole) => Cow::Borrowed(whole.as_str()),
            NewPath::Start { length, with } => Cow::Owned(replaced_start(path, *length, with)),
            NewPath::Pattern(pattern) => match pattern.replace(path) {
                Some(new) => Cow::Owned(new),
                None => return,
            },
        };
        let target = match uri.query() {
            None => PathAndQuery::try_from(new.as_ref()),
            Some(query) => PathAndQuery::try_from(format!("{new}?{query}")),
        };
        if let Ok(target) = target
            && target.path() == new
            && new.starts_with('/')
        {
            *uri = Uri::from(target);
        }
    }
}

impl Pattern {
    /// `None`: nothing matches, or what comes out is too long.
    fn replace(&self, path: &str) -> Option<String> {
        let (mut new, mut end) = (String::new(), 0);
        self.regex.captures(path, |captures| {
            let Some(found) = captures.get_group(0) else { return ControlFlow::Break(()) };
            new.push_str(path.get(end..found.start).unwrap_or_default());
            for piece in &self.with {
                let text = match piece {
                    Piece::Text(text) => Some(text.as_str()),
                    Piece::Group(group) => {
                        captures.get_group(*group).and_then(|group| path.get(group.range()))
                    }
                };
                new.push_str(text.unwrap_or_default());
            }
            end = found.end;
            if new.len() > LONGEST { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        new.push_str(path.get(end..)?);
        (new.len() <= LONGEST && new != path).then_some(new)
    }
}

/// Once for all rules that rewrite by it. A rule with a text that is no expression is one fault, an object with more of them than it
/// may have is another.
fn compiled<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Result<Regex, String>>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(None);
    }
    match Regex::with_groups(&text) {
        Err(error @ RegexError::Budget(_)) => Err(D::Error::custom(error)),
        read => Ok(Some(read.map_err(|error| error.to_string()))),
    }
}

impl WrittenPattern {
    fn read(&self) -> Result<Pattern, Fault> {
        let fault =
            |field: &str, why: String| Fault::field(format!("uriRegexRewrite.{field}"), why);
        let Some(read) = &self.matched else {
            return Err(fault("match", "is missing".to_owned()));
        };
        let regex = read.clone().map_err(|why| fault("match", why))?;
        let with = pieces(&self.rewrite).map_err(|why| fault("rewrite", why))?;
        let most = with.iter().filter_map(|piece| match piece {
            Piece::Group(group) => Some(*group),
            Piece::Text(_) => None,
        });
        if let Some(group) = most.max().filter(|group| *group >= regex.groups()) {
            return Err(fault("rewrite", format!("there is no group {group} in the expression")));
        }
        Ok(Pattern { regex, with })
    }
}

/// RE2's: `\0` to `\9` are groups, and `\\` is a backslash.
fn pieces(rewrite: &str) -> Result<Vec<Piece>, String> {
    if let Some(bad) = rewrite.chars().find(|it| matches!(it, '?' | '#' | ' ') || it.is_control()) {
        return Err(format!("{bad:?} cannot stand in a path"));
    }
    let (mut pieces, mut text) = (Vec::new(), String::new());
    let mut chars = rewrite.chars();
    while let Some(next) = chars.next() {
        if next != '\\' {
            text.push(next);
            continue;
        }
        match chars.next() {
            Some('\\') => text.push('\\'),
            Some(digit) if digit.is_ascii_digit() => {
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text).into()));
                }
                pieces.push(Piece::Group(digit.to_digit(10).unwrap_or_default() as usize));
            }
            _ => return Err("a backslash stands before a digit or another backslash".to_owned()),
        }
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.into()));
    }
    Ok(pieces)
}

fn authority(text: &str) -> Result<HeaderValue, Fault> {
    let bad = || Fault::field("authority", format!("{text:?} is not a host"));
    let parsed = text.parse::<Authority>().ok().filter(|it| !it.as_str().contains('@'));
    let parsed = parsed.ok_or_else(bad)?;
    HeaderValue::try_from(parsed.as_str()).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    struct By(Option<&'static str>);

    impl RuleContext for By {
        fn prefix(&self) -> Option<Str> {
            self.0.map(Str::from)
        }
    }

    fn read(written: Value, prefix: Option<&'static str>) -> Result<UriRewrite, Fault> {
        UriRewrite::read(&serde_json::from_value(written).unwrap(), &By(prefix))
    }

    fn rewritten(written: &Value, prefix: Option<&'static str>, uri: &str) -> String {
        let mut uri: Uri = uri.parse().unwrap();
        read(written.clone(), prefix).unwrap().change(&mut uri, &mut HeaderMap::new());
        uri.to_string()
    }

    /// As Envoy does it: prefixes are characters and not segments; what is matched otherwise is replaced as a whole.
    #[test]
    fn paths() {
        let pattern = |matched: &str, rewrite: &str| json!({"uriRegexRewrite": {"match": matched, "rewrite": rewrite}});
        for (written, prefix, uri, expected) in [
            (json!({"uri": "/new"}), Some("/old"), "/old/a?b=/old", "/new/a?b=/old"),
            (json!({"uri": "/"}), Some("/old"), "/old/a", "//a"),
            (json!({"uri": "/"}), Some("/old/"), "/old/a", "/a"),
            (json!({"uri": "/new"}), Some("/o"), "/old", "/newld"),
            (json!({"uri": "/new"}), Some("/OLD"), "/old/a", "/new/a"),
            (json!({"uri": "/new"}), None, "/old/a?b", "/new?b"),
            (
                pattern("^/service/([^/]+)(/.*)$", r"/customprefix/\2/\1"),
                None,
                "/service/update/v1/api",
                "/customprefix//v1/api/update",
            ),
            (pattern("(?i)/xxx/", "/yyy/"), None, "/aaa/XxX/bbb?x", "/aaa/yyy/bbb?x"),
            (pattern("one", "two"), None, "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"),
            (pattern("^/", "x"), None, "/a", "/a"),
            (pattern("none", "x"), None, "/a", "/a"),
        ] {
            assert_eq!(rewritten(&written, prefix, uri), expected, "{written} {uri}");
        }
    }

    #[test]
    fn what_is_no_rewrite_is_a_fault() {
        for (written, field) in [
            (json!({}), ""),
            (json!({"uri": "x"}), "uri"),
            (json!({"uri": "/x?y"}), "uri"),
            (json!({"authority": "a b"}), "authority"),
            (json!({"uri": "/x", "uriRegexRewrite": {"match": "a"}}), "uriRegexRewrite"),
            (json!({"uriRegexRewrite": {"match": ""}}), "uriRegexRewrite.match"),
            (json!({"uriRegexRewrite": {"match": "("}}), "uriRegexRewrite.match"),
            (
                json!({"uriRegexRewrite": {"match": "a", "rewrite": r"\1"}}),
                "uriRegexRewrite.rewrite",
            ),
            (
                json!({"uriRegexRewrite": {"match": "a", "rewrite": r"\x"}}),
                "uriRegexRewrite.rewrite",
            ),
            (json!({"uriRegexRewrite": {"match": "a", "rewrite": "?"}}), "uriRegexRewrite.rewrite"),
        ] {
            match read(written.clone(), None) {
                Err(Fault::Field { field: found, .. }) => assert_eq!(found, field, "{written}"),
                other => panic!("{written}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_expression_that_would_make_it_too_long_changes_nothing() {
        let with = "x".repeat(60_000);
        let written = json!({"uriRegexRewrite": {"match": "a", "rewrite": with}});
        assert_eq!(rewritten(&written, None, "/aaa"), "/aaa");
    }

    proptest! {
        #[test]
        fn a_target_stays_one(
            uri in "/[a-c/%.]{0,8}(\\?[a-c=?]{0,4})?",
            matched in "[a-c.*()|^$]{1,5}",
            rewrite in "[/a-c\\\\0-2]{0,5}",
        ) {
            let Ok(mut uri) = uri.parse::<Uri>() else { return Ok(()) };
            let query = uri.query().map(str::to_owned);
            let written = json!({"uriRegexRewrite": {"match": matched, "rewrite": rewrite}});
            let Ok(rewrite) = read(written, None) else { return Ok(()) };
            rewrite.change(&mut uri, &mut HeaderMap::new());
            prop_assert!(uri.path().starts_with('/'));
            prop_assert_eq!(uri.query().map(str::to_owned), query);
        }
    }
}
