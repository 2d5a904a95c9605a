//! Every setting, in the order of the file: key, default, permitted values, meaning.

mod doors;
mod identity;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::defaults as default;
use super::layers;
use super::names;
use super::observed;
use super::reader::{Field, Reader};
use super::{
    AddressSettings, CniSettings, DnsSettings, DrainSettings, MissingWaypoint, ReadinessSettings,
    SameNode, Settings, SourceKind, SourceSettings, TakeoverSettings,
};
use super::{controller, workloads};
use crate::base::Str;

/// Where the kernel tells the host name.
const HOST_NAME_FILE: &str = "/proc/sys/kernel/hostname";
/// What a host without a name is called.
const UNNAMED_HOST: &str = "localhost";

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Below it, a single lost packet counts as a failure.
pub(super) const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=MINUTE;
/// More than any machine has; guards against a number meant for another key.
pub(super) const THREADS: RangeInclusive<usize> = 1..=256;
pub(super) const PERCENT: RangeInclusive<usize> = 1..=100;
/// The number of ports of one address bounds what one workload can use.
pub(super) const CONNECTIONS: RangeInclusive<usize> = 1..=1_000_000;

/// Reads all settings. What is wrong is kept in the reader, with the default in its place.
pub(super) fn read(reader: &mut Reader<'_>) -> Settings {
    let settings = Settings {
        node: node(reader),
        cluster: name(reader, "cluster", default::CLUSTER, "The cluster's name, for labels."),
        trust_domain: name(
            reader,
            "trust_domain",
            default::TRUST_DOMAIN,
            "The first part of every identity: spiffe://<trust domain>/ns/<namespace>/sa/<account>.",
        ),
        trust_domain_aliases: names::trust_domain_aliases(reader),
        cluster_domain: name(
            reader,
            "cluster_domain",
            default::CLUSTER_DOMAIN,
            "The end of service names: <name>.<namespace>.svc.<cluster domain>.",
        ),
        root_namespace: name(
            reader,
            "root_namespace",
            default::ROOT_NAMESPACE,
            "The namespace whose policies without a selector hold for the whole mesh.",
        ),
        public_service_entries: names::public_service_entries(reader),
        revisions: names::revisions(reader),
        missing_waypoint: missing_waypoint(reader),
        same_node: same_node(reader),
        source: source(reader),
        identity: identity::read(reader),
        admin: doors::admin(reader),
        metrics: observed::metrics(reader),
        readiness: readiness(reader),
        log: observed::log(reader),
        layer4: layers::layer4(reader),
        layer7: layers::layer7(reader),
        pool: layers::pool(reader),
        drain: drain(reader),
        takeover: takeover(reader),
        workloads: workloads::read(reader),
        dns: dns(reader),
        controller: controller::read(reader),
        cni: cni(reader),
    };
    doors::check_conflicts(reader, &settings);
    settings
}

fn missing_waypoint(reader: &mut Reader<'_>) -> MissingWaypoint {
    reader.choice(
        Field {
            key: "missing_waypoint",
            default: MissingWaypoint::Refuse,
            meaning: "What becomes of traffic for an object that names a waypoint which does not exist: `refuse` \
                      refuses it, `layer4` lets it go on without routes until there is one, as Istio does, so that labels \
                      may come before Gateways. A waypoint that is refused or not ready, and one that policies are \
                      attached to, is waited for either way. The controller needs the same value.",
        },
        &[("refuse", MissingWaypoint::Refuse), ("layer4", MissingWaypoint::Layer4)],
    )
}

fn same_node(reader: &mut Reader<'_>) -> SameNode {
    reader.choice(
            Field {
                key: "same_node",
                default: SameNode::InProcess,
                meaning: "How workloads of this node reach each other: `in_process` without encryption, since the \
                          bytes never leave the process, or `mtls` through a tunnel as between nodes. Policies \
                          are the same.",
            },
            &[("in_process", SameNode::InProcess), ("mtls", SameNode::Mtls)],
        )
}

fn node(reader: &mut Reader<'_>) -> Str {
    let host = std::fs::read_to_string(HOST_NAME_FILE).unwrap_or_default();
    let host = host.trim().to_ascii_lowercase();
    let known = check_name(&host).is_ok();
    let field = Field {
        key: "node",
        default: if known { host.as_str() } else { UNNAMED_HOST },
        meaning: "The name of this node, as pods name it; the agent captures the pods of this node only.",
    };
    reader.machine_text(field, "DNS name", ("the host name", "node-a"), check_name)
}

fn source(reader: &mut Reader<'_>) -> SourceSettings {
    SourceSettings {
        kind: reader.choice(
            Field {
                key: "source.kind",
                default: SourceKind::Directory,
                meaning: "Where the objects of the mesh come from: `directory` is files on this machine, \
                          `kubernetes` the API server of a cluster.",
            },
            &[("directory", SourceKind::Directory), ("kubernetes", SourceKind::Kubernetes)],
        ),
        directory: reader.path(Field {
            key: "source.directory",
            default: default::DIRECTORY,
            meaning: "The directory with the manifests (.yaml, .yml, .json; folders in it too, one level \
                      deep), watched for changes.",
        }),
        kubeconfig: reader.optional_path(Field {
            key: "source.kubeconfig",
            default: "",
            meaning: "How to reach the API server, as kubectl reads it; empty in a cluster, where the service \
                      account of the agent's pod says it.",
        }),
    }
}

