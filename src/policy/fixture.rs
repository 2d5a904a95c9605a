//! RequestAuthentications for tests.

use crate::base::ObjectKey;
use crate::jwt::fixture::Issuer;
use crate::model::{
    Action, AuthorizationPolicy, Condition, IssuerKeys, Rule, Scope, TokenPlace, TokenRule,
};

/// Tokens of `https://issuer` in the place that everybody uses.
pub fn token_rule(issuer: &Issuer) -> TokenRule {
    let bearer = TokenPlace::Header { name: "authorization".into(), prefix: "Bearer ".into() };
    TokenRule {
        issuer: "https://issuer".into(),
        audiences: Vec::new(),
        keys: IssuerKeys::Inline(issuer.keys()),
        places: vec![bearer, TokenPlace::Parameter("access_token".into())],
        forwards: false,
        payload_header: None,
        claim_headers: Vec::new(),
        spaced: Vec::new(),
    }
}

/// A RequestAuthentication with these rules.
pub fn tokens(object: &ObjectKey, scope: Scope, rules: Vec<TokenRule>) -> AuthorizationPolicy {
    let condition = |rule| Condition::Token(Box::new(rule));
    let rule = |it| Rule { when: vec![condition(it)], ..Rule::default() };
    AuthorizationPolicy {
        key: AuthorizationPolicy::of_tokens(object),
        action: Action::Authenticate,
        scope,
        rules: rules.into_iter().map(rule).collect(),
        dry_run: false,
        broken: None,
        provider: None,
    }
}
