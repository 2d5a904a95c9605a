//! The head of a request as text in one piece, for what is kept of nearly every request and used of hardly any: one allocation, and
//! no value that is shared with the connection and would hold its buffer for as long.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

/// What a text is preceded by: its length, and whether HPACK must not remember it ([`HeaderValue::is_sensitive`]).
const LENGTH: usize = size_of::<u32>();
const SENSITIVE: u32 = 1 << 31;

/// Method, target and fields.
pub(in crate::l7) struct HeadText {
    method: Method,
    uri: Uri,
    fields: Box<[u8]>,
}

impl HeadText {
    pub(in crate::l7) fn of<B>(request: &Request<B>) -> Self {
        let headers = request.headers();
        let length = |(name, value): (&HeaderName, &HeaderValue)| {
            2 * LENGTH + name.as_str().len() + value.len()
        };
        let mut fields = Vec::with_capacity(headers.iter().map(length).sum());
        for (name, value) in headers {
            put(&mut fields, name.as_str().as_bytes(), false);
            put(&mut fields, value.as_bytes(), value.is_sensitive());
        }
        let (method, uri) = (request.method().clone(), request.uri().clone());
        Self { method, uri, fields: fields.into_boxed_slice() }
    }

    pub(in crate::l7) fn method(&self) -> &Method {
        &self.method
    }

    /// The head as it was.
    pub(in crate::l7) fn request(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        self.read(request.headers_mut());
        request
    }

    fn read(&self, headers: &mut HeaderMap) {
        let mut rest = &*self.fields;
        while let (Some((name, _)), Some((value, is_sensitive))) =
            (take(&mut rest), take(&mut rest))
        {
            // What was a field once is one again.
            if let (Ok(name), Ok(mut value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                value.set_sensitive(is_sensitive);
                headers.append(name, value);
            }
        }
    }
}

fn put(fields: &mut Vec<u8>, text: &[u8], is_sensitive: bool) {
    // No head is as long as 2 GiB.
    let length = text.len() as u32 | if is_sensitive { SENSITIVE } else { 0 };
    fields.extend_from_slice(&length.to_be_bytes());
    fields.extend_from_slice(text);
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], bool)> {
    let (length, after) = rest.split_first_chunk()?;
    let length = u32::from_be_bytes(*length);
    let (text, after) = after.split_at_checked((length & !SENSITIVE) as usize)?;
    *rest = after;
    Some((text, length & SENSITIVE != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_comes_back_as_it_was() {
        let mut request = Request::new(());
        *request.method_mut() = Method::PUT;
        *request.uri_mut() = Uri::from_static("/a?b=c");
        assert!(HeadText::of(&request).request().headers().is_empty());
        for (name, value) in [("host", "a:80"), ("x-two", "1"), ("x-a", ""), ("x-two", "2, 3")] {
            let name = HeaderName::from_static(name);
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
        let mut opaque = HeaderValue::from_bytes(b"caf\xe9").unwrap();
        opaque.set_sensitive(true);
        request.headers_mut().append("x-opaque", opaque);
        let text = HeadText::of(&request);
        let again = text.request();
        assert_eq!((again.method(), again.uri()), (request.method(), request.uri()));
        assert_eq!(again.headers(), request.headers());
        let sensitive = |(name, value): (&HeaderName, &HeaderValue)| {
            value.is_sensitive().then(|| name.to_string())
        };
        let kept: Vec<String> = again.headers().iter().filter_map(sensitive).collect();
        assert_eq!(kept, ["x-opaque"]);
        let fields = request.headers().iter();
        let texts: usize = fields.map(|(name, value)| name.as_str().len() + value.len()).sum();
        assert_eq!(text.fields.len(), texts + 5 * 2 * LENGTH, "nothing but the text");
    }
}
