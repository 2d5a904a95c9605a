//! The values of a policy's fields, as they are written, to what requests and connections are compared with.

use std::net::IpAddr;

use crate::base::path::{self, PathReadings, UnclearPath};
use crate::base::{ObjectKey, Str};
use crate::model::{Cidr, StringMatch};

/// What is wrong with a value that cannot be read, for people.
type Read<T> = Result<T, String>;

/// `text`, `text*`, `*text` or `*`. A star elsewhere is taken as it is, as Istio does.
pub fn text(text: &str) -> Read<StringMatch> {
    let literal = |text: &str| Str::from(text);
    match text {
        "" => Err("is empty; leave the field out to say nothing".to_owned()),
        "*" => Ok(StringMatch::Present),
        _ => match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(_), Some(_)) => Err(format!("{text:?}: only one end can be open")),
            (Some(suffix), None) => Ok(StringMatch::Suffix(literal(suffix))),
            (None, Some(prefix)) => Ok(StringMatch::Prefix(literal(prefix))),
            (None, None) => Ok(StringMatch::Exact(literal(text))),
        },
    }
}

/// Principals are compared without their scheme.
pub fn principal(value: &str) -> Read<StringMatch> {
    text(value.strip_prefix("spiffe://").unwrap_or(value))
}

/// Paths are kept in the one spelling in which those of requests are compared. They may also be templates: `{*}` stands
/// for one segment, `{**}` for any number of them.
pub fn path(value: &str) -> Read<StringMatch> {
    let unclear = |why: UnclearPath| format!("{value:?} {why}; no request can be compared with it");
    let value = &*path::canonical(value).map_err(unclear)?;
    if !value.contains(['{', '}']) {
        let matched = text(value)?;
        return match (&matched, PathReadings::of(value).unclear) {
            (StringMatch::Exact(_), Some(why)) => Err(unclear(why)),
            _ => Ok(matched),
        };
    }
    template(value)
}

/// What Istio admits (its `CheckValidPathTemplate`): literals may follow `{**}`, another operator may not.
fn template(value: &str) -> Read<StringMatch> {
    let mut ended = false;
    for segment in value.trim_matches('/').split('/') {
        match segment {
            "{*}" | "{**}" if ended => {
                return Err(format!("{value:?}: {{**}} must be the last operator of a template"));
            }
            "{*}" => {}
            "{**}" => ended = true,
            _ if is_literal(segment) => {}
            _ => {
                return Err(format!(
                    "{value:?}: a segment of a path template is {{*}}, {{**}} or a text of letters, digits and \
                     -._~%!$&'()+,;:@=, not {segment:?}"
                ));
            }
        }
    }
    Ok(StringMatch::Template(value.into()))
}

/// A segment of a path (RFC 3986, `pchar`) without a star.
fn is_literal(segment: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte);
    // Characters beyond ASCII are not escaped in the canonical spelling.
    !segment.is_empty() && segment.bytes().all(|byte| plain(byte) || !byte.is_ascii())
}

/// An address or a block of addresses; the host's bits of a block do not matter.
pub fn cidr(text: &str) -> Read<Cidr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Cidr::from(address));
    }
    text.parse::<Cidr>()
        .map(|block| block.trunc())
        .map_err(|_| format!("{text:?} is neither an IP address nor a block such as 10.0.0.0/8"))
}

pub fn port(text: &str) -> Read<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if port != 0 && digits => Ok(port),
        _ => Err(format!("{text:?} is not a port from 1 to 65535")),
    }
}

/// `namespace/name`, or `name` in the policy's own namespace. There are no wildcards.
pub fn service_account(own_namespace: &Str, text: &str) -> Read<ObjectKey> {
    let (namespace, name) = text.split_once('/').unwrap_or((own_namespace, text));
    let is_plain = |part: &str| !part.is_empty() && !part.contains(['*', '/']);
    if is_plain(namespace) && is_plain(name) {
        Ok(ObjectKey::new(namespace, name))
    } else {
        Err(format!("{text:?} is neither a service account's name nor namespace/name"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of Istio's own tests, and more.
    #[test]
    fn templates_are_those_of_istio() {
        for good in [
            "/{*}/foo",
            "/{*}/foo/",
            "/foo/{**}/bar",
            "/foo/bar/{**}",
            "/{**}/health",
            "/files/{**}/",
            "/{*}/{*}/{**}/a/b",
            "/{**}",
            "/{*}",
            "/{**}/-._~%20!$&'()+,;:@=",
            "/caf\u{e9}/{*}",
        ] {
            assert!(matches!(path(good), Ok(StringMatch::Template(_))), "{good}");
        }
        for bad in [
            "/foo/{**}buzz/bar",
            "/{*}/foo/{}/bar",
            "/foo/{*}/bar/*",
            "/foo/{*}/bar/**/buzz",
            "/foo/{buzz}/bar",
            "/{buzz}",
            "/foo/{buzz=*}/bar/{**}",
            "/{*}/foo/{**}bar",
            "/{*}/foo/{*}.txt",
            "/{*}/foo/{temp",
            "/{*}/foo/temp}/bar",
            "/{*}/foo/temp}/*",
            "/{**}/foo/temp/{*}/bar",
            "/{**}/{**}",
            "/{**}/foo/temp/{**}/bar",
            "/{*}/foo/?abc",
            "/{*}//foo",
            "/{***}",
            "/{*}/a b",
        ] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_numbers() {
        for (text, expected) in [
            ("80", Some(80)),
            ("080", Some(80)),
            ("65535", Some(65535)),
            ("0", None),
            ("65536", None),
            ("+80", None),
            ("-1", None),
            ("80 ", None),
            ("http", None),
            ("80-90", None),
            ("", None),
        ] {
            assert_eq!(port(text).ok(), expected, "{text:?}");
        }
    }
}
