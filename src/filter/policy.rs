//! What a TrafficPolicy is attached to, as it is written (GEP-713, LocalPolicyTargetReferenceWithSectionName).

use serde::Deserialize;
use serde_json::Value;

use super::{Fault, POLICY_SCHEMAS, PolicySpec, RuleContext};
use crate::base::schema::forms::{GROUP, KIND, NAME, SUBDOMAIN};
use crate::base::schema::{FieldError, Rule, judge};
use Rule::{Fields, List, Text};

/// What the API server takes; it has no rules for filters, which their own schemas have.
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
    /// Of a route the name of a rule.
    #[serde(default)]
    pub section_name: Option<String>,
}

/// Nothing is around a policy.
struct Nothing;

impl RuleContext for Nothing {}

impl PolicySpec {
    /// What is wrong with it as a whole: then its last good version stays in force.
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

/// Whether the API server would take the spec.
pub fn judge_spec(spec: Option<&Value>) -> Result<(), FieldError> {
    judge(&TARGETS, spec, "spec")?;
    judge(&Fields(POLICY_SCHEMAS), spec, "spec")
}
