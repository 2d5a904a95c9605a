//! One rule against the facts (Istio, AuthorizationPolicy `Rule`).
//!
//! Where a fact can be read in more than one way (a path with encoded characters, a header sent twice), a match that
//! refuses looks at every reading and a match that admits needs all of them: [`Leaning`] says which one is at hand.

use std::net::IpAddr;

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::bearer::Bearer;
use super::dialled::Destination;
use super::facts::{Facts, Principals, RequestFacts};
use super::{host, identity, text, token};
use crate::base::{Identity, alike};
use crate::model::{
    Cidr, Condition, ConditionKey, Operation, Rule, Source, StringMatch, TokenText, Values,
};

/// Which mistake a match must not make.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaning {
    /// It leads to a refusal: any reading that fits counts.
    Any,
    /// It leads to a permit: every reading must fit.
    All,
}

/// `deny`: a match leads to a refusal.
pub(super) fn matches(rule: &Rule, facts: &Facts<'_>, deny: bool) -> bool {
    let from = |source: &Source| source_matches(source, facts, deny);
    let to = |operation: &Operation| operation_matches(operation, facts, deny);
    let when = |condition: &Condition| condition_matches(condition, facts, deny);
    (rule.from.is_empty() || rule.from.iter().any(from))
        && (rule.to.is_empty() || rule.to.iter().any(to))
        && rule.when.iter().all(when)
}

/// A source without any field says nothing; what says nothing admits nobody and refuses everybody.
pub(super) fn source_matches(source: &Source, facts: &Facts<'_>, deny: bool) -> bool {
    if source.is_empty() {
        return deny;
    }
    let who = facts.principals;
    who_matches(&source.principals, who, deny, true, identity::principal_matches)
        && who_matches(&source.namespaces, who, deny, false, identity::namespace_matches)
        && who_matches(&source.service_accounts, who, deny, false, identity::account_matches)
        && who_matches(&source.trust_domains, who, deny, false, identity::trust_domain_matches)
        && address_matches(&source.ip_blocks, facts.connection.source)
        && address_matches(&source.remote_ip_blocks, facts.connection.source)
        && token_matches(&source.request_principals, &TokenText::Principal, facts, deny)
}

/// As [`who_matches`], of what a token says: where there is no token, or it does not say, a positive field never matches. A
/// negative one matches in DENY, and in ALLOW only as `*`, which is how "without a token" is written.
fn token_matches(
    values: &Values<StringMatch>,
    wanted: &TokenText,
    facts: &Facts<'_>,
    deny: bool,
) -> bool {
    if values.is_empty() {
        return true;
    }
    // Bytes that are not HTTP: an ALLOW rule about HTTP cannot match, a DENY rule's HTTP part is ignored.
    if facts.request.is_none() {
        return deny;
    }
    let texts = match facts.bearer {
        Bearer::Known(verified) => verified.texts(wanted),
        Bearer::Nobody | Bearer::Refused(..) => Vec::new(),
    };
    let listed = |list: &[StringMatch]| {
        texts.iter().any(|text| list.iter().any(|value| text::matches(value, text)))
    };
    let positive = values.any.is_empty() || listed(&values.any);
    let negative = values.none.is_empty()
        || if texts.is_empty() {
            deny || values.none.iter().any(IsPresence::is_presence)
        } else {
            !listed(&values.none)
        };
    positive && negative
}

/// Without a principal (plaintext) a positive field never matches. A negative one matches in DENY. In ALLOW it does not:
/// "anybody but x" must not admit those who prove nothing, except for `notPrincipals: ["*"]`, which is how plaintext
/// itself is written (`plaintext_by_star`).
fn who_matches<T>(
    values: &Values<T>,
    who: Principals<'_>,
    deny: bool,
    plaintext_by_star: bool,
    matches: fn(&T, &Identity) -> bool,
) -> bool
where
    T: IsPresence,
{
    let listed = |list: &[T]| who.iter().any(|one| list.iter().any(|value| matches(value, one)));
    let positive = values.any.is_empty() || listed(&values.any);
    let negative = values.none.is_empty()
        || if who.is_nobody() {
            deny || (plaintext_by_star && values.none.iter().any(IsPresence::is_presence))
        } else {
            !listed(&values.none)
        };
    positive && negative
}

