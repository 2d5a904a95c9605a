//! Traces: which requests belong to one (the headers), which are recorded (sampling), and what a span holds.
//!
//! Headers are read and written in the form in which they came: W3C Trace Context (`traceparent`, `tracestate`), or B3 in one
//! header or several; W3C is written when nothing came. `baggage` is nobody's business here and passes. A sampling decision that came
//! with the request holds (parent-based); otherwise the trace's id decides, so that all agents decide alike.
//!
//! `l7` and `l4` ask [`Tracing`], which holds for a workload, whether a request is recorded; the record in `telemetry` keeps the
//! [`Span`], and puts it into the bounded [`Spans`] queue at its end; `otlp` exports what is in the queue. Nothing here waits, does I/O
//! or reads configuration. Headers that cannot be parsed are ignored, as their standards demand.

mod b3;
mod context;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod headers;
mod ids;
mod provider;
mod queue;
mod sampling;
mod span;
mod tags;
mod w3c;

pub use context::{Context, Form};
pub use ids::{SpanId, TraceId};
pub use provider::{Protocol, Provider};
pub use queue::{MAX_QUEUED, Outbox, Receiver, Refused, Sender, Spans, queue};
pub use sampling::Rate;
pub use span::{Attribute, Finished, Kind, Span, Value};
pub use tags::{Tag, TagValue};

use std::sync::Arc;

use http::HeaderMap;

use crate::base::Str;

/// How the requests of some workload or service are traced. By default, nothing is recorded and nowhere exported.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tracing {
    /// Where spans go.
    pub providers: Arc<[Arc<Provider>]>,
    /// Of the traces that begin here.
    pub rate: Rate,
    /// Added to each span.
    pub tags: Arc<[Tag]>,
    /// Without the tags that Istio's proxies add to each span (`istio.canonical_service` and so on).
    pub without_istio_tags: bool,
    /// Whether the decision that came with a request holds.
    pub parent: Parent,
    /// The name of every span, instead of the operation's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_name: Option<Str>,
    /// `service.name`, instead of the workload's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_name: Option<Str>,
    /// Attributes that spans have under another name as well: that name, and the attribute's own.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub copies: Arc<[(Str, Str)]>,
    /// The id of the request decides whether a trace that begins here is recorded, rather than that of the trace.
    pub by_request_id: bool,
    /// How many bytes of a request's path a span has; `None` for all that the access log shows.
    pub max_path: Option<usize>,
    /// Requests are passed on without the headers of a trace (Istio, Telemetry `disableContextPropagation`). Without providers,
    /// that is all there is to do.
    pub ends_here: bool,
}

/// What the decision of the span before means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Parent {
    /// It holds.
    #[default]
    Holds,
    /// Of what it wants recorded, this share is.
    Limited(Rate),
    /// It does not count: the rate decides, as if the trace began here.
    Ignored,
}

/// What becomes of a request's trace here.
pub enum Traced {
    /// A span is recorded; its context is what the next one is told.
    Recorded(Box<Span>),
    /// Not recorded, by a decision that was taken here, which the next one is told.
    Unrecorded,
    /// Not recorded, and the headers say so already.
    AsItCame,
}

impl Tracing {
    /// Decides about a request with these headers.
    pub fn begin(self: &Arc<Self>, kind: Kind, headers: &HeaderMap) -> Traced {
        if self.is_about_headers() {
            return Traced::AsItCame;
        }
        let came = Context::read(headers);
        let began = came.is_none();
        let came = came.unwrap_or_else(Context::random);
        let of = |rate: Rate| {
            let id = self.by_request_id.then(|| headers::request_id(headers)).flatten();
            rate.samples(id.unwrap_or(came.trace))
        };
        let sampled = match (self.parent, came.sampled) {
            (Parent::Holds, Some(sampled)) => sampled,
            (Parent::Limited(rate), Some(sampled)) => sampled && of(rate),
            (Parent::Ignored, _) | (_, None) => of(self.rate),
        };
        if sampled {
            let parent = (!began).then_some(came.span).filter(|span| !span.is_none());
            let mut span = Span::new(self.clone(), came.next(), parent, kind);
            span.read_tags(headers);
            return Traced::Recorded(Box::new(span));
        }
        if came.sampled == Some(false) {
            return Traced::AsItCame;
        }
        Traced::Unrecorded
    }

    /// The span of a connection, whose trace nobody has told of; `None` when it is not recorded.
    pub fn begin_connection(self: &Arc<Self>, kind: Kind) -> Option<Box<Span>> {
        if self.is_about_headers() {
            return None;
        }
        let context = Context { sampled: Some(true), ..Context::random() };
        let sampled = self.rate.samples(context.trace);
        sampled.then(|| Box::new(Span::new(self.clone(), context, None, kind)))
    }

