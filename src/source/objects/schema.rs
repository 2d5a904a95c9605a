//! What the API server would refuse although it can be read: patterns, enumerations, bounds and rules of the schemas of Gateway
//! API (v1), Istio (v1) and the core's validation, for the fields that mean something here.
//!
//! In a cluster the API server has checked every object, with the definitions that are installed there, and nobody asks this
//! room. A file's object is checked: one that the API server would refuse does not take the place of its last good version.
//! Types and unknown fields are its reader's to judge; a value of another type than a rule expects passes.

mod core;
mod gateway_api;
mod istio;

use serde_json::Value;

use super::{FieldError, Kind};
use crate::base::schema::judge;

/// Whether the API server would take the object.
pub fn check(kind: Kind, object: &Value) -> Result<(), FieldError> {
    let spec = match kind {
        Kind::HTTPRoute => &gateway_api::HTTP_ROUTE,
        Kind::GRPCRoute => &gateway_api::GRPC_ROUTE,
        Kind::Gateway => &gateway_api::GATEWAY,
        Kind::AuthorizationPolicy => &istio::AUTHORIZATION_POLICY,
        Kind::PeerAuthentication => &istio::PEER_AUTHENTICATION,
        Kind::ServiceEntry => &istio::SERVICE_ENTRY,
        Kind::WorkloadEntry => &istio::WORKLOAD_ENTRY,
        Kind::Service => &core::SERVICE,
        Kind::Pod => {
            judge(&core::METADATA, object.get("metadata"), "metadata")?;
            return judge(&core::POD, Some(object), "");
        }
        Kind::EndpointSlice => {
            judge(&core::METADATA, object.get("metadata"), "metadata")?;
            return judge(&core::ENDPOINT_SLICE, Some(object), "");
        }
        _ => return judge(&core::METADATA, object.get("metadata"), "metadata"),
    };
    judge(&core::METADATA, object.get("metadata"), "metadata")?;
    judge(spec, object.get("spec"), "spec")
}

#[cfg(test)]
mod tests;
