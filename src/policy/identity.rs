//! Comparing identities with what policies say of them, without building their text.

use super::text;
use crate::base::{Identity, ObjectKey};
use crate::model::StringMatch;

/// `<trust domain>/ns/<namespace>/sa/<service account>`
pub(super) fn principal_matches(value: &StringMatch, who: &Identity) -> bool {
    text::matches_parts(
        value,
        &[&who.trust_domain, "/ns/", &who.namespace, "/sa/", &who.service_account],
    )
}

pub(super) fn namespace_matches(value: &StringMatch, who: &Identity) -> bool {
    text::matches(value, &who.namespace)
}

pub(super) fn trust_domain_matches(value: &StringMatch, who: &Identity) -> bool {
    text::matches(value, &who.trust_domain)
}

/// The trust domain does not count, as in Istio; peers of other trust domains do not get this far.
pub(super) fn account_matches(value: &ObjectKey, who: &Identity) -> bool {
    value.namespace == who.namespace && value.name == who.service_account
}

/// `<namespace>/<service account>`
pub(super) fn account_text_matches(value: &StringMatch, who: &Identity) -> bool {
    text::matches_parts(value, &[&who.namespace, "/", &who.service_account])
}
