//! The original values of a request that the client's half changed, carried across the tunnel so that policies at
//! the destination see the request as the client sent it.
//!
//! The header is written by an agent, yet the destination takes nothing in it on trust: it only holds when the
//! route's own filters lead from the original request to exactly the one that arrived. So a peer can choose among the
//! requests that a route turns into this one, and nothing else. Applications never see the header, and can neither
//! send it.
//!
//! Encoding, in base64: one byte of version, then per header whose values changed: the name (a length byte and the
//! bytes), the number of original values (a byte, 0 when the filter added the header), and per value two bytes of
//! length (big endian) and the bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The header between the two halves.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-isthmus-original");

/// Of the encoding above.
const VERSION: u8 = 1;

/// The longest encoding that is sent or read, in bytes: a quarter of what the head of a request may have. Originals
/// that do not fit are not sent, and the destination judges what arrives.
const LIMIT: usize = 15 * 1024;

/// Headers as the client sent them; an empty list means that there was none of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Original(Vec<(HeaderName, Vec<HeaderValue>)>);

impl Original {
    /// What differs between the request before and after the filters.
    pub(super) fn between(before: &HeaderMap, after: &HeaderMap) -> Self {
        let same = |name: &HeaderName| before.get_all(name).iter().eq(after.get_all(name).iter());
        let changed = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
        let changed = changed.filter(|name| !same(name));
        Self(changed.map(|name| (name.clone(), values(before, name))).collect())
    }

    /// The header's value; `None` when there is nothing to tell, or too much.
    pub(super) fn encode(&self) -> Option<HeaderValue> {
        if self.0.is_empty() {
            return None;
        }
        let mut bytes = vec![VERSION];
        for (name, values) in &self.0 {
            bytes.push(u8::try_from(name.as_str().len()).ok()?);
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.push(u8::try_from(values.len()).ok()?);
            for value in values {
                bytes.extend_from_slice(&u16::try_from(value.len()).ok()?.to_be_bytes());
                bytes.extend_from_slice(value.as_bytes());
            }
        }
        let text = BASE64.encode(bytes);
        if text.len() > LIMIT {
            return None;
        }
        HeaderValue::try_from(text).ok()
    }

    /// Reads what a peer sent; `None` when it is not of this form.
    pub(super) fn decode(value: &HeaderValue) -> Option<Self> {
        if value.len() > LIMIT {
            return None;
        }
        let bytes = BASE64.decode(value.as_bytes()).ok()?;
        let mut rest = bytes.strip_prefix(&[VERSION])?;
        let mut headers = Vec::new();
        while !rest.is_empty() {
            let length = usize::from(take(&mut rest, 1)?[0]);
            let name = HeaderName::from_bytes(take(&mut rest, length)?).ok()?;
            let count = take(&mut rest, 1)?[0];
            let values = (0..count).map(|_| {
                let length = take(&mut rest, 2)?;
                let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                HeaderValue::from_bytes(take(&mut rest, length)?).ok()
            });
            let values = values.collect::<Option<Vec<_>>>()?;
            headers.push((name, values));
        }
        Some(Self(headers))
    }

    /// The headers of the original request, given those that arrived; `None` when they are more than a request
    /// may have.
    pub(super) fn restore(&self, arrived: &HeaderMap) -> Option<HeaderMap> {
        let mut original = arrived.clone();
        for (name, values) in &self.0 {
            original.remove(name);
            for value in values {
                original.try_append(name, value.clone()).ok()?;
            }
        }
        Some(original)
    }
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

    #[test]
    fn nothing_changed_is_nothing_sent() {
        let same = headers(&[("a".into(), "1".into())]);
        assert_eq!(Original::between(&same, &same).encode(), None);
    }

    #[test]
    fn too_much_is_not_sent() {
        let before = headers(&[("a".into(), "x".repeat(LIMIT))]);
        assert_eq!(Original::between(&before, &HeaderMap::new()).encode(), None);
    }

    proptest! {
        #[test]
        fn restores_what_filters_changed(before in pairs(), after in pairs()) {
            let (before, after) = (headers(&before), headers(&after));
            let original = Original::between(&before, &after);
            if let Some(value) = original.encode() {
                let decoded = Original::decode(&value);
                prop_assert_eq!(decoded.as_ref(), Some(&original));
                prop_assert_eq!(decoded.and_then(|original| original.restore(&after)), Some(before));
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
                prop_assert!(original.restore(&HeaderMap::new()).is_some());
            }
        }
    }
}
