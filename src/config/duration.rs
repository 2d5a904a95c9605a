//! Durations as texts: a whole number and a unit.

use std::any::Any;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// Units, the largest first, in milliseconds.
const UNITS: [(&str, u128); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads `500ms`, `10s`, `5m` or `24h`.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, milliseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let number: u64 = number.parse().ok()?;
    let total = u128::from(number).checked_mul(*milliseconds)?;
    Some(Duration::from_millis(u64::try_from(total).ok()?))
}

/// Writes what [`parse`] reads, in the largest unit without a rest.
pub(super) fn format(duration: Duration) -> String {
    let total = duration.as_millis();
    let whole =
        |(_, milliseconds): &&(&str, u128)| total != 0 && total.is_multiple_of(*milliseconds);
    match UNITS.iter().find(whole) {
        Some((unit, milliseconds)) => format!("{}{unit}", total / milliseconds),
        None => format!("{total}ms"),
    }
}

/// For dumps: a duration as the file has it, everything else as it is.
pub(super) fn serialize<T: Serialize + 'static, S: Serializer>(
    value: &T,
    to: S,
) -> Result<S::Ok, S::Error> {
    match (value as &dyn Any).downcast_ref::<Duration>() {
        Some(duration) => to.serialize_str(&format(*duration)),
        None => value.serialize(to),
    }
}
