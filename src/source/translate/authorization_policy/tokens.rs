//! RequestAuthentications (Istio "Request authentication"). A request whose token is not good is answered with 401; requests
//! without a token go on. A rule whose keys cannot be read takes no token: what nobody can verify must not reach an application
//! that relies on it.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use serde_json::Value;

use crate::base::ObjectKey;
use crate::base::schema::parse_istio_duration;
use crate::ext_authz::may_set;
use crate::jwt::{KeySource, Keys, KeysUri};
use crate::model::{self, Action, ClaimHeader, Condition, IssuerKeys, Rule, TokenPlace, TokenRule};
use crate::source::objects::{JwtRule, RequestAuthentication};
use crate::source::translate::Context;
use crate::source::translate::attachment::{self, Selecting};

/// Where tokens are looked for by a rule that names no place (Istio, JWTRule).
const HEADER: (&str, &str) = ("authorization", "Bearer ");
const PARAMETER: &str = "access_token";

/// What is said of a rule without keys.
const UNTIL: &str = "until that is mended, every token of the issuer is answered with 401";
/// For how long a request waits for keys (Istio, JWTRule.timeout).
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that it may wait: what waits holds what others need.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn translate(
    cx: &mut Context<'_>,
    selecting: &mut Selecting,
    key: &ObjectKey,
    object: &RequestAuthentication,
) -> model::AuthorizationPolicy {
    let spec = &object.spec;
    let (attachment, fault) = attachment::of::<RequestAuthentication>(cx, key, spec.attached_to());
    if let Some(fault) = fault {
        let why = fault.why;
        let reason =
            format!("{why}; until that is mended, it holds for all that it may be meant for");
        cx.error::<RequestAuthentication>(key, fault.field, reason);
    }
    if spec.jwt_rules.is_empty() {
        let reason = "is empty, so that no token is looked for, and it does nothing";
        cx.warn::<RequestAuthentication>(key, "spec.jwtRules", reason);
    }
    let mut rules = Vec::with_capacity(spec.jwt_rules.len());
    for (index, rule) in spec.jwt_rules.iter().enumerate() {
        let mut reader = Reader { cx, key, place: format!("spec.jwtRules[{index}]") };
        let token = Condition::Token(Box::new(reader.rule(rule)));
        rules.push(Rule { when: vec![token], ..Rule::default() });
    }
    let key = model::AuthorizationPolicy::of_tokens(key);
    model::AuthorizationPolicy {
        scope: selecting.scope_of(&key, attachment),
        key,
        action: Action::Authenticate,
        rules,
        dry_run: false,
        broken: None,
        provider: None,
    }
}

/// Reads one rule, and complains of it.
struct Reader<'r, 'c> {
    cx: &'r mut Context<'c>,
    key: &'r ObjectKey,
    place: String,
}

impl Reader<'_, '_> {
    fn error(&mut self, field: &str, reason: impl Into<String>) {
        let field = format!("{}.{field}", self.place);
        self.cx.error::<RequestAuthentication>(self.key, field, reason);
    }

    fn warn(&mut self, field: &str, reason: impl Into<String>) {
        let field = format!("{}.{field}", self.place);
        self.cx.warn::<RequestAuthentication>(self.key, field, reason);
    }

    fn rule(&mut self, rule: &JwtRule) -> TokenRule {
        if rule.issuer.is_empty() {
            self.error("issuer", "is missing, so that the rule takes no token");
        }
        TokenRule {
            issuer: rule.issuer.as_str().into(),
            audiences: rule.audiences.iter().map(|it| it.as_str().into()).collect(),
            keys: self.keys(rule),
            places: self.places(rule),
            forwards: rule.forward_original_token,
            payload_header: self.output("outputPayloadToHeader", &rule.output_payload_to_header),
            claim_headers: self.claim_headers(rule),
            spaced: rule.space_delimited_claims.iter().map(|it| it.as_str().into()).collect(),
        }
    }

