//! TCPRoutes, as what all routes share ([`super::route`]).

use super::route::{RouteParts, StreamParts};
use crate::base::ObjectKey;
use crate::model::StreamKind;
use crate::source::objects::{TcpRoute, Typed, created};

pub(super) fn parts<'a>(key: &'a ObjectKey, route: &'a TcpRoute) -> StreamParts<'a> {
    StreamParts {
        kind: StreamKind::Tcp,
        route: RouteParts {
            kind: TcpRoute::KIND,
            key,
            created: created(&route.metadata),
            parents: &route.spec.parent_refs,
            hostnames: &[],
            rules: Vec::new(),
        },
        rules: &route.spec.rules,
    }
}
