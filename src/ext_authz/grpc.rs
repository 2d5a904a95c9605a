//! One call of gRPC, as a request and its answer.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, TE};
use http::{HeaderValue, Method, Request, Uri};
use prost::Message;

/// The length of what stands before a message: whether it is compressed, and how long it is.
pub(super) const PREFIX: usize = 5;

/// A call of the method at `path`, of the service at `host`.
pub(super) fn request(path: &'static str, host: &str, message: &impl Message) -> Request<Bytes> {
    let mut framed = BytesMut::with_capacity(PREFIX + message.encoded_len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    framed.extend_from_slice(&message.encode_to_vec());
    let mut request = Request::new(framed.freeze());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(path);
    let headers = request.headers_mut();
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(HOST, host);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    request
}

/// The message of an answer; or why there is none. `status`: of gRPC.
pub(super) fn answer<M: Message + Default>(status: Option<u32>, body: &[u8]) -> Result<M, String> {
    match status {
        Some(0) => {}
        Some(status) => return Err(format!("it answers with the status {status} of gRPC")),
        None => return Err("its answer is none of gRPC".to_owned()),
    }
    let message = match body.split_at_checked(PREFIX) {
        Some(([0, length @ ..], message)) if is_length(length, message.len()) => message,
        _ => return Err("its answer is not one message of gRPC".to_owned()),
    };
    M::decode(message).map_err(|error| format!("its answer cannot be read: {error}"))
}

fn is_length(bytes: &[u8], length: usize) -> bool {
    let told = bytes.try_into().map(u32::from_be_bytes).ok();
    told.and_then(|told| usize::try_from(told).ok()) == Some(length)
}
