//! One filter of a request is asked, at whichever half it stands.

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
    exchange: Option<&mut Exchange>,
) -> Result<(), Answer> {
    if filter.half() != half {
        return Ok(());
    }
    let flow = {
        // Taken out for a moment, because the filter may change them while it looks at the rest.
        let mut headers = std::mem::take(request.headers_mut());
        let (method, uri) = (request.method(), request.uri());
        let flow = filter.request(&mut RequestHead { method, uri, headers: &mut headers }, cx);
        *request.headers_mut() = headers;
        flow
    };
    let answer = match flow {
        Flow::Next => None,
        Flow::Answer(answer) => Some(answer),
        Flow::Note(note) => {
            if let Some(exchange) = exchange {
                exchange.record.note(note);
            }
            None
        }
        Flow::Hold { held, note } => {
            if let Some(exchange) = exchange {
                exchange.hold(held);
                if let Some(note) = note {
                    exchange.record.note(note);
                }
            }
            None
        }
        Flow::Wait(waited) => {
            let Waited { answer, mark } = waited.await;
            if let Some(exchange) = exchange {
                exchange.has_waited(mark);
            }
            answer
        }
    };
    answer.map_or(Ok(()), |answer| Err(Answer::of_filter(answer)))
}
