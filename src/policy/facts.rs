//! What the rules of policies are compared with: one type with all of it.

use std::cell::OnceCell;

use super::bearer::Bearer;
use super::dialled::Destination;
use super::path::Readings;
use super::{Connection, Request};
use crate::base::Identity;

/// Who the peer counts as: a field matches when it matches either, its negation when it matches neither.
#[derive(Clone, Copy)]
pub struct Principals<'a> {
    pub client: Option<&'a Identity>,
    pub waypoint: Option<&'a Identity>,
}

impl<'a> Principals<'a> {
    pub(super) fn iter(self) -> impl Iterator<Item = &'a Identity> {
        self.client.into_iter().chain(self.waypoint)
    }

    pub(super) fn is_nobody(self) -> bool {
        self.client.is_none() && self.waypoint.is_none()
    }
}

/// All that is known when policies decide. Nothing is looked up, and nobody is asked, while they do: whatever takes time to
/// learn (what a token says, what a provider makes of the request) is established before, and is a fact here.
pub struct Facts<'a> {
    pub principals: Principals<'a>,
    pub(super) connection: &'a Connection<'a>,
    /// The connection's destination, as those see it whose policies decide.
    pub destination: Destination<'a>,
    /// `None`: bytes that are not HTTP.
    pub(super) request: Option<RequestFacts<'a>>,
    /// What the request's token says: `request.auth` in policies ([`check`](super::check)).
    pub bearer: Bearer<'a>,
}

pub(super) struct RequestFacts<'a> {
    pub(super) request: &'a Request<'a>,
    /// Read when the first rule asks for it.
    path: OnceCell<Readings<'a>>,
}

impl<'a> Facts<'a> {
    /// With the client's principal alone, for policies of the destination itself.
    pub fn new(connection: &'a Connection<'a>, request: Option<&'a Request<'a>>) -> Self {
        let request = request.map(|request| RequestFacts { request, path: OnceCell::new() });
        let principals = Principals { client: connection.client, waypoint: None };
        let destination = Destination::itself(connection.destination);
        let bearer = Bearer::Nobody;
        Self { principals, connection, destination, request, bearer }
    }

    pub fn connection(&self) -> &'a Connection<'a> {
        self.connection
    }
}

impl<'a> RequestFacts<'a> {
    pub(super) fn path(&self) -> &Readings<'a> {
        self.path.get_or_init(|| Readings::of(self.request.path))
    }
}
