//! Fuzz targets of what tunnel peers send, with the invariants that must hold for any input.

use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};

use super::headers::MAX_BAGGAGE;
use super::{Baggage, ConnectRequest, frames, parse_authority};

/// The request that opens a stream: a line with `:authority`, then lines `name: value`.
pub fn connect(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let authority = lines.next().unwrap_or_default();
    let Ok(uri) = Uri::builder().authority(authority).build() else { return };
    let mut request = Request::builder().method(Method::CONNECT).version(Version::HTTP_2).uri(uri);
    for line in lines {
        let Some(at) = line.windows(2).position(|two| two == b": ") else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..at]), &line[at + 2..]);
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) else { continue };
        request = request.header(name, value);
    }
    let Ok(request) = request.body(()) else { return };
    let (head, ()) = request.into_parts();
    let Some(read) = ConnectRequest::from_http(&head) else { return };
    let names = read.forwarded_host.as_ref();
    assert!(names.is_none_or(|name| !name.contains(|c: char| c.is_ascii_uppercase() || c == ':')));
    let written = read.to_http().map(|request| request.into_parts().0);
    let again = written.ok().and_then(|head| ConnectRequest::from_http(&head));
    assert_eq!(again.as_ref(), Some(&read), "what was read is written and read again");
    read.baggage.iter().for_each(|text| baggage(text));
    if let Some((ip, port)) = parse_authority(&read.authority) {
        assert!(port != 0 && ip == ip.to_canonical());
        let printed = std::net::SocketAddr::new(ip, port).to_string();
        assert_eq!(parse_authority(&printed), Some((ip, port)));
    }
}

fn baggage(text: &str) {
    assert!(text.len() <= MAX_BAGGAGE);
    let read = Baggage::parse(text);
    let written = read.to_string();
    if written.len() <= MAX_BAGGAGE {
        assert_eq!(Baggage::parse(&written), read);
    }
}

/// The frames of an HTTP/2 connection, however the network splits them: a byte with the size of the pieces, then the
/// frames.
pub fn frames(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else { return };
    let pieces: Vec<&[u8]> = bytes.chunks(usize::from(*size).max(1)).collect();
    assert_eq!(frames::count(&pieces), frames::count(&[bytes]), "cuts change what is counted");
}
