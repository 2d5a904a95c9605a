//! `http` (Istio, HTTPRoute): each match of a rule becomes a rule of its own, as in Envoy, because what a rewrite replaces depends
//! on the match.
//!
//! A rule is kept as it is written or not at all: where it says something that is not carried out, its requests are answered with
//! 503, rather than forwarded as if it did not say it, or given to another rule.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::One;
use super::delegate::Written;
use super::destination::{To, invalid};
use super::matches::Read;
use crate::base::schema::parse_istio_duration;
use crate::base::{ObjectKey, Str};
use crate::filter::{
    self, CorsPolicy, DirectResponse, Filter, HttpFilter, Mirror, Operations, Percent, RedirectTo,
    RuleContext, Share, UriRewrite,
};
use crate::model::{Backend, HttpMatch, HttpRule, PathMatch, Retry, Timeouts};
use crate::source::Topic;
use crate::source::objects::{VirtualDestination, VirtualHttpRoute};
use crate::source::translate::http_retry;
use crate::source::translate::route::turn;

/// The rules that were read, apart from the port that is addressed.
pub(super) struct Rules(Vec<Rule>);

struct Rule {
    /// Where it stands.
    of: ObjectKey,
    /// Of the rule, and for each match of that.
    name: Str,
    matches: Vec<(Str, Read)>,
    /// `Err`: why its requests are refused.
    does: Result<Does, Str>,
    turn: Arc<AtomicU64>,
}

/// What becomes of the requests of a rule.
struct Does {
    filters: Vec<HttpFilter>,
    rewrites: BTreeMap<usize, UriRewrite>,
    redirects: BTreeMap<usize, RedirectTo>,
    destinations: Vec<(u32, To, Operations)>,
    mirrors: Vec<(To, Mirror)>,
    timeouts: Timeouts,
    retry: Option<Retry>,
}

/// What is wrong with a rule: a field from the rule on, and why.
type Wrong = (String, String);

/// The match that a filter depends on.
struct By<'a>(&'a HttpMatch);

impl RuleContext for By<'_> {
    fn prefix(&self) -> Option<Str> {
        match &self.0.path {
            PathMatch::Prefix(start)
            | PathMatch::Starts(start)
            | PathMatch::StartsAnyCase(start) => Some(start.clone()),
            _ => None,
        }
    }
}

impl Rules {
    pub(super) fn read(one: &mut One<'_, '_, '_>, all: &[Written<'_>]) -> Self {
        let mut rules = Vec::new();
        let mut catches_all = false;
        for (index, Written { of, field, rule: written }) in all.iter().enumerate() {
            // Names in the rules of another are those of its namespace, and what is wrong in them its author is told.
            let mut one = One { key: of, cx: &mut *one.cx, ..*one };
            if catches_all {
                one.warn(
                    field,
                    "is never reached: a rule before it has no match, and takes every request",
                );
                one.cx.about(Topic::NeverReached);
                continue;
            }
            let rule = one.read_rule(field, index, written);
            catches_all = written.matches.is_empty()
                && rule.matches.iter().any(|(_, read)| matches!(read, Read::Match { .. }));
            rules.push(rule);
        }
        Self(rules)
    }

    /// How many there are, each match by itself.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|rule| rule.matches.len()).sum()
    }

    /// Whether it counts which port of a service is addressed.
    pub(super) fn differ_by_port(&self) -> bool {
        self.0.iter().any(|rule| {
            let by_match =
                |(_, read): &(Str, Read)| matches!(read, Read::Match { port: Some(_), .. });
            let by_destination = |does: &Does| {
                let destinations = does.destinations.iter().map(|(_, to, _)| to);
                let mirrors = does.mirrors.iter().map(|(to, _)| to);
                destinations.chain(mirrors).any(To::differs_by_port)
            };
            rule.matches.iter().any(by_match) || rule.does.as_ref().is_ok_and(by_destination)
        })
    }

    /// For requests that are addressed to this port; `None`: to whatever port.
    pub(super) fn on(&self, one: &mut One<'_, '_, '_>, addressed: Option<u16>) -> Vec<HttpRule> {
        let mut rules = Vec::new();
        for rule in &self.0 {
            for (index, (name, read)) in rule.matches.iter().enumerate() {
                let Read::Match { matched, port } = read else { continue };
                if port.is_none() || *port == addressed {
                    rules.push(rule.on(one, (index, name, matched), addressed));
                }
            }
        }
        rules
    }
}

