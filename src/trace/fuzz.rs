//! What clients send as the context of a trace.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Context, b3, w3c};

/// Any bytes as each of the headers; what is read is written and read as the same.
pub fn context(bytes: &[u8]) {
    let read = [w3c::parse(bytes), b3::parse(bytes)];
    for context in read.into_iter().flatten().filter(|context| !context.span.is_none()) {
        let mut headers = HeaderMap::new();
        context.write(&mut headers);
        let told = Context::read(&headers);
        assert_eq!(told.map(|it| (it.trace, it.span)), Some((context.trace, context.span)));
    }
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    for name in ["x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags", "tracestate"] {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static(name), value.clone());
        _ = Context::read(&headers);
        _ = w3c::state(&headers);
    }
}
