//! Places that are held by what waits to be sent.
//!
//! hyper hands what it was given to h2 and is done with it, and h2 keeps it for a client that does not read. So the last frame
//! of a response takes the request's place along, and it is given back when h2 has sent that frame, or thrown it away:
//! the last data as a field beside the bytes, a head or trailers in one of their values.

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue};

use crate::l7::budget::admission::Admission;

/// A part of a response's body on its way down.
pub(in crate::l7) struct Chunk {
    bytes: Bytes,
    /// With the last part.
    _place: Option<Admission>,
}

/// The bytes of a value, and what is held as long as they are.
struct Value<G> {
    value: HeaderValue,
    _guard: G,
}

impl Chunk {
    pub(in crate::l7) fn new(bytes: Bytes, place: Option<Admission>) -> Self {
        Self { bytes, _place: place }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.bytes.copy_to_bytes(length)
    }
}

impl<G> AsRef<[u8]> for Value<G> {
    fn as_ref(&self) -> &[u8] {
        self.value.as_bytes()
    }
}

/// Has these fields hold `guard` until they have been sent. Fields that there are none of hold nothing.
pub(in crate::l7) fn hold<G: Send + 'static>(fields: &mut HeaderMap, guard: G) {
    let Some(value) = fields.values_mut().next() else { return };
    let bytes = Bytes::from_owner(Value { value: value.clone(), _guard: guard });
    if let Ok(mut held) = HeaderValue::from_maybe_shared(bytes) {
        // h2 would keep it in the table of HPACK, and the guard with it.
        held.set_sensitive(true);
        *value = held;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn fields_hold_until_the_last_copy_is_gone() {
        let (guard, mut fields) = (Arc::new(()), HeaderMap::new());
        hold(&mut fields, guard.clone());
        assert_eq!(Arc::strong_count(&guard), 1, "nothing to hold it");
        fields.insert("a", HeaderValue::from_static("1"));
        fields.insert("b", HeaderValue::from_static("2"));
        hold(&mut fields, guard.clone());
        assert_eq!((&fields["a"], &fields["b"]), (&"1".parse().unwrap(), &"2".parse().unwrap()));
        let copy = fields.clone();
        drop(fields);
        assert_eq!(Arc::strong_count(&guard), 2);
        drop(copy);
        assert_eq!(Arc::strong_count(&guard), 1);
    }
}
