//! TLSRoutes, as what all routes share ([`super::route`]).

use super::route::{RouteParts, StreamParts};
use crate::base::ObjectKey;
use crate::model::StreamKind;
use crate::source::objects::{TlsRoute, Typed, created};

pub(super) fn parts<'a>(key: &'a ObjectKey, route: &'a TlsRoute) -> StreamParts<'a> {
    StreamParts {
        kind: StreamKind::Tls,
        route: RouteParts {
            kind: TlsRoute::KIND,
            key,
            created: created(&route.metadata),
            parents: &route.spec.parent_refs,
            hostnames: &route.spec.hostnames,
            rules: Vec::new(),
        },
        rules: &route.spec.rules,
    }
}
