//! What a connection and a request have of what an [`Index`] is filed by.

use std::ops::ControlFlow;

use http::HeaderMap;

use super::bearer::Bearer;
use super::facts::{Facts, RequestFacts};
use super::index::{Index, See, Texts, Unit, hosts};
use crate::base::{HintKey, Identity, alike};

/// Shows each rule that may match, some of them twice, until `see` breaks off. `refuses` as in [`Index::of`].
pub(super) fn each(
    index: &Index,
    facts: &Facts<'_>,
    refuses: bool,
    mut see: impl FnMut(Unit) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut see = |span| index.each(span, &mut see);
    let filed = &index.filed;
    see(index.always)?;
    if filed.clients {
        for who in facts.principals.iter() {
            client(index, who, &mut see)?;
        }
    }
    if filed.sources {
        index.sources.find(facts.connection.source, &mut see)?;
    }
    if filed.destinations || filed.ports {
        destination(index, facts, &mut see)?;
    }
    match &facts.request {
        Some(_) if index.http.is_empty() => ControlFlow::Continue(()),
        Some(request) => http(index, facts, request, refuses, &mut see),
        // Of bytes that are not HTTP, a match that refuses ignores what is said of HTTP.
        None if refuses => see(index.http),
        None => ControlFlow::Continue(()),
    }
}

fn client(index: &Index, who: &Identity, see: See<'_>) -> ControlFlow<()> {
    index.accounts.find(HintKey::Texts(&who.namespace, &who.service_account), &mut *see)?;
    if index.filed.principals {
        index.principals.find(&who.principal(), see)?;
    }
    if index.filed.namespaces {
        index.namespaces.find(&who.namespace, see)?;
    }
    ControlFlow::Continue(())
}

fn destination(index: &Index, facts: &Facts<'_>, see: See<'_>) -> ControlFlow<()> {
    if index.filed.destinations {
        for address in facts.destination.addresses() {
            index.destinations.find(address, see)?;
        }
    }
    if index.filed.ports {
        for port in facts.destination.ports() {
            index.ports.find(HintKey::Number(port.into()), &mut *see)?;
        }
    }
    ControlFlow::Continue(())
}

fn http(
    index: &Index,
    facts: &Facts<'_>,
    request: &RequestFacts<'_>,
    refuses: bool,
    see: See<'_>,
) -> ControlFlow<()> {
    if index.filed.methods {
        index.methods.find(request.request.method.as_str(), see)?;
    }
    if index.filed.hosts {
        let host = request.request.host;
        // Most are written as they are filed, and what is found by them often decides.
        index.hosts.find(host, see)?;
        match hosts::name(host) {
            Some(name) if name == host => {}
            Some(name) => index.hosts.find(&name, see)?,
            None => see(index.any_host)?,
        }
    }
    if index.filed.paths {
        paths(index, request, refuses, see)?;
    }
    for (name, texts) in &index.headers {
        let headers = request.request.headers;
        header(headers, name, texts, see)?;
        if refuses {
            let mut others = alike(headers, name.as_str()).filter(|other| *other != name);
            others.try_for_each(|other| header(headers, other, texts, see))?;
        }
    }
    if let (Bearer::Known(verified), false) = (facts.bearer, index.tokens.is_empty()) {
        for (wanted, texts) in &index.tokens {
            for text in verified.texts(wanted) {
                texts.find(&text, see)?;
            }
        }
    }
    ControlFlow::Continue(())
}

/// A match that admits needs the path as it was sent; one that refuses sees every reading.
fn paths(
    index: &Index,
    request: &RequestFacts<'_>,
    refuses: bool,
    see: See<'_>,
) -> ControlFlow<()> {
    let readings = request.path();
    if refuses && readings.is_unclear() {
        return see(index.any_path);
    }
    for reading in readings.iter().take(if refuses { usize::MAX } else { 1 }) {
        index.paths.find(reading, see)?;
        for (place, texts) in &index.segments {
            let segment = match usize::try_from(*place) {
                Ok(place) => reading.split('/').nth(place),
                Err(_) => reading.rsplit('/').nth(usize::from(place.unsigned_abs()) - 1),
            };
            if let Some(segment) = segment {
                texts.find(segment, see)?;
            }
        }
    }
    ControlFlow::Continue(())
}

/// Each value, and all of them as one (RFC 9110, 5.3).
fn header(
    headers: &HeaderMap,
    name: &http::HeaderName,
    texts: &Texts,
    see: See<'_>,
) -> ControlFlow<()> {
    let mut values = headers.get_all(name).iter().map(|it| String::from_utf8_lossy(it.as_bytes()));
    let Some(first) = values.next() else { return ControlFlow::Continue(()) };
    texts.find(&first, see)?;
    let rest: Vec<_> = values.collect();
    if rest.is_empty() {
        return ControlFlow::Continue(());
    }
    for value in &rest {
        texts.find(value, see)?;
    }
    let joined = std::iter::once(&first).chain(&rest).map(|it| &**it).collect::<Vec<_>>().join(",");
    texts.find(&joined, see)
}

#[cfg(test)]
mod tests;
