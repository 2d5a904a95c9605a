//! Who bears a request, as its token says (Istio, RequestAuthentication). Found out before policies decide, and a fact for
//! them: [`check`] is given all RequestAuthentications that guard a destination, and is pure but for the time of day.
//!
//! As in Istio a request without a token goes on, and one whose token is not good does not. Where Istio leaves open what
//! happens, this refuses: a request has one token at the most, since nobody could tell which one an application believes.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::asked::Request;
use super::set::PolicySet;
use super::token;
use super::tokens::TokenPolicies;
use super::told::Told;
use crate::base::Str;
use crate::filter;
use crate::jwt::{self, Claims, Expected, Fault, KeyRing, KeySource, Token};
use crate::model::{AuthorizationPolicy, Condition, IssuerKeys, TokenPlace, TokenRule, TokenText};

/// Claims whose text is a list, parted by spaces, whatever a rule says (Istio, JWTRule.spaceDelimitedClaims).
const SPACED: [&str; 2] = ["scope", "permission"];

/// Who bears a request.
#[derive(Clone, Copy)]
pub enum Bearer<'a> {
    /// There is no token where one is looked for.
    Nobody,
    Known(&'a Verified),
    /// The token is not good, by this RequestAuthentication; it may be of keys that are newer than those that are known.
    Refused(&'a AuthorizationPolicy, Fault, &'a [Arc<KeySource>]),
}

/// A token that one of the rules takes.
pub struct Verified {
    claims: Claims,
    spaced: Vec<Str>,
}

/// What was found out about the token of a request.
#[derive(Default)]
pub struct Checked<'a> {
    verified: Option<Verified>,
    refused: Option<(&'a AuthorizationPolicy, Fault)>,
    /// What it is, where a refused token may be of newer keys.
    keys: Vec<Arc<KeySource>>,
    told: Option<Box<Told>>,
}

type Rules<'a> = [(&'a AuthorizationPolicy, &'a TokenRule)];

/// Looks for the token of a request, and verifies it by the keys that are known now. Without a RequestAuthentication nothing is looked at.
pub fn check<'a>(
    sets: impl Iterator<Item = &'a PolicySet>,
    request: Option<&Request<'_>>,
    ring: &KeyRing,
) -> Checked<'a> {
    let policies = sets.map(|set| &set.authenticate).filter(|policies| !policies.is_empty());
    let mut policies = policies.peekable();
    let Some(request) = request.filter(|_| policies.peek().is_some()) else {
        return Checked::default();
    };
    let policies: Vec<_> = policies.collect();
    checked(&policies, request, (ring, now()))
}

/// The rules of a RequestAuthentication.
pub fn rules(policy: &AuthorizationPolicy) -> impl Iterator<Item = &TokenRule> {
    let conditions = policy.rules.iter().flat_map(|rule| &rule.when);
    conditions.filter_map(|condition| match condition {
        Condition::Token(rule) => Some(&**rule),
        _ => None,
    })
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What tokens are judged by: the keys that are known, and the time.
type Judge<'r> = (&'r KeyRing, u64);

fn checked<'a>(
    policies: &[&'a TokenPolicies],
    request: &Request<'_>,
    judge: Judge<'_>,
) -> Checked<'a> {
    let (mut told, mut keys) = (Told::default(), Vec::new());
    policies.iter().for_each(|policies| told.forget(policies));
    let found = found(policies, request);
    let judged = match found.first() {
        None => Ok(None),
        Some((by, _, text)) if found.iter().all(|(_, _, other)| other == text) => {
            Token::parse(text)
                .map_err(|fault| (*by, fault))
                .and_then(|token| {
                    // A rule of another issuer has nothing to say of it.
                    let rules = policies.iter().flat_map(|it| it.rules_of(&token.claims.issuer));
                    let rules: Vec<_> = rules.collect();
                    let verdicts: Vec<_> =
                        rules.iter().map(|(_, rule)| verdict(rule, &token, judge)).collect();
                    keys = newer(&rules, &verdicts, &token);
                    accepted(&rules, &found, token, &verdicts, &mut told)
                })
                .map(Some)
        }
        Some((by, ..)) => Err((*by, Fault::Multiple)),
    };
    let (verified, refused) = match judged {
        Ok(verified) => {
            keys.clear();
            (verified, None)
        }
        Err(refused) => (None, Some(refused)),
    };
    Checked { verified, refused, keys, told: Some(told).filter(|it| !it.is_empty()).map(Box::new) }
}

