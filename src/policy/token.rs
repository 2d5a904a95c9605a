//! The tokens that a request brings (Istio, RequestAuthentication). Erring, this sees one too many: a token that is
//! overlooked here is believed by the application.

use std::borrow::Cow;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName};

use super::Request;
use crate::base::{Str, alike};
use crate::model::TokenPlace;

/// In one of these places.
pub(super) fn is_brought(places: &[TokenPlace], request: &Request<'_>) -> bool {
    places.iter().any(|place| brought(place, request).next().is_some())
}

/// What stands in a place. It is seldom more than one token.
pub(super) fn brought<'r>(
    place: &TokenPlace,
    request: &Request<'r>,
) -> impl Iterator<Item = Cow<'r, str>> + use<'r> {
    let found = match place {
        TokenPlace::Header { name, prefix } => in_header(request.headers, name, prefix),
        TokenPlace::Parameter(name) => in_query(request.path, name),
        TokenPlace::Cookie(name) => in_cookie(request.headers, name),
    };
    found.into_iter()
}

/// Schemes are compared without regard to case (RFC 9110, 11.1), and one header may list several (RFC 9110, 5.3).
fn in_header<'r>(headers: &'r HeaderMap, name: &str, prefix: &str) -> Vec<Cow<'r, str>> {
    let Ok(name) = HeaderName::try_from(name) else { return Vec::new() };
    let prefix = prefix.trim().as_bytes();
    let values = alike(headers, name.as_str()).flat_map(|name| headers.get_all(name));
    let parts = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let parts = parts.map(<[u8]>::trim_ascii).filter(|part| !part.is_empty());
    let tokens = parts.filter_map(|part| {
        let (start, rest) = part.split_at_checked(prefix.len())?;
        start.eq_ignore_ascii_case(prefix).then(|| String::from_utf8_lossy(rest.trim_ascii()))
    });
    tokens.collect()
}

/// Names may be written with escapes, and some servers part parameters at semicolons too.
fn in_query<'r>(path: &'r str, name: &str) -> Vec<Cow<'r, str>> {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let parameters = query.split(';').flat_map(|part| form_urlencoded::parse(part.as_bytes()));
    let named = parameters.filter(|(key, value)| key == name && !value.is_empty());
    named.map(|(_, value)| value).collect()
}

/// A path without the parameters of these names, wherever [`in_query`] sees them.
pub(super) fn without(path: &str, names: &[Str]) -> String {
    let Some((before, query)) = path.split_once('?') else { return path.to_owned() };
    let is_named = |piece: &str| {
        let mut parsed = form_urlencoded::parse(piece.as_bytes());
        parsed.any(|(key, _)| names.iter().any(|name| **name == *key))
    };
    let mut kept = String::with_capacity(query.len());
    let mut last = "";
    for piece in query.split_inclusive(['&', ';']) {
        let text = piece.trim_end_matches(['&', ';']);
        if !is_named(text) {
            if !kept.is_empty() {
                kept.push_str(last);
            }
            kept.push_str(text);
            last = &piece[text.len()..];
        }
    }
    match kept.is_empty() {
        true => before.to_owned(),
        false => format!("{before}?{kept}"),
    }
}