/// `*`
trait IsPresence {
    fn is_presence(&self) -> bool;
}

impl IsPresence for StringMatch {
    fn is_presence(&self) -> bool {
        *self == StringMatch::Present
    }
}

impl IsPresence for crate::base::ObjectKey {
    fn is_presence(&self) -> bool {
        false
    }
}

fn address_matches(values: &Values<Cidr>, address: IpAddr) -> bool {
    let address = address.to_canonical();
    let listed = |list: &[Cidr]| list.iter().any(|block| contains(block, address));
    (values.any.is_empty() || listed(&values.any)) && !listed(&values.none)
}

/// A block may be written in IPv6's mapped form (`::ffff:10.0.0.0/104`); one that is wider than all mapped addresses,
/// such as `::/0`, says nothing of IPv4.
fn contains(block: &Cidr, address: IpAddr) -> bool {
    const MAPPED_BITS: u8 = 96;
    match (block, address) {
        (Cidr::V6(block), IpAddr::V4(address)) => {
            block.prefix_len() >= MAPPED_BITS && block.contains(&address.to_ipv6_mapped())
        }
        _ => block.contains(&address),
    }
}

/// What refuses counts each port that may be meant, what admits the one that must be.
fn port_matches(values: &Values<u16>, to: Destination<'_>, deny: bool) -> bool {
    let listed = |list: &[u16], leaning| match leaning {
        Leaning::Any => to.port_may_be(list),
        Leaning::All => to.port_is(list),
    };
    let (positive, negative) = leanings(deny);
    (values.any.is_empty() || listed(&values.any, positive)) && !listed(&values.none, negative)
}

fn destination_matches(values: &Values<Cidr>, to: Destination<'_>, deny: bool) -> bool {
    let listed = |list: &[Cidr], leaning| {
        let fits =
            |address: IpAddr| list.iter().any(|block| contains(block, address.to_canonical()));
        match leaning {
            Leaning::Any => to.address_may_be(fits),
            Leaning::All => to.address_is(fits),
        }
    };
    let (positive, negative) = leanings(deny);
    (values.any.is_empty() || listed(&values.any, positive)) && !listed(&values.none, negative)
}

/// Of what is listed and of what is excluded, each read towards refusing.
fn leanings(deny: bool) -> (Leaning, Leaning) {
    if deny { (Leaning::Any, Leaning::All) } else { (Leaning::All, Leaning::Any) }
}

pub(super) fn operation_matches(operation: &Operation, facts: &Facts<'_>, deny: bool) -> bool {
    if operation.is_empty() {
        return deny;
    }
    if !port_matches(&operation.ports, facts.destination, deny) {
        return false;
    }
    let http = [&operation.hosts, &operation.methods, &operation.paths];
    if http.iter().all(|values| values.is_empty()) {
        return true;
    }
    // Bytes that are not HTTP: an ALLOW rule about HTTP cannot match, a DENY rule's HTTP part is ignored.
    let Some(facts) = &facts.request else { return deny };
    let method = |value: &StringMatch, _| text::matches(value, facts.request.method.as_str());
    let host = |value: &StringMatch, leaning| host_matches(value, facts.request.host, leaning);
    let path = |value: &StringMatch, leaning| match leaning {
        Leaning::Any => facts.path().any(value),
        Leaning::All => facts.path().all(value),
    };
    read(&operation.methods, deny, method)
        && read(&operation.hosts, deny, host)
        && read(&operation.paths, deny, path)
}

/// The host, whether a policy calls it so or `request.headers[host]`.
fn host_matches(value: &StringMatch, host: &str, leaning: Leaning) -> bool {
    match leaning {
        Leaning::Any => host::may_fit(value, host),
        Leaning::All => host::fits(value, host),
    }
}

/// Whether the rule may match on the port, as far as it says which.
pub(super) fn is_of_port(rule: &Rule, to: Destination<'_>) -> bool {
    let of_operation = |operation: &Operation| port_matches(&operation.ports, to, true);
    let of_condition = |condition: &Condition| match condition {
        Condition::DestinationPort(values) => port_matches(values, to, true),
        _ => true,
    };
    (rule.to.is_empty() || rule.to.iter().any(of_operation)) && rule.when.iter().all(of_condition)
}

