//! Subsets of DestinationRules that no endpoint belongs to.

use super::code::Code;
use super::finding::Finding;
use super::snapshot::Snapshot;
use crate::model::{Resolution, Service};
use crate::source::is_of_other_revision;
use crate::source::objects::DestinationRule;

pub(super) fn find(cx: &Snapshot<'_>, found: &mut Vec<Finding>) {
    for (key, rule) in cx.objects.all::<DestinationRule>() {
        let Ok(spec) = rule.read() else { continue };
        if is_of_other_revision(cx.settings, rule) || spec.subsets.is_empty() {
            continue;
        }
        // Without any endpoint the service itself is what is told of.
        let is_known = |service: &&Service| {
            service.resolution == Resolution::Listed && !service.endpoints.is_empty()
        };
        let services = cx.with_host(&key.namespace, &spec.host);
        let services: Vec<&Service> = services.into_iter().filter(is_known).collect();
        for (index, subset) in spec.subsets.iter().enumerate() {
            let Some(service) = services.first() else { continue };
            if services.iter().any(|service| has(service, key.namespace.as_str(), &subset.name)) {
                continue;
            }
            let field = format!("spec.subsets[{index}].labels");
            let labels: Vec<String> =
                subset.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let message = format!(
                "no endpoint of {service} has the labels {}, so the subset {:?} is empty",
                labels.join(","),
                subset.name
            );
            let code = Code::SubsetSelectsNothing;
            found.push(Finding::of::<DestinationRule>(cx.objects, key, code, field, message));
        }
    }
}

/// Whether the subset has an endpoint, or is none of the service's, so that another rule holds.
fn has(service: &Service, namespace: &str, name: &str) -> bool {
    let mut subsets = service.traffic.subsets_named(namespace, name).peekable();
    let none = subsets.peek().is_none();
    none || subsets.any(|subset| service.endpoints.iter().any(|it| subset.has(&it.subsets)))
}
