//! Asks the filters of a request, at whichever half they stand.

use http::Request;

use super::Exchange;
use super::answer::Answer;
use crate::filter::{self, Cx, Flow, Half, HttpFilter, RequestHead, Waited};

/// Filters that are asked about a request, in their order.
pub(in crate::l7) struct Asked<'a> {
    /// The half that asks; others' filters are passed over.
    pub(in crate::l7) half: Half,
    pub(in crate::l7) filters: &'a [HttpFilter],
    /// More specific ones: where these have a filter of a type, it holds instead (GEP-713).
    pub(in crate::l7) instead: &'a [HttpFilter],
    pub(in crate::l7) cx: Cx<'a>,
}

impl Asked<'_> {
    /// The first answer that one of them gives. `exchange` hears what else they have to say; a copy for a mirror has none.
    pub(in crate::l7) async fn ask<B>(
        &self,
        request: &mut Request<B>,
        mut exchange: Option<&mut Exchange>,
    ) -> Result<(), Answer> {
        let holds = |filter: &&HttpFilter| {
            filter.half() == self.half && !filter::has_type_of(self.instead, filter)
        };
        let mut asked = self.filters.iter().filter(holds).peekable();
        if asked.peek().is_none() {
            return Ok(());
        }
        let (method, uri) = (request.method().clone(), request.uri().clone());
        for filter in asked {
            let mut head =
                RequestHead { method: &method, uri: &uri, headers: request.headers_mut() };
            let answer = match filter.request(&mut head, &self.cx) {
                Flow::Next => None,
                Flow::Answer(answer) => Some(answer),
                Flow::Note(note) => {
                    if let Some(exchange) = &mut exchange {
                        exchange.record.note(note);
                    }
                    None
                }
                Flow::Wait(waited) => {
                    let Waited { answer, mark } = waited.await;
                    if let Some(exchange) = &mut exchange {
                        exchange.has_waited(mark);
                    }
                    answer
                }
            };
            if let Some(answer) = answer {
                return Err(Answer::of_filter(answer));
            }
        }
        Ok(())
    }
}
