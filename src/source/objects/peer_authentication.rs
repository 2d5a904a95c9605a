//! PeerAuthentication (Istio `security.istio.io/v1`).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{AttachedTo, Resource, WorkloadSelector};

pub type PeerAuthentication = Resource<PeerAuthenticationSpec>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerAuthenticationSpec {
    #[serde(default)]
    pub selector: Option<WorkloadSelector>,
    #[serde(default)]
    pub mtls: Option<MutualTls>,
    /// By the workload's port; only together with a selector.
    #[serde(default)]
    pub port_level_mtls: BTreeMap<String, MutualTls>,
}

impl PeerAuthenticationSpec {
    pub fn attached_to(&self) -> AttachedTo<'_> {
        AttachedTo { selector: self.selector.as_ref(), ..AttachedTo::default() }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MutualTls {
    #[serde(default)]
    pub mode: MtlsMode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum MtlsMode {
    /// Inherits from the next wider level.
    #[default]
    Unset,
    Disable,
    Permissive,
    Strict,
}
