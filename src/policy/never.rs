//! Values that no connection and no request can have. The policy is in force as it is written, and its author is told: an
//! ALLOW with such a value admits less than it seems to, and a DENY is a hole.

mod hosts;

use std::net::IpAddr;

use crate::base::TrustDomains;
use crate::model::{
    Action, Cidr, Condition, ConditionKey, Operation, Rule, Source, StringMatch, Values,
};

/// Complaints of one policy at the most.
const MOST: usize = 20;
/// Methods that clients send (RFC 9110, 9.1; RFC 5789).
const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
/// Headers that are removed before anything is judged, because they mean one connection only or nobody but an agent may
/// send them.
const REMOVED: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-client-cert",
    "x-isthmus-original",
];

/// Where a value stands.
#[derive(Clone, Copy)]
pub struct Role {
    action: Action,
    /// It excludes.
    negative: bool,
}

/// Fields with what is wrong with them, and what follows.
pub struct Found {
    action: Action,
    complaints: Vec<(String, String)>,
    left_out: usize,
}

impl Role {
    pub fn new(action: Action, negative: bool) -> Self {
        Self { action, negative }
    }

    pub fn is_negative(self) -> bool {
        self.negative
    }

    /// What follows from a value that nothing has.
    pub fn outcome(self) -> &'static str {
        match (self.action, self.negative) {
            (Action::Allow, false) => "it allows nothing",
            (Action::Allow, true) => "it excludes nothing, and what it was to keep out is allowed",
            (Action::Deny, false) => "it denies nothing, and what it was to refuse gets through",
            (Action::Deny, true) => "it exempts nothing from the refusal",
            (Action::Audit, _) => "it marks nothing",
            (Action::Custom, _) => "it asks for nothing",
            (Action::Authenticate, _) => "it refuses nothing",
        }
    }
}

impl Found {
    pub fn new(action: Action) -> Self {
        Self { action, complaints: Vec::new(), left_out: 0 }
    }

    pub fn add(&mut self, field: String, reason: String) {
        if self.complaints.len() < MOST {
            self.complaints.push((field, reason));
        } else {
            self.left_out += 1;
        }
    }

    /// With a word on those that were too many.
    pub fn finish(mut self) -> Vec<(String, String)> {
        if self.left_out > 0 {
            let reason = format!("{} more values can never match", self.left_out);
            self.complaints.push(("spec.rules".to_owned(), reason));
        }
        self.complaints
    }

    /// Looks at a field as a whole, and at each of its values.
    fn field<T: PartialEq>(
        &mut self,
        place: &str,
        names: [&str; 2],
        values: &Values<T>,
        why_never: impl Fn(&T, Role) -> Option<String>,
    ) {
        if !values.any.is_empty() && values.any.iter().all(|value| values.none.contains(value)) {
            let outcome = Role::new(self.action, false).outcome();
            let reason = format!("all of these stand in {} as well; {outcome}", names[1]);
            self.add(format!("{place}.{}", names[0]), reason);
        }
        self.each(place, names, values, why_never);
    }

    /// Looks at blocks of addresses.
    fn blocks(&mut self, place: &str, names: [&str; 2], values: &Values<Cidr>) {
        let all = values.none.iter().filter(|block| block.prefix_len() == 0);
        let (v4, v6): (Vec<&Cidr>, Vec<&Cidr>) = all.partition(|block| block.addr().is_ipv4());
        if !v4.is_empty() && !v6.is_empty() {
            let outcome = Role::new(self.action, false).outcome();
            let reason = format!("exclude every address; {outcome}");
            self.add(format!("{place}.{}", names[1]), reason);
        }
        self.field(place, names, values, block);
    }

    /// Looks at a field, `values`, and the one that negates it.
    pub fn each<T>(
        &mut self,
        place: &str,
        names: [&str; 2],
        values: &Values<T>,
        why_never: impl Fn(&T, Role) -> Option<String>,
    ) {
        let lists = [(names[0], &values.any, false), (names[1], &values.none, true)];
        for (name, list, negative) in lists {
            let role = Role::new(self.action, negative);
            for value in list {
                if let Some(why) = why_never(value, role) {
                    self.add(format!("{place}.{name}"), format!("{why}; {}", role.outcome()));
                }
            }
        }
    }
}

