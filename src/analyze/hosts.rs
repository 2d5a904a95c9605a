//! Hosts that no service has, and ServiceEntries that lead nowhere.

use std::collections::BTreeSet;

use super::code::Code;
use super::finding::Finding;
use super::snapshot::Snapshot;
use crate::base::ObjectKey;
use crate::model::Resolution;
use crate::source::is_of_other_revision;
use crate::source::objects::{DestinationRule, ServiceEntry};

pub(super) fn find(cx: &Snapshot<'_>, found: &mut Vec<Finding>) {
    of_rules(cx, found);
    of_entries(cx, found);
}

/// VirtualServices say it themselves.
fn of_rules(cx: &Snapshot<'_>, found: &mut Vec<Finding>) {
    for (key, rule) in cx.objects.all::<DestinationRule>() {
        if is_of_other_revision(cx.settings, rule) {
            continue;
        }
        let Some(host) = rule.spec.get("host").and_then(|host| host.as_str()) else { continue };
        if !cx.with_host(&key.namespace, host).is_empty() {
            continue;
        }
        let full = cx.settings.full_host(&key.namespace, host);
        let message = format!("no Service and no ServiceEntry has the host {full}");
        let finding = Finding::of::<DestinationRule>(
            cx.objects,
            key,
            Code::HostMissing,
            "spec.host",
            message,
        );
        found.push(finding);
    }
}

fn of_entries(cx: &Snapshot<'_>, found: &mut Vec<Finding>) {
    let mut told = BTreeSet::new();
    for service in &cx.mesh.services {
        let Some(entry) = &service.entry else { continue };
        let needs = matches!(service.resolution, Resolution::Listed | Resolution::Names);
        let key = ObjectKey::new(service.key.namespace.clone(), entry.clone());
        if !needs || !service.endpoints.is_empty() || !told.insert(key.clone()) {
            continue;
        }
        let selects = cx
            .objects
            .get::<ServiceEntry>(&key)
            .is_some_and(|entry| entry.spec.workload_selector.is_some());
        let (field, why) = match selects {
            true => ("spec.workloadSelector", "selects no pod and no WorkloadEntry"),
            // One without any says so itself.
            false if lists_none(cx, &key) => continue,
            false => ("spec.endpoints", "lists none that can be used"),
        };
        let message = format!("{why}, so {} has no endpoint", service.hostname);
        let code = Code::EntryWithoutEndpoint;
        found.push(Finding::of::<ServiceEntry>(cx.objects, &key, code, field, message));
    }
}

fn lists_none(cx: &Snapshot<'_>, key: &ObjectKey) -> bool {
    cx.objects.get::<ServiceEntry>(key).is_none_or(|entry| entry.spec.endpoints.is_empty())
}
