//! Pods to workloads.

use std::net::IpAddr;

use super::frame::Frame;
use super::labels;
use super::namespace::{DATAPLANE_MODE, check_mode};
use super::waypoint::{Addressed, MANAGED};
use super::{Context, namespace_label};
use crate::base::{Identity, ObjectKey, Str};
use crate::model::{Canonical, CaptureWishes, Locality, Workload};
use crate::source::objects::{
    Kind, Labelled, MIRROR, Namespace, Node, Phase, Pod, annotation, label,
};

/// Written by Istio's sidecar injector: such a pod is captured already.
const SIDECAR_STATUS: &str = "sidecar.istio.io/status";
/// Names the network namespace of a pod that no container runtime started.
const NETWORK_NAMESPACE: &str = "isthmus.io/network-namespace";
/// The node of such a pod; wins over `spec.nodeName`.
const NODE: &str = "isthmus.io/node";
/// Whether DNS of the pod is captured (Istio "ambient.istio.io/dns-capture").
const DNS_CAPTURE: &str = "ambient.istio.io/dns-capture";
/// Whether what arrives in the clear is left alone (Istio "ambient.istio.io/bypass-inbound-capture").
const BYPASS_INBOUND: &str = "ambient.istio.io/bypass-inbound-capture";
/// Whose gateway a pod is (Gateway API, GEP-1762).
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// The service account of a pod that names none (Kubernetes "Configure Service Accounts for Pods").
const DEFAULT_SERVICE_ACCOUNT: &str = "default";
/// The revision of a workload that has none (Istio "Canonical Service").
const LATEST: &str = "latest";

/// `None` for a pod that has run to its end. What follows from the template alone is taken from `sibling`, a workload with
/// the same one.
pub(super) fn translate(
    cx: &mut Context<'_>,
    frame: &Frame,
    (key, pod): (&ObjectKey, &Pod),
    sibling: Option<&Workload>,
) -> Option<Workload> {
    if is_finished(pod) {
        return None;
    }
    labels::check(cx, Kind::Pod, key, pod);
    let Frame { waypoints, policies, levels, rules, egress, sources, .. } = frame;
    let node = annotation(pod, NODE).map(Str::from).or_else(|| pod.node_name.clone());
    let node = node.unwrap_or_default();
    let (host_network, labels) = (pod.template.host_network, pod.labels());
    let locality = locality(cx, pod, &node, sibling);
    let enrolled = !host_network && is_enrolled(cx, key, pod);
    let addresses = addresses(cx, key, pod);
    complain_of_place(cx, key, pod, addresses.is_empty());
    Some(Workload {
        uid: format!("{}//Pod/{}/{}", cx.settings.cluster, key.namespace, key.name).into(),
        key: key.clone(),
        pod: pod_uid(pod),
        identity: sibling.map_or_else(|| identity(cx, key, pod), |it| it.identity.clone()),
        labels: rules.compared(labels, &locality, &node),
        node,
        addresses,
        network_namespace: annotation(pod, NETWORK_NAMESPACE).map(Str::from),
        enrolled,
        unsure: !enrolled && !is_left_out(pod) && !knows_namespace(cx, key),
        host_network,
        gateway: is_gateway(pod),
        capture: CaptureWishes {
            dns: flag(cx, key, pod, DNS_CAPTURE),
            bypass_inbound: flag(cx, key, pod, BYPASS_INBOUND).unwrap_or(false),
        },
        ready: is_ready(pod),
        // A pod without an owner is known by its own name.
        canonical: match sibling.filter(|_| pod.template.owner.is_some()) {
            Some(sibling) => sibling.canonical.clone(),
            None => canonical(pod, &key.name),
        },
        rules: rules.selecting(&key.namespace, labels),
        locality,
        waypoint: waypoints.bind::<Pod>(cx, key, pod, Addressed::Workload),
        peer_authentication: levels.effective(&key.namespace, labels),
        policies: policies.selecting(cx, &key.namespace, labels),
        selected_by: sources.selecting(labels),
        registry_only: egress.registry_only(&key.namespace, labels),
    })
}

/// By the labels that Gateway API has every implementation set (GEP-1762), and Istio's.
fn is_gateway(pod: &Pod) -> bool {
    label(pod, GATEWAY_NAME).is_some_and(|name| !name.is_empty()) || label(pod, MANAGED).is_some()
}

/// A pod that no container runtime started is what its manifest says, so what is missing there nobody adds.
fn complain_of_place(cx: &mut Context<'_>, key: &ObjectKey, pod: &Pod, homeless: bool) {
    let Some(namespace) = annotation(pod, NETWORK_NAMESPACE) else { return };
    if homeless {
        let reason = format!(
            "is missing: without an address the pod is neither captured nor an endpoint, although it has a network namespace \
             ({NETWORK_NAMESPACE}); give the address that it has there"
        );
        cx.warn::<Pod>(key, "status.podIP", reason);
    }
    if annotation(pod, NODE).is_none() && pod.node_name.is_none() {
        let reason = "is missing: no agent captures the pod, since none knows that it runs on its node; give the `node` of \
                      that node's settings, here or in spec.nodeName";
        cx.warn::<Pod>(key, annotation_field(NODE), reason);
    }
    if pod.template.host_network {
        let reason = format!(
            "{namespace:?} has no effect on a pod in its node's network (spec.hostNetwork), which is never captured"
        );
        cx.warn::<Pod>(key, annotation_field(NETWORK_NAMESPACE), reason);
    }
}

/// How an annotation is written as a field's path.
fn annotation_field(name: &str) -> String {
    format!("metadata.annotations[{name:?}]")
}

