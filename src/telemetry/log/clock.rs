//! The time at the start of a line. Formatting a date is the most expensive part of a line, and consecutive lines
//! share all of it but the fraction, so each thread keeps the text of its last second.

use std::cell::Cell;
use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

/// `2026-11-23T07:50:09`
const SECOND_LENGTH: usize = 19;

thread_local! {
    static LAST: Cell<(u64, [u8; SECOND_LENGTH])> = const { Cell::new((u64::MAX, [b'0'; SECOND_LENGTH])) };
}

/// Appends a time in UTC as RFC 3339 with microseconds.
pub(in crate::telemetry) fn write(out: &mut String, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let text = second(since.as_secs());
    out.push_str(std::str::from_utf8(&text).unwrap_or_default());
    // Writing to a String cannot fail.
    let _ = write!(out, ".{:06}Z", since.subsec_micros());
}

/// A time in UTC as RFC 3339 with microseconds.
pub fn rfc3339(time: SystemTime) -> String {
    let mut out = String::new();
    write(&mut out, time);
    out
}

fn second(seconds: u64) -> [u8; SECOND_LENGTH] {
    let (last, text) = LAST.get();
    if last == seconds {
        return text;
    }
    let text = format_second(seconds);
    LAST.set((seconds, text));
    text
}

fn format_second(seconds: u64) -> [u8; SECOND_LENGTH] {
    let date =
        i64::try_from(seconds).ok().and_then(|it| OffsetDateTime::from_unix_timestamp(it).ok());
    let date = date.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        date.year(),
        u8::from(date.month()),
        date.day(),
        date.hour(),
        date.minute(),
        date.second()
    );
    text.as_bytes().try_into().unwrap_or([b'0'; SECOND_LENGTH])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_rfc_3339() {
        let mut out = String::new();
        let time = UNIX_EPOCH + Duration::from_micros(1_795_420_209_000_042);
        write(&mut out, time);
        write(&mut out, time + Duration::from_millis(999));
        write(&mut out, time + Duration::from_secs(1));
        assert_eq!(
            out,
            "2026-11-23T07:50:09.000042Z2026-11-23T07:50:09.999042Z2026-11-23T07:50:10.000042Z"
        );
    }
}
