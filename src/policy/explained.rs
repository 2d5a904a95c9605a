//! Why a policy matches a request or a connection, and why not: for people. It asks the very predicates that decide ([`rule`]),
//! about one field of a rule at a time, so that it cannot say anything else than they.

use std::fmt::Display;
use std::sync::Arc;

use super::bearer::Bearer;
use super::facts::Facts;
use super::{PolicyList, PolicySet, looks, rule};
use crate::base::Identity;
use crate::model::{
    AuthorizationPolicy, Condition, ConditionKey, Operation, Rule, Source, TokenText, Values,
};

/// How many alternatives of a rule are told of, and values of a list.
const MOST: usize = 4;

/// One policy, as it looks at a request or a connection.
#[derive(Clone, Debug)]
pub struct Explained {
    pub policy: Arc<AuthorizationPolicy>,
    /// The first of its rules that matches.
    pub matched: Option<usize>,
    /// It matches by less than it says: this is not HTTP, and what refuses does not heed what it says of HTTP then.
    pub without_http: bool,
    /// What each rule lacks that does not match.
    pub missing: Vec<Vec<String>>,
}

impl PolicySet {
    /// Every policy of the set, in the order in which they decide: what cannot be understood, tokens, CUSTOM, DENY, ALLOW, AUDIT.
    pub fn explain(&self, facts: &Facts<'_>) -> Vec<Explained> {
        let of_list = |list: &PolicyList| -> Vec<Explained> {
            list.iter().map(|policy| explain(policy, facts, list.refuses())).collect()
        };
        let whatever = |policies: &[Arc<AuthorizationPolicy>]| -> Vec<Explained> {
            policies.iter().map(|policy| explain(policy, facts, true)).collect()
        };
        [
            whatever(&self.broken),
            whatever(&self.authenticate),
            whatever(&self.unasked),
            of_list(&self.custom),
            of_list(&self.deny),
            of_list(&self.allow),
            of_list(&self.audit),
        ]
        .concat()
    }
}

fn explain(policy: &Arc<AuthorizationPolicy>, facts: &Facts<'_>, deny: bool) -> Explained {
    let matched = policy.rules.iter().position(|it| rule::matches(it, facts, deny));
    let missing = match matched {
        Some(_) => Vec::new(),
        None => policy.rules.iter().map(|it| missing(it, facts, deny)).collect(),
    };
    let looks_at_http = |at: usize| policy.rules.get(at).is_some_and(looks::looks_at_http);
    let without_http = facts.request.is_none() && matched.is_some_and(looks_at_http);
    Explained { policy: policy.clone(), matched, without_http, missing }
}

/// What keeps a rule from matching, each with what is there instead.
fn missing(of: &Rule, facts: &Facts<'_>, deny: bool) -> Vec<String> {
    let mut missing = Vec::new();
    if !of.from.is_empty() && !of.from.iter().any(|it| rule::source_matches(it, facts, deny)) {
        let alternatives = of.from.iter().enumerate().take(MOST);
        missing.extend(alternatives.flat_map(|(at, it)| of_source(at, it, facts, deny)));
    }
    if !of.to.is_empty() && !of.to.iter().any(|it| rule::operation_matches(it, facts, deny)) {
        let alternatives = of.to.iter().enumerate().take(MOST);
        missing.extend(alternatives.flat_map(|(at, it)| of_operation(at, it, facts, deny)));
    }
    let unmet = of.when.iter().filter(|it| !rule::condition_matches(it, facts, deny));
    missing.extend(unmet.map(|it| of_condition(it, facts)));
    missing
}

/// One field of an alternative, by itself.
type Field<T> = (&'static str, &'static str, T, String);

