//! What a request becomes by its token: the application is told of claims in headers that nobody else may send, and gets the
//! token itself only where the rule says so.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use serde_json::Value;

use super::token;
use super::tokens::TokenPolicies;
use crate::base::{Str, alike};
use crate::jwt::Claims;
use crate::model::{TokenPlace, TokenRule};

/// Changes of a request's head.
#[derive(Clone, Default)]
pub struct Told {
    /// Nobody but an agent may send them.
    removed: Vec<HeaderName>,
    /// Where tokens stand, which nobody verifies in trailers.
    tokens: Vec<HeaderName>,
    parameters: Vec<Str>,
    set: Vec<(HeaderName, HeaderValue)>,
}

impl Told {
    pub(super) fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.tokens.is_empty() && self.parameters.is_empty()
    }

    /// Whatever the token: headers that tell of claims are the agent's.
    pub(super) fn forget(&mut self, policies: &TokenPolicies) {
        self.removed.extend_from_slice(policies.told());
        // No trailers have that one in any case.
        let tokens = policies.token_headers().iter().filter(|name| **name != AUTHORIZATION);
        self.tokens.extend(tokens.cloned());
    }

    /// Takes the token out of its place, unless the application is to get it. Cookies stay, as in Envoy.
    pub(super) fn take(&mut self, rule: &TokenRule, place: &TokenPlace) {
        match place {
            _ if rule.forwards => {}
            TokenPlace::Header { name, .. } => self.removed.extend(name.parse::<HeaderName>()),
            TokenPlace::Parameter(name) => self.parameters.push(name.clone()),
            TokenPlace::Cookie(_) => {}
        }
    }

    /// Sets the headers of a rule that took the token.
    pub(super) fn tell(&mut self, rule: &TokenRule, claims: &Claims) {
        let payload = rule.payload_header.as_ref().map(|name| (name, claims.payload.clone()));
        let told = rule.claim_headers.iter().filter_map(|header| {
            let literal = claims.at([&*header.claim]);
            let value = literal.or_else(|| claims.at(header.claim.split('.')))?;
            Some((&header.name, text(value)?))
        });
        for (name, text) in payload.into_iter().chain(told) {
            if let Ok(value) = HeaderValue::try_from(text)
                && !self.set.iter().any(|(known, _)| known == name)
            {
                self.set.push((name.clone(), value));
            }
        }
    }

    /// Fields that may not stand in trailers.
    pub fn not_in_trailers(&self) -> Vec<HeaderName> {
        [&self.removed[..], &self.tokens].concat()
    }

    /// The headers as they become.
    pub fn headers(&self, headers: &HeaderMap) -> HeaderMap {
        let mut headers = headers.clone();
        self.change_headers(&mut headers);
        headers
    }

    /// Makes of a request what goes on.
    pub fn apply<B>(&self, request: &mut Request<B>) {
        self.change_headers(request.headers_mut());
        if self.parameters.is_empty() {
            return;
        }
        let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        let target = token::without(target, &self.parameters);
        if let Ok(target) = PathAndQuery::try_from(target) {
            *request.uri_mut() = Uri::from(target);
        }
    }

    fn change_headers(&self, headers: &mut HeaderMap) {
        for name in self.foreign(headers) {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
    }

    /// What a client may have sent in an agent's stead.
    fn foreign(&self, headers: &HeaderMap) -> Vec<HeaderName> {
        let foreign = self.removed.iter().flat_map(|name| alike(headers, name.as_str()));
        foreign.cloned().collect()
    }
}

/// As Envoy writes claims: plain values as they are, others as JSON in base64url.
fn text(claim: &Value) -> Option<String> {
    match claim {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(claim.to_string()),
        Value::Array(_) | Value::Object(_) => Some(BASE64URL.encode(claim.to_string())),
    }
}

/// Without values, which are of a token.
impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set: Vec<_> = self.set.iter().map(|(name, _)| name).collect();
        f.debug_struct("Told").field("removed", &self.removed).field("set", &set).finish()
    }
}
