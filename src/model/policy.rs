//! AuthorizationPolicy and PeerAuthentication (Istio `security.istio.io/v1`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use http::HeaderName;

use super::{ExtAuthz, StringMatch};
use crate::base::{ObjectKey, Str};
use crate::jwt::{KeySource, Keys};

/// A block of addresses.
pub type Cidr = ipnet::IpNet;

/// What stands before the name of a RequestAuthentication in its key, which no object's name has.
const TOKENS: &str = "RequestAuthentication/";

/// One AuthorizationPolicy; or a RequestAuthentication, whose rules say which tokens are good.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct AuthorizationPolicy {
    /// Unique among both kinds ([`AuthorizationPolicy::of_tokens`]).
    pub key: ObjectKey,
    pub action: Action,
    pub scope: Scope,
    /// One must match. None: the policy never matches (so ALLOW without rules denies everything).
    pub rules: Vec<Rule>,
    /// Decide and log, do not enforce (annotation `istio.io/dry-run`).
    pub dry_run: bool,
    /// Why the policy cannot be understood. Such a policy denies whatever it applies to.
    pub broken: Option<Str>,
    /// Whom a CUSTOM policy asks. One without a provider is broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<Arc<ExtAuthz>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Action {
    /// Asks its [provider](AuthorizationPolicy::provider) about the requests that it matches.
    Custom,
    Allow,
    Deny,
    /// Only marks a match in the log.
    Audit,
    /// Of a RequestAuthentication: the token of what it matches is verified, and a request whose token is not good is refused as
    /// unauthenticated.
    Authenticate,
}

impl AuthorizationPolicy {
    /// The key of a RequestAuthentication in the model.
    pub fn of_tokens(object: &ObjectKey) -> ObjectKey {
        ObjectKey::new(object.namespace.clone(), format!("{TOKENS}{}", object.name))
    }

    /// The key of the RequestAuthentication that this is, if it is one.
    pub fn as_of_tokens(&self) -> Option<ObjectKey> {
        let name = self.key.name.strip_prefix(TOKENS)?;
        Some(ObjectKey::new(self.key.namespace.clone(), name))
    }
}

/// Kind and key, for messages.
impl fmt::Display for AuthorizationPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_of_tokens() {
            Some(key) => write!(f, "RequestAuthentication {key}"),
            None => write!(f, "AuthorizationPolicy {}", self.key),
        }
    }
}

/// What a policy applies to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Scope {
    /// In the root namespace, without selector or targets.
    Mesh,
    Namespace,
    /// The workloads that list it ([`super::Workload::policies`]).
    Workloads,
    /// `targetRefs`: enforced for what is bound to a waypoint.
    Targets(Vec<PolicyTarget>),
}

/// In the policy's own namespace, except for the class.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub enum PolicyTarget {
    Service(Str),
    ServiceEntry(Str),
    Gateway(Str),
    /// Every waypoint of this class; only from the root namespace.
    GatewayClass(Str),
}

/// All of: one of `from` (or none given), one of `to` (or none given), every one of `when`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Rule {
    pub from: Vec<Source>,
    pub to: Vec<Operation>,
    pub when: Vec<Condition>,
}

/// One of `any` when given, none of `none`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Values<T> {
    pub any: Vec<T>,
    pub none: Vec<T>,
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self { any: Vec::new(), none: Vec::new() }
    }
}

impl<T> Values<T> {
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.none.is_empty()
    }
}

/// Who sends: all given fields must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Source {
    /// `<trust domain>/ns/<namespace>/sa/<account>`.
    pub principals: Values<StringMatch>,
    pub namespaces: Values<StringMatch>,
    /// Namespace and name.
    pub service_accounts: Values<ObjectKey>,
    /// Of the proven identity.
    pub trust_domains: Values<StringMatch>,
    /// The address of the connection's peer.
    pub ip_blocks: Values<Cidr>,
    /// The client's address; without trusted proxies in between the same as the peer's.
    pub remote_ip_blocks: Values<Cidr>,
    /// `<issuer>/<subject>` of the request's token (HTTP).
    pub request_principals: Values<StringMatch>,
}

