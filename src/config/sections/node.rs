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
        /// Where the objects of the mesh come from: `directory` is files on this machine, `kubernetes` the API server of a
        /// cluster.
        kind: SourceKind = SourceKind::Directory, choice(&[
                ("directory", SourceKind::Directory),
                ("kubernetes", SourceKind::Kubernetes),
            ]),
            because "It needs no cluster; the chart sets the other.";

        /// The directory with the manifests (.yaml, .yml, .json; folders in it too, one level deep), watched for changes.
        directory: PathBuf = "/etc/isthmus/manifests", path(),
            because "Configuration lies below `/etc` (FHS 3.0, 3.7).";

        /// How to reach the API server, as kubectl reads it; empty in a cluster, where the service account of the agent's pod
        /// says it.
        kubeconfig: Option<PathBuf> = "", optional_path(),
            because "Agents of a cluster run in its pods.";
    }
}

section! {
    /// `[drain]`
    pub struct DrainSettings in "drain." {
        /// How long connections may go on after SIGTERM, or after their workload left.
        deadline: Duration = 5 * SECOND, duration(Duration::ZERO..=HOUR),
            because "ztunnel's: connections that have not ended by themselves after it seldom do.";
    }
}

section! {
    /// `[takeover]`
    pub struct TakeoverSettings in "takeover." {
        /// Where an agent waits for its successor, as `<node>.sock`: an agent that is started while one runs for the same node
        /// takes its listening sockets over, so that an upgrade refuses no connection.
        directory: PathBuf = "/run/isthmus", path(),
            because "Gone with the machine's next start, as what waits there is.";
    }
}

section! {
    /// `[workloads]`: how an agent knows which pod is where.
    pub struct WorkloadsSettings in "workloads." {
        /// Where the agent keeps what the container runtime said of each pod's sandbox, in a folder for the node that only
        /// root may look into: an agent that starts again takes no pod's word for which it is. What lies there counts until
        /// the machine's next start.
        directory: PathBuf = "/run/isthmus/sandboxes", path(),
            because "Gone with the machine's next start, as sandboxes are.";

        /// Where the container runtime answers CRI: it is asked in which network namespace a pod runs that started before the
        /// first agent did. Empty: where containerd, CRI-O, k3s and cri-dockerd listen.
        runtime_socket: Option<PathBuf> = "", optional_path(),
            because "The usual runtimes are tried one after the other.";
    }
}

section! {
    /// `[dns]`
    pub struct DnsSettings in "dns." {
        /// Whether the agent answers DNS for captured workloads: `on` knows the services of the mesh and asks the workload's
        /// resolvers for everything else.
        enabled: bool = true, switch(),
            because "Ambient meshes of Istio have it: hosts of ServiceEntries have no other name server.";

        /// Names the resolvers of workloads. A named network namespace that has its own file, `/etc/netns/<name>/resolv.conf`,
        /// uses that.
        resolv_conf: PathBuf = "/etc/resolv.conf", path(),
            because "resolv.conf(5)";
    }
}

section! {
    /// `[cni]`
    pub struct CniSettings in "cni." {
        /// Whether the agent installs itself as a chained CNI plugin, so that pods are captured before their first packet; for
        /// nodes of a cluster. What it installs stays when the agent ends, and goes with `isthmus cni uninstall` or when its
        /// DaemonSet is deleted.
        enabled: bool = false, switch(),
            because "An agent outside of a cluster must not change its machine's networks; the chart sets it.";

        /// Where the container runtime looks for network configurations; the first one gets an entry.
        conf_directory: PathBuf = "/etc/cni/net.d", path(),
            because "Where containerd and CRI-O look by default.";

        /// Where the container runtime looks for plugins; the program is copied there as `isthmus`.
        bin_directory: PathBuf = "/opt/cni/bin", path(),
            because "Where containerd and CRI-O look by default.";

        /// Where the plugin asks the agent; the same path on the node and in the agent's pod.
        socket: PathBuf = "/run/isthmus/cni.sock", path(),
            because "Gone with the machine's next start, as the agent is.";

        /// Namespaces whose pods start although the agent does not answer, besides kube-system and the agent's own.
        exclude_namespaces: Vec<Str> = &[], texts("DNS name", check::dns_name),
            because "A pod that starts without capture is outside of the mesh.";
    }
}
