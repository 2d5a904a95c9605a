//! The filters of VirtualServices (Istio, HTTPRoute). Where Envoy does a thing otherwise than Gateway API wants it, the filter here
//! does it as Envoy, so that objects which come from Istio mean the same.

mod cors;
mod direct_response;
mod fault;
mod headers;
mod redirect;
mod rewrite;
mod text;

pub use cors::{CorsPolicy, Written as WrittenCorsPolicy};
pub use direct_response::{DirectResponse, Written as WrittenDirectResponse};
pub use fault::{Percent, Written as WrittenFault};
pub use headers::{Operations, Written as WrittenHeaders};
pub use redirect::{RedirectTo, Written as WrittenRedirect};
pub use rewrite::{UriRewrite, Written as WrittenRewrite};
pub use text::StringMatch;

use http::uri::PathAndQuery;

use super::Fault;
use crate::base::Str;

/// A path of a manifest: it begins with a slash, and has no query.
fn path(field: &str, text: &str) -> Result<Str, Fault> {
    let parsed = PathAndQuery::try_from(text).ok();
    let is_path = parsed.is_some_and(|parsed| parsed.as_str() == text && parsed.path() == text);
    match is_path && text.starts_with('/') {
        true => Ok(text.into()),
        false => {
            let why = format!("{text:?} is not a path that a request can have, without a query");
            Err(Fault::field(field, why))
        }
    }
}

/// The path with what follows the first `length` bytes behind `with`. A rule whose match is that long leads here, so that there
/// are as many.
fn replaced_start(path: &str, length: usize, with: &str) -> String {
    let rest = path.get(length..).unwrap_or_default();
    format!("{with}{rest}")
}