impl Rule {
    fn on(
        &self,
        one: &One<'_, '_, '_>,
        (index, name, matched): (usize, &Str, &HttpMatch),
        addressed: Option<u16>,
    ) -> HttpRule {
        let name = match name.is_empty() {
            true => self.name.clone(),
            false => arcstr::format!("{}.{name}", self.name),
        };
        let rule = HttpRule {
            name,
            delegate: Some(&self.of).filter(|of| *of != one.key).cloned(),
            matches: vec![matched.clone()],
            turn: self.turn.clone(),
            ..HttpRule::default()
        };
        let does = match &self.does {
            Ok(does) => does,
            Err(why) => {
                let why = arcstr::format!("{}: {why}", one.described());
                let backend =
                    Backend { weight: 1, target: invalid(why), subset: None, filters: vec![] };
                return HttpRule { backends: vec![backend], ..rule };
            }
        };
        let mut filters = does.filters.clone();
        filters.extend(does.redirects.get(&index).cloned().map(HttpFilter::RedirectTo));
        let backends = does.destinations.iter().map(|(weight, to, operations)| {
            let mut filters = Vec::new();
            if !operations.is_empty() {
                filters.push(HttpFilter::Operations(operations.clone()));
            }
            filters.extend(does.rewrites.get(&index).cloned().map(HttpFilter::UriRewrite));
            // Copies get what the destination gets, as in Envoy.
            filters.extend(does.mirrors.iter().map(|(to, mirror)| {
                let (target, subset) = (to.target(addressed), to.subset());
                HttpFilter::Mirror(Mirror { target, subset, ..mirror.clone() })
            }));
            let (target, subset) = (to.target(addressed), to.subset());
            Backend { weight: *weight, target, subset, filters }
        });
        let (timeouts, retry) = (does.timeouts, does.retry.clone());
        HttpRule { filters, backends: backends.collect(), timeouts, retry, ..rule }
    }
}

