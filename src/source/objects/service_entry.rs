//! ServiceEntry and WorkloadEntry (Istio `networking.istio.io/v1`). Enumerations are texts: the translator says what it
//! does not know, and the other fields of the object go on.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Resource;
use crate::base::Str;
use crate::model::Locality;

pub type ServiceEntry = Resource<ServiceEntrySpec>;
pub type WorkloadEntry = Resource<WorkloadEntrySpec>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceEntrySpec {
    #[serde(default)]
    pub hosts: Vec<String>,
    /// IP addresses and CIDR networks.
    #[serde(default)]
    pub addresses: Vec<String>,
    #[serde(default)]
    pub ports: Vec<EntryPort>,
    /// `MESH_EXTERNAL` or `MESH_INTERNAL`.
    #[serde(default)]
    pub location: Option<String>,
    /// `NONE`, `STATIC`, `DNS`, `DNS_ROUND_ROBIN`, `DYNAMIC_DNS`.
    #[serde(default)]
    pub resolution: Option<String>,
    #[serde(default)]
    pub endpoints: Vec<WorkloadEntrySpec>,
    #[serde(default)]
    pub workload_selector: Option<EntrySelector>,
    #[serde(default)]
    pub export_to: Vec<String>,
    #[serde(default)]
    pub subject_alt_names: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EntryPort {
    pub number: u32,
    #[serde(default)]
    pub protocol: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub target_port: Option<u32>,
}

/// Pods and WorkloadEntries of the entry's namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntrySelector {
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A WorkloadEntry, which is also the form of an endpoint that stands in a ServiceEntry.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadEntrySpec {
    /// An IP address, or a host name where the resolution is DNS.
    #[serde(default)]
    pub address: String,
    /// By the name of the entry's port.
    #[serde(default)]
    pub ports: BTreeMap<String, u32>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub network: String,
    /// `region/zone/subzone`.
    #[serde(default)]
    pub locality: String,
    #[serde(default)]
    pub weight: u32,
    /// Would be the identity of a workload outside of Kubernetes that proves one; none does here.
    #[serde(default, rename = "serviceAccount")]
    _service_account: IgnoredAny,
}

impl WorkloadEntry {
    /// Labels of the object and of its spec; the latter win (Istio).
    pub fn all_labels(&self) -> BTreeMap<String, String> {
        let mut all = self.metadata.labels.clone().unwrap_or_default();
        all.extend(self.spec.labels.clone());
        all
    }
}

impl WorkloadEntrySpec {
    /// The parts of `locality`, of which the last may be missing.
    pub fn locality(&self) -> Locality {
        let mut parts = self.locality.splitn(3, '/').map(Str::from);
        let mut next = || parts.next().unwrap_or_default();
        Locality { region: next(), zone: next(), subzone: next() }
    }
}