/// One positive must match and no negative; each is read towards refusing.
fn read(
    values: &Values<StringMatch>,
    deny: bool,
    matches: impl Fn(&StringMatch, Leaning) -> bool,
) -> bool {
    let (positive, negative) = leanings(deny);
    (values.any.is_empty() || values.any.iter().any(|value| matches(value, positive)))
        && !values.none.iter().any(|value| matches(value, negative))
}

pub(super) fn condition_matches(condition: &Condition, facts: &Facts<'_>, deny: bool) -> bool {
    let connection = facts.connection;
    match condition {
        Condition::SourceIp(values) | Condition::RemoteIp(values) => {
            address_matches(values, connection.source)
        }
        Condition::DestinationIp(values) => destination_matches(values, facts.destination, deny),
        Condition::DestinationPort(values) => port_matches(values, facts.destination, deny),
        Condition::Token(rule) => facts
            .request
            .as_ref()
            .is_some_and(|facts| token::is_brought(&rule.places, facts.request)),
        Condition::Text { key, values } => text_condition_matches(key, values, facts, deny),
    }
}

fn text_condition_matches(
    key: &ConditionKey,
    values: &Values<StringMatch>,
    facts: &Facts<'_>,
    deny: bool,
) -> bool {
    let who = facts.principals;
    match key {
        ConditionKey::SourcePrincipal => {
            who_matches(values, who, deny, true, identity::principal_matches)
        }
        ConditionKey::SourceNamespace => {
            who_matches(values, who, deny, false, identity::namespace_matches)
        }
        ConditionKey::SourceServiceAccount => {
            who_matches(values, who, deny, false, identity::account_text_matches)
        }
        ConditionKey::SourceTrustDomain => {
            who_matches(values, who, deny, false, identity::trust_domain_matches)
        }
        // What is parsed asks for none: its bytes are in the clear. What was not read matches nothing; whether it must be read is
        // settled before (`PolicySet::reads_server_name`).
        ConditionKey::ServerName => {
            let unread = facts.request.is_none() && facts.connection.server_name.is_none();
            let name = facts.connection.server_name.unwrap_or_default();
            !unread && read(values, deny, |value, _| text::matches(value, name))
        }
        ConditionKey::Token(wanted) => token_matches(values, wanted, facts, deny),
        ConditionKey::Header(name) => match &facts.request {
            None => deny,
            Some(RequestFacts { request, .. }) => read(values, deny, |value, leaning| {
                header_matches(value, request.headers, name, leaning)
            }),
        },
    }
}

/// A header, and those whose names are read as its own.
fn header_matches(
    value: &StringMatch,
    headers: &HeaderMap,
    name: &HeaderName,
    leaning: Leaning,
) -> bool {
    if *name == HOST {
        let host = headers.get(name).map(readable).unwrap_or_default();
        return host_matches(value, &host, leaning);
    }
    let fits = field_matches(value, headers, name, leaning);
    let mut others = alike(headers, name.as_str()).filter(|other| *other != name);
    match leaning {
        Leaning::Any => fits || others.any(|it| field_matches(value, headers, it, leaning)),
        Leaning::All => fits && others.all(|it| field_matches(value, headers, it, leaning)),
    }
}

/// A header that was sent several times is one value joined by commas (RFC 9110, 5.3) or any one of them, depending on
/// who reads it.
fn field_matches(
    value: &StringMatch,
    headers: &HeaderMap,
    name: &HeaderName,
    leaning: Leaning,
) -> bool {
    let mut sent = headers.get_all(name).iter().map(readable);
    let Some(first) = sent.next() else { return false };
    let rest: Vec<_> = sent.collect();
    if rest.is_empty() {
        return text::matches(value, &first);
    }
    let joined = std::iter::once(&first).chain(&rest).map(|it| &**it).collect::<Vec<_>>().join(",");
    let mut readings =
        std::iter::once(&*first).chain(rest.iter().map(|it| &**it)).chain([&*joined]);
    match leaning {
        Leaning::Any => readings.any(|reading| text::matches(value, reading)),
        // Whoever lists exact values says what the whole is.
        Leaning::All if matches!(value, StringMatch::Exact(_)) => text::matches(value, &joined),
        Leaning::All => readings.all(|reading| text::matches(value, reading)),
    }
}

fn readable(value: &HeaderValue) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}
