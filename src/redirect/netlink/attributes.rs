//! Netlink attributes: a length and a kind (16 bits each, in the host's byte order), the value, padding to four bytes.

/// The length of an attribute's head.
const HEAD: usize = 4;
/// Attributes and messages begin at multiples of this.
const ALIGNMENT: usize = 4;
/// Marks an attribute that holds attributes.
const NESTED: u16 = libc::NLA_F_NESTED as u16;
/// The bits of the kind that are not flags.
const KIND: u16 = libc::NLA_TYPE_MASK as u16;

/// A sequence of attributes that is being encoded. nf_tables wants numbers in network byte order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    bytes: Vec<u8>,
    too_large: bool,
}

impl Attributes {
    /// No attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// An attribute with any value.
    #[must_use]
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let Ok(length) = u16::try_from(HEAD + value.len()) else {
            self.too_large = true;
            return self;
        };
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        pad(&mut self.bytes);
        self
    }

    /// A number in network byte order.
    #[must_use]
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A string, ended by NUL as the kernel wants it.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// An attribute that holds attributes.
    #[must_use]
    pub fn nest(mut self, kind: u16, inner: Attributes) -> Self {
        self.too_large |= inner.too_large;
        self.bytes(kind | NESTED, &inner.bytes)
    }

    /// The bytes, or nothing if a value did not fit its length field.
    pub fn finish(self) -> Option<Vec<u8>> {
        (!self.too_large).then_some(self.bytes)
    }
}

/// Pads with zeros to where the next attribute or message begins.
pub(super) fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
}

/// The attributes in `bytes` as kind (without flags) and value. Ends at the first malformed one.
pub fn parse(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let value = bytes.get(HEAD..length)?;
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some((kind & KIND, value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..40)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(list in prop::collection::vec((0..1000_u16, value()), 0..20)) {
            let written =
                list.iter().fold(Attributes::new(), |all, (kind, value)| all.bytes(*kind, value));
            let bytes = written.finish().unwrap();
            prop_assert_eq!(bytes.len() % ALIGNMENT, 0);
            let read: Vec<_> = parse(&bytes).map(|(kind, value)| (kind, value.to_vec())).collect();
            prop_assert_eq!(read, list);
        }

        #[test]
        fn nests_hold_their_attributes(value in value(), depth in 1..8_u16) {
            let mut all = Attributes::new().bytes(0, &value);
            for level in 1..=depth {
                all = Attributes::new().nest(level, all).number(9, 1);
            }
            let bytes = all.finish().unwrap();
            let mut rest = bytes.as_slice();
            for level in (1..=depth).rev() {
                let found: Vec<_> = parse(rest).collect();
                prop_assert_eq!(found.len(), 2);
                prop_assert_eq!(found[0].0, level);
                prop_assert_eq!(found[1], (9, [0, 0, 0, 1].as_slice()));
                rest = found[0].1;
            }
            prop_assert_eq!(parse(rest).next(), Some((0, value.as_slice())));
        }

        #[test]
        fn parsing_anything_ends(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(parse(&bytes).count() <= bytes.len() / HEAD);
        }
    }

    #[test]
    fn a_value_beyond_the_length_field_is_an_error() {
        let large = vec![0; usize::from(u16::MAX) - HEAD];
        assert!(Attributes::new().bytes(1, &large).finish().is_some());
        assert!(Attributes::new().bytes(1, &[&large[..], &[0]].concat()).finish().is_none());
        let inner = Attributes::new().bytes(1, &large);
        assert!(Attributes::new().nest(1, inner).finish().is_none());
    }
}
