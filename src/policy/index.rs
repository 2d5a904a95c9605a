//! Which rules of many can match at all. Of a thousand policies, those are evaluated of which something that they demand is
//! there: the client's account, the path, an address block.
//!
//! Each rule is filed under what it cannot match without ([`needs`]), by the literals that the fewest other rules have. A
//! rule without such literals (`notPaths`, `*`) is always evaluated. The index only leaves out rules that cannot match; what
//! matches is still decided by [`super::rule`] alone, and a test of both over random policies and requests holds them together.
//!
//! This is what is filed; [`super::probe`] looks up what a request has.

mod blocks;
pub(super) mod hosts;
mod needs;
mod texts;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use http::HeaderName;

use crate::base::{HintKey, Hints};
use crate::model::{AuthorizationPolicy, TokenText};
use blocks::Blocks;
use needs::{Extractor, Field, Fits, Literal, Need};
pub(super) use texts::Texts;

/// A rule of a list of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) policy: u32,
    pub(super) rule: u32,
}

/// Some of [`Index::units`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    from: u32,
    to: u32,
}

/// Told of each span whose rules may match, until it breaks off.
pub(super) type See<'a> = &'a mut dyn FnMut(Span) -> ControlFlow<()>;

/// What rules are filed by at all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Filed {
    pub(super) clients: bool,
    pub(super) principals: bool,
    pub(super) namespaces: bool,
    pub(super) sources: bool,
    pub(super) destinations: bool,
    pub(super) ports: bool,
    pub(super) paths: bool,
    pub(super) hosts: bool,
    pub(super) methods: bool,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    units: Vec<Unit>,
    pub(super) filed: Filed,
    /// Rules that are always evaluated.
    pub(super) always: Span,
    /// By namespace and service account.
    pub(super) accounts: Hints<Span>,
    /// Open at an end.
    pub(super) principals: Texts,
    pub(super) namespaces: Texts,
    pub(super) sources: Blocks,
    pub(super) destinations: Blocks,
    pub(super) ports: Hints<Span>,
    /// All that is filed under something of HTTP.
    pub(super) http: Span,
    pub(super) paths: Texts,
    /// Segments of paths, by their place from the start, or from the end.
    pub(super) segments: Vec<(i16, Texts)>,
    /// All that is filed under something of a path.
    pub(super) any_path: Span,
    /// Without port, in lower case.
    pub(super) hosts: Texts,
    /// All that is filed under hosts.
    pub(super) any_host: Span,
    pub(super) methods: Texts,
    pub(super) headers: Vec<(HeaderName, Texts)>,
    pub(super) tokens: Vec<(TokenText, Texts)>,
}

impl Index {
    /// `refuses`: the policies' matches lead to a refusal, or to a question. Takes time and memory in proportion to what the
    /// policies say.
    pub(super) fn of(policies: &[Arc<AuthorizationPolicy>], refuses: bool) -> Self {
        let mut extractor = Extractor::new(refuses);
        let mut needed: Vec<(Unit, Option<Need>)> = Vec::new();
        for (policy, at) in policies.iter().zip(0u32..) {
            for (rule, number) in policy.rules.iter().zip(0u32..) {
                needed.push((Unit { policy: at, rule: number }, extractor.of(rule)));
            }
        }
        let mut counts: BTreeMap<&Literal, u32> = BTreeMap::new();
        for need in needed.iter().filter_map(|(_, need)| need.as_ref()) {
            need.each(&mut |literal| *counts.entry(literal).or_default() += 1);
        }
        let mut always = Vec::new();
        let mut filed: BTreeMap<&Literal, Vec<Unit>> = BTreeMap::new();
        for (unit, need) in &needed {
            let Some(need) = need else {
                always.push(*unit);
                continue;
            };
            for literal in need.cheapest(&counts).1 {
                let units = filed.entry(literal).or_default();
                if units.last() != Some(unit) {
                    units.push(*unit);
                }
            }
        }
        let mut index = Self::default();
        index.always = index.push(&always);
        for (literal, units) in filed {
            index.file(literal, &units, &extractor);
        }
        index.finish();
        index
    }