impl One<'_, '_, '_> {
    fn read_rule(&mut self, field: &str, index: usize, written: &VirtualHttpRoute) -> Rule {
        let mut matches = Vec::new();
        if written.matches.is_empty() {
            matches.push((Str::default(), self.match_of_none()));
        }
        for (number, one) in written.matches.iter().enumerate() {
            let place = format!("match[{number}]");
            match self.read_match(&format!("{field}.{place}"), one) {
                Ok(read) => matches.push((one.name.as_str().into(), read)),
                Err((below, why)) => {
                    let reason = format!("{why}; the match holds for no request");
                    self.error(format!("{field}.{place}.{below}"), reason);
                }
            }
        }
        let does = self.read_does(field, written, &matches).map_err(|wrong| {
            let first = wrong.first().map(|(below, why)| format!("{field}.{below}: {why}"));
            for (below, why) in wrong {
                let reason =
                    format!("{why}; requests that match the rule are answered with status 503");
                let below =
                    if below.is_empty() { field.to_owned() } else { format!("{field}.{below}") };
                self.error(below, reason);
            }
            Str::from(first.unwrap_or_default())
        });
        let name = match written.name.is_empty() {
            true => arcstr::format!("{index}"),
            false => written.name.as_str().into(),
        };
        Rule { of: self.key.clone(), name, matches, does, turn: turn() }
    }

    fn read_does(
        &mut self,
        field: &str,
        written: &VirtualHttpRoute,
        matches: &[(Str, Read)],
    ) -> Result<Does, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let mut does = Does {
            filters: Vec::new(),
            rewrites: BTreeMap::new(),
            redirects: BTreeMap::new(),
            destinations: Vec::new(),
            mirrors: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
        };
        if let Some(written) = &written.retries {
            let read = http_retry::read(written);
            for http_retry::Wrong { severity, field: below, reason } in read.complaints {
                self.complain(severity, format!("{field}.retries.{below}"), reason);
            }
            (does.retry, does.timeouts.per_try) = (Some(read.retry), read.each);
        }
        let operations = written.headers.as_ref().map(|it| Operations::read(it, &ByNothing));
        let operations = noted("headers", operations, &mut wrong).unwrap_or_default();
        let fault = written.fault.as_ref().map(|it| it.read(self.described()));
        let fault = noted("fault", fault, &mut wrong).flatten();
        does.filters.extend(fault.map(HttpFilter::Fault));
        let cors = written.cors_policy.as_ref().map(|it| CorsPolicy::read(it, &ByNothing));
        let cors = noted("corsPolicy", cors, &mut wrong);
        does.filters.extend(cors.map(HttpFilter::CorsPolicy));
        self.answers(written, matches, &operations, &mut does, &mut wrong);
        for (index, (_, read)) in matches.iter().enumerate() {
            let (Read::Match { matched, .. }, Some(rewrite)) = (read, &written.rewrite) else {
                continue;
            };
            let rewrite = Some(UriRewrite::read(rewrite, &By(matched)));
            does.rewrites.extend(noted("rewrite", rewrite, &mut wrong).map(|it| (index, it)));
        }
        if let Some(text) = &written.timeout {
            match parse_istio_duration(text) {
                Some(timeout) => does.timeouts.request = Some(timeout).filter(|it| !it.is_zero()),
                None => {
                    let why = format!("{text:?} is not a duration such as 500ms or 10s");
                    wrong.push(("timeout".to_owned(), why));
                }
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        self.add_destinations(field, written, &operations, &mut does)?;
        self.add_mirrors(field, written, &mut does).map_err(|wrong| vec![wrong])?;
        Ok(does)
    }

    /// What is answered without a destination.
    fn answers(
        &mut self,
        written: &VirtualHttpRoute,
        matches: &[(Str, Read)],
        operations: &Operations,
        does: &mut Does,
        wrong: &mut Vec<Wrong>,
    ) {
        let given = [
            ("route", !written.route.is_empty()),
            ("redirect", written.redirect.is_some()),
            ("directResponse", written.direct_response.is_some()),
        ];
        let mut given = given.into_iter().filter(|(_, given)| *given).map(|(field, _)| field);
        match (given.next(), given.next()) {
            (None, _) => {
                let why = "has none of route, redirect and directResponse".to_owned();
                wrong.push((String::new(), why));
            }
            (Some(one), Some(other)) => {
                wrong.push((other.to_owned(), format!("must not stand beside {one}")));
            }
            (Some("route"), None) => {}
            (Some(_), None) => {
                for (field, stands) in [
                    ("rewrite", written.rewrite.is_some()),
                    ("mirror", written.mirror.is_some()),
                    ("mirrors", !written.mirrors.is_empty()),
                ] {
                    if stands {
                        let why = "goes with a route only: nothing is forwarded".to_owned();
                        wrong.push((field.to_owned(), why));
                    }
                }
            }
        }
        if let Some(written) = &written.direct_response {
            let read = Some(DirectResponse::read(written, &ByNothing));
            if let Some(response) = noted("directResponse", read, wrong) {
                let response = DirectResponse { headers: operations.clone(), ..response };
                does.filters.push(HttpFilter::DirectResponse(response));
            }
        }
        let Some(redirect) = &written.redirect else { return };
        for (index, (_, read)) in matches.iter().enumerate() {
            let Read::Match { matched, .. } = read else { continue };
            let read = Some(RedirectTo::read(redirect, &By(matched)));
            if let Some(redirect) = noted("redirect", read, wrong) {
                let redirect = RedirectTo { headers: operations.clone(), ..redirect };
                does.redirects.insert(index, redirect);
            }
        }
    }

    fn add_destinations(
        &mut self,
        field: &str,
        written: &VirtualHttpRoute,
        operations: &Operations,
        does: &mut Does,
    ) -> Result<(), Vec<Wrong>> {
        let only = written.route.len() == 1;
        for (index, destination) in written.route.iter().enumerate() {
            let place = format!("route[{index}]");
            let read = destination.headers.as_ref().map(|it| Operations::read(it, &ByNothing));
            let mut wrong = Vec::new();
            let own = noted(&format!("{place}.headers"), read, &mut wrong).unwrap_or_default();
            if !wrong.is_empty() {
                return Err(wrong);
            }
            let operations = match only {
                true => operations.clone().with_only_destination(own),
                false => operations.clone().with_destination(own),
            };
            // The weight of a single destination does not count.
            let weight = if only { 1 } else { destination.weight.unwrap_or_default() };
            let place = format!("{field}.{place}.destination");
            let outcome = "its share of the requests is answered with status 503";
            let to = self.destination(&place, &destination.destination, outcome);
            does.destinations.push((weight, to, operations));
        }
        let none = !written.route.is_empty() && does.destinations.iter().all(|it| it.0 == 0);
        match none {
            true => Err(vec![(
                "route".to_owned(),
                "has several destinations without a weight".to_owned(),
            )]),
            false => Ok(()),
        }
    }

    fn add_mirrors(
        &mut self,
        field: &str,
        written: &VirtualHttpRoute,
        does: &mut Does,
    ) -> Result<(), Wrong> {
        let of_percent = written.mirror_percent.map(f64::from).map(Percent::new);
        let percentage = written.mirror_percentage.or(of_percent);
        let mut add = |below: String,
                       percentage: Option<Percent>,
                       to: &VirtualDestination|
         -> Result<(), Wrong> {
            let share = match percentage {
                None => Share::ALL,
                Some(percentage) => percentage.share().ok_or_else(|| {
                    (below.clone(), "has a percentage that is not from 0 to 100".to_owned())
                })?,
            };
            let place = format!("{field}.{below}");
            let to = self.destination(&place, to, "nothing is mirrored to it");
            if share.numerator > 0 && matches!(to, To::Service { .. }) {
                let mirror = Mirror::new(invalid(Str::default()), share);
                does.mirrors.push((to, Mirror { shadow: true, ..mirror }));
            }
            Ok(())
        };
        if let Some(mirror) = &written.mirror {
            add("mirror".to_owned(), percentage, mirror)?;
        }
        for (index, mirror) in written.mirrors.iter().enumerate() {
            add(format!("mirrors[{index}].destination"), mirror.percentage, &mirror.destination)?;
        }
        Ok(())
    }
}

/// For filters that do not depend on a match.
struct ByNothing;

impl RuleContext for ByNothing {}

/// The filter; what is wrong with it, from the rule on.
fn noted<T>(
    field: &str,
    read: Option<Result<T, filter::Fault>>,
    wrong: &mut Vec<Wrong>,
) -> Option<T> {
    match read? {
        Ok(filter) => Some(filter),
        Err(filter::Fault::Field { field: below, why }) => {
            let place =
                if below.is_empty() { field.to_owned() } else { format!("{field}.{below}") };
            if !wrong.contains(&(place.clone(), why.clone())) {
                wrong.push((place, why));
            }
            None
        }
        Err(filter::Fault::Rule { field: below, why }) => {
            wrong.push((format!("{field}.{below}"), why));
            None
        }
        Err(filter::Fault::LeadsNowhere) => None,
    }
}
