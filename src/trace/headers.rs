//! The headers of a context: read in every form, and written in the one in which they came.

use http::HeaderMap;

use super::context::{Context, Form};
use super::ids::TraceId;
use super::span::REQUEST_ID;
use super::{b3, w3c};

impl Context {
    /// What the headers say; W3C before B3.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        w3c::read(headers).or_else(|| b3::read(headers))
    }

    /// What the next one is told of a request that is not recorded.
    pub fn unrecorded(headers: &HeaderMap) -> Self {
        let came = Self::read(headers).unwrap_or_else(Self::random);
        Self { sampled: Some(false), ..came }
    }

    /// Tells the next one nothing of a trace. `baggage` is no part of a trace's context, and passes.
    pub fn remove(headers: &mut HeaderMap) {
        w3c::remove(headers);
        b3::remove(headers);
    }

    /// Tells the next one.
    pub fn write(&self, headers: &mut HeaderMap) {
        match self.form {
            Form::W3c => {
                if !headers.contains_key(w3c::PARENT) {
                    w3c::forget_state(headers);
                }
                w3c::write(self, headers);
            }
            Form::B3Single | Form::B3Several => b3::write(self, headers),
        }
    }
}

/// The id of a request as that of a trace, if it is a UUID: its last 56 bits are random, too.
pub(super) fn request_id(headers: &HeaderMap) -> Option<TraceId> {
    let id = headers.get(REQUEST_ID)?.to_str().ok().filter(|id| id.len() == 36)?;
    let digits: Vec<u8> = id.bytes().filter(|byte| *byte != b'-').collect();
    TraceId::parse(digits.to_ascii_lowercase().as_slice())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_is_removed_leaves_nothing_of_a_trace() {
        let all = [
            "traceparent",
            "tracestate",
            "b3",
            "x-b3-traceid",
            "x-b3-spanid",
            "x-b3-parentspanid",
            "x-b3-sampled",
            "x-b3-flags",
            "baggage",
            "x-request-id",
        ];
        let value = HeaderValue::from_static("1");
        let mut headers: HeaderMap =
            all.iter().map(|name| (HeaderName::from_static(name), value.clone())).collect();
        headers.append("traceparent", value);
        Context::remove(&mut headers);
        assert_eq!(names(&headers), ["baggage", "x-request-id"]);
    }

    #[test]
    fn goes_out_in_the_form_in_which_it_came() {
        let (trace, span) = ("80f198ee56343ba864fe8b2a57d3eff7", "e457b5a2e4d86bd1");
        let w3c = format!("00-{trace}-{span}-01");
        let single = format!("{trace}-{span}-1");
        for (came, out) in [
            (vec![], vec!["traceparent"]),
            (
                vec![("traceparent", &*w3c), ("tracestate", "a=1")],
                vec!["traceparent", "tracestate"],
            ),
            (vec![("tracestate", "a=1")], vec!["traceparent"]),
            (vec![("b3", &*single)], vec!["b3"]),
            (vec![("b3", "1")], vec!["b3"]),
            (
                vec![("x-b3-traceid", trace), ("x-b3-spanid", span), ("baggage", "k=v")],
                vec!["baggage", "x-b3-parentspanid", "x-b3-sampled", "x-b3-spanid", "x-b3-traceid"],
            ),
            (vec![("traceparent", "nonsense")], vec!["traceparent"]),
        ] {
            let mut headers: HeaderMap = came
                .iter()
                .map(|(name, value)| {
                    (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
                })
                .collect();
            let context = Context::read(&headers).unwrap_or_else(Context::random).next();
            context.write(&mut headers);
            assert_eq!(names(&headers), out, "{came:?}");
            let read = Context::read(&headers).unwrap();
            assert_eq!((read.trace, read.span), (context.trace, context.span), "{came:?}");
        }
    }
}
