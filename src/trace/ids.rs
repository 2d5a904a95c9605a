//! The ids of traces and spans: random, and never zero, which the standards reserve for none.

use std::fmt;

/// The id of a trace: 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub u128);

/// The id of a span: 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(pub u64);

impl TraceId {
    pub fn random() -> Self {
        Self(fastrand::u128(1..))
    }

    /// What B3 abbreviates to 16 digits has the upper half zero.
    pub(super) fn parse(digits: &[u8]) -> Option<Self> {
        hex(digits).filter(|id| *id != 0).map(Self)
    }
}

impl SpanId {
    pub const NONE: Self = Self(0);

    pub fn random() -> Self {
        Self(fastrand::u64(1..))
    }

    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    pub(super) fn parse(digits: &[u8]) -> Option<Self> {
        let id = hex(digits).and_then(|id| u64::try_from(id).ok())?;
        (id != 0).then_some(Self(id))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Lower-case digits; at most 32.
pub(super) fn hex(digits: &[u8]) -> Option<u128> {
    if digits.is_empty() || digits.len() > 32 {
        return None;
    }
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}