/// `domains`: those of the mesh.
pub fn complaints(action: Action, rules: &[Rule], domains: &TrustDomains) -> Vec<(String, String)> {
    let mut found = Found::new(action);
    for (index, rule) in rules.iter().enumerate() {
        let place = format!("spec.rules[{index}]");
        for (index, source) in rule.from.iter().enumerate() {
            of_source(&mut found, &format!("{place}.from[{index}].source"), source, domains);
        }
        for (index, operation) in rule.to.iter().enumerate() {
            of_operation(&mut found, &format!("{place}.to[{index}].operation"), operation);
        }
        for (index, condition) in rule.when.iter().enumerate() {
            of_condition(&mut found, &format!("{place}.when[{index}]"), condition, domains);
        }
    }
    found.finish()
}

fn of_source(found: &mut Found, place: &str, source: &Source, domains: &TrustDomains) {
    let Source {
        principals, namespaces, service_accounts, trust_domains, request_principals, ..
    } = source;
    found.field(place, ["principals", "notPrincipals"], principals, |it, role| {
        principal(it, role, domains)
    });
    found.field(place, ["namespaces", "notNamespaces"], namespaces, |it, _| namespace(it));
    found.field(place, ["serviceAccounts", "notServiceAccounts"], service_accounts, |it, _| {
        account(&it.to_string())
    });
    found.field(place, ["trustDomains", "notTrustDomains"], trust_domains, |it, role| {
        trust_domain(it, role, domains)
    });
    found.field(
        place,
        ["requestPrincipals", "notRequestPrincipals"],
        request_principals,
        |_, _| None,
    );
    found.blocks(place, ["ipBlocks", "notIpBlocks"], &source.ip_blocks);
    found.blocks(place, ["remoteIpBlocks", "notRemoteIpBlocks"], &source.remote_ip_blocks);
}

fn of_operation(found: &mut Found, place: &str, operation: &Operation) {
    let Operation { ports, hosts, methods, paths } = operation;
    // What ports there are depends on the target.
    found.field(place, ["ports", "notPorts"], ports, |_, _| None);
    found.field(place, ["hosts", "notHosts"], hosts, |it, _| host(it));
    found.field(place, ["methods", "notMethods"], methods, method);
    found.field(place, ["paths", "notPaths"], paths, path);
    for (name, values) in [("notHosts", hosts), ("notMethods", methods), ("notPaths", paths)] {
        if let Some(value) = values.none.iter().find(|value| is_all(value, name)) {
            let outcome = Role::new(found.action, false).outcome();
            let reason = format!("{value} excludes every request; {outcome}");
            found.add(format!("{place}.{name}"), reason);
        }
    }
}

/// Every request has it.
fn is_all(value: &StringMatch, field: &str) -> bool {
    match value {
        StringMatch::Present => true,
        StringMatch::Prefix(text) => field == "notPaths" && &**text == "/",
        StringMatch::Template(text) => &**text == "/{**}",
        StringMatch::Exact(_) | StringMatch::Suffix(_) => false,
    }
}

fn of_condition(found: &mut Found, place: &str, condition: &Condition, domains: &TrustDomains) {
    const NAMES: [&str; 2] = ["values", "notValues"];
    match condition {
        Condition::SourceIp(values)
        | Condition::RemoteIp(values)
        | Condition::DestinationIp(values) => found.blocks(place, NAMES, values),
        Condition::DestinationPort(values) => found.field(place, NAMES, values, |_, _| None),
        Condition::Token(_) => {}
        Condition::Text { key, values } => match key {
            ConditionKey::SourcePrincipal => {
                found.field(place, NAMES, values, |it, role| principal(it, role, domains));
            }
            ConditionKey::SourceNamespace => {
                found.field(place, NAMES, values, |it, _| namespace(it));
            }
            ConditionKey::SourceTrustDomain => {
                found.field(place, NAMES, values, |it, role| trust_domain(it, role, domains));
            }
            ConditionKey::SourceServiceAccount => {
                found.field(place, NAMES, values, |it, _| account(text(it)));
            }
            ConditionKey::ServerName => found.field(place, NAMES, values, |it, _| server_name(it)),
            ConditionKey::Token(_) => found.field(place, NAMES, values, |_, _| None),
            ConditionKey::Header(name) if *name == http::header::TE => {
                found.field(place, NAMES, values, |it, _| te(it));
            }
            ConditionKey::Header(name) if *name == http::header::HOST => {
                found.field(place, NAMES, values, |it, _| host(it));
            }
            ConditionKey::Header(name) if REMOVED.contains(&name.as_str()) => {
                let role = Role::new(found.action, values.any.is_empty());
                let reason = format!(
                    "the header {name} of a client is removed before anything is judged; {}",
                    role.outcome()
                );
                found.add(format!("{place}.key"), reason);
            }
            ConditionKey::Header(_) => found.field(place, NAMES, values, |it, _| header(it)),
        },
    }
}

