//! Filters of a rule, and what makes a rule one that cannot be carried out.

use std::cell::RefCell;

use super::super::Context;
use super::backend::Backends;
use super::{Fault, RuleParts};
use crate::base::Str;
use crate::filter::{
    self, BackendObject, BackendRef, ExternalAuth, HttpFilter, Manifest, Often, RuleContext,
};
use crate::model::{HttpMatch, PathMatch, RouteKind};
use crate::source::ConditionReason;
use crate::source::objects::Unsupported;

/// The list of a rule's own filters.
const RULE: &str = "filters";

/// A rule while its filters are judged: references are looked up later, where it is kept.
struct Judged<'a>(&'a [HttpMatch]);

/// A rule that is kept, and one of its filters.
struct Kept<'a, 'c> {
    cx: RefCell<&'a mut Context<'c>>,
    backends: &'a Backends<'a>,
    matches: &'a [HttpMatch],
    /// The filter's member, from the route on.
    place: String,
}

impl RuleContext for Judged<'_> {
    fn prefix(&self) -> Option<Str> {
        prefix(self.0)
    }
}

impl RuleContext for Kept<'_, '_> {
    fn prefix(&self) -> Option<Str> {
        prefix(self.matches)
    }

    fn backend(&self, field: &str, object: &BackendObject, outcome: &str) -> Option<BackendRef> {
        let place = format!("{}.{field}", self.place);
        let mut cx = self.cx.borrow_mut();
        self.backends.target(&mut cx, &place, object, outcome).ok()
    }
}

/// Why the rule is dropped; fields are relative to the rule.
pub(super) fn faults(kind: RouteKind, rule: &RuleParts<'_>) -> Vec<Fault> {
    let mut faults: Vec<Fault> = rule.unsupported.iter().map(unsupported).collect();
    of_list(kind, RULE, rule.filters, &rule.matches, &mut faults);
    if answers(rule.filters) && !rule.backends.is_empty() {
        let why = "stands beside a RequestRedirect, which never forwards".to_owned();
        let reason = ConditionReason::IncompatibleFilters;
        faults.push(Fault { field: "backendRefs".to_owned(), reason, why });
    }
    for (index, backend) in rule.backends.iter().enumerate() {
        let place = format!("backendRefs[{index}].filters");
        of_list(kind, &place, &backend.filters, &rule.matches, &mut faults);
    }
    faults
}

/// A filter answers each request itself.
pub(super) fn answers(filters: &[Manifest]) -> bool {
    filters.iter().filter_map(Manifest::row).any(|row| row.answers)
}

/// An authorizer is asked about requests.
pub(super) fn asks(filters: &[Manifest]) -> bool {
    filters.iter().any(|it| matches!(it, Manifest::ExternalAuth(_)))
}

/// What stands in the place of an authorizer whose rule is dropped.
pub(super) fn authorizer_of(filters: &[Manifest]) -> Option<HttpFilter> {
    asks(filters).then(|| HttpFilter::ExternalAuth(ExternalAuth::of_nobody()))
}

fn unsupported(it: &Unsupported) -> Fault {
    let Unsupported { field, why } = it.clone();
    Fault { field, reason: ConditionReason::UnsupportedValue, why }
}

fn of_list(
    kind: RouteKind,
    list: &str,
    filters: &[Manifest],
    matches: &[HttpMatch],
    faults: &mut Vec<Fault>,
) {
    let on = match kind {
        RouteKind::Http | RouteKind::Virtual => filter::Place::Http,
        RouteKind::Grpc => filter::Place::Grpc,
    };
    for (index, written) in filters.iter().enumerate() {
        let place = format!("{list}[{index}]");
        let mut fault = |field: &str, reason, why: String| {
            faults.push(Fault { field: format!("{place}.{field}"), reason, why });
        };
        if let Some((field, why)) = objection(written, matches) {
            fault(&field, ConditionReason::UnsupportedValue, why);
        }
        let Some(row) = written.row() else { continue };
        if !row.on.contains(&on) {
            let why = format!("{:?} is not a filter of {kind}s", row.name);
            fault("type", ConditionReason::UnsupportedValue, why);
        }
        if row.half == filter::Half::Destination && list != RULE {
            let why = format!(
                "{:?} is asked at the destination, which does not know the backend; it belongs to the filters of the rule",
                row.name
            );
            fault("type", ConditionReason::UnsupportedValue, why);
        }
        let mut others = filters[..index].iter().filter_map(Manifest::row);
        if row.often == Often::Once && others.clone().any(|it| it.name == row.name) {
            let why = format!("a second {} is not possible", row.name);
            fault("type", ConditionReason::IncompatibleFilters, why);
        }
        if let Some(other) = others.find(|it| it.excludes(row)) {
            let (one, other) = (row.name.min(other.name), row.name.max(other.name));
            let why = format!("{one} and {other} exclude each other");
            fault("type", ConditionReason::IncompatibleFilters, why);
        }
    }
}

/// What of the filter itself cannot be carried out; the field is relative to its entry.
fn objection(written: &Manifest, matches: &[HttpMatch]) -> Option<(String, String)> {
    match written.read(&Judged(matches)).err()? {
        filter::Fault::Field { field, why } => {
            let member = written.row().map_or("", |row| row.field);
            Some((format!("{member}.{field}"), why))
        }
        filter::Fault::Rule { field, why } => Some((field.to_owned(), why)),
        filter::Fault::LeadsNowhere => None,
    }
}

/// The prefix by which a rule matches, without a slash at its end.
fn prefix(matches: &[HttpMatch]) -> Option<Str> {
    match matches {
        [HttpMatch { path: PathMatch::Prefix(prefix), .. }] => {
            Some(prefix.trim_end_matches('/').into())
        }
        _ => None,
    }
}

/// Filters without a fault, of a rule or of a backend. One that leads nowhere is left out, and said so.
pub(super) fn translate(
    cx: &mut Context<'_>,
    backends: &Backends<'_>,
    place: &str,
    matches: &[HttpMatch],
    filters: &[Manifest],
) -> Vec<HttpFilter> {
    let mut translated = Vec::new();
    for (index, written) in filters.iter().enumerate() {
        let Some(row) = written.row() else { continue };
        let place = format!("{place}.filters[{index}].{}", row.field);
        let rule = Kept { cx: RefCell::new(cx), backends, matches, place };
        translated.extend(written.read(&rule));
    }
    translated
}
