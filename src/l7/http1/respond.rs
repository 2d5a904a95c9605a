//! The head of a response as a server writes it: what it says of the body is what is sent, whatever the application said.

use bytes::BufMut;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderName, Response, StatusCode};

use super::encode::{Decimal, Framing};
use super::head::Asks;
use super::names;
use super::outgoing::Outgoing;
use super::writer::Writer;

/// What the response must know of its request.
pub(super) struct Asked {
    pub(super) asks: Asks,
    /// Over HTTP/1.0.
    pub(super) is_old: bool,
    pub(super) keeps_alive: bool,
    pub(super) takes_trailers: bool,
}

/// Writes a head. Gives how the body is written, and whether the connection still goes on.
pub(super) fn put<B: Outgoing>(
    writer: &mut Writer,
    response: &Response<B>,
    asked: &Asked,
    keeps_alive: &mut bool,
) -> Framing {
    let (status, headers) = (response.status(), response.headers());
    let said = headers.get(CONTENT_LENGTH);
    let said = said.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let framing = framing(response, asked, said);
    *keeps_alive &= framing != Framing::Close && !super::says(headers, CONNECTION, "close");
    // It would be a tunnel from here on.
    *keeps_alive &= asked.asks != Asks::Connect || !status.is_success();
    let is_switched = status == StatusCode::SWITCHING_PROTOCOLS;
    let length = if let Framing::Length(length) = framing { length } else { 0 };
    let digits = Decimal::new(length);
    // Of the body, where the head does not say so itself.
    let (holds, of_body): (bool, Option<(HeaderName, &[u8])>) = match framing {
        Framing::None => (status != StatusCode::NO_CONTENT && !is_switched, None),
        Framing::Length(length) if said == Some(length) => (true, None),
        Framing::Length(_) => (false, Some((CONTENT_LENGTH, digits.text()))),
        Framing::Chunked(_) => (false, Some((TRANSFER_ENCODING, b"chunked"))),
        Framing::Close => (false, None),
    };
    let of_connection: Option<(HeaderName, &[u8])> = match (*keeps_alive, asked.is_old) {
        _ if is_switched => None,
        (false, _) => Some((CONNECTION, b"close")),
        (true, true) => Some((CONNECTION, b"keep-alive")),
        (true, false) => None,
    };
    let left_out: &[HeaderName] = match (holds, &of_connection) {
        (true, None) => &[TRANSFER_ENCODING],
        (false, None) => &[TRANSFER_ENCODING, CONTENT_LENGTH],
        (true, Some(_)) => &[TRANSFER_ENCODING, CONNECTION],
        (false, Some(_)) => &[TRANSFER_ENCODING, CONNECTION, CONTENT_LENGTH],
    };
    let names = response.body().names();
    let out = writer.buffer(names::length(headers) + 128);
    out.put_slice(if asked.is_old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.put_slice(status.as_str().as_bytes());
    out.put_slice(b" ");
    let usual = || status.canonical_reason().unwrap_or("<none>").as_bytes();
    out.put_slice(names.and_then(|names| names.reason(status)).unwrap_or_else(usual));
    out.put_slice(b"\r\n");
    names::put(out, headers, names, left_out, of_body.into_iter().chain(of_connection));
    out.put_slice(b"\r\n");
    framing
}

fn framing<B: Outgoing>(response: &Response<B>, asked: &Asked, said: Option<u64>) -> Framing {
    let (status, body) = (response.status(), response.body());
    let length = if body.is_end_stream() { Some(0) } else { body.size_hint().exact().or(said) };
    match length {
        _ if asked.asks.has_no_body(status) => Framing::None,
        Some(length) => Framing::Length(length),
        None if asked.is_old => Framing::Close,
        None => Framing::chunked(response.headers(), asked.takes_trailers),
    }
}

/// Answers what is no request.
pub(super) fn put_refusal(writer: &mut Writer, status: StatusCode) {
    let out = writer.buffer(128);
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
}
