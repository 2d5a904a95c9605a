//! Values that Istio's validation rejects, in objects that can be read. In a directory nobody else does.

use super::{authorization_policy, service_entry};
use crate::source::objects::{FieldError, Object};

/// The first such value of an object.
pub(in crate::source) fn meaningless(object: &Object) -> Option<FieldError> {
    match object {
        Object::AuthorizationPolicy(policy) => {
            authorization_policy::meaningless(&object.key(), policy)
        }
        Object::ServiceEntry(entry) => service_entry::meaningless(entry),
        Object::WorkloadEntry(entry) => service_entry::meaningless_workload(entry),
        _ => None,
    }
}
