//! How messages tell their length (RFC 9112, 6), and how much a head may hold.
//!
//! Bodies are read by these rules and written anew, so what is left to do here is to refuse what was read and could
//! not be passed on as it was meant, and to take out of the head what does not hold any more.

use http::header::{CONTENT_LENGTH, COOKIE, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Response, StatusCode};

use crate::l7::budget::sizes::HTTP1_BUFFER;

/// The longest head of a message that is read, in bytes; over HTTP/2 as RFC 9113, 6.5.2, counts them.
pub(in crate::l7) const LONGEST_HEAD: usize = HTTP1_BUFFER;

/// The only transfer coding that is understood.
const CHUNKED: &str = "chunked";
/// What old servers write for none (RFC 2616, 3.6).
const IDENTITY: &str = "identity";

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::l7) struct Fault {
    pub(in crate::l7) status: StatusCode,
    pub(in crate::l7) why: &'static str,
}

impl From<&'static str> for Fault {
    fn from(why: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, why }
    }
}

/// What is wrong with the number of a request's fields, or with its transfer codings. A coding besides `chunked` would stay
/// on the body while nothing tells of it any more (RFC 9112, 6.1: 501); `chunked` twice is a way to have two servers
/// find different ends.
pub(in crate::l7) fn check_request(headers: &HeaderMap, most_fields: usize) -> Result<(), Fault> {
    if fields(headers) > most_fields {
        let why = "the head has more fields than [layer7] max_headers";
        return Err(Fault { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why });
    }
    if !headers.contains_key(TRANSFER_ENCODING) {
        return Ok(());
    }
    let why = "a transfer coding besides chunked";
    let unknown = Fault { status: StatusCode::NOT_IMPLEMENTED, why };
    let mut chunked = 0;
    for coding in codings(headers) {
        match coding {
            Some(coding) if coding.eq_ignore_ascii_case(CHUNKED) => chunked += 1,
            _ => return Err(unknown),
        }
    }
    match chunked {
        0 | 1 => Ok(()),
        _ => Err("more than one transfer coding chunked".into()),
    }
}

/// How many fields a head has. Browsers send each cookie of a site by itself over HTTP/2 (RFC 9113, 8.2.3), which is one
/// field over HTTP/1. A transfer coding belongs to the connection, and agents add it between them.
fn fields(headers: &HeaderMap) -> usize {
    let cookies = headers.get_all(COOKIE).iter().count().saturating_sub(1);
    headers.len() - cookies - headers.get_all(TRANSFER_ENCODING).iter().count()
}

/// Why a response cannot be passed on. `chunked` that is said twice was applied once by the servers that do so.
pub(in crate::l7) fn check_response<B>(
    response: &Response<B>,
    most_fields: usize,
) -> Result<(), String> {
    let headers = response.headers();
    if fields(headers) > most_fields {
        return Err(format!(
            "the application's response has {} fields in its head, more than {most_fields} ([layer7] max_headers)",
            fields(headers)
        ));
    }
    if !headers.contains_key(TRANSFER_ENCODING) {
        return Ok(());
    }
    let known = |coding: Option<&str>| {
        coding
            .is_some_and(|it| it.eq_ignore_ascii_case(CHUNKED) || it.eq_ignore_ascii_case(IDENTITY))
    };
    match codings(headers).all(known) {
        true => Ok(()),
        false => {
            Err("the application's response has a transfer coding besides chunked, which nobody has asked for".to_owned())
        }
    }
}

/// The transfer codings of a message in their order; `None` for what is no text.
fn codings(headers: &HeaderMap) -> impl Iterator<Item = Option<&str>> {
    let values = headers.get_all(TRANSFER_ENCODING).into_iter();
    values
        .flat_map(|value| value.to_str().map_or("\0", |text| text).split(','))
        .map(str::trim)
        .filter(|coding| !coding.is_empty())
        .map(|coding| (coding != "\0").then_some(coding))
}

