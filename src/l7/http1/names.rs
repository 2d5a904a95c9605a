//! How the other side has written the names of fields, and the reason of a response: they are passed on as they came, although a map
//! knows names in lower case only. What was written is looked up in the head as it came, which its values keep anyway.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, StatusCode};

/// The head of a message as it came.
#[derive(Clone)]
pub(in crate::l7) struct Names {
    head: Bytes,
    /// All names are in lower case, so that there is nothing to look up.
    is_lower: bool,
}

/// Looks names up that mostly come in the order of the head.
struct Cursor<'a> {
    head: &'a [u8],
    /// Where the next name is looked for first.
    next: usize,
    /// Where the last one was found.
    last: usize,
}

impl Names {
    pub(super) fn new(head: Bytes, is_lower: bool) -> Self {
        Self { head, is_lower }
    }

    /// The reason that a response of this status gave, if it is the one that was read.
    pub(super) fn reason(&self, status: StatusCode) -> Option<&[u8]> {
        let line = self.head.split(|byte| *byte == b'\n').next()?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let rest = line.get(line.iter().position(|byte| *byte == b' ')? + 1..)?;
        let reason = rest.strip_prefix(status.as_str().as_bytes())?;
        Some(reason.strip_prefix(b" ").unwrap_or(reason))
    }
}

/// Writes the fields, without those that are left out. `also`: more of them.
pub(super) fn put<'a>(
    out: &mut BytesMut,
    headers: &HeaderMap,
    names: Option<&Names>,
    left_out: &[HeaderName],
    also: impl IntoIterator<Item = (HeaderName, &'a [u8])>,
) {
    let mut cursor = names.filter(|names| !names.is_lower).map(|names| Cursor::new(&names.head));
    let mut before = None;
    for (name, value) in headers.iter().filter(|(name, _)| !left_out.contains(name)) {
        let written = match &mut cursor {
            Some(cursor) if before == Some(name) => cursor.again(name.as_str()),
            Some(cursor) => cursor.first(name.as_str()),
            None => None,
        };
        before = Some(name);
        put_field(out, written.unwrap_or(name.as_str().as_bytes()), value.as_bytes());
    }
    for (name, value) in also {
        let written = cursor.as_mut().and_then(|cursor| cursor.first(name.as_str()));
        put_field(out, written.unwrap_or(name.as_str().as_bytes()), value);
    }
}

fn put_field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// About how long the fields are when they are written.
pub(super) fn length(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

impl<'a> Cursor<'a> {
    fn new(head: &'a [u8]) -> Self {
        let start = line_end(head, 0);
        Self { head, next: start, last: start }
    }

    /// How a name is written whose first value is next.
    fn first(&mut self, name: &str) -> Option<&'a [u8]> {
        let found = self.find(self.next, name).or_else(|| self.find(0, name));
        let (written, end) = found?;
        (self.next, self.last) = (end, end);
        Some(written)
    }

    /// How it is written another time.
    fn again(&mut self, name: &str) -> Option<&'a [u8]> {
        let (written, end) = self.find(self.last, name)?;
        if self.next == self.last {
            self.next = end;
        }
        self.last = end;
        Some(written)
    }

    /// The name of the first line from `at` on that has it, and where that line ends.
    fn find(&self, mut at: usize, name: &str) -> Option<(&'a [u8], usize)> {
        while at < self.head.len() {
            let end = line_end(self.head, at);
            if let Some((written, after)) = self.head[at..end].split_at_checked(name.len())
                && after.trim_ascii_start().first() == Some(&b':')
                && written.eq_ignore_ascii_case(name.as_bytes())
            {
                return Some((written, end));
            }
            at = end;
        }
        None
    }
}

/// Where the line ends that begins here.
fn line_end(head: &[u8], at: usize) -> usize {
    let rest = head.get(at..).unwrap_or_default();
    rest.iter().position(|byte| *byte == b'\n').map_or(head.len(), |length| at + length + 1)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn written(head: &'static str, fields: &[(&'static str, &'static str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let names = Names::new(Bytes::from_static(head.as_bytes()), false);
        let mut out = BytesMut::new();
        put(&mut out, &headers, Some(&names), &[], None);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn each_name_is_written_as_it_came() {
        let head =
            "GET / HTTP/1.1\r\nHOST: a\r\nX-One: 1\r\nX-TWO : 2\r\nhost: b\r\nX-Two: 3\r\n\r\n";
        assert_eq!(
            written(
                head,
                &[
                    ("host", "a"),
                    ("host", "b"),
                    ("x-one", "1"),
                    ("x-two", "2"),
                    ("x-two", "3"),
                    ("x-new", "4")
                ]
            ),
            "HOST: a\r\nhost: b\r\nX-One: 1\r\nX-TWO: 2\r\nX-Two: 3\r\nx-new: 4\r\n"
        );
        // In another order, with more values than came, and with names that are parts of others.
        assert_eq!(
            written(
                head,
                &[
                    ("x-two", "2"),
                    ("x", "0"),
                    ("x-one", "1"),
                    ("x-one", "2"),
                    ("ost", "3"),
                    ("get", "/")
                ]
            ),
            "X-TWO: 2\r\nx: 0\r\nX-One: 1\r\nx-one: 2\r\nost: 3\r\nget: /\r\n"
        );
        assert_eq!(written("", &[("a", "b")]), "a: b\r\n");
        assert_eq!(written("GET / HTTP/1.1\nA: b\n", &[("a", "b")]), "A: b\r\n");
    }

    #[test]
    fn a_reason_is_that_of_its_status() {
        let reason = |head: &'static str, status: u16| {
            let names = Names::new(Bytes::from_static(head.as_bytes()), true);
            names.reason(StatusCode::from_u16(status).unwrap()).map(<[u8]>::to_vec)
        };
        assert_eq!(reason("HTTP/1.1 200 Fine Indeed\r\n\r\n", 200).unwrap(), b"Fine Indeed");
        assert_eq!(reason("HTTP/1.1 200\r\n\r\n", 200).unwrap(), b"");
        assert_eq!(reason("HTTP/1.1 200 Fine\r\n\r\n", 404), None);
    }
}
