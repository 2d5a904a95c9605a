//! A request that is traced: its span begins with its record, and its headers tell the next one.

use std::sync::Arc;

use http::HeaderMap;

use super::{Exchange, Told};
use crate::trace::{Context, Kind, Traced, Tracing};

/// Begins the span of a request that came to this port, unless it is not recorded.
pub(in crate::l7) fn begin(
    exchange: &mut Exchange,
    tracing: &Arc<Tracing>,
    (kind, port): (Kind, u16),
    headers: &HeaderMap,
) {
    match tracing.begin(kind, headers) {
        Traced::Recorded(mut span) => {
            span.port = port;
            exchange.record.trace(span);
        }
        Traced::Unrecorded => exchange.told = Told::Unrecorded,
        Traced::AsItCame => {}
    }
    if tracing.ends_here {
        exchange.told = Told::Nothing;
    }
}

/// Tells the next one what was decided here.
pub(in crate::l7) fn tell(exchange: &Exchange, headers: &mut HeaderMap) {
    match (&exchange.told, exchange.record.span()) {
        (Told::Nothing, _) => Context::remove(headers),
        (_, Some(span)) => span.context.write(headers),
        (Told::Unrecorded, None) => Context::unrecorded(headers).write(headers),
        (Told::OfItsSpan, None) => {}
    }
}
