//! `match` of an HTTP rule (Istio, HTTPMatchRequest).

use http::{HeaderName, Method};

use super::{MESH, One};
use crate::base::Str;
use crate::filter::{HeaderMatch, StringMatch};
use crate::model::{HttpMatch, MoreMatch, PathMatch, TextMatch, Without};
use crate::source::objects::{Labels, VirtualHttpMatch};
use crate::source::translate::sources;

/// What looks into requests here speaks HTTP without TLS.
const SCHEME: &str = "http";

/// A match that was read.
#[derive(Clone, Debug)]
pub(super) enum Read {
    Match {
        matched: HttpMatch,
        /// `None`: any.
        port: Option<u16>,
    },
    /// It never holds in the mesh.
    Never,
}

/// A field, from the match on, and what is wrong with it.
type Wrong = (String, String);

impl One<'_, '_, '_> {
    /// Whether a match is for the mesh: its own `gateways` replace those of the VirtualService.
    pub(super) fn is_of_mesh(&self, gateways: &[String]) -> bool {
        let names = |gateways: &[String]| gateways.iter().any(|it| it == MESH);
        match gateways.is_empty() {
            true => self.spec.gateways.is_empty() || names(&self.spec.gateways),
            false => names(gateways),
        }
    }

    /// A rule without a match.
    pub(super) fn match_of_none(&self) -> Read {
        match self.is_of_mesh(&[]) {
            true => Read::Match { matched: HttpMatch::default(), port: None },
            false => Read::Never,
        }
    }

    pub(super) fn read_match(
        &mut self,
        field: &str,
        written: &VirtualHttpMatch,
    ) -> Result<Read, Wrong> {
        if !self.is_of_mesh(&written.gateways) {
            return Ok(Read::Never);
        }
        if let Some(scheme) = &written.scheme {
            let holds = text("scheme", scheme)?.is_none_or(|wanted| wanted.matches(SCHEME));
            if !holds {
                let reason =
                    "never holds: what looks into requests of the mesh sees HTTP without TLS";
                self.warn(format!("{field}.scheme"), reason);
                return Ok(Read::Never);
            }
        }
        if !written.stat_prefix.is_empty() {
            let reason =
                "is not carried out: metrics are those of Istio, which have no names of routes";
            self.warn(format!("{field}.statPrefix"), reason);
        }
        let mut more = MoreMatch::default();
        // A match by gateways does not look at the source (Istio, HTTPMatchRequest `gateways`).
        if written.gateways.is_empty() && !self.add_source(field, written, &mut more) {
            return Ok(Read::Never);
        }
        let method = method(written, &mut more)?;
        if let Some(authority) = &written.authority {
            more.authority = text("authority", authority)?;
        }
        let headers = headers(written, &mut more)?;
        let query = query(written, &mut more)?;
        without(written, &mut more)?;
        let more = (more != MoreMatch::default()).then(|| Box::new(more));
        let matched = HttpMatch { path: path(written)?, headers, query, method, more };
        let port = written.port.filter(|port| *port != 0);
        Ok(Read::Match { matched, port })
    }

    /// `false`: no client is meant.
    fn add_source(
        &mut self,
        field: &str,
        written: &VirtualHttpMatch,
        more: &mut MoreMatch,
    ) -> bool {
        let namespace = written.source_namespace.as_str();
        more.source_namespace = Some(namespace).filter(|it| !it.is_empty()).map(Str::from);
        match self.labels_of_source(field, &written.source_labels) {
            Ok(labels) => more.source_labels = labels,
            Err(()) => return false,
        }
        true
    }

    /// The number of a selection; `Err`: there are too many, which is told.
    pub(super) fn labels_of_source(
        &mut self,
        field: &str,
        labels: &Labels,
    ) -> Result<Option<u32>, ()> {
        if labels.is_empty() {
            return Ok(None);
        }
        let number = self.sources.number(labels);
        if number.is_none() {
            let reason = format!(
                "the VirtualServices of {} have more than {} different sourceLabels; this match holds for nobody",
                self.key.namespace,
                sources::MOST
            );
            self.error(format!("{field}.sourceLabels"), reason);
            return Err(());
        }
        Ok(number)
    }
}

