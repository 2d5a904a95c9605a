//! Heads of messages, read as strictly as hyper reads them: the start line, the fields, and what they say of the body and of the
//! connection (RFC 9112, 2 to 6).

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
};

use super::decode::Decoder;
use super::error::{Error, LONGEST_TARGET};
use super::has_token;
use super::names::Names;

/// Up to so many fields take no memory while they are parsed.
const FEW_FIELDS: usize = 128;

/// Fields that are added to most heads on their way; a map that must grow for them is allocated twice.
const ADDED: usize = 6;

/// A request, and what it says of its body.
pub(in crate::l7) struct RequestHead {
    pub(in crate::l7) request: Request<()>,
    pub(in crate::l7) names: Option<Names>,
    /// `None`: it has none.
    pub(in crate::l7) body: Option<Decoder>,
    pub(in crate::l7) keeps_alive: bool,
    /// The client waits to be asked for the body.
    pub(in crate::l7) expects: bool,
}

/// A response.
pub(in crate::l7) struct ResponseHead {
    pub(in crate::l7) response: Response<()>,
    pub(in crate::l7) names: Option<Names>,
    pub(in crate::l7) keeps_alive: bool,
}

/// What a request asks for, as far as that says whether its response has a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::l7) enum Asks {
    Head,
    /// A tunnel.
    Connect,
    Anything,
}

impl From<&Method> for Asks {
    fn from(method: &Method) -> Self {
        match *method {
            Method::HEAD => Self::Head,
            Method::CONNECT => Self::Connect,
            _ => Self::Anything,
        }
    }
}

impl Asks {
    /// Whether a response of this status has no body, whatever else it says.
    pub(super) fn has_no_body(self, status: StatusCode) -> bool {
        matches!(status.as_u16(), 101 | 204 | 304)
            || self == Self::Head
            || self == Self::Connect && status.is_success()
    }
}

type Field<'a> = httparse::Header<'a>;

/// Has `parse` run with room for so many fields.
fn with_room<'b, T>(most: usize, parse: impl FnOnce(&mut [MaybeUninit<Field<'b>>]) -> T) -> T {
    if most <= FEW_FIELDS {
        return parse(&mut [const { MaybeUninit::uninit() }; FEW_FIELDS][..most]);
    }
    let mut room = Vec::new();
    room.resize_with(most, MaybeUninit::uninit);
    parse(&mut room)
}

/// The request at the beginning of these bytes, and how long its head is. `None` while more must come.
pub(in crate::l7) fn request(
    bytes: &Bytes,
    most_fields: usize,
) -> Result<Option<(RequestHead, usize)>, Error> {
    with_room(most_fields, |room| {
        let mut parsed = httparse::Request::new(&mut []);
        let config = httparse::ParserConfig::default();
        let status = config.parse_request_with_uninit_headers(&mut parsed, bytes, room);
        let length = match status {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::Token) if parsed.method.is_some() => return Err(no_uri("")),
            Err(httparse::Error::Token) => return Err(no_method()),
            Err(error) => return Err(error.into()),
        };
        let mut request = request_line(bytes, &parsed)?;
        let names = fields(bytes, length, parsed.headers, request.headers_mut())?;
        let version = request.version();
        let (body, is_clear) = request_body(request.headers_mut(), version, most_fields)?;
        let headers = request.headers();
        let keeps_alive = is_clear && keeps_alive(headers, version);
        let expected = headers.get_all(EXPECT).iter().next_back();
        let expects =
            expected.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let expects = expects && body.is_some();
        Ok(Some((RequestHead { request, names, body, keeps_alive, expects }, length)))
    })
}

fn no_method() -> Error {
    Error::malformed("invalid HTTP method parsed")
}

fn no_uri(why: &str) -> Error {
    Error::Malformed(format!("invalid URI{why}").into())
}

fn request_line(bytes: &Bytes, parsed: &httparse::Request<'_, '_>) -> Result<Request<()>, Error> {
    let target = parsed.path.unwrap_or_default();
    if target.len() > LONGEST_TARGET {
        return Err(Error::TargetTooLong);
    }
    let mut request = Request::new(());
    let method = Method::from_bytes(parsed.method.unwrap_or_default().as_bytes());
    *request.method_mut() = method.map_err(|_| no_method())?;
    let uri = Uri::from_maybe_shared(bytes.slice_ref(target.as_bytes()));
    *request.uri_mut() = uri.map_err(|error| no_uri(&format!(": {error}")))?;
    *request.version_mut() = version(parsed.version);
    Ok(request)
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 }
}

/// The response at the beginning of these bytes, and how long its head is. `None` while more must come. What old servers send is
/// mended as RFC 9112 asks a proxy: 5.1 for spaces before a colon, 5.2 for folded lines.
pub(in crate::l7) fn response(
    bytes: &Bytes,
    most_fields: usize,
) -> Result<Option<(ResponseHead, usize)>, Error> {
    with_room(most_fields, |room| {
        let mut parsed = httparse::Response::new(&mut []);
        let mut config = httparse::ParserConfig::default();
        config.allow_spaces_after_header_name_in_responses(true);
        config.allow_obsolete_multiline_headers_in_responses(true);
        let length = match config.parse_response_with_uninit_headers(&mut parsed, bytes, room)? {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial => return Ok(None),
        };
        let status = StatusCode::from_u16(parsed.code.unwrap_or_default());
        let status = status.map_err(|_| Error::malformed("invalid HTTP status-code parsed"))?;
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.version_mut() = version(parsed.version);
        let names = fields(bytes, length, parsed.headers, response.headers_mut())?;
        let is_usual = parsed.reason == status.canonical_reason();
        let names = names.or_else(|| (!is_usual).then(|| Names::new(bytes.slice(..length), true)));
        let keeps_alive = keeps_alive(response.headers(), response.version());
        Ok(Some((ResponseHead { response, names, keeps_alive }, length)))
    })
}