fn of_source(at: usize, source: &Source, facts: &Facts<'_>, deny: bool) -> Vec<String> {
    let none = Source::default;
    let fields: [Field<Source>; 7] = [
        (
            "principals",
            "the client is",
            Source { principals: source.principals.clone(), ..none() },
            list(&source.principals),
        ),
        (
            "namespaces",
            "the client is",
            Source { namespaces: source.namespaces.clone(), ..none() },
            list(&source.namespaces),
        ),
        (
            "serviceAccounts",
            "the client is",
            Source { service_accounts: source.service_accounts.clone(), ..none() },
            list(&source.service_accounts),
        ),
        (
            "trustDomains",
            "the client is",
            Source { trust_domains: source.trust_domains.clone(), ..none() },
            list(&source.trust_domains),
        ),
        (
            "ipBlocks",
            "the client is at",
            Source { ip_blocks: source.ip_blocks.clone(), ..none() },
            list(&source.ip_blocks),
        ),
        (
            "remoteIpBlocks",
            "the client is at",
            Source { remote_ip_blocks: source.remote_ip_blocks.clone(), ..none() },
            list(&source.remote_ip_blocks),
        ),
        (
            "requestPrincipals",
            "the token is of",
            Source { request_principals: source.request_principals.clone(), ..none() },
            list(&source.request_principals),
        ),
    ];
    let unmet = fields.into_iter().filter(|(_, _, alone, wanted)| {
        !wanted.is_empty() && !rule::source_matches(alone, facts, deny)
    });
    let told = unmet.map(|(name, what, _, wanted)| {
        let found = match what {
            "the client is at" => facts.connection().source.to_string(),
            "the token is of" => of_token(facts, &TokenText::Principal),
            _ => who(facts),
        };
        format!("from[{at}].source.{name} wants {wanted}; {what} {found}")
    });
    told.collect()
}

fn of_operation(at: usize, operation: &Operation, facts: &Facts<'_>, deny: bool) -> Vec<String> {
    let none = Operation::default;
    let fields: [Field<Operation>; 4] = [
        (
            "ports",
            "the port is",
            Operation { ports: operation.ports.clone(), ..none() },
            list(&operation.ports),
        ),
        (
            "hosts",
            "the host is",
            Operation { hosts: operation.hosts.clone(), ..none() },
            list(&operation.hosts),
        ),
        (
            "methods",
            "the method is",
            Operation { methods: operation.methods.clone(), ..none() },
            list(&operation.methods),
        ),
        (
            "paths",
            "the path is",
            Operation { paths: operation.paths.clone(), ..none() },
            list(&operation.paths),
        ),
    ];
    let unmet = fields.into_iter().filter(|(_, _, alone, wanted)| {
        !wanted.is_empty() && !rule::operation_matches(alone, facts, deny)
    });
    let told = unmet.map(|(name, what, _, wanted)| {
        let found = match (name, facts.request.as_ref().map(|it| it.request)) {
            ("ports", _) => numbers(facts.destination.ports()),
            (_, None) => {
                return format!("to[{at}].operation.{name} wants {wanted}; this is not HTTP");
            }
            ("hosts", Some(request)) => format!("{:?}", request.host),
            ("methods", Some(request)) => request.method.to_string(),
            (_, Some(request)) => format!("{:?}", request.path),
        };
        format!("to[{at}].operation.{name} wants {wanted}; {what} {found}")
    });
    told.collect()
}

fn of_condition(condition: &Condition, facts: &Facts<'_>) -> String {
    let at = facts.connection().source;
    match condition {
        Condition::SourceIp(values) => unmet("source.ip", &list(values), &at.to_string()),
        Condition::RemoteIp(values) => unmet("remote.ip", &list(values), &at.to_string()),
        Condition::DestinationIp(values) => {
            let found: Vec<String> =
                facts.destination.addresses().map(|it| it.to_string()).collect();
            unmet("destination.ip", &list(values), &found.join(" or "))
        }
        Condition::DestinationPort(values) => {
            unmet("destination.port", &list(values), &numbers(facts.destination.ports()))
        }
        Condition::Token(rule) => format!("no token of {} is where it is looked for", rule.issuer),
        Condition::Text { key, values } => {
            let (key, found) = of_key(key, facts);
            unmet(&key, &list(values), &found)
        }
    }
}

