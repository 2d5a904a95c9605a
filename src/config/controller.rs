//! `[controller]`: what `isthmus controller` needs beyond what it shares with the agents.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::duration;
use super::reader::{Field, Reader};
use super::sections::{DAY, SECOND, address, check_name, name};
use crate::base::{Str, ports};

/// The service account of the DaemonSet there.
const AGENT_ACCOUNT: &str = "isthmus";
/// All addresses: the agents of all nodes ask.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), ports::CA);
/// Istio's `MAX_WORKLOAD_CERT_TTL` is 90 days; a day is what agents ask for, and how long a stolen key is of use.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Twice the half life at which certificates are renewed, and with them the roots that are trusted: whoever was away
/// for a day has no valid certificate anyway.
const ROOT_OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);

/// `[controller]`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ControllerSettings {
    /// Of the controller's own objects, and of the agents; empty: where the controller itself runs.
    pub namespace: Str,
    pub address: SocketAddr,
    pub agent_account: Str,
    #[serde(serialize_with = "duration::serialize")]
    pub max_lifetime: Duration,
    #[serde(serialize_with = "duration::serialize")]
    pub root_overlap: Duration,
}

pub(super) fn read(reader: &mut Reader<'_>) -> ControllerSettings {
    ControllerSettings {
        namespace: reader.text(
            Field {
                key: "controller.namespace",
                default: "",
                meaning: "The namespace of the agents, and of the controller's Service, Secret, ConfigMap and Lease; \
                          empty for the one that the controller's pod runs in (outside of a cluster: isthmus-system).",
            },
            "DNS name",
            |text| if text.is_empty() { Ok(()) } else { check_name(text) },
        ),
        address: address(
            reader,
            "controller.address",
            ADDRESS,
            "Where `isthmus controller` signs certificates, over TLS.",
        )
        .address,
        agent_account: name(
            reader,
            "controller.agent_account",
            AGENT_ACCOUNT,
            "The service account of the agents, in that namespace: nobody else is given certificates.",
        ),
        max_lifetime: reader.duration(
            Field {
                key: "controller.max_lifetime",
                default: MAX_LIFETIME,
                meaning: "How long a certificate may be valid at the most, whatever an agent asks for; and after how \
                          long a root that signs no more is no longer trusted.",
            },
            10 * SECOND..=90 * DAY,
        ),
        root_overlap: reader.duration(
            Field {
                key: "controller.root_overlap",
                default: ROOT_OVERLAP,
                meaning: "How long a new root is published before it signs. Some minutes at least: a kubelet takes one or \
                          two to pass it on to its agent.",
            },
            60 * SECOND..=30 * DAY,
        ),
    }
}
