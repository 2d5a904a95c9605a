//! The table of all checks, which the documentation shows.

use std::fmt;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    Node,
    Agent,
    Cluster,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Section::Node => "node",
            Section::Agent => "agent",
            Section::Cluster => "cluster",
        })
    }
}

/// One check.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub id: &'static str,
    pub section: Section,
    pub title: &'static str,
    /// What is looked at, and when it is no pass.
    pub looks: &'static str,
    /// What to do then.
    pub mend: &'static str,
}

const fn row(
    id: &'static str,
    section: Section,
    title: &'static str,
    looks: &'static str,
    mend: &'static str,
) -> Row {
    Row { id, section, title, looks, mend }
}

use Section::{Agent, Cluster, Node};

/// In the order of a report.
pub const ROWS: &[Row] = &[
    row(
        "settings",
        Node,
        "settings file",
        "whether the settings can be read, and every value is one",
        "Correct the settings that are named; settings.md lists all of them.",
    ),
    row(
        "kernel-version",
        Node,
        "kernel",
        "Linux 5.10 or later; before 6.5 the kernel keeps ports of connections that were refused",
        "Run a newer kernel.",
    ),
    row(
        "kernel-rules",
        Node,
        "capture rules",
        "whether the kernel takes the capture rules, over netlink, in a network namespace of its own",
        "Load nf_tables, nft_redir, nft_ct, nft_objref, nft_reject_inet and nft_socket, or build the kernel with them; run the check as root.",
    ),
    row(
        "capabilities",
        Node,
        "capabilities",
        "CAP_SYS_ADMIN and CAP_NET_ADMIN of this process",
        "Run the agent as root, or with these capabilities (install.md).",
    ),
    row(
        "file-limit",
        Node,
        "open files",
        "the hard limit of open files of this process, to which the agent raises its own: 65,536 or more",
        "Raise LimitNOFILE of the unit, or the limit of the container runtime: each connection takes up to four files.",
    ),
    row(
        "memory-limit",
        Node,
        "memory limit",
        "the limit of this process's cgroup against what the settings allow the agent to take",
        "Raise the limit, or lower layer4.max_bytes and the limits of [layer7]; observability.md has the sum.",
    ),
    row(
        "port-metrics",
        Node,
        "port of metrics",
        "metrics.address is free, or the agent's",
        "End the program that listens there, or change the setting.",
    ),
    row(
        "port-readiness",
        Node,
        "port of readiness",
        "readiness.address is free, or the agent's",
        "End the program that listens there, or change the setting.",
    ),
    row(
        "port-admin",
        Node,
        "port of istioctl",
        "admin.address is free, or the agent's, where admin.tcp is on",
        "End the program that listens there, or change the setting.",
    ),
    row(
        "cni-order",
        Node,
        "CNI configuration",
        "the first network configuration runs the plugin as its last one, and its program and socket exist",
        "Let the agent install it ([cni] enabled = true), and nothing else write that file; kubernetes.md tells how pods are captured.",
    ),
    row(
        "agent-answers",
        Agent,
        "agent",
        "the agent answers on its socket",
        "Start it (systemctl start isthmus), or run the check as root, with --socket or --node where several run.",
    ),
    row(
        "agent-version",
        Agent,
        "version",
        "agent and this program are of one version",
        "Finish the upgrade: restart the agent, or replace the program.",
    ),
    row(
        "agent-ready",
        Agent,
        "readiness",
        "nothing is waited for",
        "Look at the agent's log for what is named.",
    ),
    row(
        "workloads",
        Agent,
        "capture",
        "all workloads of this node are captured",
        "The message tells why the workload waits; isthmus status lists all.",
    ),
    row(
        "certificates",
        Agent,
        "certificates",
        "each identity has a certificate, with more than an hour and a tenth of its life left",
        "Look at the issuer: certificates.md, and the agent's log.",
    ),
    row(
        "roots",
        Agent,
        "roots",
        "every root has more than 30 days left",
        "Rotate the root: certificates.md tells how.",
    ),
    row(
        "clock",
        Agent,
        "clock",
        "certificates are valid already: a clock that is behind says they are not",
        "Synchronize the clock (timedatectl, chrony).",
    ),
    row(
        "objects",
        Agent,
        "objects",
        "no object is refused, and none has a warning",
        "isthmus status lists all; isthmus analyze tells what to do.",
    ),
    row(
        "source",
        Agent,
        "source",
        "the source has been read within the last 90 seconds",
        "Look at the agent's log: the API server, or the directory, cannot be read.",
    ),
    row(
        "drops",
        Agent,
        "losses",
        "nothing has been dropped, limited or panicked since the agent started",
        "observability.md tells what each metric counts.",
    ),
    row(
        "queues",
        Agent,
        "queues",
        "workers hold less than four fifths of the bytes that they may, and no connection waits",
        "Give the waypoint's worker more (layer7.max_bytes, layer7.threads), or find the client that takes its place.",
    ),
    row(
        "api-server",
        Cluster,
        "API server",
        "the API server answers, and its clock differs by less than 30 seconds",
        "Check source.kubeconfig, the network, and the clocks of both machines.",
    ),
    row(
        "api-kinds",
        Cluster,
        "kinds",
        "the kinds of Gateway API and Istio that are read are served in a version that is read",
        "Install the CustomResourceDefinitions (kubernetes.md).",
    ),
    row(
        "api-rights",
        Cluster,
        "rights",
        "this account may list and watch what an agent reads",
        "Apply the ClusterRole of the chart, and bind the account to it.",
    ),
    row(
        "api-agents",
        Cluster,
        "agents",
        "all agents' pods run one image, and are ready",
        "Look at the pods that are named: kubectl describe pod, kubectl logs.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique() {
        let ids: std::collections::BTreeSet<&str> = ROWS.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), ROWS.len());
    }
}
