//! What rules do to requests and responses (Gateway API, HTTPRouteFilter): one filter, one file, which holds its data, how it
//! is written, what it does, and its tests.
//!
//! The table below is the registration; from it come the enumerations of filters, what may stand in a manifest, and the
//! dispatch, which is static. A filter that rules do not have costs nothing.
//!
//! A filter has three moments. [`Filter::request`] decides on the request as the client sent it, and may answer.
//! [`Filter::change`] changes what is forwarded, and is pure: the destination computes it again to verify that what
//! arrived is what the client sent. [`Filter::response`] changes the response. A header that `request` sets to something
//! that the destination cannot compute must be declared in [`Filter::volatile`]; otherwise the destination would take what
//! arrived for what the client sent, and a policy on the original path would stop matching.
//!
//! This room knows no sockets and no objects beside its own parts of them.

mod answer;
pub mod backend;
mod chain;
mod cors;
mod header_modifier;
mod mirror;
mod path;
mod redirect;
mod rewrite;
mod share;
mod table;

pub use answer::{Answer, Flow};
pub use backend::{BackendObject, BackendRef};
pub use chain::{Pair, Seen, change, changes, remember, respond, volatile};
pub use cors::{Cors, OriginPattern, Permitted};
pub use header_modifier::{HeaderFilter, RequestHeaders, ResponseHeaders};
pub use mirror::Mirror;
pub use path::PathRewrite;
pub use redirect::Redirect;
pub use rewrite::Rewrite;
pub use share::Share;

use std::fmt::Debug;

use http::{HeaderMap, HeaderName, Method, Uri};
use serde::de::DeserializeOwned;

use crate::base::{Str, schema};
use Place::{Grpc, Http};

table::filters! {
    // Variant, type: its type in the API, its field, on which routes, how often in a list, never beside.
    RequestHeaders(RequestHeaders): "RequestHeaderModifier", "requestHeaderModifier", [Http, Grpc], Once, [];
    ResponseHeaders(ResponseHeaders): "ResponseHeaderModifier", "responseHeaderModifier", [Http, Grpc], Once, [];
    Mirror(Mirror): "RequestMirror", "requestMirror", [Http, Grpc], Often, [];
    Redirect(Redirect): "RequestRedirect", "requestRedirect", [Http], Once, ["URLRewrite"];
    Rewrite(Rewrite): "URLRewrite", "urlRewrite", [Http], Once, [];
    Cors(Cors): "CORS", "cors", [Http], Once, [];
}

/// Types that the API has and that are not carried out, with their fields: a rule with one is dropped.
pub const UNSUPPORTED: [(&str, &str); 2] =
    [("ExtensionRef", "extensionRef"), ("ExternalAuth", "externalAuth")];

/// One filter.
pub trait Filter: Sized {
    /// As it is written. What does not fit this type, and fields that the API does not have, refuse the whole object.
    type Manifest: DeserializeOwned + Clone + Debug;
    /// What the API server takes.
    const SCHEMA: schema::Rule;
    /// [`Filter::change`] may change something.
    const CHANGES: bool = false;
    /// Every request is answered here, so that nothing is forwarded.
    const ANSWERS: bool = false;

    /// From the manifest, with what the rule around it says. Pure. A fault drops the rule.
    fn read(manifest: &Self::Manifest, rule: &dyn RuleContext) -> Result<Self, Fault>;

    /// Decides on the request as the client sent it, at the client's half and once. Headers that it sets are `volatile`.
    fn request(&self, _head: &mut RequestHead<'_>, _cx: &Cx) -> Flow {
        Flow::Next
    }

    /// Changes what is forwarded. Pure: the destination computes it again.
    fn change(&self, _uri: &mut Uri, _headers: &mut HeaderMap) {}

    /// A header of the request as the client sent it that `response` looks at.
    fn remembers(&self) -> Option<HeaderName> {
        None
    }

    /// Changes the head of the response.
    fn response(&self, _headers: &mut HeaderMap, _seen: &Seen) {}

    /// Headers that `request` may set to anything.
    fn volatile(&self) -> &[HeaderName] {
        &[]
    }

    /// Takes over the state of the filter that stood here before a change of the route.
    fn inherit(&mut self, _before: &Self) {}

    /// Manifests, for the tests of the table.
    #[cfg(test)]
    fn samples() -> Vec<serde_json::Value>;
}

/// The head of a request in canonical form, as the client sent it.
pub struct RequestHead<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub headers: &'a mut HeaderMap,
}

/// What else is known of a request.
#[derive(Clone, Copy, Debug)]
pub struct Cx {
    /// The port that was dialled.
    pub port: u16,
}

/// The rule around a filter, while it is read.
pub trait RuleContext {
    /// The prefix by which the rule matches, without a slash at its end; `None` unless it has exactly one match, of that
    /// type.
    fn prefix(&self) -> Option<Str>;

    /// What a reference leads to. Where that is nothing, it is complained of with the reference's field.
    fn backend(&self, field: &str, object: &BackendObject) -> Option<BackendRef>;
}

/// Why a filter cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its own field says what we do not carry out, or nobody could.
    Field { field: String, why: String },
    /// It does not go with the rule around it; the field is relative to the entry in the list.
    Rule { field: &'static str, why: String },
    /// A reference leads nowhere, and the rule goes on without the filter.
    LeadsNowhere,
}

impl Fault {
    pub fn field(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Field { field: field.into(), why: why.into() }
    }
}

/// What may stand in a route.
#[derive(Debug)]
pub struct Row {
    /// Its type in the API.
    pub name: &'static str,
    /// The member that goes with the type.
    pub field: &'static str,
    /// On which routes it may stand.
    pub on: &'static [Place],
    pub often: Often,
    /// Types of the API beside which it never stands.
    pub never_beside: &'static [&'static str],
    /// See [`Filter::ANSWERS`].
    pub answers: bool,
}

/// Where a filter may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Http,
    Grpc,
}

/// How often a filter may stand in one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Often {
    Once,
    Often,
}

impl Row {
    pub fn named(name: &str) -> Option<&'static Row> {
        ROWS.iter().find(|row| row.name == name)
    }

    /// Whether both may stand in one list.
    pub fn excludes(&self, other: &Row) -> bool {
        self.never_beside.contains(&other.name) || other.never_beside.contains(&self.name)
    }
}

fn text<T: std::fmt::Display, S: serde::Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

#[cfg(test)]
mod tests;
