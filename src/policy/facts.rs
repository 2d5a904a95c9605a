//! What a policy's rules are compared with.

use std::cell::OnceCell;

use super::dialled::Destination;
use super::path::Readings;
use super::{Connection, Request};
use crate::base::Identity;

/// Who the peer counts as: a field matches when it matches either, its negation when it matches neither.
#[derive(Clone, Copy)]
pub(super) struct Principals<'a> {
    pub(super) client: Option<&'a Identity>,
    pub(super) waypoint: Option<&'a Identity>,
}

impl<'a> Principals<'a> {
    pub(super) fn iter(self) -> impl Iterator<Item = &'a Identity> {
        self.client.into_iter().chain(self.waypoint)
    }

    pub(super) fn is_nobody(self) -> bool {
        self.client.is_none() && self.waypoint.is_none()
    }
}

/// What rules are compared with.
pub(super) struct Facts<'a> {
    pub(super) principals: Principals<'a>,
    pub(super) connection: &'a Connection<'a>,
    pub(super) destination: Destination<'a>,
    pub(super) request: Option<RequestFacts<'a>>,
}

pub(super) struct RequestFacts<'a> {
    pub(super) request: &'a Request<'a>,
    /// Read when the first rule asks for it.
    path: OnceCell<Readings<'a>>,
}

impl<'a> Facts<'a> {
    /// With the client's principal alone, for policies of the destination itself.
    pub(super) fn new(connection: &'a Connection<'a>, request: Option<&'a Request<'a>>) -> Self {
        let request = request.map(|request| RequestFacts { request, path: OnceCell::new() });
        let principals = Principals { client: connection.client, waypoint: None };
        let destination = Destination::itself(connection.destination);
        Self { principals, connection, destination, request }
    }
}

impl<'a> RequestFacts<'a> {
    pub(super) fn path(&self) -> &Readings<'a> {
        self.path.get_or_init(|| Readings::of(self.request.path))
    }
}
