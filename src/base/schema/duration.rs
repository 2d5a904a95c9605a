//! Durations as Gateway API writes them (GEP-2257), and as Istio does.

use std::time::Duration;

/// One to four times one to five digits and a unit of `h`, `m`, `s`, `ms` (GEP-2257).
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut parts = 0;
    while !rest.is_empty() {
        parts += 1;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        if parts > 4 || digits > 5 {
            return None;
        }
        let number: u64 = number.parse().ok()?;
        total += match unit {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        rest = after;
    }
    (parts > 0).then_some(total)
}

/// As Istio takes durations of protobuf, which are those of Go: numbers, with a fraction or without one, each with a unit of `h`,
/// `m`, `s`, `ms`, `us` or `ns` (`0.5s`, `1h30m`), or `0`. None is negative, or longer than Go counts (292 years).
///
/// `kube::core::Duration` reads the same, in floating point, and panics where a number is too large.
pub fn parse_istio_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = 0_u64;
    let mut parts = 0;
    while !rest.is_empty() {
        parts += 1;
        let is_of_number = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
        let (number, after) = rest.split_at(rest.bytes().take_while(is_of_number).count());
        let is_of_unit = |byte: &u8| !is_of_number(byte);
        let (unit, after) = after.split_at(after.bytes().take_while(is_of_unit).count());
        total = total.checked_add(nanoseconds(number, unit_of(unit)?)?)?;
        rest = after;
    }
    (parts > 0 && i64::try_from(total).is_ok()).then(|| Duration::from_nanos(total))
}

/// In nanoseconds.
fn unit_of(unit: &str) -> Option<u64> {
    Some(match unit {
        "h" => 3_600_000_000_000,
        "m" => 60_000_000_000,
        "s" => 1_000_000_000,
        "ms" => 1_000_000,
        "us" | "µs" | "μs" => 1_000,
        "ns" => 1,
        _ => return None,
    })
}

/// Rounded down. What is less than a nanosecond of an hour has no effect.
fn nanoseconds(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    let (mut sum, mut scale) = (0, 1);
    // An hour has fewer nanoseconds than ten to the 13th.
    for digit in fraction.bytes().take(13) {
        sum = sum * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    let fraction = u64::try_from(sum * u128::from(unit) / scale).ok()?;
    whole.checked_mul(unit)?.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_of_the_api() {
        for (text, expected) in [
            ("0s", Some(0)),
            ("500ms", Some(500)),
            ("1h30m", Some(5_400_000)),
            ("1h2m3s4ms", Some(3_723_004)),
            ("99999s", Some(99_999_000)),
            ("100000s", None),
            ("1h2m3s4ms5s", None),
            ("", None),
            ("1", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("1us", None),
            ("1 s", None),
        ] {
            assert_eq!(parse_duration(text), expected.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn durations_of_istio() {
        for (text, expected) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("7s", Some(7_000_000_000)),
            ("0.5s", Some(500_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("+3m", Some(180_000_000_000)),
            ("5.000s", Some(5_000_000_000)),
            ("0.000000001s", Some(1)),
            ("0.00000000099s", Some(0)),
            ("1.5h", Some(5_400_000_000_000)),
            ("1h30m0.5s", Some(5_400_500_000_000)),
            ("1h2m3s4ms5s", Some(3_728_004_000_000)),
            ("100000s", Some(100_000_000_000_000)),
            ("250us", Some(250_000)),
            ("250µs", Some(250_000)),
            ("1.9ns", Some(1)),
            ("2562047h", Some(9_223_369_200_000_000_000)),
            ("2562048h", None),
            ("99999999999999999999s", None),
            ("9223372036854775807h", None),
            ("-1s", None),
            ("", None),
            ("+", None),
            ("1", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("1 s", None),
            ("1d", None),
            ("1S", None),
            ("1s ", None),
        ] {
            assert_eq!(parse_istio_duration(text), expected.map(Duration::from_nanos), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_of_istio_is_read(text in "\\PC{0,12}|[0-9hmsun.+]{0,24}") {
            let read = parse_istio_duration(&text);
            let grammar = "^[+]?(0|(([0-9]+[.]?[0-9]*|[.][0-9]+)(h|m|s|ms|us|\u{b5}s|\u{3bc}s|ns))+)$";
            prop_assert!(read.is_none() || regex::Regex::new(grammar).unwrap().is_match(&text));
            // Whatever Gateway API takes means the same to Istio.
            let of_gateway_api = parse_duration(&text);
            prop_assert!(of_gateway_api.is_none() || read == of_gateway_api);
        }

        #[test]
        fn any_text_is_read(text in "\\PC{0,12}|[0-9hms]{0,12}") {
            let grammar = regex::Regex::new("^([0-9]{1,5}(h|m|s|ms)){1,4}$").unwrap();
            prop_assert_eq!(parse_duration(&text).is_some(), grammar.is_match(&text));
        }
    }
}
