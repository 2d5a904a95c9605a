//! AuthorizationPolicies. ztunnel's rules have three levels: one rule must match, every clause of a rule, and one match
//! of a clause. Fields that ztunnel does not have are under our own names beside its fields, so that no rule looks
//! wider than it is.

use std::fmt::Display;

use serde_json::{Map, Value, json};

use crate::model::{
    Action, AuthorizationPolicy, Condition, ConditionKey, Operation, Rule, Scope, Source,
    StringMatch, TokenText, Values,
};

pub(super) fn show(policy: &AuthorizationPolicy) -> Value {
    json!({
        "name": policy.key.name,
        "namespace": policy.key.namespace,
        "scope": match policy.scope {
            Scope::Mesh => "Global",
            Scope::Namespace => "Namespace",
            Scope::Workloads => "WorkloadSelector",
            Scope::Targets(_) => "TargetRefs",
        },
        "action": match policy.action {
            Action::Custom => "Custom",
            Action::Allow => "Allow",
            Action::Deny => "Deny",
            Action::Audit => "Audit",
            Action::Authenticate => "Authenticate",
        },
        "dryRun": policy.dry_run,
        "broken": policy.broken,
        "provider": policy.provider,
        "rules": policy.rules.iter().map(rule).collect::<Vec<_>>(),
    })
}

fn rule(rule: &Rule) -> Vec<Vec<Value>> {
    let from: Vec<Value> = rule.from.iter().map(source).collect();
    let to: Vec<Value> = rule.to.iter().map(operation).collect();
    let when = rule.when.iter().map(|it| vec![condition(it)]);
    [from, to].into_iter().filter(|clause| !clause.is_empty()).chain(when).collect()
}

fn source(source: &Source) -> Value {
    let mut fields = Map::new();
    texts(&mut fields, "principals", &source.principals);
    texts(&mut fields, "namespaces", &source.namespaces);
    let account = |key: &crate::base::ObjectKey| json!({"namespace": key.namespace, "serviceAccount": key.name});
    both(&mut fields, "serviceAccounts", &source.service_accounts, account);
    texts(&mut fields, "trustDomains", &source.trust_domains);
    shown(&mut fields, "sourceIps", &source.ip_blocks);
    shown(&mut fields, "remoteIps", &source.remote_ip_blocks);
    texts(&mut fields, "requestPrincipals", &source.request_principals);
    Value::Object(fields)
}

fn operation(operation: &Operation) -> Value {
    let mut fields = Map::new();
    both(&mut fields, "destinationPorts", &operation.ports, |port| json!(port));
    texts(&mut fields, "hosts", &operation.hosts);
    texts(&mut fields, "methods", &operation.methods);
    texts(&mut fields, "paths", &operation.paths);
    Value::Object(fields)
}

fn condition(condition: &Condition) -> Value {
    let mut fields = Map::new();
    match condition {
        Condition::Text { key, values } => {
            let name = match key {
                ConditionKey::SourcePrincipal => "principals".to_owned(),
                ConditionKey::SourceNamespace => "namespaces".to_owned(),
                ConditionKey::SourceServiceAccount => "serviceAccountTexts".to_owned(),
                ConditionKey::SourceTrustDomain => "trustDomains".to_owned(),
                ConditionKey::Token(TokenText::Principal) => "request.auth.principal".to_owned(),
                ConditionKey::Token(TokenText::Audiences) => "request.auth.audiences".to_owned(),
                ConditionKey::Token(TokenText::Presenter) => "request.auth.presenter".to_owned(),
                ConditionKey::Token(TokenText::Claim(path)) => {
                    let names: Vec<String> = path.iter().map(|it| format!("[{it}]")).collect();
                    format!("request.auth.claims{}", names.concat())
                }
                ConditionKey::ServerName => "connection.sni".to_owned(),
                ConditionKey::Header(name) => format!("request.headers[{name}]"),
            };
            texts(&mut fields, &name, values);
        }
        Condition::SourceIp(values) => shown(&mut fields, "sourceIps", values),
        Condition::RemoteIp(values) => shown(&mut fields, "remoteIps", values),
        Condition::DestinationIp(values) => shown(&mut fields, "destinationIps", values),
        Condition::DestinationPort(values) => {
            both(&mut fields, "destinationPorts", values, |port| json!(port));
        }
        Condition::Token(rule) => _ = fields.insert("token".to_owned(), json!(rule)),
    }
    Value::Object(fields)
}

fn texts(fields: &mut Map<String, Value>, name: &str, values: &Values<StringMatch>) {
    both(fields, name, values, |text| match text {
        StringMatch::Exact(text) => json!({"Exact": text}),
        StringMatch::Prefix(text) => json!({"Prefix": text}),
        StringMatch::Suffix(text) => json!({"Suffix": text}),
        StringMatch::Present => json!({"Presence": true}),
        StringMatch::Template(text) => json!({"Template": text}),
    });
}

fn shown<T: Display>(fields: &mut Map<String, Value>, name: &str, values: &Values<T>) {
    both(fields, name, values, |value| json!(value.to_string()));
}

/// `name` with what must match, `notName` with what must not.
fn both<T>(
    fields: &mut Map<String, Value>,
    name: &str,
    values: &Values<T>,
    show: impl Fn(&T) -> Value,
) {
    let (first, rest) = name.split_at(1);
    let not = format!("not{}{rest}", first.to_ascii_uppercase());
    for (name, list) in [(name.to_owned(), &values.any), (not, &values.none)] {
        if !list.is_empty() {
            fields.insert(name, list.iter().map(&show).collect());
        }
    }
}