fn identity(cx: &Context<'_>, key: &ObjectKey, pod: &Pod) -> Identity {
    let account = pod.template.service_account_name.as_deref();
    let account = account.filter(|name| !name.is_empty()).unwrap_or(DEFAULT_SERVICE_ACCOUNT);
    Identity::new(cx.settings.trust_domains.own().clone(), key.namespace.clone(), account)
}

/// What the container runtime is told of a pod. A static pod's is the one that the kubelet gave it, which its mirror in
/// the API has in an annotation (Kubernetes "Static Pods").
fn pod_uid(pod: &Pod) -> Option<Str> {
    annotation(pod, MIRROR).map(Str::from).or_else(|| pod.metadata.uid.clone())
}

/// `"true"` or `"false"`; anything else is said aloud and has no effect.
fn flag(cx: &mut Context<'_>, key: &ObjectKey, pod: &Pod, name: &str) -> Option<bool> {
    match annotation(pod, name)? {
        "true" => Some(true),
        "false" => Some(false),
        other => {
            let reason = format!("{other:?} is neither \"true\" nor \"false\", and has no effect");
            cx.warn::<Pod>(key, annotation_field(name), reason);
            None
        }
    }
}

/// Completed pods keep their address in the API for a while, but it may belong to another pod already.
fn is_finished(pod: &Pod) -> bool {
    pod.status.phase == Phase::Finished
}

/// The pod itself says that it is outside, whatever its namespace says.
fn is_left_out(pod: &Pod) -> bool {
    annotation(pod, SIDECAR_STATUS).is_some() || label(pod, DATAPLANE_MODE) == Some("none")
}

fn knows_namespace(cx: &Context<'_>, key: &ObjectKey) -> bool {
    cx.objects.get::<Namespace>(&ObjectKey::new("", key.namespace.clone())).is_some()
}

fn is_enrolled(cx: &mut Context<'_>, key: &ObjectKey, pod: &Pod) -> bool {
    if is_left_out(pod) {
        return false;
    }
    if let Some(mode) = label(pod, DATAPLANE_MODE) {
        check_mode::<Pod>(cx, key, mode);
        if mode == "ambient" {
            return true;
        }
    }
    namespace_label(cx.objects, &key.namespace, DATAPLANE_MODE) == Some("ambient")
}

fn is_ready(pod: &Pod) -> bool {
    pod.passes_readiness() && !pod.metadata.deleting
}

fn addresses(cx: &mut Context<'_>, key: &ObjectKey, pod: &Pod) -> Vec<IpAddr> {
    let status = &pod.status;
    let mut addresses = Vec::new();
    let many = status.pod_ips.iter().flatten().map(|it| ("status.podIPs", &*it.ip));
    let one = status.pod_ip.as_deref().map(|text| ("status.podIP", text));
    // The single address repeats the first of the many; both are read, for manifests that have only one of them.
    for (field, text) in many.chain(one).filter(|(_, text)| !text.is_empty()) {
        match text.parse() {
            Ok(address) if !addresses.contains(&address) => addresses.push(address),
            Ok(_) => {}
            Err(_) => cx.error::<Pod>(
                key,
                field,
                format!("{text:?} is not an IP address; it is left out"),
            ),
        }
    }
    addresses
}

/// Istio's order: the canonical labels, then Kubernetes' recommended ones, then `app` and `version`, then the owner.
fn canonical(pod: &Pod, name: &str) -> Canonical {
    let first = |names: &[&str]| names.iter().find_map(|name| label(pod, name));
    let workload = owner(pod).unwrap_or_else(|| name.to_owned());
    let service = first(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"])
        .unwrap_or(&workload);
    let revision =
        first(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"])
            .unwrap_or(LATEST);
    Canonical {
        app: first(&["app"]).unwrap_or(service).into(),
        version: first(&["version"]).unwrap_or(revision).into(),
        service: service.into(),
        revision: revision.into(),
        workload: workload.into(),
    }
}

/// The Deployment behind a ReplicaSet and the CronJob behind a Job are known by what their names end in.
fn owner(pod: &Pod) -> Option<String> {
    let owner = pod.template.owner.as_ref()?;
    let parent = match owner.kind.as_str() {
        "ReplicaSet" => label(pod, "pod-template-hash")
            .and_then(|hash| owner.name.strip_suffix(hash)?.strip_suffix('-')),
        // The CronJob controller appends the time in minutes since the epoch.
        "Job" => owner.name.rsplit_once('-').and_then(|(name, time)| {
            let is_time =
                matches!(time.len(), 8..=10) && time.bytes().all(|byte| byte.is_ascii_digit());
            is_time.then_some(name)
        }),
        _ => None,
    };
    Some(parent.unwrap_or(&owner.name).to_owned())
}

/// Kubernetes copies the topology of the node to its pods since 1.35 (PodTopologyLabelsAdmission); before that only the
/// node has it.
fn locality(cx: &Context<'_>, pod: &Pod, node: &Str, sibling: Option<&Workload>) -> Locality {
    let node = ObjectKey::new("", node.clone());
    let text = |name: &str, of_sibling: fn(&Locality) -> &Str| {
        let of_node = || label(&cx.objects.get::<Node>(&node)?.metadata, name);
        let text = label(pod, name).or_else(of_node).unwrap_or_default();
        // Few places, many pods: the same text is held once.
        let same = sibling.map(|it| of_sibling(&it.locality)).filter(|it| *it == text);
        same.cloned().unwrap_or_else(|| text.into())
    };
    Locality {
        region: text("topology.kubernetes.io/region", |it| &it.region),
        zone: text("topology.kubernetes.io/zone", |it| &it.zone),
        subzone: text("topology.istio.io/subzone", |it| &it.subzone),
    }
}
