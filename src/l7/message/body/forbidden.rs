//! What a client may not say in trailers, because an agent or an authorizer says it in the head.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use crate::ext_authz::Mutations;
use crate::l7::message::{framing, headers};

/// Fields that are taken out of the trailers of a request.
#[derive(Default)]
pub(super) struct Forbidden {
    names: Vec<HeaderName>,
    providers: Vec<Arc<Mutations>>,
}

impl Forbidden {
    /// Those of these names, and no others that were named before.
    pub(super) fn name(&mut self, names: Vec<HeaderName>) {
        self.names = names;
    }

    /// Those that are providers' to set.
    pub(super) fn leave_to(&mut self, providers: Arc<Mutations>) {
        self.providers.push(providers);
    }

    pub(super) fn strip(&self, trailers: &mut HeaderMap) {
        headers::strip_disguised(trailers, &self.names);
        let theirs =
            |name: &&HeaderName| self.providers.iter().any(|it| it.forbids_in_trailers(name));
        let theirs: Vec<HeaderName> = trailers.keys().filter(theirs).cloned().collect();
        framing::remove(trailers, &theirs);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::ext_authz::Changes;
    use crate::model::StringMatch;

    #[test]
    fn no_trailer_speaks_for_an_agent_or_a_provider() {
        let one = HeaderValue::from_static("1");
        let names = ["x-claim", "x_claim", "x-role", "x_user", "x-set", "grpc-status", "x-kept"];
        let mut trailers: HeaderMap =
            names.map(|name| (HeaderName::from_static(name), one.clone())).into_iter().collect();
        let set = [(HeaderName::from_static("x-set"), one)].into_iter().collect();
        let own = vec![StringMatch::Prefix("x-u".into()), StringMatch::Exact("x-role".into())];
        let mut mutations = Mutations::default();
        mutations.add(Changes { set, own, ..Changes::default() });
        let mut forbidden = Forbidden::default();
        forbidden.name(vec![HeaderName::from_static("x-claim")]);
        forbidden.leave_to(Arc::new(mutations));
        forbidden.strip(&mut trailers);
        let kept: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        assert_eq!(kept, ["grpc-status", "x-kept"]);
    }
}
