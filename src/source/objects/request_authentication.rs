//! RequestAuthentication (Istio `security.istio.io/v1`).

use serde::Deserialize;
use serde_json::Value;

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
    #[serde(default)]
    pub issuer: String,
    #[serde(default)]
    pub audiences: Vec<String>,
    #[serde(default)]
    pub jwks_uri: String,
    /// The older name of `jwksUri`.
    #[serde(default, rename = "jwks_uri")]
    pub older_jwks_uri: String,
    /// The keys themselves.
    #[serde(default)]
    pub jwks: String,
    #[serde(default)]
    pub from_headers: Vec<JwtHeader>,
    #[serde(default)]
    pub from_params: Vec<String>,
    #[serde(default)]
    pub from_cookies: Vec<String>,
    #[serde(default)]
    pub output_payload_to_header: String,
    #[serde(default)]
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    #[serde(default)]
    pub forward_original_token: bool,
    #[serde(default)]
    pub space_delimited_claims: Vec<String>,
    /// Of a request for the keys.
    #[serde(default)]
    pub timeout: Option<Value>,
}

impl JwtRule {
    /// Where the keys are fetched from; empty if they are not.
    pub fn keys_uri(&self) -> &str {
        if self.jwks_uri.is_empty() { &self.older_jwks_uri } else { &self.jwks_uri }
    }
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

/// A header that the application is told a claim in.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimToHeader {
    pub header: String,
    pub claim: String,
}
