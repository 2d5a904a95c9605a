//! `[controller]`: what `isthmus controller` needs beyond what it shares with the agents.

use std::net::SocketAddr;
use std::time::Duration;

use super::addresses::everywhere;
use crate::base::{Str, ports};
use crate::config::check::{self, DAY, SECOND};

section! {
    /// `[controller]`
    pub struct ControllerSettings in "controller." {
        /// The namespace of the agents, and of the controller's Service, Secret, ConfigMap and Lease; empty for the one that
        /// the controller's pod runs in (outside of a cluster: isthmus-system).
        namespace: Str = "", text("DNS name", check::dns_name_or_empty),
            because "The manifests under `config` install agents and controller into one namespace.";

        /// Where `isthmus controller` signs certificates, over TLS.
        address: SocketAddr = everywhere(ports::CA), address(),
            because "All addresses: the agents of all nodes ask.";

        /// The service account of the agents, in that namespace: nobody else is given certificates.
        agent_account: Str = "isthmus", text("DNS name", check::dns_name),
            because "The service account of the DaemonSet that the manifests under `config` install.";

        /// How long a certificate may be valid at the most, whatever an agent asks for; and after how long a root that signs
        /// no more is no longer trusted.
        max_lifetime: Duration = DAY, duration(10 * SECOND..=90 * DAY),
            because "What agents ask for, and how long a stolen key is of use. Istio's `MAX_WORKLOAD_CERT_TTL` is 90 days.";

        /// How long a new root is published before it signs. Some minutes at least: a kubelet takes one or two to pass it on
        /// to its agent.
        root_overlap: Duration = DAY, duration(60 * SECOND..=30 * DAY),
            because "Twice the half life at which certificates are renewed, and with them the roots that are trusted: an \
                     agent that was away for a day has no valid certificate anyway.";
    }
}
