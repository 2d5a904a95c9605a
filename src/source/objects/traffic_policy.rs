//! TrafficPolicy (`isthmus.io/v1alpha1`): what is done to requests, by policy attachment (GEP-713).

use serde::Deserialize;

use super::Resource;
use crate::filter::PolicySpec;

pub type TrafficPolicy = Resource<TrafficPolicySpec>;

/// A spec that can be carried out: another one refuses the object, whose last good version stays in force.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "PolicySpec")]
pub struct TrafficPolicySpec(pub PolicySpec);

impl TryFrom<PolicySpec> for TrafficPolicySpec {
    type Error = String;

    fn try_from(spec: PolicySpec) -> Result<Self, String> {
        spec.check().map(|()| Self(spec))
    }
}
