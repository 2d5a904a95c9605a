//! A request that is traced: its span begins with its record, and its headers tell the next one.

use std::sync::Arc;

use http::HeaderMap;

use super::Exchange;
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
        Traced::Unrecorded => exchange.unrecorded = true,
        Traced::AsItCame => {}
    }
}

/// Tells the next one what was decided here.
pub(in crate::l7) fn tell(exchange: &Exchange, headers: &mut HeaderMap) {
    if let Some(span) = exchange.record.span() {
        span.context.write(headers);
    } else if exchange.unrecorded {
        Context::unrecorded(headers).write(headers);
    }
}
