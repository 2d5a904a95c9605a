//! Ports of Services where a pod's own are meant. A pod may listen on any port, declared or not; but a number that is a
//! Service's port, and leads to another port of the very pods, is most likely a mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::Service;

/// By the port that clients dial: the Service, and the port that it leads to at the pods. Only those that no Service leads to
/// as the pods' own. `counts`: of these services and workloads (by uid).
pub(super) fn mistaken(
    services: &[Arc<Service>],
    counts: impl Fn(&Service, &str) -> bool,
) -> BTreeMap<u16, (String, u16)> {
    let (mut mistaken, mut own) = (BTreeMap::new(), BTreeSet::new());
    for service in services {
        for endpoint in &service.endpoints {
            let workload = endpoint.workload.as_ref();
            if !workload.is_some_and(|uid| counts(service, uid)) {
                continue;
            }
            for mapping in &endpoint.ports {
                own.insert(mapping.target);
                let found = || (service.to_string(), mapping.target);
                mistaken.entry(mapping.port).or_insert_with(found);
            }
        }
    }
    mistaken.retain(|port, _| !own.contains(port));
    mistaken
}

/// What is wrong with such a port, and what to write instead.
pub(super) fn in_words(port: u16, (service, target): &(String, u16)) -> String {
    format!(
        "{port} is the port of {service}, which leads to {target} of its pods, and the pods' own is meant here: write {target}"
    )
}
