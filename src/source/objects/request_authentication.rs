//! RequestAuthentication (Istio `security.istio.io/v1`). Whose tokens are good is not looked at yet, only where a token may
//! stand.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{AttachedTo, Resource, TargetRef, WorkloadSelector};

pub type RequestAuthentication = Resource<RequestAuthenticationSpec>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestAuthenticationSpec {
    #[serde(default)]
    pub selector: Option<WorkloadSelector>,
    /// The older form with one target.
    #[serde(default)]
    pub target_ref: Option<TargetRef>,
    #[serde(default)]
    pub target_refs: Vec<TargetRef>,
    #[serde(default)]
    pub jwt_rules: Vec<JwtRule>,
}

impl RequestAuthenticationSpec {
    pub fn attached_to(&self) -> AttachedTo<'_> {
        let (selector, target_ref) = (self.selector.as_ref(), self.target_ref.as_ref());
        AttachedTo { selector, target_ref, target_refs: &self.target_refs }
    }
}

/// Tokens of one issuer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtRule {
    #[serde(default, rename = "issuer")]
    _issuer: IgnoredAny,
    #[serde(default, rename = "audiences")]
    _audiences: IgnoredAny,
    #[serde(default, rename = "jwksUri", alias = "jwks_uri")]
    _jwks_uri: IgnoredAny,
    #[serde(default, rename = "jwks")]
    _jwks: IgnoredAny,
    #[serde(default)]
    pub from_headers: Vec<JwtHeader>,
    #[serde(default)]
    pub from_params: Vec<String>,
    #[serde(default)]
    pub from_cookies: Vec<String>,
    #[serde(default, rename = "outputPayloadToHeader")]
    _output_payload_to_header: IgnoredAny,
    #[serde(default, rename = "outputClaimToHeaders")]
    _output_claim_to_headers: IgnoredAny,
    #[serde(default, rename = "forwardOriginalToken")]
    _forward_original_token: IgnoredAny,
    #[serde(default, rename = "spaceDelimitedClaims")]
    _space_delimited_claims: IgnoredAny,
    #[serde(default, rename = "timeout")]
    _timeout: IgnoredAny,
}

/// A header with a token in it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtHeader {
    pub name: String,
    /// What stands before the token, such as `Bearer `.
    #[serde(default)]
    pub prefix: String,
}
