//! Durations as Gateway API writes them (GEP-2257).

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

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,12}|[0-9hms]{0,12}") {
            let grammar = regex::Regex::new("^([0-9]{1,5}(h|m|s|ms)){1,4}$").unwrap();
            prop_assert_eq!(parse_duration(&text).is_some(), grammar.is_match(&text));
        }
    }
}