/// Leaves at most one length in the head of a message, and none that does not hold: a transfer coding overrides it
/// (RFC 9112, 6.3), and a 204 has none (RFC 9110, 8.6). Several that are equal mean one; the parser has refused others.
pub(in crate::l7) fn settle_length(headers: &mut HeaderMap, status: Option<StatusCode>) {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return };
    if headers.contains_key(TRANSFER_ENCODING) || status == Some(StatusCode::NO_CONTENT) {
        remove(headers, &[CONTENT_LENGTH]);
        return;
    }
    let list = first.as_bytes().contains(&b',');
    if lengths.next().is_none() && !list {
        return;
    }
    let text = first.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default();
    if let Ok(one) = HeaderValue::from_bytes(text.trim_ascii()) {
        headers.insert(CONTENT_LENGTH, one);
    }
}

/// Removes headers and leaves the others in their order, which `HeaderMap::remove` does not.
pub(in crate::l7) fn remove(headers: &mut HeaderMap, names: &[HeaderName]) {
    if !names.iter().any(|name| headers.contains_key(name)) {
        return;
    }
    let mut kept = HeaderMap::with_capacity(headers.keys_len());
    let mut current = None;
    for (name, value) in headers.drain() {
        current = name.or(current);
        if let Some(name) = current.as_ref().filter(|name| !names.contains(name)) {
            kept.append(name, value);
        }
    }
    *headers = kept;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn status(fields: &[(&'static str, &'static str)]) -> Option<u16> {
        check_request(&headers(fields), 100).err().map(|fault| fault.status.as_u16())
    }

    #[test]
    fn requests_are_chunked_once_or_not_at_all() {
        let coding = "transfer-encoding";
        assert_eq!(status(&[]), None);
        assert_eq!(status(&[(coding, "Chunked")]), None);
        assert_eq!(status(&[(coding, "chunked, ")]), None);
        for other in ["gzip, chunked", "gzip", "identity", "chunked;q=1", "x\u{1}"] {
            let Ok(value) = HeaderValue::from_str(other) else { continue };
            let headers = HeaderMap::from_iter([(TRANSFER_ENCODING, value)]);
            let status = check_request(&headers, 100).unwrap_err().status;
            assert_eq!(status, StatusCode::NOT_IMPLEMENTED, "{other}");
        }
        assert_eq!(status(&[(coding, "chunked, chunked")]), Some(400));
        assert_eq!(status(&[(coding, "chunked"), (coding, "chunked")]), Some(400));
    }

    #[test]
    fn a_head_has_as_many_fields_as_the_setting_says() {
        let fields = [("a", "1"), ("b", "2"), ("b", "3")];
        assert_eq!(check_request(&headers(&fields), 3), Ok(()));
        assert_eq!(check_request(&headers(&fields), 2).unwrap_err().status, 431);
        let cookies = [("a", "1"), ("cookie", "2"), ("cookie", "3"), ("cookie", "4")];
        assert_eq!(check_request(&headers(&cookies), 2), Ok(()));
        let mut response = Response::new(());
        *response.headers_mut() = headers(&fields);
        assert!(check_response(&response, 3).is_ok());
        assert!(check_response(&response, 2).unwrap_err().contains("max_headers"));
    }

    #[test]
    fn responses_have_no_coding_that_stays() {
        for (value, passes) in [
            ("chunked", true),
            ("chunked, chunked", true),
            ("identity", true),
            ("gzip, chunked", false),
            ("gzip", false),
        ] {
            let mut response = Response::new(());
            response.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static(value));
            assert_eq!(check_response(&response, 100).is_ok(), passes, "{value}");
        }
    }

    #[test]
    fn one_length_stays_or_none() {
        let length = "content-length";
        for (fields, status, left) in [
            (&[(length, "3")][..], 200, Some("3")),
            (&[(length, "3"), (length, "3")], 200, Some("3")),
            (&[(length, "3, 3")], 200, Some("3")),
            (&[(length, "3"), ("transfer-encoding", "chunked")], 200, None),
            (&[(length, "0")], 204, None),
            (&[(length, "3")], 304, Some("3")),
            (&[("x", "y")], 200, None),
        ] {
            let mut headers = headers(fields);
            settle_length(&mut headers, StatusCode::from_u16(status).ok());
            let found: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
            assert_eq!(found, left.as_slice(), "{fields:?}");
        }
    }

    #[test]
    fn what_stays_keeps_its_order() {
        let mut map = headers(&[("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("d", "5")]);
        remove(&mut map, &[HeaderName::from_static("b"), HeaderName::from_static("x")]);
        let left: Vec<_> =
            map.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(left, [("a", "1"), ("a", "3"), ("c", "4"), ("d", "5")]);
    }
}
