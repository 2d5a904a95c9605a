//! `delegate` (Istio, Delegate): rules of another VirtualService, which has no hosts, in place of a rule.
//!
//! As in Istio a rule of the delegate holds only where its matches are narrower than those of the rule that delegates, and what it
//! does not say itself it has from there. Names in it are those of its own namespace.

use std::collections::{BTreeMap, BTreeSet};

use super::One;
use crate::base::ObjectKey;
use crate::filter::StringMatch;
use crate::source::Objects;
use crate::source::objects::{
    Kind, VirtualDelegate, VirtualHttpMatch, VirtualHttpRoute, VirtualService, VirtualServiceSpec,
};
use crate::source::translate::{TranslateSettings, by_host, is_of_other_revision};

/// VirtualServices without hosts, and which of them are used.
#[derive(Default)]
pub(super) struct Delegates<'a> {
    all: BTreeMap<&'a ObjectKey, &'a VirtualServiceSpec>,
    used: BTreeSet<&'a ObjectKey>,
}

/// A rule, with the object and the field where it stands.
pub(super) struct Written<'a> {
    pub(super) of: &'a ObjectKey,
    pub(super) field: String,
    pub(super) rule: VirtualHttpRoute,
}

impl<'a> Delegates<'a> {
    pub(super) fn of(objects: &'a Objects, settings: &TranslateSettings) -> Self {
        let all = objects.all::<VirtualService>();
        let own = all.filter(|(_, object)| !is_of_other_revision(settings, *object));
        let specs = own.map(|(key, object)| (key, &object.spec.0));
        Self { all: specs.filter(|(_, spec)| spec.hosts.is_empty()).collect(), ..Self::default() }
    }

    /// Those that nobody delegates to.
    pub(super) fn unused(&self) -> impl Iterator<Item = (&'a ObjectKey, &'a VirtualServiceSpec)> {
        let unused = self.all.iter().filter(|(key, _)| !self.used.contains(*key));
        unused.map(|(key, spec)| (*key, *spec))
    }

    /// The rules of a VirtualService, with those of others in place of rules that delegate.
    pub(super) fn rules(&mut self, one: &mut One<'a, '_, '_>) -> Vec<Written<'a>> {
        let mut rules = Vec::new();
        let (key, spec) = (one.key, one.spec);
        for (index, rule) in spec.http.iter().enumerate() {
            let field = format!("spec.http[{index}]");
            match &rule.delegate {
                None => rules.push(Written { of: key, field, rule: rule.clone() }),
                Some(delegate) => match self.find(one, delegate) {
                    Ok((of, spec)) => {
                        complain_of_rule(one, &field, rule);
                        merge(one, (&field, rule), (of, spec), &mut rules);
                    }
                    Err(why) => {
                        let reason = format!("{why}; the rule is left out");
                        one.error(format!("{field}.delegate"), reason);
                    }
                },
            }
        }
        rules
    }

    fn find(
        &mut self,
        one: &One<'a, '_, '_>,
        delegate: &VirtualDelegate,
    ) -> Result<(&'a ObjectKey, &'a VirtualServiceSpec), String> {
        let namespace = match delegate.namespace.is_empty() {
            true => one.key.namespace.as_str(),
            false => delegate.namespace.as_str(),
        };
        let wanted = ObjectKey::new(namespace, delegate.name.as_str());
        let Some((key, spec)) = self.all.get_key_value(&wanted) else {
            return Err(format!(
                "the VirtualService {wanted} does not exist, cannot be read, or has hosts itself"
            ));
        };
        let to = spec.export_to.iter().map(String::as_str);
        let exported = by_host::exported(one.cx, Kind::VirtualService, key, to);
        let sees = |all: &Vec<_>| all.contains(&one.key.namespace);
        if !exported.as_ref().is_none_or(sees) {
            return Err(format!(
                "the VirtualService {wanted} is not exported to {} (exportTo)",
                one.key.namespace
            ));
        }
        self.used.insert(*key);
        Ok((*key, *spec))
    }
}

/// What has no meaning beside a delegate.
fn complain_of_rule(one: &mut One<'_, '_, '_>, field: &str, rule: &VirtualHttpRoute) {
    for (below, given) in [
        ("route", !rule.route.is_empty()),
        ("redirect", rule.redirect.is_some()),
        ("directResponse", rule.direct_response.is_some()),
    ] {
        if given {
            let reason = "has no effect beside delegate";
            one.error(format!("{field}.{below}"), reason);
        }
    }
}

fn merge<'a>(
    one: &mut One<'a, '_, '_>,
    (place, root): (&str, &VirtualHttpRoute),
    (of, spec): (&'a ObjectKey, &'a VirtualServiceSpec),
    rules: &mut Vec<Written<'a>>,
) {
    for (index, own) in spec.http.iter().enumerate() {
        let field = format!("spec.http[{index}]");
        let by = one.described();
        let mut of_delegate = One { key: of, cx: &mut *one.cx, ..*one };
        if own.delegate.is_some() {
            let reason =
                "has no effect in a VirtualService that others delegate to; the rule is left out";
            of_delegate.error(format!("{field}.delegate"), reason);
            continue;
        }
        let Some(matches) = merged_matches(&root.matches, &own.matches) else {
            let reason = format!(
                "is not narrower than {place} of the {by}, which delegates to it (the same kind of text, that begins with the \
                 other; no regex): the rule is left out there"
            );
            of_delegate.error(format!("{field}.match"), reason);
            continue;
        };
        rules.push(Written { of, field, rule: merged(root, own, matches) });
    }
}

