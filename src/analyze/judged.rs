//! Policies that nobody judges, or whose HTTP fields nobody looks at.

use std::collections::BTreeSet;

use super::code::Code;
use super::finding::Finding;
use super::snapshot::{Extent, Snapshot};
use crate::base::ObjectKey;
use crate::model::{self, AppProtocol, Rule, Scope, Workload};
use crate::policy::{looks_at_http, operation_looks_at_http};
use crate::source::objects::{
    AuthorizationPolicy, Labelled, Namespace, PeerAuthentication, Pod, RequestAuthentication,
    selects,
};

pub(super) fn find(cx: &Snapshot<'_>, found: &mut Vec<Finding>) {
    for policy in &cx.mesh.policies {
        let workloads = workloads(cx, policy);
        if let Some(message) = outside(cx, &policy.key, &workloads) {
            let code = Code::NobodyJudges;
            found.push(match policy.as_of_tokens() {
                Some(key) => {
                    Finding::of::<RequestAuthentication>(cx.objects, &key, code, "", message)
                }
                None => {
                    Finding::of::<AuthorizationPolicy>(cx.objects, &policy.key, code, "", message)
                }
            });
        }
        if policy.scope == Scope::Workloads && policy.broken.is_none() {
            on_tcp(cx, found, policy, &workloads);
        }
    }
    for (key, policy) in cx.objects.all::<PeerAuthentication>() {
        // That of the root namespace is for all.
        if key.namespace == cx.settings.root_namespace {
            continue;
        }
        let labels = policy.spec.attached_to().labels();
        let is_meant = |it: &&Workload| {
            let own = cx.objects.get::<Pod>(&it.key).and_then(Labelled::labels);
            it.key.namespace == key.namespace && labels.is_none_or(|labels| selects(labels, own))
        };
        let workloads: Vec<&Workload> =
            cx.mesh.workloads.iter().map(|it| &**it).filter(is_meant).collect();
        if let Some(message) = outside(cx, key, &workloads) {
            let code = Code::NobodyJudges;
            found.push(Finding::of::<PeerAuthentication>(cx.objects, key, code, "", message));
        }
    }
}

/// The workloads that a policy is for; none for one of the whole mesh, and for one with targets, which waypoints stand before.
fn workloads<'a>(cx: &Snapshot<'a>, policy: &model::AuthorizationPolicy) -> Vec<&'a Workload> {
    let is_meant = |it: &&'a Workload| match policy.scope {
        Scope::Workloads => it.policies.contains(&policy.key),
        Scope::Namespace => it.key.namespace == policy.key.namespace,
        Scope::Mesh | Scope::Targets(_) => false,
    };
    cx.mesh.workloads.iter().map(|it| &**it).filter(is_meant).collect()
}

/// Why nobody judges, if it is so.
fn outside(cx: &Snapshot<'_>, policy: &ObjectKey, workloads: &[&Workload]) -> Option<String> {
    let namespace = ObjectKey::new("", policy.namespace.clone());
    let unknown = cx.extent == Extent::Part && cx.objects.get::<Namespace>(&namespace).is_none();
    let any_inside = workloads.iter().any(|it| it.is_captured() || it.unsure);
    if workloads.is_empty() || any_inside || unknown {
        return None;
    }
    let why = match workloads.iter().all(|it| it.host_network) {
        true => "share the network of their node",
        false => "are not enrolled (istio.io/dataplane-mode)",
    };
    let count = workloads.len();
    Some(format!(
        "the policy is for {count} workloads, which {why}: nobody judges what arrives there"
    ))
}

/// Rules with HTTP fields for workloads that are only reached through ports of bytes.
fn on_tcp(
    cx: &Snapshot<'_>,
    found: &mut Vec<Finding>,
    policy: &model::AuthorizationPolicy,
    workloads: &[&Workload],
) {
    if policy.as_of_tokens().is_some() {
        return;
    }
    let ports = ports(cx, workloads);
    for (index, rule) in policy.rules.iter().enumerate().filter(|(_, rule)| looks_at_http(rule)) {
        let named = named_ports(rule);
        let mut meant = ports.iter().filter(|(_, port)| named.is_empty() || named.contains(port));
        let all: Vec<u16> = meant.clone().map(|(_, port)| *port).collect();
        if all.is_empty() || meant.any(|(protocol, _)| *protocol != "tcp") {
            continue;
        }
        let list: Vec<String> = all.iter().map(u16::to_string).collect();
        let message = format!(
            "has HTTP fields, and every Service that leads to these workloads says that port {} is TCP",
            list.join(", ")
        );
        let (code, field) = (Code::HttpOnTcpPort, format!("spec.rules[{index}]"));
        let of = Finding::of::<AuthorizationPolicy>;
        found.push(of(cx.objects, &policy.key, code, field, message));
    }
}

/// What Services say of the ports of workloads.
fn ports(cx: &Snapshot<'_>, workloads: &[&Workload]) -> BTreeSet<(&'static str, u16)> {
    let uids: BTreeSet<&str> = workloads.iter().map(|it| it.uid.as_str()).collect();
    let mut all = BTreeSet::new();
    for service in &cx.mesh.services {
        let is_meant = |uid: &str| uids.contains(uid);
        let endpoints = service.endpoints.iter();
        for endpoint in endpoints.filter(|it| it.workload.as_deref().is_some_and(is_meant)) {
            for mapping in &endpoint.ports {
                let protocol = service.port(mapping.port).map(|it| it.protocol);
                let is_tcp = protocol == Some(AppProtocol::Tcp);
                all.insert((if is_tcp { "tcp" } else { "http" }, mapping.target));
            }
        }
    }
    all
}

/// The ports that the HTTP fields of a rule are about; none: any.
fn named_ports(rule: &Rule) -> BTreeSet<u16> {
    let operations = rule.to.iter().filter(|it| operation_looks_at_http(it));
    if operations.clone().any(|it| it.ports.any.is_empty()) {
        return BTreeSet::new();
    }
    operations.flat_map(|it| it.ports.any.iter().copied()).collect()
}