fn readiness(reader: &mut Reader<'_>) -> ReadinessSettings {
    ReadinessSettings {
        address: reader.address(Field {
            key: "readiness.address",
            default: default::READINESS,
            meaning: "Where /healthz/ready is served.",
        }),
        file: reader.optional_path(Field {
            key: "readiness.file",
            default: "",
            meaning: "A file that stands while the agent is ready, for the probe `isthmus ready FILE`: two agents of \
                      one node, as in an upgrade, answer on one port.",
        }),
    }
}

fn drain(reader: &mut Reader<'_>) -> DrainSettings {
    DrainSettings {
        deadline: reader.duration(
            Field {
                key: "drain.deadline",
                default: default::DRAIN_DEADLINE,
                meaning: "How long connections may go on after SIGTERM, or after their workload left.",
            },
            Duration::ZERO..=60 * MINUTE,
        ),
    }
}

fn dns(reader: &mut Reader<'_>) -> DnsSettings {
    DnsSettings {
        enabled: reader.choice(
            Field {
                key: "dns.enabled",
                default: true,
                meaning: "Whether the agent answers DNS for captured workloads: `on` knows the services of the \
                          mesh and asks the workload's resolvers for everything else.",
            },
            &[("on", true), ("off", false)],
        ),
        resolv_conf: reader.path(Field {
            key: "dns.resolv_conf",
            default: default::RESOLV_CONF,
            meaning: "Names the resolvers of workloads. A named network namespace that has its own file, \
                      /etc/netns/<name>/resolv.conf, uses that.",
        }),
    }
}

fn takeover(reader: &mut Reader<'_>) -> TakeoverSettings {
    TakeoverSettings {
            directory: reader.path(Field {
                key: "takeover.directory",
                default: default::TAKEOVER_DIRECTORY,
                meaning: "Where an agent waits for its successor, as <node>.sock: an agent that is started while \
                          one runs for the same node takes its listening sockets over, so that an upgrade \
                          refuses no connection.",
            }),
        }
}

fn cni(reader: &mut Reader<'_>) -> CniSettings {
    CniSettings {
        enabled: reader.choice(
            Field {
                key: "cni.enabled",
                default: false,
                meaning: "Whether the agent installs itself as a chained CNI plugin, so that pods are captured before \
                          their first packet; for nodes of a cluster. What it installs stays when the agent ends, and \
                          goes with `isthmus cni uninstall` or when its DaemonSet is deleted.",
            },
            &[("on", true), ("off", false)],
        ),
        conf_directory: reader.path(Field {
            key: "cni.conf_directory",
            default: default::CNI_CONF_DIRECTORY,
            meaning: "Where the container runtime looks for network configurations; the first one gets an entry.",
        }),
        bin_directory: reader.path(Field {
            key: "cni.bin_directory",
            default: default::CNI_BIN_DIRECTORY,
            meaning: "Where the container runtime looks for plugins; the program is copied there as `isthmus`.",
        }),
        socket: reader.path(Field {
            key: "cni.socket",
            default: default::CNI_SOCKET,
            meaning: "Where the plugin asks the agent; the same path on the node and in the agent's pod.",
        }),
        exclude_namespaces: reader.texts(
            Field {
                key: "cni.exclude_namespaces",
                default: &[],
                meaning: "Namespaces whose pods start although the agent does not answer, besides kube-system and the \
                          agent's own.",
            },
            "DNS name",
            check_name,
        ),
    }
}

pub(super) fn name(
    reader: &mut Reader<'_>,
    key: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Str {
    // A cluster's name is an identifier of the operator's, not a DNS name: Istio's own default has a capital.
    let check = if key == "cluster" { check_identifier } else { check_name };
    let kind = if key == "cluster" { "name" } else { "DNS name" };
    reader.text(Field { key, default, meaning }, kind, check)
}

pub(super) fn address(
    reader: &mut Reader<'_>,
    key: &'static str,
    default: SocketAddr,
    meaning: &'static str,
) -> AddressSettings {
    AddressSettings { address: reader.address(Field { key, default, meaning }) }
}

/// A DNS subdomain as Kubernetes names objects (RFC 1123).
pub(super) fn check_name(text: &str) -> Result<(), String> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        return Ok(());
    }
    Err(format!(
        "{text:?} is not a DNS name; use lower case letters, digits, `-` and `.` (RFC 1123)"
    ))
}

fn check_identifier(text: &str) -> Result<(), String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !text.is_empty() && text.len() <= 253 && text.bytes().all(good) {
        return Ok(());
    }
    Err(format!("{text:?} is not a name; use letters, digits, `-`, `_` and `.`"))
}