    /// Given keys hold, whatever address is given besides (Istio, JWTRule.jwks).
    fn keys(&mut self, rule: &JwtRule) -> IssuerKeys {
        if rule.jwks.is_empty() {
            return self.remote(rule);
        }
        if !rule.keys_uri().is_empty() {
            self.warn("jwksUri", "is not asked, because jwks has the keys");
        }
        let keys = match Keys::parse(&rule.jwks) {
            Ok(keys) => keys,
            Err(why) => {
                self.error("jwks", format!("{why}; {UNTIL}"));
                return IssuerKeys::Inline(Keys::none());
            }
        };
        if keys.is_empty() {
            let skipped = keys.skipped().join(", ");
            self.error("jwks", format!("has no key that can be used ({skipped}); {UNTIL}"));
        } else if !keys.skipped().is_empty() {
            self.warn("jwks", format!("{}, and is not used", keys.skipped().join(", ")));
        }
        IssuerKeys::Inline(keys)
    }

    fn remote(&mut self, rule: &JwtRule) -> IssuerKeys {
        if rule.keys_uri().is_empty() {
            let why = "is missing, and so is jwksUri; keys are not looked for at the issuer";
            self.error("jwks", format!("{why}; {UNTIL}"));
            return IssuerKeys::Unknown;
        }
        let timeout = self.timeout(rule.timeout.as_ref());
        match KeysUri::parse(rule.keys_uri()) {
            Ok(uri) => IssuerKeys::Remote(Arc::new(KeySource {
                uri: Arc::new(uri),
                namespace: self.key.namespace.clone(),
                timeout,
            })),
            Err(why) => {
                self.error("jwksUri", format!("{why}; {UNTIL}"));
                IssuerKeys::Unknown
            }
        }
    }

    /// At most `MAX_TIMEOUT`.
    fn timeout(&mut self, given: Option<&Value>) -> Duration {
        let Some(given) = given else { return TIMEOUT };
        let read = given.as_str().and_then(parse_istio_duration);
        match read.filter(|read| !read.is_zero()) {
            Some(read) if read > MAX_TIMEOUT => {
                self.warn("timeout", format!("is more than {MAX_TIMEOUT:?}, which holds instead"));
                MAX_TIMEOUT
            }
            Some(read) => read,
            None => {
                let why = format!("{given} is no duration such as 1.5s; {TIMEOUT:?} hold instead");
                self.error("timeout", why);
                TIMEOUT
            }
        }
    }

    fn places(&mut self, rule: &JwtRule) -> Vec<TokenPlace> {
        let mut places = Vec::new();
        for (index, header) in rule.from_headers.iter().enumerate() {
            if HeaderName::try_from(&header.name).is_err() {
                let field = format!("fromHeaders[{index}].name");
                self.error(&field, format!("{:?} is no name of a header", header.name));
            }
            let name = header.name.to_ascii_lowercase().into();
            places.push(TokenPlace::Header { name, prefix: header.prefix.as_str().into() });
        }
        places.extend(rule.from_params.iter().map(|it| TokenPlace::Parameter(it.as_str().into())));
        places.extend(rule.from_cookies.iter().map(|it| TokenPlace::Cookie(it.as_str().into())));
        if places.is_empty() {
            let (name, prefix) = HEADER;
            places.push(TokenPlace::Header { name: name.into(), prefix: prefix.into() });
            places.push(TokenPlace::Parameter(PARAMETER.into()));
        }
        places
    }

    fn claim_headers(&mut self, rule: &JwtRule) -> Vec<ClaimHeader> {
        let mut headers = Vec::new();
        for (index, it) in rule.output_claim_to_headers.iter().enumerate() {
            let field = format!("outputClaimToHeaders[{index}].header");
            if let Some(name) = self.output(&field, &it.header) {
                headers.push(ClaimHeader { name, claim: it.claim.as_str().into() });
            }
        }
        headers
    }

    /// The name of a header that the rule sets; none when it names none.
    fn output(&mut self, field: &str, name: &str) -> Option<HeaderName> {
        if name.is_empty() {
            return None;
        }
        let read = HeaderName::try_from(name).ok();
        let read = read.filter(may_set);
        if read.is_none() {
            self.error(field, format!("{name:?} is no header that can be set; it is left out"));
        }
        read
    }
}
