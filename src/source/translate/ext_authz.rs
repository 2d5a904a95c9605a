//! Providers of external authorization, from MeshConfig's `extensionProviders` to the model. A provider that cannot be asked as it
//! is written is none: the policies that name it deny.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::base::Str;
use crate::base::schema::parse_istio_duration;
use crate::ext_authz::may_set;
use crate::model::{CheckBody, CheckProtocol, ExtAuthz, HttpCheck, ProviderService, StringMatch};
use crate::policy::values;
use crate::source::objects::{CheckedBody, ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider};

/// Istio's default: ten minutes.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Envoy's.
const STATUS_ON_ERROR: u16 = 403;

/// A field of a provider, and what is wrong with it.
pub(super) type Wrong = (String, String);

/// The provider of external authorization that an entry defines. `None`: it is a provider of another kind.
pub(super) fn provider(entry: &ExtensionProvider) -> Option<Result<ExtAuthz, Wrong>> {
    let name = Str::from(entry.name.as_str());
    match (&entry.envoy_ext_authz_http, &entry.envoy_ext_authz_grpc) {
        (Some(_), Some(_)) => {
            let why = "one provider has one kind, and this has envoyExtAuthzHttp as well";
            Some(Err(("envoyExtAuthzGrpc".to_owned(), why.to_owned())))
        }
        (Some(http), None) => Some(over_http(name, http).map_err(within("envoyExtAuthzHttp"))),
        (None, Some(grpc)) => Some(over_grpc(name, grpc).map_err(within("envoyExtAuthzGrpc"))),
        (None, None) => None,
    }
}

fn within(kind: &str) -> impl Fn(Wrong) -> Wrong {
    move |(field, why)| (format!("{kind}.{field}"), why)
}

fn over_http(name: Str, given: &ExtAuthzHttp) -> Result<ExtAuthz, Wrong> {
    let path_prefix = given.path_prefix.as_deref().unwrap_or_default();
    let is_path = path_prefix.is_empty() || path_prefix.starts_with('/');
    if !is_path || format!("{path_prefix}/").parse::<http::Uri>().is_err() {
        return Err(wrong("pathPrefix", format!("{path_prefix:?} is no path that begins with /")));
    }
    let mut additional_headers = Vec::new();
    for (header, value) in &given.include_additional_headers_in_check {
        let field = format!("includeAdditionalHeadersInCheck[{header:?}]");
        let known = HeaderName::from_bytes(header.as_bytes()).ok().filter(may_set);
        let known = known.ok_or_else(|| wrong(&field, "is no header that a check may have"))?;
        if HeaderValue::from_bytes(value.as_bytes()).is_err() {
            return Err(wrong(&field, "has a value that no header has"));
        }
        additional_headers.push((known.as_str().into(), value.as_str().into()));
    }
    let check = HttpCheck {
        path_prefix: path_prefix.into(),
        include_headers: names(
            "includeRequestHeadersInCheck",
            &given.include_request_headers_in_check,
        )?,
        additional_headers,
        all_upstream: false,
        upstream_on_allow: names("headersToUpstreamOnAllow", &given.headers_to_upstream_on_allow)?,
        downstream_on_deny: names(
            "headersToDownstreamOnDeny",
            &given.headers_to_downstream_on_deny,
        )?,
        downstream_on_allow: names(
            "headersToDownstreamOnAllow",
            &given.headers_to_downstream_on_allow,
        )?,
    };
    let asked = Asked {
        service: &given.service,
        port: given.port,
        timeout: given.timeout.as_deref(),
        fail_open: given.fail_open,
        status_on_error: given.status_on_error.as_deref(),
        body: given.include_request_body_in_check.as_ref(),
    };
    asked.over(name, CheckProtocol::Http(check))
}

