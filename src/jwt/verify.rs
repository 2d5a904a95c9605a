//! Whether a token is of an issuer, for an audience, of this time, and signed.

use super::keys::Key;
use super::{Claims, Fault, Keys, Token};
use crate::base::Str;

/// By how much clocks may differ, in seconds: Envoy's default.
const SKEW: u64 = 60;

/// What a token must be.
pub struct Expected<'a> {
    pub issuer: &'a str,
    /// One of these must be meant; none: any may be.
    pub audiences: &'a [Str],
    /// `None`: they are not there.
    pub keys: Option<&'a Keys>,
}

/// Verifies a token. `now`: seconds since 1970. The order of the checks is Envoy's, so that the answers are.
pub fn verify(token: &Token<'_>, expected: &Expected<'_>, now: u64) -> Result<(), Fault> {
    let claims = &token.claims;
    if claims.issuer.is_empty() || claims.issuer != expected.issuer {
        return Err(Fault::UnknownIssuer);
    }
    in_time(claims, now)?;
    if !is_meant(claims, expected.audiences) {
        return Err(Fault::WrongAudience);
    }
    signed(token, expected.keys.ok_or(Fault::NotFetched)?)
}

fn in_time(claims: &Claims, now: u64) -> Result<(), Fault> {
    if claims.not_before.is_some_and(|begin| begin > now.saturating_add(SKEW)) {
        return Err(Fault::NotYetValid);
    }
    if claims.expires.is_some_and(|end| now > end.saturating_add(SKEW)) {
        return Err(Fault::Expired);
    }
    Ok(())
}

fn is_meant(claims: &Claims, audiences: &[Str]) -> bool {
    let meant = |wanted: &Str| claims.audiences.iter().any(|it| bare(it) == bare(wanted));
    audiences.is_empty() || audiences.iter().any(meant)
}

/// Envoy compares audiences without their scheme and the slash at their end.
fn bare(audience: &str) -> &str {
    let bare = audience.strip_prefix("https://").or_else(|| audience.strip_prefix("http://"));
    let bare = bare.unwrap_or(audience);
    bare.strip_suffix('/').unwrap_or(bare)
}

/// A key or a token without an id leaves it open which key is meant; the type of the key never.
fn signed(token: &Token<'_>, keys: &Keys) -> Result<(), Fault> {
    if keys.is_empty() {
        return Err(Fault::NoKeys);
    }
    let named = |key: &&Key| match (&key.id, &token.key_id) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    };
    let fits = |key: &&Key| key.algorithms.contains(&token.algorithm);
    let mut fault = Fault::NoSuchKey;
    for key in keys.iter().filter(named).filter(fits) {
        let signed = token.signed.as_bytes();
        if key.key.verifies(token.signature, signed, token.algorithm) {
            return Ok(());
        }
        fault = Fault::BadSignature;
    }
    Err(fault)
}