/// The tokens of a request, each with its place, and a policy that looks for it there.
type Found<'a, 'r> = Vec<(&'a AuthorizationPolicy, &'a TokenPlace, Cow<'r, str>)>;

fn found<'a, 'r>(policies: &[&'a TokenPolicies], request: &Request<'r>) -> Found<'a, 'r> {
    let mut found: Found<'a, 'r> = Vec::new();
    for (place, policy) in policies.iter().flat_map(|policies| policies.places()) {
        // Of what two sets look for, the first one speaks.
        if !found.iter().any(|(_, known, _)| *known == place) {
            let brought = token::brought(place, request);
            found.extend(brought.map(|text| (policy, place, text)));
        }
    }
    found
}

/// In each place where the token stands, a rule that looks there must take it.
fn accepted<'a>(
    rules: &Rules<'a>,
    found: &Found<'a, '_>,
    token: Token<'_>,
    verdicts: &[Result<(), Fault>],
    told: &mut Told,
) -> Result<Verified, (&'a AuthorizationPolicy, Fault)> {
    let mut takers: Vec<&TokenRule> = Vec::new();
    for (by, place, _) in found {
        let (mut taker, mut refused) = (None, (*by, Fault::UnknownIssuer));
        for ((policy, rule), verdict) in rules.iter().zip(verdicts) {
            match verdict {
                _ if !rule.places.contains(place) => {}
                Ok(()) => taker = taker.or(Some(*rule)),
                Err(Fault::UnknownIssuer) => {}
                Err(fault) => refused = (*policy, *fault),
            }
        }
        let taker = taker.ok_or(refused)?;
        told.take(taker, place);
        takers.push(taker);
    }
    takers.iter().for_each(|rule| told.tell(rule, &token.claims));
    let spaced = takers.iter().flat_map(|rule| rule.spaced.iter().cloned()).collect();
    Ok(Verified { claims: token.claims, spaced })
}

/// Where newer keys are, that a token may be of which no known key has signed.
fn newer(
    rules: &Rules<'_>,
    verdicts: &[Result<(), Fault>],
    token: &Token<'_>,
) -> Vec<Arc<KeySource>> {
    let mut newer: Vec<Arc<KeySource>> = Vec::new();
    for ((_, rule), verdict) in rules.iter().zip(verdicts) {
        if let (IssuerKeys::Remote(source), Err(fault)) = (&rule.keys, verdict)
            && token.may_be_of_newer_keys(*fault)
            && !newer.contains(source)
        {
            newer.push(source.clone());
        }
    }
    newer
}

fn verdict(rule: &TokenRule, token: &Token<'_>, (ring, now): Judge<'_>) -> Result<(), Fault> {
    let fetched;
    let keys = match &rule.keys {
        IssuerKeys::Inline(keys) => Some(keys),
        IssuerKeys::Remote(source) => {
            fetched = ring.known(&source.uri);
            fetched.as_ref().and_then(|known| known.keys.as_ref())
        }
        IssuerKeys::Unknown => None,
    };
    let expected = Expected { issuer: &rule.issuer, audiences: &rule.audiences, keys };
    jwt::verify(token, &expected, now)
}

impl<'a> Checked<'a> {
    pub fn bearer(&self) -> Bearer<'_> {
        match (&self.refused, &self.verified) {
            (Some((by, fault)), _) => Bearer::Refused(by, *fault, &self.keys),
            (None, Some(verified)) => Bearer::Known(verified),
            (None, None) => Bearer::Nobody,
        }
    }

    /// What the request is to become before policies look at it and it goes on.
    pub fn told(&self) -> Option<&Told> {
        self.told.as_deref()
    }

    /// What the request is to become, and who bears it.
    pub fn into_parts(self) -> (Option<Box<Told>>, Option<Verified>) {
        (self.told, self.verified)
    }
}

impl filter::Claims for Verified {
    fn texts(&self, path: &str) -> Vec<Cow<'_, str>> {
        self.by_name(path)
    }
}

impl fmt::Debug for Verified {
    /// A token's claims are nobody's business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").finish_non_exhaustive()
    }
}

impl Clone for Verified {
    fn clone(&self) -> Self {
        Self { claims: self.claims.clone(), spaced: self.spaced.clone() }
    }
}

impl Verified {
    /// As if the token were good.
    #[cfg(test)]
    pub(super) fn unchecked(token: &str) -> Self {
        Self { claims: Token::parse(token).unwrap().claims, spaced: Vec::new() }
    }

    /// The texts that a policy compares; empty where the token does not say.
    pub(super) fn texts(&self, wanted: &TokenText) -> Vec<Cow<'_, str>> {
        let claims = &self.claims;
        match wanted {
            TokenText::Principal => self.principal().into_iter().map(Cow::Owned).collect(),
            TokenText::Audiences => claims.audiences.iter().map(|it| it.as_str().into()).collect(),
            TokenText::Presenter => self.at(&["azp".into()]),
            TokenText::Claim(path) => self.at(path),
        }
    }

    /// A token without a subject has none.
    fn principal(&self) -> Option<String> {
        let subject = self.claims.subject.as_deref().filter(|it| !it.is_empty())?;
        Some(format!("{}/{subject}", self.claims.issuer))
    }

    /// Texts and lists of texts, as in Istio.
    fn at(&self, path: &[Str]) -> Vec<Cow<'_, str>> {
        use serde_json::Value;
        match self.claims.at(path.iter().map(|it| &**it)) {
            Some(Value::String(text)) if self.is_spaced(path) => {
                text.split(' ').filter(|it| !it.is_empty()).map(Cow::Borrowed).collect()
            }
            Some(Value::String(text)) => vec![Cow::Borrowed(text)],
            Some(Value::Array(list)) => {
                list.iter().filter_map(Value::as_str).map(Cow::Borrowed).collect()
            }
            _ => Vec::new(),
        }
    }

    /// As claims are told to applications: by its name, or else by the path that dots part.
    fn by_name(&self, path: &str) -> Vec<Cow<'_, str>> {
        let literal = self.at(&[path.into()]);
        if !literal.is_empty() || !path.contains('.') {
            return literal;
        }
        self.at(&path.split('.').map(Str::from).collect::<Vec<_>>())
    }

    fn is_spaced(&self, path: &[Str]) -> bool {
        let [name] = path else { return false };
        SPACED.contains(&&**name) || self.spaced.contains(name)
    }
}
