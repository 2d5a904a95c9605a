//! What a rule cannot match without: literals, one of which must be there. Where that is not certain in every reading of a
//! request, nothing is said.

use std::collections::BTreeMap;

use http::{HeaderName, header};

use super::hosts;
use crate::base::path::is_plain;
use crate::base::{Identity, ObjectKey, Str};
use crate::model::{
    Cidr, Condition, ConditionKey, Operation, Rule, Source, StringMatch, TokenText, Values,
};

/// So many headers, and so many claims, are looked up in each request at the most.
const MOST_LOOKED_UP: usize = 8;
/// Segments of paths that are looked up stand at the most so far from an end.
const FARTHEST_SEGMENT: usize = 16;

/// Where a literal is looked for. Those of HTTP come last, and those of paths together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    Account,
    Principal,
    Namespace,
    Source,
    Destination,
    Port,
    Path,
    /// From the start of the path, or from its end (negative).
    Segment(i16),
    Host,
    Method,
    /// By the place of its name in [`Extractor::headers`].
    Header(usize),
    /// By its place in [`Extractor::tokens`].
    Token(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fits {
    Account(ObjectKey),
    In(Cidr),
    Port(u16),
    Whole(Str),
    Starts(Vec<u8>),
    /// Backwards.
    Ends(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Literal {
    pub(super) field: Field,
    pub(super) fits: Fits,
}

#[derive(Debug)]
pub(super) enum Need {
    One(Literal),
    /// One of them, none of which can be left out.
    Any(Vec<Need>),
    /// All of them, any of which can stand for the rule. Never empty.
    All(Vec<Need>),
}

/// Extracts the needs of the rules of one list.
pub(super) struct Extractor {
    refuses: bool,
    headers: Vec<HeaderName>,
    tokens: Vec<TokenText>,
}

impl Field {
    pub(super) fn is_http(self) -> bool {
        self >= Field::Path
    }
}

impl Literal {
    /// How seldom such a literal is there, and how much it takes to look it up.
    fn weight(&self) -> u32 {
        match (self.field, &self.fits) {
            (Field::Port | Field::Method, _) => 8,
            (_, Fits::Starts(_) | Fits::Ends(_) | Fits::In(_)) => 5,
            _ => 4,
        }
    }
}

impl Need {
    pub(super) fn each<'a>(&'a self, see: &mut dyn FnMut(&'a Literal)) {
        match self {
            Need::One(literal) => see(literal),
            Need::Any(needs) | Need::All(needs) => needs.iter().for_each(|need| need.each(see)),
        }
    }

    /// The literals that the fewest rules have, with a measure of how many do.
    pub(super) fn cheapest<'a>(
        &'a self,
        counts: &BTreeMap<&Literal, u32>,
    ) -> (u32, Vec<&'a Literal>) {
        match self {
            Need::One(literal) => {
                let count = counts.get(literal).copied().unwrap_or_default();
                (count.saturating_mul(literal.weight()), vec![literal])
            }
            Need::Any(needs) => needs.iter().fold((0, Vec::new()), |(sum, mut all), need| {
                let (cost, literals) = need.cheapest(counts);
                all.extend(literals);
                (sum.saturating_add(cost), all)
            }),
            Need::All(needs) => {
                let costs = needs.iter().map(|need| need.cheapest(counts));
                costs.min_by_key(|(cost, _)| *cost).unwrap_or_default()
            }
        }
    }
}

/// `None`: nothing is needed.
fn all(needs: impl IntoIterator<Item = Option<Need>>) -> Option<Need> {
    let mut needs: Vec<Need> = needs.into_iter().flatten().collect();
    if needs.len() > 1 { Some(Need::All(needs)) } else { needs.pop() }
}

/// One without needs can always match, so that the others are not needed either.
fn any(needs: impl IntoIterator<Item = Option<Need>>) -> Option<Need> {
    let needs: Vec<Need> = needs.into_iter().collect::<Option<_>>()?;
    (!needs.is_empty()).then_some(Need::Any(needs))
}

fn one(field: Field, fits: Fits) -> Option<Need> {
    Some(Need::One(Literal { field, fits }))
}

impl Extractor {
    pub(super) fn new(refuses: bool) -> Self {
        Self { refuses, headers: Vec::new(), tokens: Vec::new() }
    }

    pub(super) fn headers(&self) -> &[HeaderName] {
        &self.headers
    }

    pub(super) fn tokens(&self) -> &[TokenText] {
        &self.tokens
    }

    /// What the rule needs; `None` if it must always be evaluated.
    pub(super) fn of(&mut self, rule: &Rule) -> Option<Need> {
        let Rule { from, to, when } = rule;
        let from = any(from.iter().map(|source| self.source(source)).collect::<Vec<_>>());
        let to = any(to.iter().map(|operation| self.operation(operation)));
        let when: Vec<_> = when.iter().map(|condition| self.condition(condition)).collect();
        all([from, to].into_iter().chain(when))
    }

    fn source(&mut self, source: &Source) -> Option<Need> {
        let Source {
            principals,
            namespaces,
            service_accounts,
            // The mesh has few.
            trust_domains: _,
            ip_blocks,
            remote_ip_blocks,
            request_principals,
        } = source;
        let accounts = service_accounts.any.iter();
        all([
            any(principals.any.iter().map(principal)),
            any(accounts.map(|it| one(Field::Account, Fits::Account(it.clone())))),
            texts(Field::Namespace, namespaces),
            blocks(Field::Source, ip_blocks),
            blocks(Field::Source, remote_ip_blocks),
            self.token(&TokenText::Principal, request_principals),
        ])
    }

    fn operation(&self, operation: &Operation) -> Option<Need> {
        let Operation { ports: listed, hosts, methods, paths } = operation;
        all([
            any(paths.any.iter().map(|value| path(value, self.refuses))),
            any(hosts.any.iter().map(host)),
            texts(Field::Method, methods),
            ports(listed),
        ])
    }

    fn condition(&mut self, condition: &Condition) -> Option<Need> {
        match condition {
            Condition::SourceIp(values) | Condition::RemoteIp(values) => {
                blocks(Field::Source, values)
            }
            Condition::DestinationIp(values) => blocks(Field::Destination, values),
            Condition::DestinationPort(values) => ports(values),
            Condition::Token(_) => None,
            Condition::Text { key, values } => match key {
                ConditionKey::SourcePrincipal => any(values.any.iter().map(principal)),
                ConditionKey::SourceNamespace => texts(Field::Namespace, values),
                ConditionKey::SourceServiceAccount => any(values.any.iter().map(account_text)),
                ConditionKey::SourceTrustDomain | ConditionKey::ServerName => None,
                ConditionKey::Header(name) => self.header(name, values),
                ConditionKey::Token(text) => self.token(text, values),
            },
        }
    }

    fn header(&mut self, name: &HeaderName, values: &Values<StringMatch>) -> Option<Need> {
        // It is compared as hosts are.
        if *name == header::HOST || values.any.is_empty() {
            return None;
        }
        texts(Field::Header(numbered(&mut self.headers, name)?), values)
    }

    fn token(&mut self, text: &TokenText, values: &Values<StringMatch>) -> Option<Need> {
        if values.any.is_empty() {
            return None;
        }
        texts(Field::Token(numbered(&mut self.tokens, text)?), values)
    }
}

fn numbered<T: Clone + PartialEq>(known: &mut Vec<T>, one: &T) -> Option<usize> {
    let place = known.iter().position(|it| it == one);
    place.or_else(|| {
        (known.len() < MOST_LOOKED_UP).then(|| {
            known.push(one.clone());
            known.len() - 1
        })
    })
}

fn texts(field: Field, values: &Values<StringMatch>) -> Option<Need> {
    any(values.any.iter().map(|value| text(field, value)))
}

fn text(field: Field, value: &StringMatch) -> Option<Need> {
    match value {
        StringMatch::Exact(text) => one(field, Fits::Whole(text.clone())),
        StringMatch::Prefix(text) => one(field, Fits::Starts(text.as_bytes().into())),
        StringMatch::Suffix(text) => one(field, Fits::Ends(text.bytes().rev().collect())),
        StringMatch::Present | StringMatch::Template(_) => None,
    }
}

fn blocks(field: Field, values: &Values<Cidr>) -> Option<Need> {
    any(values.any.iter().map(|block| one(field, Fits::In(*block))))
}

fn ports(values: &Values<u16>) -> Option<Need> {
    any(values.any.iter().map(|port| one(Field::Port, Fits::Port(*port))))
}

/// The comparison itself checks the trust domain.
fn principal(value: &StringMatch) -> Option<Need> {
    let StringMatch::Exact(principal) = value else { return text(Field::Principal, value) };
    let Identity { namespace, service_account: name, .. } =
        format!("spiffe://{principal}").parse().ok()?;
    one(Field::Account, Fits::Account(ObjectKey { namespace, name }))
}

fn account_text(value: &StringMatch) -> Option<Need> {
    let StringMatch::Exact(text) = value else { return None };
    let (namespace, name) = text.split_once('/')?;
    one(Field::Account, Fits::Account(ObjectKey::new(namespace, name)))
}

fn host(value: &StringMatch) -> Option<Need> {
    match value {
        StringMatch::Exact(text) => {
            one(Field::Host, Fits::Whole(hosts::name(text)?.as_ref().into()))
        }
        StringMatch::Prefix(text) => {
            one(Field::Host, Fits::Starts(hosts::start(text)?.into_bytes()))
        }
        StringMatch::Suffix(text) => {
            one(Field::Host, Fits::Ends(hosts::end(text)?.bytes().rev().collect()))
        }
        StringMatch::Present | StringMatch::Template(_) => None,
    }
}

/// For a match that admits, the path as it was sent must fit; for one that refuses, any reading of it, and the value itself
/// has more than one where it has escapes.
fn path(value: &StringMatch, refuses: bool) -> Option<Need> {
    let has_readings = match value {
        StringMatch::Exact(text) => !is_plain(text),
        StringMatch::Prefix(text) | StringMatch::Suffix(text) | StringMatch::Template(text) => {
            text.contains('%')
        }
        StringMatch::Present => return None,
    };
    if refuses && has_readings {
        return None;
    }
    match value {
        StringMatch::Template(template) => segments(template),
        _ => text(Field::Path, value),
    }
}

/// The literal segments of a template. What stands behind `{**}` is counted from the end.
fn segments(template: &str) -> Option<Need> {
    let all_of: Vec<&str> = template.split('/').collect();
    let open = all_of.iter().position(|segment| *segment == "{**}");
    let (front, back) = all_of.split_at(open.unwrap_or(all_of.len()));
    let literal = |segment: &str| !segment.is_empty() && segment != "{*}" && segment != "{**}";
    let need = |place: i16, segment: &str| {
        one(Field::Segment(place), Fits::Whole(segment.into())).filter(|_| literal(segment))
    };
    let front = front.iter().zip(0i16..).map(|(segment, at)| need(at, segment));
    let back = back.iter().rev().zip(1i16..).map(|(segment, at)| need(-at, segment));
    all(front.take(FARTHEST_SEGMENT).chain(back.take(FARTHEST_SEGMENT)))
}