/// Puts the fields into a map. Gives how their names were written, where that is not in lower case.
fn fields(
    bytes: &Bytes,
    length: usize,
    parsed: &[Field<'_>],
    headers: &mut HeaderMap,
) -> Result<Option<Names>, Error> {
    let broken = || Error::malformed("invalid HTTP header parsed");
    headers.try_reserve(parsed.len() + ADDED).map_err(|_| Error::TooLarge)?;
    let mut is_lower = true;
    for field in parsed {
        is_lower = is_lower && !field.name.bytes().any(|byte| byte.is_ascii_uppercase());
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| broken())?;
        let value = match field.value.contains(&b'\n') {
            false => bytes.slice_ref(field.value),
            true => unfolded(field.value),
        };
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| broken())?;
        headers.try_append(name, value).map_err(|_| Error::TooLarge)?;
    }
    Ok((!is_lower).then(|| Names::new(bytes.slice(..length), false)))
}

/// A value in one line.
fn unfolded(value: &[u8]) -> Bytes {
    let lines: Vec<&[u8]> = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).collect();
    lines.join(&b' ').into()
}

/// Whether the connection goes on after a message: where any field says that it closes, no other makes up for it.
fn keeps_alive(headers: &HeaderMap, version: Version) -> bool {
    let says = |token| headers.get_all(CONNECTION).iter().any(|value| has_token(value, token));
    !says("close") && (version == Version::HTTP_11 || says("keep-alive"))
}

/// How the body of a request is framed, which is left in the head in one way only. And whether there was one way only: nobody knows
/// what follows a message that others may take for a shorter one (RFC 9112, 6.1).
fn request_body(
    headers: &mut HeaderMap,
    version: Version,
    most_lines: usize,
) -> Result<(Option<Decoder>, bool), Error> {
    let length = one_length(headers, false)?;
    if !headers.contains_key(TRANSFER_ENCODING) {
        if let Some((_, true)) = length
            && let Some(first) = headers.get(CONTENT_LENGTH).cloned()
        {
            headers.insert(CONTENT_LENGTH, first);
        }
        let length = length.map_or(0, |(length, _)| length);
        return Ok(((length > 0).then_some(Decoder::Length(length)), true));
    }
    if version == Version::HTTP_10 {
        return Err(Error::malformed("transfer-encoding header in HTTP/1.0"));
    }
    if !is_chunked(headers) {
        return Err(Error::malformed("invalid transfer-encoding parsed"));
    }
    if length.is_some() {
        headers.remove(CONTENT_LENGTH);
    }
    Ok((Some(Decoder::chunked(most_lines)), length.is_none()))
}

/// How the body of a response is framed; `None` when there is none.
pub(in crate::l7) fn response_body(
    asks: Asks,
    response: &Response<()>,
    most_lines: usize,
) -> Result<Option<Decoder>, Error> {
    let headers = response.headers();
    if asks.has_no_body(response.status()) {
        return Ok(None);
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        if response.version() == Version::HTTP_10 {
            return Err(Error::malformed("transfer-encoding header in HTTP/1.0"));
        }
        let chunked = is_chunked(headers);
        return Ok(Some(if chunked { Decoder::chunked(most_lines) } else { Decoder::Close }));
    }
    Ok(match one_length(headers, true)? {
        Some((0, _)) => None,
        Some((length, _)) => Some(Decoder::Length(length)),
        None => Some(Decoder::Close),
    })
}

/// The length that the head says, and whether it says so more than once. In a response it may be a list of what is the same.
fn one_length(headers: &HeaderMap, lists: bool) -> Result<Option<(u64, bool)>, Error> {
    let mut found = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for text in value.as_bytes().split(|byte| lists && *byte == b',') {
            let text = if lists { text.trim_ascii() } else { text };
            let length = number(text).filter(|length| found.is_none_or(|(it, _)| it == *length));
            let length = length.ok_or_else(|| Error::malformed("invalid content-length parsed"))?;
            found = Some((length, found.is_some()));
        }
    }
    Ok(found)
}

/// Digits and nothing else.
fn number(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    // The largest two are hyper's for bodies without a length.
    let number = str::from_utf8(text).ok().filter(|_| is_number)?.parse().ok();
    number.filter(|number| *number < u64::MAX - 1)
}

/// Whether the last coding is `chunked`.
fn is_chunked(headers: &HeaderMap) -> bool {
    let last = headers.get_all(TRANSFER_ENCODING).iter().next_back();
    let last = last.and_then(|value| value.to_str().ok()?.rsplit(',').next());
    last.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
}
