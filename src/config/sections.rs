//! Every setting, in the order of the file: key, default, permitted values, meaning.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::controller;
use super::defaults as default;
use super::observed;
use super::reader::{Field, Reader};
use super::{
    AddressSettings, CniSettings, DnsSettings, DrainSettings, IdentitySettings, IssuerKind,
    Layer4Settings, Layer7Settings, PoolSettings, ReadinessSettings, SameNode, Settings,
    SourceKind, SourceSettings, TakeoverSettings,
};
use crate::base::Str;

/// Where the kernel tells the host name.
const HOST_NAME_FILE: &str = "/proc/sys/kernel/hostname";
/// What a host without a name is called.
const UNNAMED_HOST: &str = "localhost";

pub(super) const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Below it, a single lost packet counts as a failure.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=MINUTE;
/// More than any machine has; guards against a number meant for another key.
const THREADS: RangeInclusive<usize> = 1..=256;
/// The number of ports of one address bounds what one workload can use.
const CONNECTIONS: RangeInclusive<usize> = 1..=1_000_000;

/// Enough for a few tunnels, and more than any node has.
const BYTES: RangeInclusive<usize> = 4 * 1024 * 1024..=1 << 40;

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
        trust_domain_aliases: reader.texts(
            Field {
                key: "trust_domain_aliases",
                default: (),
                meaning: "Other names of the trust domain, as MeshConfig.trustDomainAliases: peers of them are \
                          accepted, and a policy that names one means all. Such as [\"old.example\"].",
            },
            "DNS name",
            check_name,
        ),
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
        same_node: same_node(reader),
        source: source(reader),
        identity: identity(reader),
        admin: admin(reader),
        metrics: observed::metrics(reader),
        readiness: readiness(reader),
        log: observed::log(reader),
        layer4: layer4(reader),
        layer7: layer7(reader),
        pool: pool(reader),
        drain: drain(reader),
        takeover: takeover(reader),
        dns: dns(reader),
        controller: controller::read(reader),
        cni: cni(reader),
    };
    check_conflicts(reader, &settings);
    settings
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

fn identity(reader: &mut Reader<'_>) -> IdentitySettings {
    IdentitySettings {
        issuer: issuer(reader),
        ca_directory: ca_directory(reader),
        lifetime: reader.duration(
            Field {
                key: "identity.lifetime",
                default: default::LIFETIME,
                meaning: "How long a certificate is valid; it is renewed at half of it.",
            },
            10 * SECOND..=365 * DAY,
        ),
        crl: reader.optional_path(Field {
            key: "identity.crl",
            default: "",
            meaning: "Certificate revocation lists in PEM, watched for changes: peers whose certificate they revoke \
                      are refused and cut.",
        }),
        istio_address: ca_address(
            reader,
            "identity.istio_address",
            default::ISTIO_ADDRESS,
            "Where istiod signs certificates, when it is the issuer. Plain http:// is for this \
             machine only.",
        ),
        istio_ca_root: reader.path(Field {
            key: "identity.istio_ca_root",
            default: default::ISTIO_CA_ROOT,
            meaning: "The roots that the certificate of istiod's server must come from, as PEM; read anew for \
                      each connection.",
        }),
        istio_token_file: reader.path(Field {
            key: "identity.istio_token_file",
            default: default::ISTIO_TOKEN_FILE,
            meaning: "The agent's own service account token with the audience of istiod (istio-ca); read anew \
                      for each request.",
        }),
        controller_address: ca_address(
            reader,
            "identity.controller_address",
            default::CONTROLLER_ADDRESS,
            "Where `isthmus controller` signs certificates, when it is the issuer.",
        ),
        controller_root: reader.path(Field {
            key: "identity.controller_root",
            default: default::CONTROLLER_ROOT,
            meaning: "The roots that the certificate of the controller's server must come from, as PEM, watched \
                      for changes: other roots have all certificates issued anew.",
        }),
        controller_token_file: reader.path(Field {
            key: "identity.controller_token_file",
            default: default::CONTROLLER_TOKEN_FILE,
            meaning: "The agent's own service account token with the audience istio-ca; read anew for each \
                      request.",
        }),
    }
}