fn of_key(key: &ConditionKey, facts: &Facts<'_>) -> (String, String) {
    match key {
        ConditionKey::SourcePrincipal => ("source.principal".to_owned(), who(facts)),
        ConditionKey::SourceNamespace => ("source.namespace".to_owned(), who(facts)),
        ConditionKey::SourceServiceAccount => ("source.serviceAccount".to_owned(), who(facts)),
        ConditionKey::SourceTrustDomain => ("source.trustDomain".to_owned(), who(facts)),
        ConditionKey::ServerName => {
            let name = facts.connection().server_name;
            (
                "connection.sni".to_owned(),
                name.map_or("not read".to_owned(), |it| format!("{it:?}")),
            )
        }
        ConditionKey::Header(name) => {
            let request = facts.request.as_ref().map(|it| it.request);
            let sent = request.map(|it| it.headers.get_all(name).iter());
            // Values of headers may be secrets: whether they are there is enough to see what is wrong.
            let found = match sent.map(Iterator::count) {
                None => "this is not HTTP".to_owned(),
                Some(0) => "there is none".to_owned(),
                Some(_) => "another value".to_owned(),
            };
            (format!("request.headers[{name}]"), found)
        }
        ConditionKey::Token(text) => {
            let key = match text {
                TokenText::Principal => "request.auth.principal".to_owned(),
                TokenText::Audiences => "request.auth.audiences".to_owned(),
                TokenText::Presenter => "request.auth.presenter".to_owned(),
                TokenText::Claim(path) => {
                    let path: String = path.iter().map(|part| format!("[{part}]")).collect();
                    format!("request.auth.claims{path}")
                }
            };
            (key, of_token(facts, text))
        }
    }
}

fn unmet(key: &str, wanted: &str, found: &str) -> String {
    format!("when {key} wants {wanted}; it is {found}")
}

fn who(facts: &Facts<'_>) -> String {
    let known: Vec<String> = facts.principals.iter().map(Identity::to_string).collect();
    match known.is_empty() {
        true => "nobody (without mutual TLS)".to_owned(),
        false => known.join(" and "),
    }
}

fn of_token(facts: &Facts<'_>, wanted: &TokenText) -> String {
    match (facts.bearer, wanted) {
        (Bearer::Nobody, _) => "nobody (without a token)".to_owned(),
        (Bearer::Refused(..), _) => "nobody (its token is not good)".to_owned(),
        (Bearer::Known(verified), TokenText::Principal) => {
            format!("{:?}", verified.texts(wanted).join(", "))
        }
        // What else a token says may be personal.
        (Bearer::Known(verified), _) if verified.texts(wanted).is_empty() => "absent".to_owned(),
        (Bearer::Known(_), _) => "another value".to_owned(),
    }
}

fn numbers(all: impl Iterator<Item = u16>) -> String {
    let mut all: Vec<u16> = all.collect();
    all.dedup();
    all.iter().map(u16::to_string).collect::<Vec<_>>().join(" or ")
}

