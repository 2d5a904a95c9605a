//! What the API server would refuse although it can be read: patterns, enumerations, bounds and rules of the schemas of Gateway
//! API (v1), Istio (v1) and the core's validation, for the fields that mean something here.
//!
//! In a cluster the API server has checked every object, with the definitions that are installed there, and nobody asks this
//! room. A file's object is checked: one that the API server would refuse does not take the place of its last good version.
//! Types and unknown fields are its reader's to judge; a value of another type than a rule expects passes.

pub(super) mod core;
pub(super) mod gateway_api;
pub(super) mod istio;
pub(super) mod telemetry_policy;

use serde_json::Value;

use super::row::Schema;
use super::{FieldError, Kind};
use crate::base::schema::judge;

/// Whether the API server would take the object.
pub fn check(kind: Kind, object: &Value) -> Result<(), FieldError> {
    judge(&core::METADATA, object.get("metadata"), "metadata")?;
    match kind.row().schema {
        Schema::Metadata => Ok(()),
        Schema::Spec(rule) => judge(rule, object.get("spec"), "spec"),
        Schema::Object(rule) => judge(rule, Some(object), ""),
        Schema::Check(check) => check(object.get("spec")),
    }
}

#[cfg(test)]
mod tests;