fn over_grpc(name: Str, given: &ExtAuthzGrpc) -> Result<ExtAuthz, Wrong> {
    let asked = Asked {
        service: &given.service,
        port: given.port,
        timeout: given.timeout.as_deref(),
        fail_open: given.fail_open,
        status_on_error: given.status_on_error.as_deref(),
        body: given.include_request_body_in_check.as_ref(),
    };
    asked.over(name, CheckProtocol::Grpc { include_headers: Vec::new() })
}

/// What both kinds of providers say.
struct Asked<'a> {
    service: &'a str,
    port: u16,
    timeout: Option<&'a str>,
    fail_open: bool,
    status_on_error: Option<&'a str>,
    body: Option<&'a CheckedBody>,
}

impl Asked<'_> {
    fn over(self, name: Str, protocol: CheckProtocol) -> Result<ExtAuthz, Wrong> {
        let (namespace, hostname) = host(self.service)?;
        Ok(ExtAuthz {
            name,
            service: ProviderService::Host { namespace, hostname },
            port: port(self.port)?,
            timeout: timeout(self.timeout)?,
            fail_open: self.fail_open,
            status_on_error: status(self.status_on_error)?,
            body: body(self.body)?,
            protocol,
        })
    }
}

fn wrong(field: impl Into<String>, why: impl Into<String>) -> Wrong {
    (field.into(), why.into())
}

/// `[namespace/]hostname`
pub(super) fn host(text: &str) -> Result<(Option<Str>, Str), Wrong> {
    let (namespace, hostname) = match text.split_once('/') {
        Some((namespace, hostname)) => (Some(namespace), hostname),
        None => (None, text),
    };
    if hostname.is_empty() || hostname.contains('/') || namespace.is_some_and(str::is_empty) {
        let why = format!("{text:?} is not of the form [namespace/]hostname");
        return Err(wrong("service", why));
    }
    let hostname = hostname.trim_end_matches('.').to_ascii_lowercase();
    Ok((namespace.map(Str::from), hostname.into()))
}

fn port(port: u16) -> Result<u16, Wrong> {
    if port == 0 { Err(wrong("port", "must be from 1 to 65535")) } else { Ok(port) }
}

fn timeout(text: Option<&str>) -> Result<Duration, Wrong> {
    let Some(text) = text else { return Ok(TIMEOUT) };
    let read = parse_istio_duration(text).filter(|timeout| !timeout.is_zero());
    read.ok_or_else(|| wrong("timeout", format!("{text:?} is no duration such as 1.5s")))
}

/// A refusal must look like one.
fn status(text: Option<&str>) -> Result<u16, Wrong> {
    let Some(text) = text else { return Ok(STATUS_ON_ERROR) };
    let read = text.parse().ok().filter(|status| (400..=599).contains(status));
    read.ok_or_else(|| wrong("statusOnError", format!("{text:?} is no status from 400 to 599")))
}

fn body(given: Option<&CheckedBody>) -> Result<Option<CheckBody>, Wrong> {
    let Some(given) = given else { return Ok(None) };
    if given.max_request_bytes == 0 {
        let field = "includeRequestBodyInCheck.maxRequestBytes";
        return Err(wrong(field, "must be more than 0"));
    }
    Ok(Some(CheckBody {
        max_bytes: given.max_request_bytes,
        allow_partial: given.allow_partial_message,
        as_bytes: given.pack_as_bytes,
    }))
}

/// Names of headers: whole, `text*` or `*text`.
fn names(field: &str, given: &[String]) -> Result<Vec<StringMatch>, Wrong> {
    let read = |(index, text): (usize, &String)| {
        let name = text.to_ascii_lowercase();
        let bare = name.trim_matches('*');
        let is_name = HeaderName::from_bytes(bare.as_bytes()).is_ok();
        let found = values::text(&name).ok().filter(|_| is_name && !bare.contains('*'));
        found.ok_or_else(|| {
            let why =
                format!("{text:?} is no name of a header, nor the begin or end of one with *");
            wrong(format!("{field}[{index}]"), why)
        })
    };
    given.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests;