fn merged(
    root: &VirtualHttpRoute,
    own: &VirtualHttpRoute,
    matches: Vec<VirtualHttpMatch>,
) -> VirtualHttpRoute {
    fn either<T: Clone>(own: &Option<T>, root: &Option<T>) -> Option<T> {
        own.clone().or_else(|| root.clone())
    }
    VirtualHttpRoute {
        name: joined(&root.name, &own.name),
        matches,
        rewrite: either(&own.rewrite, &root.rewrite),
        timeout: either(&own.timeout, &root.timeout),
        retries: either(&own.retries, &root.retries),
        fault: either(&own.fault, &root.fault),
        mirror: either(&own.mirror, &root.mirror),
        mirrors: if own.mirrors.is_empty() { root.mirrors.clone() } else { own.mirrors.clone() },
        mirror_percent: own.mirror_percent.or(root.mirror_percent),
        mirror_percentage: own.mirror_percentage.or(root.mirror_percentage),
        cors_policy: either(&own.cors_policy, &root.cors_policy),
        headers: either(&own.headers, &root.headers),
        ..own.clone()
    }
}

fn joined(root: &str, own: &str) -> String {
    match (root.is_empty(), own.is_empty()) {
        (true, _) => own.to_owned(),
        (_, true) => root.to_owned(),
        _ => format!("{root}-{own}"),
    }
}

/// `None`: some match of the delegate is narrower than none of the root.
fn merged_matches(
    root: &[VirtualHttpMatch],
    own: &[VirtualHttpMatch],
) -> Option<Vec<VirtualHttpMatch>> {
    if root.is_empty() {
        return Some(own.to_vec());
    }
    if own.is_empty() {
        return Some(root.to_vec());
    }
    let mut all = Vec::new();
    for own in own {
        let before = all.len();
        let wider = root.iter().filter(|root| !conflict(root, own));
        all.extend(wider.map(|root| merged_match(root, own)));
        if all.len() == before {
            return None;
        }
    }
    Some(all)
}

/// What the delegate does not say itself it has from the root.
fn merged_match(root: &VirtualHttpMatch, own: &VirtualHttpMatch) -> VirtualHttpMatch {
    let text = |own: &Option<StringMatch>, root: &Option<StringMatch>| {
        own.clone().or_else(|| root.clone())
    };
    let or_root = |own: &str, root: &str| if own.is_empty() { root } else { own }.to_owned();
    let mut source_labels = root.source_labels.clone();
    source_labels.extend(own.source_labels.clone());
    let gateways = if own.gateways.is_empty() { &root.gateways } else { &own.gateways };
    VirtualHttpMatch {
        name: joined(&root.name, &own.name),
        uri: text(&own.uri, &root.uri),
        scheme: text(&own.scheme, &root.scheme),
        method: text(&own.method, &root.method),
        authority: text(&own.authority, &root.authority),
        headers: narrowed(&root.headers, &own.headers),
        without_headers: both(&root.without_headers, &own.without_headers),
        query_params: narrowed(&root.query_params, &own.query_params),
        port: own.port.filter(|port| *port != 0).or(root.port),
        source_labels,
        source_namespace: or_root(&own.source_namespace, &root.source_namespace),
        gateways: gateways.clone(),
        ignore_uri_case: own.ignore_uri_case,
        stat_prefix: or_root(&own.stat_prefix, &root.stat_prefix),
    }
}

