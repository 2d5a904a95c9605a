//! Endpoints (core v1), which no agent reads: a cluster mirrors them into EndpointSlices (the endpointslicemirroring controller),
//! and so does a directory, which has no such controller. As there, they count for Services without a selector only.

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use serde_json::{Value, json};

use crate::source::objects::{FieldError, Kind, Object, read_as};

/// `"true"` on one that shall not be mirrored, such as one that a leader is elected with.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";

pub(super) fn is_endpoints(value: &Value) -> bool {
    let is = |field: &str, text: &str| value.get(field).and_then(Value::as_str) == Some(text);
    is("apiVersion", "v1") && is("kind", "Endpoints")
}

/// A slice for each subset: their ports differ.
pub(super) fn mirrored(value: &Value) -> Result<Vec<Object>, FieldError> {
    let endpoints: Endpoints = read_as(value)?;
    let metadata = &endpoints.metadata;
    let Some(name) = metadata.name.as_deref().filter(|name| !name.is_empty()) else {
        let reason = "is missing: every object needs a name".to_owned();
        return Err(FieldError { field: "metadata.name".into(), reason });
    };
    let skipped = metadata.labels.as_ref().and_then(|labels| labels.get(SKIP));
    if skipped.is_some_and(|skip| skip == "true") {
        return Ok(Vec::new());
    }
    let subsets = endpoints.subsets.iter().flatten().enumerate();
    subsets
        .map(|(index, subset)| {
            Kind::EndpointSlice.read(&json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    // No object of the API can have such a name.
                    "name": format!("{name} (Endpoints, subset {index})"),
                    "namespace": metadata.namespace,
                    "labels": {"kubernetes.io/service-name": name},
                },
                "addressType": "IPv4",
                "endpoints": endpoints_of(subset),
                "ports": subset.ports,
            }))
        })
        .collect()
}

fn endpoints_of(subset: &EndpointSubset) -> Value {
    let with = |list: &Option<Vec<EndpointAddress>>, ready: bool| {
        let addresses = list.iter().flatten().map(|address| {
            json!({
                "addresses": [address.ip],
                "conditions": {"ready": ready},
                "hostname": address.hostname,
                "nodeName": address.node_name,
                "targetRef": address.target_ref,
            })
        });
        addresses.collect::<Vec<_>>()
    };
    let mut all = with(&subset.addresses, true);
    all.extend(with(&subset.not_ready_addresses, false));
    Value::Array(all)
}