/// What a list wants; empty where it wants nothing.
fn list<T: Display>(values: &Values<T>) -> String {
    let some = |list: &[T]| {
        let shown: Vec<String> = list.iter().take(MOST).map(ToString::to_string).collect();
        let more = list.len().saturating_sub(MOST);
        let more = if more > 0 { format!(" or one of {more} more") } else { String::new() };
        format!("{}{more}", shown.join(" or "))
    };
    match (values.any.is_empty(), values.none.is_empty()) {
        (true, true) => String::new(),
        (false, true) => some(&values.any),
        (true, false) => format!("none of {}", some(&values.none)),
        (false, false) => format!("{}, and none of {}", some(&values.any), some(&values.none)),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;
    use crate::base::ObjectKey;
    use crate::model::{Action, Scope, StringMatch};
    use crate::policy::{Connection, Request};

    fn any<T>(values: impl IntoIterator<Item = T>) -> Values<T> {
        Values { any: values.into_iter().collect(), none: Vec::new() }
    }

    fn policy(action: Action, rules: Vec<Rule>) -> Arc<AuthorizationPolicy> {
        Arc::new(AuthorizationPolicy {
            key: ObjectKey::new("shop", "p"),
            action,
            scope: Scope::Namespace,
            rules,
            dry_run: false,
            broken: None,
            provider: None,
        })
    }

    #[test]
    fn each_field_that_does_not_match_is_named_with_what_is_there_and_no_other() {
        let client = Identity::new("td", "shop", "curl");
        let connection = Connection {
            client: Some(&client),
            source: "10.0.9.9".parse().unwrap(),
            destination: "10.0.0.1:8080".parse().unwrap(),
            server_name: None,
        };
        let headers = HeaderMap::new();
        let request = Request { method: &Method::GET, path: "/a", host: "web", headers: &headers };
        let facts = Facts::new(&connection, Some(&request));
        let exact = |text: &str| StringMatch::Exact(text.into());
        let rule = Rule {
            from: vec![Source {
                principals: any([exact("td/ns/shop/sa/other")]),
                namespaces: any([exact("shop")]),
                ..Source::default()
            }],
            to: vec![Operation {
                methods: any([exact("GET")]),
                paths: any([exact("/b"), StringMatch::Prefix("/c".into())]),
                ..Operation::default()
            }],
            when: vec![Condition::DestinationPort(any([80]))],
        };
        let set: PolicySet = [policy(Action::Allow, vec![rule])].into_iter().collect();
        let [explained] = &set.explain(&facts)[..] else { panic!("one policy") };
        assert_eq!(explained.matched, None);
        assert_eq!(
            explained.missing,
            [vec![
                "from[0].source.principals wants \"td/ns/shop/sa/other\"; the client is \
                 spiffe://td/ns/shop/sa/curl"
                    .to_owned(),
                "to[0].operation.paths wants \"/b\" or \"/c*\"; the path is \"/a\"".to_owned(),
                "when destination.port wants 80; it is 8080".to_owned(),
            ]]
        );
    }

    #[test]
    fn what_matches_lacks_nothing_and_policies_come_in_their_order() {
        let connection = Connection {
            client: None,
            source: "10.0.9.9".parse().unwrap(),
            destination: "10.0.0.1:8080".parse().unwrap(),
            server_name: None,
        };
        let facts = Facts::new(&connection, None);
        let set: PolicySet =
            [policy(Action::Allow, vec![Rule::default()]), policy(Action::Deny, Vec::new())]
                .into_iter()
                .collect();
        let explained = set.explain(&facts);
        let seen: Vec<_> =
            explained.iter().map(|it| (it.policy.action, it.matched, it.missing.len())).collect();
        assert_eq!(seen, [(Action::Deny, None, 0), (Action::Allow, Some(0), 0)]);
    }

    #[test]
    fn values_of_headers_and_claims_are_not_told() {
        let connection = Connection {
            client: None,
            source: "10.0.9.9".parse().unwrap(),
            destination: "10.0.0.1:8080".parse().unwrap(),
            server_name: None,
        };
        let name = http::HeaderName::from_static("x-key");
        let headers = HeaderMap::from_iter([(name.clone(), "secret".parse().unwrap())]);
        let request = Request { method: &Method::GET, path: "/a", host: "web", headers: &headers };
        let facts = Facts::new(&connection, Some(&request));
        let values = any([StringMatch::Exact("wanted".into())]);
        let condition = Condition::Text { key: ConditionKey::Header(name), values };
        let told = of_condition(&condition, &facts);
        assert_eq!(told, "when request.headers[x-key] wants \"wanted\"; it is another value");
    }
}
