//! `[controller]`: what `isthmus controller` needs beyond what it shares with the agents.

use std::net::SocketAddr;
use std::time::Duration;

use super::addresses::everywhere;
use crate::base::{Str, ports};
use crate::config::check::{self, DAY, SECOND};

section! {
    /// `[controller]`
    pub struct ControllerSettings in "controller." {
        /// The namespace of the agents, and of the controller's Service, Secret, ConfigMap and Lease; empty for the
        /// namespace of the controller's pod (outside a cluster: isthmus-system).
        namespace: Str = "", text("DNS name", check::dns_name_or_empty),
            because "The manifests under `config` install agents and controller into one namespace.";

        /// The address at which `isthmus controller` signs certificates, over TLS.
        address: SocketAddr = everywhere(ports::CA), address(),
            because "All addresses: the agents of all nodes connect.";

        /// The service account of the agents, in that namespace: no other account gets certificates.
        agent_account: Str = "isthmus", text("DNS name", check::dns_name),
            because "The service account of the DaemonSet that the manifests under `config` install.";

        /// The longest lifetime of a certificate, whatever an agent requests; also the time after which a root that no
        /// longer signs is no longer trusted.
        max_lifetime: Duration = DAY, duration(10 * SECOND..=90 * DAY),
            because "What agents ask for, and how long a stolen key is of use. Istio's `MAX_WORKLOAD_CERT_TTL` is 90 days.";

        /// How long a new root is published before it signs. At least some minutes: a kubelet takes one or two to pass
        /// it to its agent.
        root_overlap: Duration = DAY, duration(60 * SECOND..=30 * DAY),
            because "Twice the half life at which certificates are renewed, and with them the roots that are trusted: an \
                     agent that was away for a day has no valid certificate anyway.";
    }
}
