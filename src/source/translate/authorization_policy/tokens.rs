//! RequestAuthentications (Istio "Request authentication"). Tokens are not verified yet, and a token that nobody verified
//! must not reach an application that relies on that: a request with one, in a place where a rule looks for it, is answered
//! with 401, as Istio answers a token that is none. Requests without a token go on.

use crate::base::ObjectKey;
use crate::model::{self, Action, Condition, Rule, TokenPlace};
use crate::source::objects::{JwtRule, RequestAuthentication};
use crate::source::translate::Context;
use crate::source::translate::attachment::{self, Fault, Selecting};

/// Where tokens are looked for by a rule that names no place (Istio, JWTRule).
const HEADER: (&str, &str) = ("authorization", "Bearer ");
const PARAMETER: &str = "access_token";

pub(super) fn translate(
    cx: &mut Context<'_>,
    selecting: &mut Selecting,
    key: &ObjectKey,
    object: &RequestAuthentication,
) -> model::AuthorizationPolicy {
    let spec = &object.spec;
    let (attachment, fault) = attachment::of::<RequestAuthentication>(cx, key, spec.attached_to());
    let mut places: Vec<TokenPlace> = spec.jwt_rules.iter().flat_map(places).collect();
    places.sort();
    places.dedup();
    complain(cx, key, fault, &places);
    let rule = Rule { when: vec![Condition::Token(places.clone())], ..Rule::default() };
    let key = model::AuthorizationPolicy::of_tokens(key);
    model::AuthorizationPolicy {
        scope: selecting.scope_of(&key, attachment),
        key,
        action: Action::Authenticate,
        rules: if places.is_empty() { Vec::new() } else { vec![rule] },
        dry_run: false,
        broken: None,
        provider: None,
    }
}

fn complain(cx: &mut Context<'_>, key: &ObjectKey, fault: Option<Fault>, places: &[TokenPlace]) {
    if let Some(Fault { field, why }) = fault {
        let reason =
            format!("{why}; until that is mended, it holds for all that it may be meant for");
        cx.error::<RequestAuthentication>(key, field, reason);
    }
    if places.is_empty() {
        let reason = "is empty, so that no token is looked for, and it does nothing";
        cx.warn::<RequestAuthentication>(key, "spec.jwtRules", reason);
        return;
    }
    let reason = "tokens are not verified yet, so that requests with a token, where its rules look for one, are answered \
                  with 401; requests without a token go on. Delete it if nothing relies on tokens";
    cx.error::<RequestAuthentication>(key, "spec.jwtRules", reason);
}

fn places(rule: &JwtRule) -> Vec<TokenPlace> {
    let header = |name: &str, prefix: &str| TokenPlace::Header {
        name: name.to_ascii_lowercase().into(),
        prefix: prefix.into(),
    };
    let mut places: Vec<TokenPlace> =
        rule.from_headers.iter().map(|it| header(&it.name, &it.prefix)).collect();
    places.extend(rule.from_params.iter().map(|it| TokenPlace::Parameter(it.as_str().into())));
    places.extend(rule.from_cookies.iter().map(|it| TokenPlace::Cookie(it.as_str().into())));
    if places.is_empty() {
        places.push(header(HEADER.0, HEADER.1));
        places.push(TokenPlace::Parameter(PARAMETER.into()));
    }
    places
}
