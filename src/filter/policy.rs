//! The targets of a TrafficPolicy as they are written (GEP-713, LocalPolicyTargetReferenceWithSectionName).

use serde::Deserialize;
use serde_json::Value;

use super::{Fault, POLICY_SCHEMAS, PolicySpec, RuleContext};
use crate::base::schema::forms::{GROUP, KIND, NAME, SUBDOMAIN};
use crate::base::schema::{FieldError, Rule, judge};
use Rule::{Fields, List, Text};

/// The targets that the API server accepts. Each filter has its schema.
const TARGETS: Rule = Fields(&[(
    "targetRefs",
    List(
        1,
        16,
        &Fields(&[
            ("group", Text(GROUP)),
            ("kind", Text(KIND)),
            ("name", Text(NAME)),
            ("sectionName", Text(SUBDOMAIN)),
        ]),
    ),
)]);

/// An object of the policy's own namespace.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyTarget {
    #[serde(default)]
    pub group: String,
    pub kind: String,
    pub name: String,
    /// The name of a route's rule, a Service's port, or a Gateway's listener.
    #[serde(default)]
    pub section_name: Option<String>,
}

/// A policy has no rule around its filters.
struct Nothing;

impl RuleContext for Nothing {}

impl PolicySpec {
    /// Rejects a spec that cannot be carried out; the policy's last good version then stays in force.
    pub fn check(&self) -> Result<(), String> {
        if self.target_refs.is_empty() {
            return Err("targetRefs: is empty; name what the policy is for".to_owned());
        }
        let faults = self.filters(&Nothing).into_iter().filter_map(Result::err);
        match faults.into_iter().next() {
            Some((of, Fault::Field { field, why })) => Err(format!("{of}.{field}: {why}")),
            Some((of, Fault::Rule { field, why })) => Err(format!("{of}.{field}: {why}")),
            Some((of, Fault::LeadsNowhere)) => Err(format!("{of}: leads nowhere")),
            None => Ok(()),
        }
    }
}

/// Whether the API server would accept the spec.
pub fn judge_spec(spec: Option<&Value>) -> Result<(), FieldError> {
    judge(&TARGETS, spec, "spec")?;
    judge(&Fields(POLICY_SCHEMAS), spec, "spec")
}