/// The text that a value gives.
fn text(value: &StringMatch) -> &str {
    match value {
        StringMatch::Present => "",
        StringMatch::Exact(text)
        | StringMatch::Prefix(text)
        | StringMatch::Suffix(text)
        | StringMatch::Template(text) => text,
    }
}

/// `namespace/name`.
fn account(text: &str) -> Option<String> {
    let odd = text.split('/').find(|name| !is_name(name))?;
    Some(no_name(text, odd))
}

/// Of what `te` says, only this is left.
fn te(value: &StringMatch) -> Option<String> {
    const LEFT: &str = "trailers";
    let fits = match value {
        StringMatch::Present => true,
        StringMatch::Exact(text) | StringMatch::Template(text) => &**text == LEFT,
        StringMatch::Prefix(text) => LEFT.starts_with(&**text),
        StringMatch::Suffix(text) => LEFT.ends_with(&**text),
    };
    let told =
        || format!("{:?}: of the header te only {LEFT:?} is left when it is judged", text(value));
    (!fits).then(told)
}

/// A token (RFC 9110, 5.6.2), compared with regard to case.
fn method(value: &StringMatch, role: Role) -> Option<String> {
    let text = text(value);
    if text == "CONNECT" && role.action == Action::Allow && !role.negative {
        return Some("\"CONNECT\" is answered with 400 before anything is judged".to_owned());
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !text.bytes().all(fits) {
        return Some(format!("{text:?} has characters that no method has"));
    }
    let louder = text.to_ascii_uppercase();
    let known = METHODS.iter().any(|method| match value {
        StringMatch::Prefix(_) => method.starts_with(&louder),
        StringMatch::Suffix(_) => method.ends_with(&louder),
        _ => *method == louder,
    });
    (known && louder != text).then(|| {
        format!("{text:?}: methods are compared with regard to case, and clients send {louder:?}")
    })
}

/// As a host, without a port; and addresses are never sent (RFC 6066, 3).
fn server_name(value: &StringMatch) -> Option<String> {
    let text = text(value);
    if text.contains([':', '[', ']']) {
        return Some(format!("{text:?}: a server's name has no port, and is no address"));
    }
    if matches!(value, StringMatch::Exact(_)) && text.parse::<IpAddr>().is_ok() {
        return Some(format!("{text:?}: clients name no addresses (RFC 6066)"));
    }
    host(value)
}

fn host(value: &StringMatch) -> Option<String> {
    let text = text(value);
    if text.contains("://") {
        return Some(format!("{text:?}: a host has no scheme"));
    }
    if text.contains('/') {
        return Some(format!("{text:?}: a host has no path"));
    }
    if text.contains('*') {
        return Some(format!("{text:?}: a star stands for anything only at one end"));
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:[]".contains(&byte);
    if !text.bytes().all(fits) {
        return Some(format!("{text:?} has characters that no host has"));
    }
    if text.contains("..") || text.starts_with('.') && !matches!(value, StringMatch::Suffix(_)) {
        return Some(format!("{text:?} has an empty label"));
    }
    if let StringMatch::Exact(text) = value
        && let Some(why) = hosts::odd(text)
    {
        return Some(why);
    }
    let open_end = matches!(value, StringMatch::Prefix(_) | StringMatch::Present);
    let port = text.rsplit_once(':').filter(|(name, _)| !name.contains(':') || name.ends_with(']'));
    let is_port = |port: &str| {
        let digits = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
        digits && port.parse::<u16>().is_ok()
    };
    match port {
        Some((_, port)) if !open_end && !is_port(port) => {
            Some(format!("{text:?}: {port:?} is no port from 1 to 65535"))
        }
        _ => None,
    }
}

fn path(value: &StringMatch, role: Role) -> Option<String> {
    let text = text(value);
    if text.contains(['?', '#']) {
        return Some(format!("{text:?}: a path is compared without its query and fragment"));
    }
    let from_the_start = match value {
        StringMatch::Exact(_) | StringMatch::Prefix(_) => true,
        StringMatch::Template(text) => !text.starts_with("{**}"),
        StringMatch::Suffix(_) | StringMatch::Present => false,
    };
    if from_the_start && !text.starts_with('/') {
        return Some(format!("{text:?}: a path begins with /"));
    }
    if text.contains('*') && !matches!(value, StringMatch::Template(_)) {
        return Some(format!(
            "{text:?}: a star stands for anything only at one end, and for itself elsewhere; {{*}} stands for one segment"
        ));
    }
    let admits = role.action == Action::Allow && !role.negative;
    let raw = |c: char| c.is_ascii_control() || c.is_ascii_whitespace();
    (admits && text.contains(raw)).then(|| {
        format!("{text:?}: requests have white space and control characters only as escapes (%20)")
    })
}

/// Fields have no white space at their ends (RFC 9110, 5.5).
fn header(value: &StringMatch) -> Option<String> {
    let text = text(value);
    let start = !matches!(value, StringMatch::Suffix(_)) && text.starts_with([' ', '\t']);
    let end = !matches!(value, StringMatch::Prefix(_)) && text.ends_with([' ', '\t']);
    let control = |c: char| c.is_ascii_control() && c != '\t';
    if start || end {
        return Some(format!("{text:?}: the value of a header has no white space at its ends"));
    }
    text.contains(control).then(|| format!("{text:?} has characters that no header has"))
}

/// Addresses that nobody sends from. To exclude them is no mistake, but for the one that seems to mean all.
fn block(block: &Cidr, role: Role) -> Option<String> {
    let address = block.addr().to_canonical();
    let single = block.prefix_len() == block.max_prefix_len();
    let why = match address {
        _ if single && address.is_unspecified() => {
            let all = if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            return Some(format!("{address} is nobody's address; {all} means all of them"));
        }
        _ if role.negative => return None,
        _ if address.is_multicast() => "is multicast",
        _ if address.is_loopback() => "is loopback, which is not judged",
        IpAddr::V4(v4) if v4.is_broadcast() => "is the broadcast address",
        _ => return None,
    };
    Some(format!("{block} {why}, and so nobody's address in the mesh"))
}

/// `<trust domain>/ns/<namespace>/sa/<service account>`, or a part of it that is open at one end. To exclude other trust
/// domains is no mistake.
fn principal(value: &StringMatch, role: Role, domains: &TrustDomains) -> Option<String> {
    let text = text(value);
    let parts: Vec<&str> = text.split('/').collect();
    let odd = || {
        Some(format!(
            "{text:?} is not of the form <trust domain>/ns/<namespace>/sa/<service account>"
        ))
    };
    let (first, whole) = match value {
        StringMatch::Present => return None,
        StringMatch::Exact(_) | StringMatch::Template(_) if parts.len() != 5 => return odd(),
        _ if parts.len() > 5 => return odd(),
        StringMatch::Exact(_) | StringMatch::Template(_) => (0, 0..5),
        // The last part is open, or the first.
        StringMatch::Prefix(_) => (0, 0..parts.len() - 1),
        StringMatch::Suffix(_) => (5 - parts.len(), 6 - parts.len()..5),
    };
    for (place, part) in (first..).zip(&parts) {
        let whole = whole.contains(&place);
        let fits = |wanted: &str| match value {
            _ if whole => *part == wanted,
            StringMatch::Suffix(_) => wanted.ends_with(part),
            _ => wanted.starts_with(part),
        };
        match place {
            0 if !role.negative && !domains.names().any(|name| fits(name)) => {
                return Some(foreign(text, domains));
            }
            1 if !fits("ns") => return odd(),
            3 if !fits("sa") => return odd(),
            2 | 4 if whole && !is_name(part) || !part.bytes().all(is_of_name) => {
                return Some(no_name(text, part));
            }
            _ => {}
        }
    }
    None
}

fn foreign(text: &str, domains: &TrustDomains) -> String {
    format!(
        "{text:?} names another trust domain than the mesh's ({}), whose peers get no connection",
        domains.own()
    )
}

fn trust_domain(value: &StringMatch, role: Role, domains: &TrustDomains) -> Option<String> {
    let text = text(value);
    let fits = |name: &str| match value {
        StringMatch::Present => true,
        StringMatch::Prefix(_) => name.starts_with(text),
        StringMatch::Suffix(_) => name.ends_with(text),
        StringMatch::Exact(_) | StringMatch::Template(_) => name == text,
    };
    let known = role.negative || domains.names().any(|name| fits(name));
    (!known).then(|| foreign(text, domains))
}

fn namespace(value: &StringMatch) -> Option<String> {
    let text = text(value);
    (!text.bytes().all(is_of_name)).then(|| no_name(text, text))
}

fn no_name(text: &str, part: &str) -> String {
    let of = if part == text { String::new() } else { format!("{text:?}: ") };
    format!(
        "{of}{part:?} is no name of a namespace or service account (lower case, digits, - and .)"
    )
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_of_name)
}

/// Of a name of Kubernetes (RFC 1123).
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte)
}

#[cfg(test)]
mod tests;