/// Pairs are parted at commas too, as some servers do (RFC 2109, 4.3.4).
fn in_cookie<'r>(headers: &'r HeaderMap, name: &str) -> Vec<Cow<'r, str>> {
    let values = headers.get_all(COOKIE).iter();
    let pairs = values.flat_map(|value| value.as_bytes().split(|byte| matches!(byte, b';' | b',')));
    let tokens = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let rest = pair.strip_prefix(name.as_bytes()).map(<[u8]>::trim_ascii_start)?;
        let value = rest.strip_prefix(b"=")?.trim_ascii();
        let quoted = value.strip_prefix(b"\"").and_then(|it| it.strip_suffix(b"\""));
        Some(quoted.unwrap_or(value)).filter(|it| !it.is_empty()).map(String::from_utf8_lossy)
    });
    tokens.collect()
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};

    use super::*;

    fn header(name: &str, prefix: &str) -> TokenPlace {
        TokenPlace::Header { name: name.into(), prefix: prefix.into() }
    }

    #[test]
    fn a_token_is_seen_however_it_is_written() {
        let bearer = || header("Authorization", "Bearer ");
        let bare = || header("x-jwt", "");
        let parameter = || TokenPlace::Parameter("access_token".into());
        let cookie = || TokenPlace::Cookie("jwt".into());
        for (place, path, headers, brought) in [
            (bearer(), "/", &[][..], false),
            (bearer(), "/", &[("authorization", "Bearer a.b.c")], true),
            (bearer(), "/", &[("authorization", "bearer a.b.c")], true),
            (bearer(), "/", &[("authorization", "  BEARER\ta.b.c")], true),
            (bearer(), "/", &[("authorization", "Bearer")], true),
            (bearer(), "/", &[("authorization", "Basic eDp5")], false),
            (
                bearer(),
                "/",
                &[("authorization", "Basic eDp5"), ("authorization", "Bearer t")],
                true,
            ),
            (bearer(), "/", &[("authorization", "Basic eDp5, Bearer t")], true),
            (bearer(), "/", &[("authorization", "")], false),
            (bearer(), "/?access_token=t", &[], false),
            (bare(), "/", &[("x-jwt", "t")], true),
            (bare(), "/", &[("x_jwt", "t")], true),
            (bare(), "/", &[("x-jwt", " ")], false),
            (bare(), "/", &[("authorization", "Bearer t")], false),
            (header("not a name", ""), "/", &[("x-jwt", "t")], false),
            (parameter(), "/?access_token=t", &[], true),
            (parameter(), "/?a=1&access_token=t", &[], true),
            (parameter(), "/?a=1;access_token=t", &[], true),
            (parameter(), "/?acc%65ss_token=t", &[], true),
            (parameter(), "/?a=1?access_token=t", &[], false),
            (parameter(), "/?access_token=", &[], false),
            (parameter(), "/?Access_Token=t", &[], false),
            (parameter(), "/access_token=t", &[], false),
            (cookie(), "/", &[("cookie", "a=b; jwt=t")], true),
            (cookie(), "/", &[("cookie", "a=b"), ("cookie", "jwt=t")], true),
            (cookie(), "/", &[("cookie", "jwt =t")], true),
            (cookie(), "/", &[("cookie", "a=b, jwt=t")], true),
            (cookie(), "/", &[("cookie", "xjwt=t; jwt2=t; jwt=")], false),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                let name: HeaderName = name.parse().unwrap();
                map.append(name, HeaderValue::from_str(value).unwrap());
            }
            let request = Request { method: &Method::GET, path, host: "web.shop", headers: &map };
            let seen = is_brought(std::slice::from_ref(&place), &request);
            assert_eq!(seen, brought, "{place:?} {path} {headers:?}");
        }
    }

    #[test]
    fn a_token_is_read_without_what_stands_around_it() {
        let mut headers = HeaderMap::new();
        headers.append("authorization", HeaderValue::from_static("Basic x, bearer  a.b.c "));
        headers.append("authorization", HeaderValue::from_static("Bearer d"));
        headers.append("cookie", HeaderValue::from_static("t=\"a.b.c\"; t = d"));
        let path = "/?t=a%2Eb.c&u=1;t=d";
        let request = Request { method: &Method::GET, path, host: "web", headers: &headers };
        for place in [
            header("authorization", "Bearer "),
            TokenPlace::Parameter("t".into()),
            TokenPlace::Cookie("t".into()),
        ] {
            assert_eq!(brought(&place, &request).collect::<Vec<_>>(), ["a.b.c", "d"], "{place:?}");
        }
    }

    #[test]
    fn parameters_are_taken_out() {
        for (path, expected) in [
            ("/a", "/a"),
            ("/a?t=1", "/a"),
            ("/a?t=1&b=2", "/a?b=2"),
            ("/a?b=2&t=1;c=3", "/a?b=2&c=3"),
            ("/a?b=2;%74=1", "/a?b=2"),
            ("/a?b=t&c&t", "/a?b=t&c"),
            ("/a?b=%20&t=1&t=2", "/a?b=%20"),
        ] {
            assert_eq!(without(path, &["t".into()]), expected);
        }
    }
}
