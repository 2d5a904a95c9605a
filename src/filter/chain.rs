//! The filters of a rule and of its backend, as one chain: first the rule's, then the backend's, each in the order of the
//! route.

use std::mem::discriminant;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::{Half, HttpFilter, ResponseHead};

/// The filters of a rule, then those of the backend.
pub type Pair<'a> = [&'a [HttpFilter]; 2];

/// Headers of the request as the client sent it that filters of the response look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(Vec<(HeaderName, HeaderValue)>);

impl Seen {
    pub fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.0.iter().find(|(seen, _)| seen == name).map(|(_, value)| value)
    }
}

/// Whether one of them runs at this half.
pub fn runs_on(filters: &[HttpFilter], half: Half) -> bool {
    filters.iter().any(|filter| filter.half() == half)
}

/// Whether one of them is of the same type.
pub fn has_type_of(filters: &[HttpFilter], filter: &HttpFilter) -> bool {
    filters.iter().any(|it| discriminant(it) == discriminant(filter))
}

/// Whether it bounds the requests of its rule, at their destination.
pub fn is_limit(filter: &HttpFilter) -> bool {
    matches!(filter, HttpFilter::RateLimit(_) | HttpFilter::ConcurrencyLimit(_))
}

/// Hands over their state: the first of a type takes over from the first of that type before, and so on.
pub fn inherit(filters: &mut [HttpFilter], before: &[HttpFilter]) {
    for at in 0..filters.len() {
        let (earlier, rest) = filters.split_at_mut(at);
        let Some(filter) = rest.first_mut() else { return };
        let kind = discriminant(filter);
        let alike = earlier.iter().filter(|it| discriminant(*it) == kind).count();
        if let Some(before) = before.iter().filter(|it| discriminant(*it) == kind).nth(alike) {
            filter.inherit(before);
        }
    }
}

/// Whether [`change`] may change anything.
pub fn changes(filters: &[HttpFilter]) -> bool {
    filters.iter().any(HttpFilter::changes)
}

/// Changes a request in canonical form into what is forwarded. Pure.
pub fn change(filters: &[HttpFilter], uri: &mut Uri, headers: &mut HeaderMap) {
    for filter in filters {
        filter.change(uri, headers);
    }
}

/// Headers that filters may set to anything.
pub fn volatile(filters: &[HttpFilter]) -> impl Iterator<Item = &HeaderName> {
    filters.iter().flat_map(HttpFilter::volatile)
}

/// The filters of a response: those of the addressed service, except of a type that the rule has itself, then the pair.
fn of_response<'a>(
    of_service: &'a [HttpFilter],
    pair: Pair<'a>,
) -> impl Iterator<Item = &'a HttpFilter> {
    let [of_rule, _] = pair;
    let general = of_service.iter().filter(move |it| !has_type_of(of_rule, it));
    general.chain(pair.into_iter().flatten())
}

/// Keeps what filters of the response look at.
pub fn remember(of_service: &[HttpFilter], pair: Pair<'_>, headers: &HeaderMap) -> Seen {
    let names = of_response(of_service, pair).filter_map(HttpFilter::remembers);
    let seen = names.filter_map(|name| headers.get(&name).cloned().map(|value| (name, value)));
    Seen(seen.collect())
}

/// Applies the filters of the response.
pub fn respond(
    of_service: &[HttpFilter],
    pair: Pair<'_>,
    head: &mut ResponseHead<'_>,
    seen: &Seen,
) {
    for filter in of_response(of_service, pair) {
        filter.response(head, seen);
    }
}
