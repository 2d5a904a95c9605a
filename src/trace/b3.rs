//! B3, Zipkin's headers: <https://github.com/openzipkin/b3-propagation>.
//!
//! In one header, `b3: trace id-span id-sampled-parent id`, or in several that begin with `x-b3-`. Either may tell a decision alone
//! (`b3: 0`), which says that the trace that begins here is not recorded. A debug flag means sampled.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::context::{Context, Form};
use super::ids::{SpanId, TraceId};

const SINGLE: HeaderName = HeaderName::from_static("b3");
const TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

pub(super) fn read(headers: &HeaderMap) -> Option<Context> {
    read_single(headers).or_else(|| read_several(headers))
}

fn read_single(headers: &HeaderMap) -> Option<Context> {
    parse(headers.get(SINGLE)?.as_bytes())
}

pub(super) fn parse(value: &[u8]) -> Option<Context> {
    let mut parts = value.split(|byte| *byte == b'-');
    let first = parts.next()?;
    let Some(span) = parts.next() else {
        return Some(alone(decision(first)?, Form::B3Single));
    };
    let sampled = match parts.next() {
        Some(sampled) => Some(decision(sampled)?),
        None => None,
    };
    if let Some(parent) = parts.next() {
        SpanId::parse(parent)?;
    }
    if parts.next().is_some() {
        return None;
    }
    context(first, span, sampled, Form::B3Single)
}

fn read_several(headers: &HeaderMap) -> Option<Context> {
    let value = |name: HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    let debug = value(FLAGS) == Some(b"1");
    let sampled = if debug { Some(true) } else { value(SAMPLED).and_then(decision) };
    match (value(TRACE), value(SPAN)) {
        (Some(trace), Some(span)) => context(trace, span, sampled, Form::B3Several),
        (None, None) => Some(alone(sampled?, Form::B3Several)),
        _ => None,
    }
}

fn context(trace: &[u8], span: &[u8], sampled: Option<bool>, form: Form) -> Option<Context> {
    if !matches!(trace.len(), 16 | 32) || span.len() != 16 {
        return None;
    }
    let (trace, span) = (trace.to_ascii_lowercase(), span.to_ascii_lowercase());
    let (trace, span) = (TraceId::parse(&trace)?, SpanId::parse(&span)?);
    Some(Context { trace, span, sampled, random: false, form })
}

/// A trace that begins here, with the decision that was told.
fn alone(sampled: bool, form: Form) -> Context {
    let begun = Context { span: SpanId::NONE, ..Context::random() };
    Context { sampled: Some(sampled), form, ..begun }
}

fn decision(text: &[u8]) -> Option<bool> {
    match text {
        b"1" | b"d" | b"true" => Some(true),
        b"0" | b"false" => Some(false),
        _ => None,
    }
}

pub(super) fn remove(headers: &mut HeaderMap) {
    for name in [SINGLE, TRACE, SPAN, PARENT, SAMPLED, FLAGS] {
        headers.remove(name);
    }
}

pub(super) fn write(context: &Context, headers: &mut HeaderMap) {
    let sampled = if context.sampled == Some(true) { "1" } else { "0" };
    if context.form == Form::B3Single {
        let text = format!("{}-{}-{sampled}", context.trace, context.span);
        put(headers, SINGLE, &text);
        return;
    }
    // The span that came is the parent of the one that is told.
    match headers.get(SPAN).cloned() {
        Some(parent) => headers.insert(PARENT, parent),
        None => headers.remove(PARENT),
    };
    put(headers, TRACE, &context.trace.to_string());
    put(headers, SPAN, &context.span.to_string());
    put(headers, SAMPLED, sampled);
}

fn put(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE_ID: &str = "80f198ee56343ba864fe8b2a57d3eff7";

    #[test]
    fn reads_one_header() {
        let span = "e457b5a2e4d86bd1";
        for (value, told) in [
            (format!("{TRACE_ID}-{span}-1"), Some((true, Some(true)))),
            (format!("{TRACE_ID}-{span}-0-05e3ac9a4f6e3b90"), Some((true, Some(false)))),
            (format!("{TRACE_ID}-{span}-d"), Some((true, Some(true)))),
            (format!("{TRACE_ID}-{span}"), Some((true, None))),
            (format!("{}-{span}-1", &TRACE_ID[16..]), Some((true, Some(true)))),
            ("0".to_owned(), Some((false, Some(false)))),
            ("1".to_owned(), Some((false, Some(true)))),
            (format!("{TRACE_ID}-{span}-x"), None),
            (format!("{TRACE_ID}-{span}-1-x"), None),
            (format!("{TRACE_ID}-{span}-1-05e3ac9a4f6e3b90-1"), None),
            (format!("{}-{span}-1", &TRACE_ID[1..]), None),
            (format!("{}-{span}-1", "0".repeat(32)), None),
            (TRACE_ID.to_owned(), None),
            (String::new(), None),
        ] {
            let read = parse(value.as_bytes());
            let seen = read.map(|it| (!it.span.is_none(), it.sampled));
            assert_eq!(seen, told, "{value:?}");
        }
    }

    #[test]
    fn reads_several_headers() {
        let span = "e457b5a2e4d86bd1";
        let ids = [(TRACE, TRACE_ID), (SPAN, span)];
        for (more, sampled) in [
            (None, None),
            (Some((SAMPLED, "1")), Some(true)),
            (Some((SAMPLED, "true")), Some(true)),
            (Some((SAMPLED, "0")), Some(false)),
            (Some((FLAGS, "1")), Some(true)),
        ] {
            let rows = ids.clone().into_iter().chain(more.clone());
            let headers: HeaderMap =
                rows.map(|(name, value)| (name, HeaderValue::from_static(value))).collect();
            let read = read(&headers).unwrap();
            assert_eq!((read.sampled, read.form), (sampled, Form::B3Several), "{more:?}");
            assert_eq!(read.span.to_string(), span);
        }
    }

    #[test]
    fn the_span_that_came_is_told_as_the_parent() {
        let mut headers = HeaderMap::new();
        put(&mut headers, TRACE, TRACE_ID);
        put(&mut headers, SPAN, "e457b5a2e4d86bd1");
        let next = read(&headers).unwrap().next();
        write(&Context { sampled: Some(true), ..next.clone() }, &mut headers);
        assert_eq!(headers[PARENT], "e457b5a2e4d86bd1");
        assert_eq!(headers[SPAN], next.span.to_string().as_str());
        assert_eq!(headers[SAMPLED], "1");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace in 1_u128.., span in 1_u64.., sampled: bool, single: bool) {
            let form = if single { Form::B3Single } else { Form::B3Several };
            let (trace, span) = (TraceId(trace), SpanId(span));
            let context = Context { trace, span, sampled: Some(sampled), random: false, form };
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