    /// Shows the rules of a span until `see` breaks off.
    pub(super) fn each(
        &self,
        span: Span,
        see: &mut impl FnMut(Unit) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut at = span.from;
        while at < span.to
            && let Some(unit) = self.units.get(at as usize)
        {
            see(*unit)?;
            at += 1;
        }
        ControlFlow::Continue(())
    }

    fn finish(&mut self) {
        self.sources.finish();
        self.destinations.finish();
        let texts = [
            &mut self.principals,
            &mut self.namespaces,
            &mut self.paths,
            &mut self.hosts,
            &mut self.methods,
        ];
        let segments = self.segments.iter_mut().map(|(_, texts)| texts);
        let headers = self.headers.iter_mut().map(|(_, texts)| texts);
        let tokens = self.tokens.iter_mut().map(|(_, texts)| texts);
        let all = texts.into_iter().chain(segments).chain(headers).chain(tokens);
        all.for_each(Texts::finish);
        self.units.shrink_to_fit();
    }

    fn push(&mut self, units: &[Unit]) -> Span {
        let end = |all: &[Unit]| u32::try_from(all.len()).unwrap_or(u32::MAX);
        let from = end(&self.units);
        self.units.extend_from_slice(units);
        Span { from, to: end(&self.units) }
    }

    /// Literals come in the order of their fields, so that those of one field stand together.
    fn file(&mut self, literal: &Literal, units: &[Unit], extractor: &Extractor) {
        let span = self.push(units);
        let Literal { field, fits } = literal;
        if field.is_http() {
            self.http.include(span);
        }
        self.filed.note(*field);
        match (field, fits) {
            (Field::Account, Fits::Account(account)) => {
                self.accounts.file(HintKey::Texts(&account.namespace, &account.name), span);
            }
            (Field::Source, Fits::In(block)) => self.sources.add(*block, span),
            (Field::Destination, Fits::In(block)) => self.destinations.add(*block, span),
            (Field::Port, Fits::Port(port)) => {
                self.ports.file(HintKey::Number((*port).into()), span);
            }
            (Field::Principal, _) => self.principals.add(fits, span),
            (Field::Namespace, _) => self.namespaces.add(fits, span),
            (Field::Path, _) => {
                self.any_path.include(span);
                self.paths.add(fits, span);
            }
            (Field::Segment(place), _) => {
                self.any_path.include(span);
                at(&mut self.segments, place).add(fits, span);
            }
            (Field::Host, _) => {
                self.any_host.include(span);
                self.hosts.add(fits, span);
            }
            (Field::Method, _) => self.methods.add(fits, span),
            (Field::Header(number), _) => {
                if let Some(name) = extractor.headers().get(*number) {
                    at(&mut self.headers, name).add(fits, span);
                }
            }
            (Field::Token(number), _) => {
                if let Some(text) = extractor.tokens().get(*number) {
                    at(&mut self.tokens, text).add(fits, span);
                }
            }
            // Such literals are never made.
            _ => self.always.include(span),
        }
    }
}

impl Filed {
    fn note(&mut self, field: Field) {
        match field {
            Field::Account => self.clients = true,
            Field::Principal => (self.clients, self.principals) = (true, true),
            Field::Namespace => (self.clients, self.namespaces) = (true, true),
            Field::Source => self.sources = true,
            Field::Destination => self.destinations = true,
            Field::Port => self.ports = true,
            Field::Path | Field::Segment(_) => self.paths = true,
            Field::Host => self.hosts = true,
            Field::Method => self.methods = true,
            Field::Header(_) | Field::Token(_) => {}
        }
    }
}

impl Span {
    pub(super) fn is_empty(self) -> bool {
        self.from >= self.to
    }

    fn include(&mut self, next: Span) {
        if self.from == self.to {
            self.from = next.from;
        }
        self.to = next.to;
    }
}

fn at<'a, K: Clone + PartialEq>(all: &'a mut Vec<(K, Texts)>, key: &K) -> &'a mut Texts {
    let place = all.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
        all.push((key.clone(), Texts::default()));
        all.len() - 1
    });
    &mut all[place].1
}
