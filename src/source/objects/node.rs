//! Node: only its metadata means anything to the mesh. The status of one, with its list of images, is larger than a
//! hundred pods are here.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    #[serde(default)]
    pub metadata: ObjectMeta,
}
