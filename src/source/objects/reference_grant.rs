//! ReferenceGrant (Gateway API v1, v1beta1): lets objects of another namespace refer to objects of its own.

use serde::Deserialize;

use super::Resource;

pub type ReferenceGrant = Resource<ReferenceGrantSpec>;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReferenceGrantSpec {
    pub from: Vec<GrantFrom>,
    pub to: Vec<GrantTo>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantFrom {
    pub group: String,
    pub kind: String,
    pub namespace: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantTo {
    pub group: String,
    pub kind: String,
    /// `None`: every object of the kind.
    #[serde(default)]
    pub name: Option<String>,
}