/// Texts by the name of a header or parameter.
type Named = BTreeMap<String, Option<StringMatch>>;

fn both(root: &Named, own: &Named) -> Named {
    let mut all = root.clone();
    all.extend(own.clone());
    all
}

/// The same, but that one is there says less than what it must be.
fn narrowed(root: &Named, own: &Named) -> Named {
    let says_more = |(name, own): &(&String, &Option<StringMatch>)| {
        own.is_some() || root.get(*name).is_none_or(Option::is_none)
    };
    let own = own.iter().filter(says_more);
    let mut all = root.clone();
    all.extend(own.map(|(name, text)| (name.clone(), text.clone())));
    all
}

/// Whether the delegate's match takes requests that the root's does not, as far as that can be told: Istio's rules (`hasConflict`).
/// What is excluded is compared the other way round, since whoever excludes less takes more.
fn conflict(root: &VirtualHttpMatch, own: &VirtualHttpMatch) -> bool {
    let named = |root: &Named, own: &Named| {
        own.iter().any(|(name, own)| {
            let root = root.get(name).and_then(Option::as_ref);
            is_wider(own.as_ref(), root)
        })
    };
    let excludes_less = || {
        own.without_headers.iter().any(|(name, own)| match root.without_headers.get(name) {
            None => false,
            // Wherever there is one.
            Some(None) => own.is_some(),
            Some(root) => is_wider(root.as_ref(), own.as_ref()),
        })
    };
    let port = |of: &VirtualHttpMatch| of.port.filter(|port| *port != 0);
    let other_label = |(name, value): (&String, &String)| {
        root.source_labels.get(name).is_some_and(|root| root != value)
    };
    let other_gateway = |own: &String| !root.gateways.contains(own);
    is_wider(own.uri.as_ref(), root.uri.as_ref())
        || is_wider(own.scheme.as_ref(), root.scheme.as_ref())
        || is_wider(own.method.as_ref(), root.method.as_ref())
        || is_wider(own.authority.as_ref(), root.authority.as_ref())
        || named(&root.headers, &own.headers)
        || excludes_less()
        || named(&root.query_params, &own.query_params)
        || root.ignore_uri_case.unwrap_or_default() != own.ignore_uri_case.unwrap_or_default()
        || port(root).zip(port(own)).is_some_and(|(root, own)| root != own)
        || (!root.source_namespace.is_empty() && own.source_namespace != root.source_namespace)
        || own.source_labels.iter().any(other_label)
        || (!root.gateways.is_empty() && own.gateways.iter().any(other_gateway))
}

