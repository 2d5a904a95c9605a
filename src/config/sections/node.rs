//! What lies on the node: `[source]`, `[drain]`, `[takeover]`, `[workloads]`, `[dns]` and `[cni]`.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::Str;
use crate::config::check::{self, HOUR, SECOND};

/// Where the mesh's objects come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// Files on this machine.
    Directory,
    /// The API server of a cluster.
    Kubernetes,
}

section! {
    /// `[source]`
    pub struct SourceSettings in "source." {
        /// The source of the mesh's objects: `directory` means files on this machine, `kubernetes` the API server of a
        /// cluster.
        kind: SourceKind = SourceKind::Directory, choice(&[
                ("directory", SourceKind::Directory),
                ("kubernetes", SourceKind::Kubernetes),
            ]),
            because "It needs no cluster; the chart sets the other.";

        /// The directory with the manifests (.yaml, .yml, .json; also in its subdirectories, one level deep), watched
        /// for changes.
        directory: PathBuf = "/etc/isthmus/manifests", path(),
            because "Configuration belongs below `/etc` (FHS 3.0, 3.7).";

        /// The kubeconfig for the API server; empty in a cluster, where the agent uses the service account of its pod.
        kubeconfig: Option<PathBuf> = "", optional_path(),
            because "Agents of a cluster run in its pods.";
    }
}

section! {
    /// `[drain]`
    pub struct DrainSettings in "drain." {
        /// How long connections may continue after SIGTERM, or after their workload left.
        deadline: Duration = 5 * SECOND, duration(Duration::ZERO..=HOUR),
            because "ztunnel's: connections that have not ended by then rarely do.";
    }
}

section! {
    /// `[takeover]`
    pub struct TakeoverSettings in "takeover." {
        /// The directory of the takeover socket, `<node>.sock`: an agent that starts while another one runs for the
        /// same node takes over its listening sockets, so that an upgrade refuses no connection.
        directory: PathBuf = "/run/isthmus", path(),
            because "Cleared at boot, like the agents that listen there.";
    }
}

section! {
    /// `[workloads]`: how an agent knows which pod is where.
    pub struct WorkloadsSettings in "workloads." {
        /// Where the agent records what the container runtime reported about each pod's sandbox, in a folder for the
        /// node that only root may read: so a restarted agent need not trust the pods. A record is valid until the next
        /// boot.
        directory: PathBuf = "/run/isthmus/sandboxes", path(),
            because "Cleared at boot, like the sandboxes.";

        /// The CRI socket of the container runtime, which knows the network namespaces of pods that are older than the
        /// first agent. Empty: the default sockets of containerd, CRI-O, k3s and cri-dockerd.
        runtime_socket: Option<PathBuf> = "", optional_path(),
            because "The usual runtimes are tried one after the other.";
    }
}

section! {
    /// `[dns]`
    pub struct DnsSettings in "dns." {
        /// Whether the agent answers DNS for captured workloads: it answers names of the mesh itself, and forwards
        /// everything else to the workload's resolvers.
        enabled: bool = true, switch(),
            because "Istio's ambient mode enables it: hosts of ServiceEntries have no other name server.";

        /// The file that names the resolvers of workloads. A named network namespace with its own file,
        /// `/etc/netns/<name>/resolv.conf`, uses that.
        resolv_conf: PathBuf = "/etc/resolv.conf", path(),
            because "resolv.conf(5)";
    }
}

section! {
    /// `[cni]`
    pub struct CniSettings in "cni." {
        /// Whether the agent installs itself as a chained CNI plugin, so that pods are captured before their first
        /// packet; for nodes of a cluster. The plugin stays when the agent exits; `isthmus cni uninstall`, or deleting
        /// the DaemonSet, removes it.
        enabled: bool = false, switch(),
            because "An agent outside of a cluster must not change its machine's networks; the chart sets it.";

        /// The container runtime's directory of network configurations; the agent adds an entry to the first one.
        conf_directory: PathBuf = "/etc/cni/net.d", path(),
            because "Where containerd and CRI-O look by default.";

        /// The container runtime's plugin directory; the program is copied there as `isthmus`.
        bin_directory: PathBuf = "/opt/cni/bin", path(),
            because "Where containerd and CRI-O look by default.";

        /// The socket at which the plugin asks the agent; the same path on the node and in the agent's pod.
        socket: PathBuf = "/run/isthmus/cni.sock", path(),
            because "Cleared at boot, like the agent.";

        /// Namespaces whose pods start even if the agent does not answer, besides kube-system and the agent's own.
        exclude_namespaces: Vec<Str> = &[], texts("DNS name", check::dns_name),
            because "A pod that starts without capture is outside the mesh.";
    }
}
