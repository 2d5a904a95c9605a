//! W3C Trace Context, level 2: <https://www.w3.org/TR/trace-context-2/>.
//!
//! `traceparent` is `version-trace id-span id-flags`. `tracestate` belongs to the vendors that wrote it and passes as it came; without
//! a valid `traceparent` it means nothing.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::context::{Context, Form};
use super::ids::{SpanId, TraceId, hex};

pub(super) const PARENT: HeaderName = HeaderName::from_static("traceparent");
const STATE: HeaderName = HeaderName::from_static("tracestate");

/// The only version that is written.
const VERSION: u128 = 0;
/// Forbidden (3.2.2.1).
const FORBIDDEN: u128 = 0xff;
const SAMPLED: u128 = 1;
/// The rightmost 7 bytes of the trace's id are random (level 2), as those of our ids are.
const RANDOM: u8 = 2;
/// The lengths of version 0. A later version may have more after another dash.
const LENGTH: usize = 55;

/// The context that exactly one valid header names.
pub(super) fn read(headers: &HeaderMap) -> Option<Context> {
    let mut values = headers.get_all(PARENT).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    parse(value.as_bytes())
}

pub(super) fn parse(value: &[u8]) -> Option<Context> {
    let (known, more) = value.split_at_checked(LENGTH)?;
    let [b'-', trace @ ..] = &known[2..35] else { return None };
    let [b'-', span @ ..] = &known[35..52] else { return None };
    let [b'-', flags @ ..] = &known[52..] else { return None };
    let version = hex(&known[..2]).filter(|version| *version != FORBIDDEN)?;
    let ends = more.is_empty() || version > VERSION && more[0] == b'-';
    let flags = hex(flags)?;
    ends.then_some(())?;
    Some(Context {
        trace: TraceId::parse(trace)?,
        span: SpanId::parse(span)?,
        sampled: Some(flags & SAMPLED != 0),
        random: flags & u128::from(RANDOM) != 0,
        form: Form::W3c,
    })
}

pub(super) fn remove(headers: &mut HeaderMap) {
    headers.remove(PARENT);
    headers.remove(STATE);
}

pub(super) fn write(context: &Context, headers: &mut HeaderMap) {
    let sampled = u8::from(context.sampled == Some(true));
    let flags = sampled | if context.random { RANDOM } else { 0 };
    let text = format!("00-{}-{}-{flags:02x}", context.trace, context.span);
    if let Ok(value) = HeaderValue::try_from(text) {
        // Of a header that was not valid, or came twice, nothing is left.
        headers.insert(PARENT, value);
    }
}

/// What the vendors before say, for the span; `None` when it is none or too long to be of use.
pub(super) fn state(headers: &HeaderMap) -> Option<String> {
    /// Vendors should propagate at least so much (3.3.1.5).
    const MOST: usize = 512;
    let mut states = headers.get_all(STATE).iter().filter_map(|value| value.to_str().ok());
    let first = states.next()?.to_owned();
    let joined = states.fold(first, |joined, more| joined + "," + more);
    (joined.len() <= MOST).then_some(joined)
}

/// A state that belongs to no context any more.
pub(super) fn forget_state(headers: &mut HeaderMap) {
    headers.remove(STATE);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_the_standard_allows_and_nothing_else() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let good = format!("00-{trace}-b7ad6b7169203331-01");
        for (value, valid) in [
            (good.clone(), true),
            (good.replace("-01", "-00"), true),
            (good.replace("-01", "-ff"), true),
            (format!("{good}-more"), false),
            (format!("01{}", &good[2..]), true),
            (format!("cc{}-what the future brings", &good[2..]), true),
            (format!("cc{}.what", &good[2..]), false),
            (format!("ff{}", &good[2..]), false),
            (good.to_uppercase(), false),
            (good.replace(trace, &"0".repeat(32)), false),
            (good.replace("b7ad6b7169203331", &"0".repeat(16)), false),
            (good.replace('-', "_"), false),
            (good[..54].to_owned(), false),
            (format!(" {good}"), false),
            (String::new(), false),
            ("é".repeat(40), false),
        ] {
            let read = parse(value.as_bytes());
            assert_eq!(read.is_some(), valid, "{value:?}");
        }
        assert_eq!(parse(good.as_bytes()).unwrap().sampled, Some(true));
        assert_eq!(parse(good.replace("-01", "-02").as_bytes()).unwrap().sampled, Some(false));
    }

    #[test]
    fn two_parents_are_none() {
        let value =
            HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let mut headers = HeaderMap::from_iter([(PARENT, value.clone())]);
        assert!(read(&headers).is_some());
        headers.append(PARENT, value);
        assert!(read(&headers).is_none());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace in 1_u128.., span in 1_u64.., sampled: bool, random: bool) {
            let context = Context {
                trace: TraceId(trace),
                span: SpanId(span),
                sampled: Some(sampled),
                random,
                form: Form::W3c,
            };
            let mut headers = HeaderMap::new();
            write(&context, &mut headers);
            prop_assert_eq!(read(&headers), Some(context));
        }

        #[test]
        fn any_bytes_are_read_or_ignored(bytes: Vec<u8>) {
            _ = parse(&bytes);
        }
    }
}