/// Whether `own` takes texts that `root` does not, as far as that can be told.
fn is_wider(own: Option<&StringMatch>, root: Option<&StringMatch>) -> bool {
    let (Some(own), Some(root)) = (own, root) else { return false };
    match (&root.exact, &root.prefix, &own.exact, &own.prefix) {
        _ if root.regex.is_some() || own.regex.is_some() => true,
        (Some(root), _, Some(own), None) => root != own,
        (None, Some(root), Some(own), _) | (None, Some(root), None, Some(own)) => {
            !own.starts_with(root.as_str())
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(matches: Value) -> Vec<VirtualHttpMatch> {
        serde_json::from_value(matches).unwrap()
    }

    /// Istio's table of matches that are merged, and of those that conflict (`nil`); then what a delegate must not lift.
    #[test]
    fn matches_of_a_delegate_are_narrower() {
        let uri = |kind: &str, text: &str| json!({"uri": {kind: text}});
        let without = |text: Value| json!([{"withoutHeaders": {"x": text}}]);
        for (root, own, expected) in [
            (json!([]), json!([uri("exact", "/a")]), Some(json!([uri("exact", "/a")]))),
            (json!([uri("prefix", "/a")]), json!([]), Some(json!([uri("prefix", "/a")]))),
            (
                json!([uri("prefix", "/a")]),
                json!([uri("prefix", "/a/b")]),
                Some(json!([uri("prefix", "/a/b")])),
            ),
            (
                json!([uri("prefix", "/a")]),
                json!([uri("exact", "/a/b")]),
                Some(json!([uri("exact", "/a/b")])),
            ),
            (json!([uri("prefix", "/a/b")]), json!([uri("prefix", "/a")]), None),
            (json!([uri("exact", "/a")]), json!([uri("prefix", "/a")]), None),
            (json!([uri("exact", "/a")]), json!([uri("exact", "/b")]), None),
            (json!([uri("regex", "/a.*")]), json!([uri("exact", "/a")]), None),
            (
                json!([uri("prefix", "/a")]),
                json!([{"headers": {"x": {"exact": "1"}}}]),
                Some(json!([{"uri": {"prefix": "/a"}, "headers": {"x": {"exact": "1"}}}])),
            ),
            (
                json!([{"headers": {"x": {"exact": "1"}}}]),
                json!([{"headers": {"x": {"exact": "2"}}}]),
                None,
            ),
            (json!([{"port": 80}]), json!([{"port": 81}]), None),
            (json!([{"ignoreUriCase": true}]), json!([uri("exact", "/a")]), None),
            // Who may ask is the root's to say, too.
            (
                json!([{"sourceLabels": {"app": "a"}}]),
                json!([{"sourceLabels": {"team": "b"}}]),
                Some(json!([{"sourceLabels": {"app": "a", "team": "b"}}])),
            ),
            (
                json!([{"sourceLabels": {"app": "a"}}]),
                json!([{"sourceLabels": {"app": "b"}}]),
                None,
            ),
            (json!([{"sourceNamespace": "a"}]), json!([uri("exact", "/a")]), None),
            (json!([{"sourceNamespace": "a"}]), json!([{"sourceNamespace": "b"}]), None),
            (
                json!([{"sourceNamespace": "a"}]),
                json!([uri("exact", "/a"), {"sourceNamespace": "a"}]),
                None,
            ),
            (
                json!([{"sourceNamespace": "a"}]),
                json!([{"sourceNamespace": "a", "port": 80}]),
                Some(json!([{"sourceNamespace": "a", "port": 80}])),
            ),
            (
                json!([{"port": 80}]),
                json!([{"sourceNamespace": "a"}]),
                Some(json!([{"port": 80, "sourceNamespace": "a"}])),
            ),
            (
                json!([{"gateways": ["g"]}]),
                json!([uri("exact", "/a")]),
                Some(json!([{"uri": {"exact": "/a"}, "gateways": ["g"]}])),
            ),
            (json!([{"gateways": ["g"]}]), json!([{"gateways": ["g", "mesh"]}]), None),
            // That a header is there says less than what it must be.
            (
                json!([{"headers": {"x": {"exact": "1"}}}]),
                json!([{"headers": {"x": null, "y": null}}]),
                Some(json!([{"headers": {"x": {"exact": "1"}, "y": null}}])),
            ),
            // Whoever excludes less takes more.
            (without(json!({"prefix": "ab"})), without(json!({"prefix": "abc"})), None),
            (without(json!(null)), without(json!({"prefix": "abc"})), None),
            (
                without(json!({"prefix": "abc"})),
                without(json!({"prefix": "ab"})),
                Some(without(json!({"prefix": "ab"}))),
            ),
            (without(json!({"prefix": "abc"})), without(json!(null)), Some(without(json!(null)))),
            (
                json!([{"name": "root", "port": 80}, {"method": {"exact": "GET"}}]),
                json!([{"name": "own"}]),
                Some(
                    json!([{"name": "root-own", "port": 80}, {"name": "own", "method": {"exact": "GET"}}]),
                ),
            ),
        ] {
            let merged = merged_matches(&read(root.clone()), &read(own.clone()));
            assert_eq!(merged, expected.map(read), "{root} {own}");
        }
    }
}
