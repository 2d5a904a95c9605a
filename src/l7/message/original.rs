//! The original values of a request that the client's half changed, carried across the tunnel so that policies at
//! the destination see the request as the client sent it.
//!
//! The header is written by an agent, yet the destination takes nothing in it on trust: it only holds when the filters of a route
//! in the addressed service's own namespace lead from the original request to exactly the one that arrived. So a peer can choose
//! among the requests that such a route turns into this one, and nothing else. Applications never see the header, and can neither
//! send it.
//!
//! Encoding, in base64: one byte of version; the original target (two bytes of length, big endian, and the bytes; none
//! when it did not change); then per header whose values changed: the name (a length byte and the bytes), the number
//! of original values (a byte, 0 when the filter added the header), and per value two bytes of length and the bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::sent::Sent;

/// Of the encoding above.
const VERSION: u8 = 2;

/// The longest encoding that is sent or read, in bytes: a quarter of what the head of a request may have. Originals
/// that do not fit are not sent, and the destination judges what arrives.
const LIMIT: usize = 15 * 1024;

/// What of a request was other when the client sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::l7) struct Original {
    /// Path and query.
    target: Option<PathAndQuery>,
    /// An empty list means that there was none of that name.
    headers: Vec<(HeaderName, Vec<HeaderValue>)>,
}

impl Original {
    /// What differs between the request before the filters, and its target and headers after them.
    pub(in crate::l7) fn between(before: &Sent, uri: &Uri, after: &HeaderMap) -> Self {
        let target = before.uri.path_and_query().filter(|_| before.uri != *uri).cloned();
        let before = &before.headers;
        let same = |name: &HeaderName| before.get_all(name).iter().eq(after.get_all(name).iter());
        let changed = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
        let changed = changed.filter(|name| !same(name));
        let headers = changed.map(|name| (name.clone(), values(before, name))).collect();
        Self { target, headers }
    }

    /// The header's value; `None` when there is nothing to tell, or too much.
    pub(in crate::l7) fn encode(&self) -> Option<HeaderValue> {
        if self.target.is_none() && self.headers.is_empty() {
            return None;
        }
        let mut bytes = vec![VERSION];
        put(&mut bytes, self.target.as_ref().map_or("", PathAndQuery::as_str).as_bytes())?;
        for (name, values) in &self.headers {
            bytes.push(u8::try_from(name.as_str().len()).ok()?);
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.push(u8::try_from(values.len()).ok()?);
            for value in values {
                put(&mut bytes, value.as_bytes())?;
            }
        }
        let text = BASE64.encode(bytes);
        if text.len() > LIMIT {
            return None;
        }
        HeaderValue::try_from(text).ok()
    }

    /// Reads what a peer sent; `None` when it is not of this form.
    pub(in crate::l7) fn decode(value: &HeaderValue) -> Option<Self> {
        if value.len() > LIMIT {
            return None;
        }
        let bytes = BASE64.decode(value.as_bytes()).ok()?;
        let mut rest = bytes.strip_prefix(&[VERSION])?;
        let target = match take_text(&mut rest)? {
            [] => None,
            target => Some(PathAndQuery::try_from(target).ok()?),
        };
        let mut headers = Vec::new();
        while !rest.is_empty() {
            let length = usize::from(take(&mut rest, 1)?[0]);
            let name = HeaderName::from_bytes(take(&mut rest, length)?).ok()?;
            let count = take(&mut rest, 1)?[0];
            let values = (0..count).map(|_| HeaderValue::from_bytes(take_text(&mut rest)?).ok());
            let values = values.collect::<Option<Vec<_>>>()?;
            headers.push((name, values));
        }
        Some(Self { target, headers })
    }

    /// A header's value with these bytes after the version: for fuzzers.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(in crate::l7) fn pack(bytes: &[u8]) -> HeaderValue {
        let text = BASE64.encode([&[VERSION], bytes].concat());
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
    }

    /// The original request, given what arrived; `None` when it has more headers than a request may have.
    pub(in crate::l7) fn restore(&self, uri: &Uri, arrived: &HeaderMap) -> Option<Sent> {
        let mut headers = arrived.clone();
        for (name, values) in &self.headers {
            headers.remove(name);
            for value in values {
                headers.try_append(name, value.clone()).ok()?;
            }
        }
        let uri = self.target.clone().map_or_else(|| uri.clone(), Uri::from);
        Some(Sent { uri, headers })
    }
}

/// Two bytes of length, and the bytes; `None` when they are too many.
fn put(bytes: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    bytes.extend_from_slice(&u16::try_from(text.len()).ok()?.to_be_bytes());
    bytes.extend_from_slice(text);
    Some(())
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take(rest, 2)?;
    take(rest, usize::from(u16::from_be_bytes([length[0], length[1]])))
}

fn values(headers: &HeaderMap, name: &HeaderName) -> Vec<HeaderValue> {
    headers.get_all(name).iter().cloned().collect()
}

/// The first `count` bytes, taken off.
fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(String, String)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers
                .append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        }
        headers
    }

    fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
        proptest::collection::vec(("[a-d]{1,2}", "[ -~]{0,12}"), 0..8)
    }

    fn request(target: &str, pairs: &[(String, String)]) -> Sent {
        Sent { uri: target.parse().unwrap(), headers: headers(pairs) }
    }

    fn between(before: &Sent, after: &Sent) -> Original {
        Original::between(before, &after.uri, &after.headers)
    }

    #[test]
    fn nothing_changed_is_nothing_sent() {
        let same = request("/a?b", &[("a".into(), "1".into())]);
        assert_eq!(between(&same, &same).encode(), None);
    }

    #[test]
    fn too_much_is_not_sent() {
        let before = request("/", &[("a".into(), "x".repeat(LIMIT))]);
        assert_eq!(between(&before, &request("/", &[])).encode(), None);
        let before = request(&format!("/{}", "x".repeat(LIMIT)), &[]);
        assert_eq!(between(&before, &request("/", &[])).encode(), None);
    }

    proptest! {
        #[test]
        fn restores_what_filters_changed(
            before in ("/[a-b]{0,2}([?][a-b]{0,2})?", pairs()),
            after in ("/[a-b]{0,2}([?][a-b]{0,2})?", pairs()),
        ) {
            let (before, after) = (request(&before.0, &before.1), request(&after.0, &after.1));
            let original = between(&before, &after);
            if let Some(value) = original.encode() {
                let decoded = Original::decode(&value);
                prop_assert_eq!(decoded.as_ref(), Some(&original));
                let restored = decoded.and_then(|it| it.restore(&after.uri, &after.headers));
                prop_assert_eq!(restored, Some(before));
            } else {
                prop_assert_eq!(before, after);
            }
        }

        #[test]
        fn survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64), raw in any::<bool>()) {
            let mut text = bytes.clone();
            if !raw {
                text = BASE64.encode([&[VERSION], &bytes[..]].concat()).into_bytes();
            }
            if let Ok(value) = HeaderValue::from_bytes(&text)
                && let Some(original) = Original::decode(&value)
            {
                let restored = original.restore(&Uri::from_static("/"), &HeaderMap::new());
                prop_assert!(restored.is_some());
            }
        }
    }
}