    /// Nothing is recorded.
    fn is_about_headers(&self) -> bool {
        self.ends_here && self.providers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn tracing(per_mille: f64) -> Arc<Tracing> {
        let rate = Rate::of_percentage(per_mille / 10.0);
        Arc::new(Tracing { rate, ..Tracing::default() })
    }

    fn headers(rows: &[(&'static str, &str)]) -> HeaderMap {
        let row = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        rows.iter().map(row).collect()
    }

    #[test]
    fn tags_are_of_what_a_request_has_become() {
        let name = HeaderName::from_static("x-user");
        let tag = Tag { name: "user".into(), value: TagValue::Header { name, default: None } };
        let all = Arc::new(Tracing { tags: [tag].into(), ..Tracing::clone(&tracing(1000.0)) });
        let Traced::Recorded(mut span) = all.begin(Kind::Server, &headers(&[("x-user", "root")]))
        else {
            panic!("not recorded")
        };
        span.read_tags(&headers(&[("x-user", "alice")]));
        assert_eq!(span.tags, [Attribute::text("user", "alice")]);
        span.read_tags(&headers(&[]));
        assert_eq!(span.tags, []);
    }

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0";

    /// One request passes two halves and an application: all of it is one trace, each span the child of the one before.
    #[test]
    fn each_span_is_the_child_of_the_one_before() {
        let all = tracing(1000.0);
        let mut sent = HeaderMap::new();
        let mut before: Option<Context> = None;
        for kind in [Kind::Client, Kind::Server, Kind::Client, Kind::Server] {
            let Traced::Recorded(span) = all.begin(kind, &sent) else { panic!("not recorded") };
            assert_eq!(span.parent, before.as_ref().map(|it| it.span), "{kind:?}");
            if let Some(before) = &before {
                assert_eq!(span.context.trace, before.trace);
            }
            span.context.write(&mut sent);
            assert_eq!(sent.len(), 1, "{sent:?}");
            before = Some(span.context.clone());
        }
    }

    #[test]
    fn the_decision_of_the_parent_holds() {
        for (sampled, rate, recorded) in
            [("1", 0.0, true), ("1", 1000.0, true), ("0", 0.0, false), ("0", 1000.0, false)]
        {
            let came = headers(&[("traceparent", &format!("{PARENT}{sampled}"))]);
            let traced = tracing(rate).begin(Kind::Server, &came);
            match traced {
                Traced::Recorded(span) => {
                    assert!(recorded);
                    assert_eq!(span.parent.unwrap().to_string(), "b7ad6b7169203331");
                }
                Traced::AsItCame => assert!(!recorded),
                Traced::Unrecorded => panic!("the headers say it already"),
            }
        }
    }

    /// The same request is decided about alike, however often it comes; one without a UUID by its trace.
    #[test]
    fn the_id_of_the_request_decides_where_it_is_to() {
        let half = |by_request_id| {
            let rate = Rate::of_percentage(50.0);
            Arc::new(Tracing { rate, by_request_id, ..Tracing::default() })
        };
        let recorded = |tracing: &Arc<Tracing>, id: &str| {
            let came = headers(&[("x-request-id", id)]);
            let begun = (0..64).map(|_| tracing.begin(Kind::Client, &came));
            begun.filter(|it| matches!(it, Traced::Recorded(_))).count()
        };
        let (low, high) =
            ("0fbb3f57-3c1d-4d7c-8a00-000000000001", "0fbb3f57-3c1d-4d7c-8aff-ffffffffffff");
        assert_eq!((recorded(&half(true), low), recorded(&half(true), high)), (64, 0));
        // By chance, all of 64 fall to one side once in 2^63.
        for (tracing, id) in [(half(false), low), (half(true), "mine"), (half(true), "")] {
            assert!((1..64).contains(&recorded(&tracing, id)), "{id}");
        }
    }

    #[test]
    fn what_is_about_headers_alone_records_nothing() {
        let alone = Arc::new(Tracing { ends_here: true, ..Tracing::clone(&tracing(1000.0)) });
        let came = headers(&[("traceparent", &format!("{PARENT}1"))]);
        assert!(matches!(alone.begin(Kind::Server, &came), Traced::AsItCame));
        assert!(alone.begin_connection(Kind::Client).is_none());
    }

    /// What came, and whether it is recorded (`Some`), with what the next one is told.
    #[test]
    fn a_parents_decision_counts_as_far_as_it_is_said() {
        let (all, none) = (Rate::of_percentage(100.0), Rate::NONE);
        for (parent, rate, came, recorded, told) in [
            (Parent::Holds, none, Some(true), true, "-01"),
            (Parent::Holds, all, Some(false), false, "-00"),
            (Parent::Limited(all), none, Some(true), true, "-01"),
            (Parent::Limited(none), all, Some(true), false, "-00"),
            (Parent::Limited(all), all, Some(false), false, "-00"),
            (Parent::Limited(none), all, None, true, "-03"),
            (Parent::Ignored, none, Some(true), false, "-00"),
            (Parent::Ignored, all, Some(false), true, "-01"),
            (Parent::Ignored, none, None, false, "-02"),
        ] {
            let tracing = Arc::new(Tracing { rate, parent, ..Tracing::default() });
            let mut sent = match came {
                Some(came) => headers(&[("traceparent", &format!("{PARENT}{}", u8::from(came)))]),
                None => HeaderMap::new(),
            };
            match tracing.begin(Kind::Server, &sent) {
                Traced::Recorded(span) => {
                    assert!(recorded, "{parent:?} {came:?}");
                    span.context.write(&mut sent);
                }
                Traced::Unrecorded => {
                    assert!(!recorded, "{parent:?} {came:?}");
                    Context::unrecorded(&sent).write(&mut sent);
                }
                Traced::AsItCame => assert!(!recorded, "{parent:?} {came:?}"),
            }
            let sent = sent["traceparent"].to_str().unwrap();
            assert!(sent.ends_with(told), "{parent:?} {came:?}: {sent}");
        }
    }

    #[test]
    fn a_trace_that_is_not_recorded_stays_so() {
        let (none, all) = (tracing(0.0), tracing(1000.0));
        let mut sent = HeaderMap::new();
        assert!(matches!(none.begin(Kind::Client, &sent), Traced::Unrecorded));
        Context::unrecorded(&sent).write(&mut sent);
        // Random, and not sampled.
        assert!(sent["traceparent"].to_str().unwrap().ends_with("-02"));
        assert!(matches!(all.begin(Kind::Server, &sent), Traced::AsItCame));
    }
}
