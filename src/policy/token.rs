//! Whether a request brings a token (Istio, RequestAuthentication). Erring, this sees one too many: a token that is
//! overlooked here is believed by the application.

use http::header::COOKIE;
use http::{HeaderMap, HeaderName};

use super::Request;
use crate::model::TokenPlace;

/// In one of these places.
pub(super) fn is_brought(places: &[TokenPlace], request: &Request<'_>) -> bool {
    places.iter().any(|place| match place {
        TokenPlace::Header { name, prefix } => in_header(request.headers, name, prefix),
        TokenPlace::Parameter(name) => in_query(request.path, name),
        TokenPlace::Cookie(name) => in_cookie(request.headers, name),
    })
}

/// Schemes are compared without regard to case (RFC 9110, 11.1), and one header may list several (RFC 9110, 5.3).
fn in_header(headers: &HeaderMap, name: &str, prefix: &str) -> bool {
    let Ok(name) = HeaderName::try_from(name) else { return false };
    let prefix = prefix.trim().as_bytes();
    headers.get_all(name).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|part| {
            let part = part.trim_ascii();
            !part.is_empty()
                && part.get(..prefix.len()).is_some_and(|it| it.eq_ignore_ascii_case(prefix))
        })
    })
}

/// Names may be written with escapes, and some servers part parameters at semicolons too.
fn in_query(path: &str, name: &str) -> bool {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    query.split(';').any(|part| {
        let mut parameters = form_urlencoded::parse(part.as_bytes());
        parameters.any(|(key, value)| key == name && !value.is_empty())
    })
}

fn in_cookie(headers: &HeaderMap, name: &str) -> bool {
    headers.get_all(COOKIE).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b';').any(|pair| {
            let pair = pair.trim_ascii();
            let rest = pair.strip_prefix(name.as_bytes()).map(<[u8]>::trim_ascii_start);
            rest.and_then(|rest| rest.strip_prefix(b"=")).is_some_and(|value| !value.is_empty())
        })
    })
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
            (bare(), "/", &[("x-jwt", " ")], false),
            (bare(), "/", &[("authorization", "Bearer t")], false),
            (header("not a name", ""), "/", &[("x-jwt", "t")], false),
            (parameter(), "/?access_token=t", &[], true),
            (parameter(), "/?a=1&access_token=t", &[], true),
            (parameter(), "/?a=1;access_token=t", &[], true),
            (parameter(), "/?acc%65ss_token=t", &[], true),
            (parameter(), "/?access_token=", &[], false),
            (parameter(), "/?Access_Token=t", &[], false),
            (parameter(), "/access_token=t", &[], false),
            (cookie(), "/", &[("cookie", "a=b; jwt=t")], true),
            (cookie(), "/", &[("cookie", "a=b"), ("cookie", "jwt=t")], true),
            (cookie(), "/", &[("cookie", "jwt =t")], true),
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
}