fn text(field: &str, written: &StringMatch) -> Result<Option<TextMatch>, Wrong> {
    written.text().map_err(|why| (field.to_owned(), why))
}

/// Without one, every path matches.
fn path(written: &VirtualHttpMatch) -> Result<PathMatch, Wrong> {
    let Some(uri) = &written.uri else { return Ok(PathMatch::default()) };
    let any_case = written.ignore_uri_case.unwrap_or_default();
    let lower = |text: Str| Str::from(text.to_ascii_lowercase());
    Ok(match text("uri", uri)? {
        None => PathMatch::default(),
        Some(TextMatch::Exact(path)) if any_case => PathMatch::ExactAnyCase(lower(path)),
        Some(TextMatch::Exact(path)) => PathMatch::Exact(path),
        Some(TextMatch::Prefix(start)) if any_case => PathMatch::StartsAnyCase(lower(start)),
        Some(TextMatch::Prefix(start)) => PathMatch::Starts(start),
        Some(TextMatch::Regex(regex)) => PathMatch::Regex(regex),
    })
}

fn method(written: &VirtualHttpMatch, more: &mut MoreMatch) -> Result<Option<Method>, Wrong> {
    let Some(method) = &written.method else { return Ok(None) };
    match text("method", method)? {
        Some(TextMatch::Exact(name)) => match Method::from_bytes(name.as_bytes()) {
            Ok(method) => Ok(Some(method)),
            Err(_) => Err(("method".to_owned(), format!("{name:?} is not a method"))),
        },
        other => {
            more.method = other;
            Ok(None)
        }
    }
}

fn headers(written: &VirtualHttpMatch, more: &mut MoreMatch) -> Result<Vec<HeaderMatch>, Wrong> {
    let mut headers = Vec::new();
    for (name, wanted) in &written.headers {
        let field = format!("headers[{name:?}]");
        // Istio's reference: "the keys uri, scheme, method, and authority will be ignored".
        if ["uri", "scheme", "method", "authority"].contains(&name.as_str()) {
            continue;
        }
        let name = header(&field, name)?;
        match wanted.as_ref().map(|it| text(&field, it)).transpose()?.flatten() {
            Some(value) => headers.push(HeaderMatch { name, value }),
            None => more.present.push(name),
        }
    }
    Ok(headers)
}

fn query(written: &VirtualHttpMatch, more: &mut MoreMatch) -> Result<Vec<(Str, TextMatch)>, Wrong> {
    let mut query = Vec::new();
    for (name, wanted) in &written.query_params {
        let field = format!("queryParams[{name:?}]");
        match wanted.as_ref().map(|it| text(&field, it)).transpose()?.flatten() {
            Some(value) => query.push((name.as_str().into(), value)),
            None => more.present_query.push(name.as_str().into()),
        }
    }
    Ok(query)
}

fn without(written: &VirtualHttpMatch, more: &mut MoreMatch) -> Result<(), Wrong> {
    for (name, wanted) in &written.without_headers {
        let field = format!("withoutHeaders[{name:?}]");
        let value = wanted.as_ref().map(|it| text(&field, it)).transpose()?.flatten();
        more.without.push(Without { name: header(&field, name)?, value });
    }
    Ok(())
}

fn header(field: &str, name: &str) -> Result<HeaderName, Wrong> {
    if name.starts_with("@request.auth.claims") {
        let why = "matches claims, which Istio has for gateways only; write an AuthorizationPolicy";
        return Err((field.to_owned(), why.to_owned()));
    }
    let name = HeaderName::try_from(name);
    name.map_err(|_| (field.to_owned(), "is not the name of a header".to_owned()))
}
