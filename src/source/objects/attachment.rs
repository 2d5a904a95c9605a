//! What a policy of Istio is attached to, as it is written: all of the namespace (of the mesh, from the root namespace), the
//! workloads that a selector selects, or targets.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{GATEWAY_GROUP, ISTIO_NETWORKING_GROUP};
use crate::base::Str;
use crate::model::PolicyTarget;

/// Which workloads of the namespace (of all namespaces, from the root namespace) are meant.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSelector {
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetRef {
    #[serde(default)]
    pub group: String,
    pub kind: String,
    pub name: String,
    #[serde(default)]
    pub namespace: Option<String>,
}

impl TargetRef {
    /// What it names, wherever that is; `None`: nothing that policies are attached to.
    pub fn target(&self) -> Option<PolicyTarget> {
        let name = Str::from(self.name.as_str());
        match (self.group.as_str(), self.kind.as_str()) {
            ("" | "core", "Service") => Some(PolicyTarget::Service(name)),
            (ISTIO_NETWORKING_GROUP, "ServiceEntry") => Some(PolicyTarget::ServiceEntry(name)),
            (GATEWAY_GROUP, "Gateway") => Some(PolicyTarget::Gateway(name)),
            (GATEWAY_GROUP, "GatewayClass") => Some(PolicyTarget::GatewayClass(name)),
            _ => None,
        }
    }
}

/// The fields of a policy that say what it is attached to.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttachedTo<'a> {
    pub selector: Option<&'a WorkloadSelector>,
    /// The older form with one target.
    pub target_ref: Option<&'a TargetRef>,
    pub target_refs: &'a [TargetRef],
}

impl<'a> AttachedTo<'a> {
    /// The labels that workloads must have. One without labels selects all, as none does.
    pub fn labels(&self) -> Option<&'a BTreeMap<String, String>> {
        let labels = self.selector.map(|selector| &selector.match_labels);
        labels.filter(|labels| !labels.is_empty())
    }

    /// The targets, with the paths of their fields.
    pub fn targets(&self) -> Vec<(String, &'a TargetRef)> {
        let single = self.target_ref.map(|target| ("spec.targetRef".to_owned(), target));
        let several = self.target_refs.iter().enumerate();
        let several = several.map(|(index, target)| (format!("spec.targetRefs[{index}]"), target));
        single.into_iter().chain(several).collect()
    }
}