fn ca_directory(reader: &mut Reader<'_>) -> PathBuf {
    reader.path(Field {
        key: "identity.ca_directory",
        default: default::CA_DIRECTORY,
        meaning: "Where the local CA keeps ca-cert.pem and ca-key.pem; made when missing. The agents of \
                  one mesh on one machine share it.",
    })
}

fn issuer(reader: &mut Reader<'_>) -> IssuerKind {
    reader.choice(
        Field {
            key: "identity.issuer",
            default: IssuerKind::Local,
            meaning: "Who signs certificates: `local` is a CA in a directory of this machine, `istio` is istiod, \
                      `controller` is `isthmus controller` in the cluster.",
        },
        &[
            ("local", IssuerKind::Local),
            ("istio", IssuerKind::Istio),
            ("controller", IssuerKind::Controller),
        ],
    )
}

fn admin(reader: &mut Reader<'_>) -> AddressSettings {
    let key = "admin.address";
    let settings = address(
        reader,
        key,
        default::ADMIN,
        "Where status, dump and the log level are served, without authentication: loopback only.",
    );
    if !settings.address.ip().is_loopback() {
        let reason = format!(
            "{} is not a loopback address; whoever reaches this port can stop the agent",
            settings.address.ip()
        );
        reader.complain(key, reason);
    }
    settings
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

fn layer4(reader: &mut Reader<'_>) -> Layer4Settings {
    Layer4Settings {
        threads: layer4_threads(reader),
        max_connections: reader.number(
            Field {
                key: "layer4.max_connections",
                default: default::LAYER4_MAX_CONNECTIONS,
                meaning: "Connections of one workload at a time, of each direction; those in tunnels count one by \
                          one, and tunnels by themselves. More wait to be accepted, and in tunnels are refused.",
            },
            CONNECTIONS,
        ),
        max_peer_connections: reader.number(
            Field {
                key: "layer4.max_peer_connections",
                default: default::LAYER4_MAX_PEER_CONNECTIONS,
                meaning: "Connections of one client's address to one workload at a time, in tunnels and without; more \
                          are refused.",
            },
            CONNECTIONS,
        ),
        max_peer_tunnels: reader.number(
            Field {
                key: "layer4.max_peer_tunnels",
                default: default::LAYER4_MAX_PEER_TUNNELS,
                meaning: "TLS connections of one client's address to port 15008 of one workload at a time; more are \
                          closed.",
            },
            CONNECTIONS,
        ),
        max_bytes: layer4_bytes(reader),
        max_workload_bytes: layer4_workload_bytes(reader),
        connect_timeout: reader.duration(
            Field {
                key: "layer4.connect_timeout",
                default: default::CONNECT_TIMEOUT,
                meaning: "How long connecting to an application, an endpoint or another node may take.",
            },
            TIMEOUTS,
        ),
        detect_timeout: reader.duration(
            Field {
                key: "layer4.detect_timeout",
                default: default::DETECT_TIMEOUT,
                meaning: "How long to wait for a client's first bytes on a port whose protocol is not said; \
                          then the connection is carried as bytes.",
            },
            TIMEOUTS,
        ),
    }
}

fn layer4_threads(reader: &mut Reader<'_>) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads =
        (processors / default::LAYER4_PROCESSORS_DIVISOR).max(default::LAYER4_MIN_THREADS);
    reader.machine_number(
        Field {
            key: "layer4.threads",
            default: threads,
            meaning: "Threads for all connections of layer 4 and all tunnels.",
        },
        THREADS,
        ("a quarter of the processors, at least 2", default::LAYER4_MIN_THREADS),
    )
}

fn layer4_bytes(reader: &mut Reader<'_>) -> usize {
    reader.number(
            Field {
                key: "layer4.max_bytes",
                default: default::LAYER4_MAX_BYTES,
                meaning: "Bytes that connections and tunnels of layer 4 may hold together: 8 KiB for a connection, \
                          256 KiB for a tunnel, and what they buffer. More connections wait or are refused.",
            },
            BYTES,
        )
}

fn layer4_workload_bytes(reader: &mut Reader<'_>) -> usize {
    reader.number(
        Field {
            key: "layer4.max_workload_bytes",
            default: default::LAYER4_MAX_WORKLOAD_BYTES,
            meaning: "Of these, those of one workload's connections, of both directions.",
        },
        BYTES,
    )
}

fn layer7(reader: &mut Reader<'_>) -> Layer7Settings {
    Layer7Settings {
        threads: reader.number(
            Field {
                key: "layer7.threads",
                default: default::LAYER7_THREADS,
                meaning: "Threads of each waypoint worker.",
            },
            THREADS,
        ),
        max_connections: reader.number(
            Field {
                key: "layer7.max_connections",
                default: default::LAYER7_MAX_CONNECTIONS,
                meaning: "Connections of each waypoint worker at a time; more are refused.",
            },
            CONNECTIONS,
        ),
        max_requests: reader.number(
            Field {
                key: "layer7.max_requests",
                default: default::LAYER7_MAX_REQUESTS,
                meaning: "Requests in flight in each waypoint worker; more are answered 503.",
            },
            CONNECTIONS,
        ),
        max_buffered_bytes: reader.number(
            Field {
                key: "layer7.max_buffered_bytes",
                default: default::LAYER7_MAX_BUFFERED_BYTES,
                meaning: "Bytes that the connections of each waypoint worker may buffer together.",
            },
            1024 * 1024..=1 << 40,
        ),
    }
}

fn pool(reader: &mut Reader<'_>) -> PoolSettings {
    PoolSettings {
        max_streams: reader.number(
            Field {
                key: "pool.max_streams",
                default: default::MAX_STREAMS,
                meaning: "Connections that share one tunnel; the other node may allow fewer.",
            },
            1..=1_000,
        ),
        idle_timeout: reader.duration(
            Field {
                key: "pool.idle_timeout",
                default: default::IDLE_TIMEOUT,
                meaning: "After how long an unused tunnel is closed.",
            },
            SECOND..=DAY,
        ),
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
                default: (),
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

fn ca_address(
    reader: &mut Reader<'_>,
    key: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Str {
    reader.text(Field { key, default, meaning }, "https:// address with a port", check_ca_address)
}

/// Two servers cannot listen on one port; `[::]` takes the IPv4 addresses too.
fn check_conflicts(reader: &mut Reader<'_>, settings: &Settings) {
    let servers = [
        ("admin.address", settings.admin.address),
        ("metrics.address", settings.metrics.address),
        ("readiness.address", settings.readiness.address),
        ("controller.address", settings.controller.address),
    ];
    for (index, (key, address)) in servers.iter().enumerate() {
        let earlier = servers.iter().take(index).find(|(_, other)| overlap(*address, *other));
        if let Some((other_key, other)) = earlier {
            let reason =
                format!("{address} conflicts with {other} of {other_key}; give another port");
            reader.complain(key, reason);
        }
    }
}

fn overlap(left: SocketAddr, right: SocketAddr) -> bool {
    let takes_all = |address: SocketAddr, other: SocketAddr| {
        address.ip().is_unspecified() && (address.is_ipv6() || other.is_ipv4())
    };
    // Port 0 is chosen by the kernel, anew for each server.
    left.port() == right.port()
        && left.port() != 0
        && (left.ip() == right.ip() || takes_all(left, right) || takes_all(right, left))
}

/// What the issuer needs: a host with a port, and TLS wherever a token would cross a network.
fn check_ca_address(text: &str) -> Result<(), String> {
    let wrong =
        |why: &str| Err(format!("{text:?} {why}; write it as {:?}", default::ISTIO_ADDRESS));
    let Ok(uri) = text.parse::<http::Uri>() else { return wrong("is not an address") };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let loopback =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if loopback => {}
        Some("http") => return wrong("would send the agent's token in plain text"),
        _ => return wrong("does not begin with https://"),
    }
    if uri.port_u16().is_none_or(|port| port == 0) {
        return wrong("has no port");
    }
    let bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
    if bare { Ok(()) } else { wrong("goes on after the port") }
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
