//! How bodies are written: as long as was said, in chunks, or to the end of the connection.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    HOST, MAX_FORWARDS, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName};

use super::error::Error;
use super::names;
use super::writer::Writer;

/// What no trailer says (RFC 9110, 6.5.1).
const NO_TRAILERS: [HeaderName; 12] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    HOST,
    MAX_FORWARDS,
    SET_COOKIE,
    TRAILER,
    TRANSFER_ENCODING,
    TE,
];

/// How a body is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// So many bytes are to come.
    Length(u64),
    /// With the fields that may stand in the trailers.
    Chunked(Box<[HeaderName]>),
    /// To the end of the connection.
    Close,
}

impl Framing {
    /// In chunks, with the trailers that a head announces, if any may be sent.
    pub(super) fn chunked(headers: &HeaderMap, may_have_trailers: bool) -> Self {
        let announced = headers.get_all(TRAILER).iter().filter(|_| may_have_trailers);
        let announced = announced.filter_map(|value| value.to_str().ok());
        let announced = announced.flat_map(|value| value.split(','));
        let names =
            announced.filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok());
        Self::Chunked(names.filter(|name| !NO_TRAILERS.contains(name)).collect())
    }

    /// Writes data, and with the last the end.
    pub(super) fn data(&mut self, writer: &mut Writer, data: Bytes) -> Result<(), Error> {
        match self {
            Self::None if data.is_empty() => {}
            Self::None => return Err(Error::Length),
            Self::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Error::Length)?;
                writer.data(data);
            }
            // An empty chunk would be the last.
            Self::Chunked(_) if data.is_empty() => {}
            Self::Chunked(_) => {
                put_size(writer.buffer(20), data.len());
                writer.data(data);
                writer.buffer(2).put_slice(b"\r\n");
            }
            Self::Close => writer.data(data),
        }
        Ok(())
    }

    /// Writes the end of a body.
    pub(super) fn end(
        &mut self,
        writer: &mut Writer,
        trailers: Option<&HeaderMap>,
    ) -> Result<(), Error> {
        match self {
            Self::Length(left) if *left > 0 => return Err(Error::Length),
            Self::Chunked(announced) => {
                let buffer = writer.buffer(5);
                buffer.put_slice(b"0\r\n");
                if let Some(trailers) = trailers.filter(|_| !announced.is_empty()) {
                    let left_out = trailers.keys().filter(|name| !announced.contains(name));
                    let left_out: Vec<HeaderName> = left_out.cloned().collect();
                    names::put(buffer, trailers, None, &left_out, None);
                }
                buffer.put_slice(b"\r\n");
            }
            Self::None | Self::Length(_) | Self::Close => {}
        }
        Ok(())
    }
}

/// The line before a chunk.
fn put_size(out: &mut BytesMut, size: usize) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let count = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..count).rev() {
        out.put_u8(DIGITS[size >> (4 * digit) & 0xf]);
    }
    out.put_slice(b"\r\n");
}

/// A number as text.
pub(super) struct Decimal([u8; 20], usize);

impl Decimal {
    pub(super) fn new(mut number: u64) -> Self {
        let (mut digits, mut at) = ([b'0'; 20], 20);
        while at == 20 || number > 0 {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        Self(digits, at)
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.0[self.1..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for number in [0, 1, 9, 10, 15, 16, 255, 256, 65_535, 65_536, usize::MAX] {
            let mut out = BytesMut::new();
            put_size(&mut out, number);
            assert_eq!(out, format!("{number:X}\r\n").as_bytes());
            assert_eq!(Decimal::new(number as u64).text(), number.to_string().as_bytes());
        }
    }
}
