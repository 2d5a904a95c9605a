//! One filter of a request is asked, at whichever half it stands.

use std::pin::Pin;

use http::Request;

use super::Exchange;
use super::answer::Answer;
use crate::filter::{Cx, Flow, Half, HttpFilter, RequestHead, Waited};

/// Asks a filter, unless it stands at the other half; it sees the request as the client sent it. `exchange` hears what it has to
/// say of a request that goes on; a copy for a mirror has none.
pub(in crate::l7) async fn ask<B>(
    filter: &HttpFilter,
    half: Half,
    cx: &Cx<'_>,
    request: &mut Request<B>,
    mut exchange: Option<&mut Exchange>,
) -> Result<(), Answer> {
    if filter.half() != half {
        return Ok(());
    }
    let decided = decide(filter, cx, request, exchange.as_deref_mut());
    let Some(waiting) = decided? else { return Ok(()) };
    let Waited { answer, mark } = waiting.await;
    if let Some(exchange) = exchange {
        exchange.has_waited(mark);
    }
    answer.map_or(Ok(()), |answer| Err(Answer::of_filter(answer)))
}

/// What a filter waits for.
type Waiting = Pin<Box<dyn Future<Output = Waited> + Send>>;

/// Shows a request to a filter, and gives what it waits for. Apart from the wait, so that who waits does not hold what was decided.
fn decide<B>(
    filter: &HttpFilter,
    cx: &Cx<'_>,
    request: &mut Request<B>,
    exchange: Option<&mut Exchange>,
) -> Result<Option<Waiting>, Answer> {
    // Taken out for a moment, because the filter may change them while it looks at the rest.
    let mut headers = std::mem::take(request.headers_mut());
    let (method, uri) = (request.method(), request.uri());
    let flow = filter.request(&mut RequestHead { method, uri, headers: &mut headers }, cx);
    *request.headers_mut() = headers;
    match flow {
        Flow::Next => {}
        Flow::Answer(answer) => return Err(Answer::of_filter(answer)),
        Flow::Pass(passing) => {
            if let Some(exchange) = exchange {
                exchange.passes(*passing);
            }
        }
        Flow::Wait(waiting) => return Ok(Some(waiting)),
    }
    Ok(None)
}
