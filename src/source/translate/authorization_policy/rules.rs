//! The rules of a policy: who, what and under which conditions.

use http::HeaderName;

use super::Broken;
use crate::base::{ObjectKey, Str};
use crate::model::{
    Condition, ConditionKey, Operation, Rule, Source, StringMatch, TokenText, Values,
};
use crate::policy::values::{cidr, path, port, principal, service_account, text};
use crate::source::objects::{
    AuthorizationPolicy, FieldError, PolicyCondition, PolicyFrom, PolicyOperation, PolicyRule,
    PolicySource, PolicyTo,
};

/// Translates all rules; what cannot be carried out goes to `broken`.
pub(super) fn translate(
    key: &ObjectKey,
    rules: &[PolicyRule],
    broken: &mut Vec<Broken>,
) -> Vec<Rule> {
    let rules = rules.iter().enumerate();
    rules
        .map(|(index, it)| rule(broken, &format!("spec.rules[{index}]"), &key.namespace, it))
        .collect()
}

/// What of a policy's rules means nothing, whoever carries them out.
pub(in crate::source) fn meaningless(
    key: &ObjectKey,
    policy: &AuthorizationPolicy,
) -> Option<FieldError> {
    let mut broken = Vec::new();
    translate(key, &policy.spec.rules, &mut broken);
    let part = broken.into_iter().find(|part| !part.unsupported)?;
    Some(FieldError { field: part.field, reason: part.why })
}

fn rule(broken: &mut Vec<Broken>, place: &str, own: &Str, rule: &PolicyRule) -> Rule {
    let PolicyRule { from, to, when } = rule;
    let place = |field: &str| format!("{place}.{field}");
    let from = list(broken, &place("from"), from.as_deref(), |broken, place, it| {
        source(broken, place, own, it)
    });
    let to = list(broken, &place("to"), to.as_deref(), operation);
    let when = list(broken, &place("when"), when.as_deref(), |broken, place, it| {
        condition(broken, place, own, it)
    });
    Rule { from, to, when: when.into_iter().flatten().collect() }
}

/// A list that is given must not be empty (Istio's validation): it would not narrow anything, as it seems to.
fn list<T, M>(
    broken: &mut Vec<Broken>,
    place: &str,
    given: Option<&[T]>,
    mut translate: impl FnMut(&mut Vec<Broken>, &str, &T) -> M,
) -> Vec<M> {
    if given.is_some_and(<[T]>::is_empty) {
        broken.push(Broken::new(place, "is empty; leave the field out to say nothing"));
    }
    let given = given.unwrap_or_default().iter().enumerate();
    given.map(|(index, item)| translate(broken, &format!("{place}[{index}]"), item)).collect()
}

fn source(broken: &mut Vec<Broken>, place: &str, own: &Str, from: &PolicyFrom) -> Source {
    let place = format!("{place}.source");
    let given = &from.source;

    let before = broken.len();
    let account = |text: &str| service_account(own, text);
    let source = Source {
        principals: values(
            broken,
            &place,
            ("principals", &given.principals),
            ("notPrincipals", &given.not_principals),
            principal,
        ),
        namespaces: values(
            broken,
            &place,
            ("namespaces", &given.namespaces),
            ("notNamespaces", &given.not_namespaces),
            text,
        ),
        service_accounts: values(
            broken,
            &place,
            ("serviceAccounts", &given.service_accounts),
            ("notServiceAccounts", &given.not_service_accounts),
            account,
        ),
        trust_domains: values(
            broken,
            &place,
            ("trustDomains", &given.trust_domains),
            ("notTrustDomains", &given.not_trust_domains),
            text,
        ),
        ip_blocks: values(
            broken,
            &place,
            ("ipBlocks", &given.ip_blocks),
            ("notIpBlocks", &given.not_ip_blocks),
            cidr,
        ),
        remote_ip_blocks: values(
            broken,
            &place,
            ("remoteIpBlocks", &given.remote_ip_blocks),
            ("notRemoteIpBlocks", &given.not_remote_ip_blocks),
            cidr,
        ),
        request_principals: request_principals(broken, &place, given),
    };
    if source == Source::default() && broken.len() == before {
        broken.push(Broken::new(place, "needs at least one field"));
    }
    source
}

fn request_principals(
    broken: &mut Vec<Broken>,
    place: &str,
    given: &PolicySource,
) -> Values<StringMatch> {
    let any = ("requestPrincipals", &given.request_principals[..]);
    let none = ("notRequestPrincipals", &given.not_request_principals[..]);
    values(broken, place, any, none, text)
}

