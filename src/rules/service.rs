//! All routes with one service as a parent.

use std::sync::Arc;

use super::compiled::Compilations;
use super::group::Group;
use crate::base::{ObjectKey, Str};
use crate::model::HttpRoute;

/// The routes with one service as a parent, by their namespace: groups never merge (GEP-1324).
#[derive(Clone, Debug, Default)]
pub struct ServiceRules(Vec<(Str, Arc<Group>)>);

impl ServiceRules {
    /// `routes` are sorted by namespace. What is in `before` already is not compiled again.
    pub fn of(
        service: &ObjectKey,
        routes: &[Arc<HttpRoute>],
        before: Option<&Self>,
        compilations: &mut Compilations,
    ) -> Self {
        let groups = routes.chunk_by(|one, other| one.key.namespace == other.key.namespace);
        let compiled = groups.filter_map(|routes| {
            let namespace = &routes.first()?.key.namespace;
            let known = before.and_then(|before| before.place(namespace));
            let group = match known.filter(|group| group.is_of(routes)) {
                Some(group) => group.clone(),
                None => Arc::new(Group::of(service, routes, compilations)),
            };
            Some((namespace.clone(), group))
        });
        Self(compiled.collect())
    }

    /// Keeps what was compiled for all services.
    pub fn keep(&self, compilations: &mut Compilations) {
        self.0.iter().for_each(|(_, group)| group.keep(compilations));
    }

    /// Those of the routes in this namespace.
    pub fn from(&self, namespace: &str) -> Option<&Group> {
        self.place(namespace).map(|group| &**group)
    }

    fn place(&self, namespace: &str) -> Option<&Arc<Group>> {
        let place = self.0.binary_search_by(|(of, _)| of.as_str().cmp(namespace)).ok()?;
        self.0.get(place).map(|(_, group)| group)
    }
}
