//! What one request holds because of policies, given back when it ends, however that is.

use crate::balance::Ended;
use crate::filter::Held;
use crate::l7::message::body::Uploaded;

/// Nearly always none, so that a request has one word for it where no policy holds.
#[derive(Default)]
pub(super) struct Holds(Option<Box<Places>>);

#[derive(Default)]
struct Places {
    held: Vec<Held>,
    /// At the endpoint of the last attempt.
    called: Option<Held>,
}

impl Holds {
    pub(super) fn add(&mut self, held: Held) {
        self.0.get_or_insert_default().held.push(held);
    }

    /// Of an endpoint, instead of the one that was called before.
    pub(super) fn call(&mut self, call: Held) {
        self.0.get_or_insert_default().called = Some(call);
    }

    /// The endpoint that was called is done with it: what follows is another attempt.
    pub(super) fn release_call(&mut self) {
        if let Some(places) = &mut self.0 {
            places.called = None;
        }
    }

    /// Gives back places in limits: what follows is another attempt of the same call.
    pub(super) fn release_places(&mut self) {
        if let Some(places) = &mut self.0 {
            places.held.retain(|held| matches!(held, Held::Call(_)));
        }
    }

    /// How the call ended.
    pub(super) fn ended(&self, ended: Ended) {
        self.all().for_each(|held| held.ended(ended.has_failed()));
    }

    /// The application answered. A request whose body is still coming says nothing: how long that takes is the client's doing.
    pub(super) fn answered(&self, uploaded: Option<&Uploaded>) {
        if self.0.is_none() || uploaded.is_some_and(|uploaded| !uploaded.has_ended()) {
            return;
        }
        let sent = uploaded.and_then(Uploaded::ended_at);
        self.all().for_each(|held| held.answered(sent));
    }

    fn all(&self) -> impl Iterator<Item = &Held> {
        self.0.iter().flat_map(|places| places.held.iter().chain(&places.called))
    }
}