impl Source {
    /// No field is given.
    pub fn is_empty(&self) -> bool {
        let Self {
            principals,
            namespaces,
            service_accounts,
            trust_domains,
            ip_blocks,
            remote_ip_blocks,
            request_principals,
        } = self;
        let texts = [principals, namespaces, trust_domains, request_principals];
        texts.into_iter().all(Values::is_empty)
            && service_accounts.is_empty()
            && ip_blocks.is_empty()
            && remote_ip_blocks.is_empty()
    }
}

/// What is asked: all given fields must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Operation {
    /// Of what is dialled where the policy has targets, otherwise of the workload.
    pub ports: Values<u16>,
    /// Compared without regard to case (HTTP).
    pub hosts: Values<StringMatch>,
    /// (HTTP)
    pub methods: Values<StringMatch>,
    /// Without the query (HTTP).
    pub paths: Values<StringMatch>,
}

impl Operation {
    /// No field is given.
    pub fn is_empty(&self) -> bool {
        let Self { ports, hosts, methods, paths } = self;
        ports.is_empty() && [hosts, methods, paths].into_iter().all(Values::is_empty)
    }
}

/// One `when` clause.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Condition {
    Text {
        key: ConditionKey,
        values: Values<StringMatch>,
    },
    SourceIp(Values<Cidr>),
    RemoteIp(Values<Cidr>),
    DestinationIp(Values<Cidr>),
    DestinationPort(Values<u16>),
    /// A token stands where the rule looks for one (HTTP). What is not HTTP brings none.
    Token(Box<TokenRule>),
}

/// A rule of a RequestAuthentication: where tokens of an issuer stand, what they must be, and what the application is told.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TokenRule {
    pub issuer: Str,
    /// One of these must be meant; none: any may be.
    pub audiences: Vec<Str>,
    pub keys: IssuerKeys,
    pub places: Vec<TokenPlace>,
    /// The application gets the token; else it is taken out of the request.
    pub forwards: bool,
    /// Gets the payload, in base64url.
    #[serde(serialize_with = "optional_header_text")]
    pub payload_header: Option<HeaderName>,
    pub claim_headers: Vec<ClaimHeader>,
    /// Claims whose text is a list, parted by spaces.
    pub spaced: Vec<Str>,
}

impl TokenRule {
    /// The headers that tell the application of claims.
    pub fn told(&self) -> impl Iterator<Item = &HeaderName> {
        self.payload_header.iter().chain(self.claim_headers.iter().map(|it| &it.name))
    }
}

/// Whose signatures count.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum IssuerKeys {
    Inline(Keys),
    /// Fetched where they are needed.
    Remote(Arc<KeySource>),
    /// Not known: every token is refused.
    Unknown,
}

/// A header that gets a claim.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ClaimHeader {
    #[serde(serialize_with = "header_text")]
    pub name: HeaderName,
    /// May be a path, with dots.
    pub claim: Str,
}

/// Where a request may have a token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum TokenPlace {
    /// A header, in which the prefix stands before the token.
    Header {
        name: Str,
        prefix: Str,
    },
    /// A parameter of the query.
    Parameter(Str),
    Cookie(Str),
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum ConditionKey {
    SourcePrincipal,
    SourceNamespace,
    /// `<namespace>/<name>`.
    SourceServiceAccount,
    SourceTrustDomain,
    /// The server that the client asks for in TLS (`connection.sni`), in lower case.
    ServerName,
    /// `request.headers[name]` (HTTP).
    Header(#[serde(serialize_with = "header_text")] HeaderName),
    /// What the request's token says (HTTP).
    Token(TokenText),
}

/// A text, or several, of a token that was verified.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum TokenText {
    /// `<issuer>/<subject>`
    Principal,
    /// `aud`
    Audiences,
    /// `azp`
    Presenter,
    /// `request.auth.claims[a][b]`
    Claim(Vec<Str>),
}

/// The effective PeerAuthentication of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PeerAuthentication {
    pub mode: Mode,
    /// Exceptions by the workload's port.
    pub ports: BTreeMap<u16, Mode>,
}

impl PeerAuthentication {
    pub fn mode_of(&self, port: u16) -> Mode {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub enum Mode {
    /// Mutual TLS and plaintext.
    #[default]
    Permissive,
    /// Mutual TLS only.
    Strict,
}

fn optional_header_text<S: serde::Serializer>(
    name: &Option<HeaderName>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match name {
        Some(name) => to.collect_str(name),
        None => to.serialize_none(),
    }
}

fn header_text<S: serde::Serializer>(name: &HeaderName, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(name)
}