/// Reads a field and its `not` form. A value that cannot be read breaks the policy; it is never skipped.
fn values<T>(
    broken: &mut Vec<Broken>,
    place: &str,
    (any_name, any): (&str, &[String]),
    (none_name, none): (&str, &[String]),
    read: impl Fn(&str) -> Result<T, String>,
) -> Values<T> {
    let mut list = |name: &str, texts: &[String]| {
        let mut values = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            match read(text) {
                Ok(value) => values.push(value),
                Err(why) => broken.push(Broken::new(format!("{place}.{name}[{index}]"), why)),
            }
        }
        values
    };
    Values { any: list(any_name, any), none: list(none_name, none) }
}

fn operation(broken: &mut Vec<Broken>, place: &str, to: &PolicyTo) -> Operation {
    let place = format!("{place}.operation");
    let PolicyOperation {
        hosts,
        not_hosts,
        ports,
        not_ports,
        methods,
        not_methods,
        paths,
        not_paths,
    } = &to.operation;
    let before = broken.len();
    let operation = Operation {
        ports: values(broken, &place, ("ports", ports), ("notPorts", not_ports), port),
        hosts: values(broken, &place, ("hosts", hosts), ("notHosts", not_hosts), text),
        methods: values(broken, &place, ("methods", methods), ("notMethods", not_methods), text),
        paths: values(broken, &place, ("paths", paths), ("notPaths", not_paths), path),
    };
    if operation == Operation::default() && broken.len() == before {
        broken.push(Broken::new(place, "needs at least one field"));
    }
    operation
}

fn condition(
    broken: &mut Vec<Broken>,
    place: &str,
    own: &Str,
    condition: &PolicyCondition,
) -> Option<Condition> {
    let PolicyCondition { key, values: any, not_values: none } = condition;
    if any.is_empty() && none.is_empty() {
        broken.push(Broken::new(place, "needs values or notValues"));
        return None;
    }
    let (any, none) = (("values", any.as_slice()), ("notValues", none.as_slice()));
    let mut blocks = || values(broken, place, any, none, cidr);
    let known = match key.as_str() {
        "source.ip" => Condition::SourceIp(blocks()),
        "remote.ip" => Condition::RemoteIp(blocks()),
        "destination.ip" => Condition::DestinationIp(blocks()),
        "destination.port" => Condition::DestinationPort(values(broken, place, any, none, port)),
        "source.principal" => Condition::Text {
            key: ConditionKey::SourcePrincipal,
            values: values(broken, place, any, none, principal),
        },
        "source.namespace" => Condition::Text {
            key: ConditionKey::SourceNamespace,
            values: values(broken, place, any, none, text),
        },
        "source.trustDomain" => Condition::Text {
            key: ConditionKey::SourceTrustDomain,
            values: values(broken, place, any, none, text),
        },
        "source.serviceAccount" => Condition::Text {
            key: ConditionKey::SourceServiceAccount,
            values: values(broken, place, any, none, |text| {
                Ok(StringMatch::Exact(service_account(own, text)?.to_string().into()))
            }),
        },
        "connection.sni" => Condition::Text {
            key: ConditionKey::ServerName,
            // Compared with a name in lower case.
            values: values(broken, place, any, none, |name| text(&name.to_ascii_lowercase())),
        },
        other => match named(other) {
            Some(key) => Condition::Text { key, values: values(broken, place, any, none, text) },
            None => {
                broken.push(Broken::unsupported(format!("{place}.key"), unsupported(other)));
                return None;
            }
        },
    };
    Some(known)
}

/// Why a key is not supported, and what to do instead.
fn unsupported(key: &str) -> String {
    let why = match key {
        _ if key.starts_with("experimental.") => {
            ": it reads what a filter of Envoy says, and no Envoy is here"
        }
        _ => "; docs/resources.md lists the keys that are",
    };
    format!("{key:?} is not supported{why}")
}

/// What a token or a header says.
fn named(key: &str) -> Option<ConditionKey> {
    let token = match key {
        "request.auth.principal" => TokenText::Principal,
        "request.auth.audiences" => TokenText::Audiences,
        "request.auth.presenter" => TokenText::Presenter,
        _ => match key.strip_prefix("request.auth.claims") {
            Some(path) => TokenText::Claim(claim(path)?),
            None => return header(key).map(ConditionKey::Header),
        },
    };
    Some(ConditionKey::Token(token))
}

/// The names in `[a][b]`.
fn claim(path: &str) -> Option<Vec<Str>> {
    let names = path.strip_prefix('[')?.strip_suffix(']')?.split("][");
    let is_plain = |name: &&str| !name.is_empty() && !name.contains(['[', ']']);
    names.map(|name| Some(name).filter(is_plain).map(Str::from)).collect()
}

/// The name in `request.headers[name]`.
fn header(key: &str) -> Option<HeaderName> {
    let name = key.strip_prefix("request.headers[")?.strip_suffix(']')?;
    HeaderName::try_from(name).ok()
}
