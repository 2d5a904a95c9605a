//! `[admin]`, and what all ports have in common.

use std::net::SocketAddr;

use super::default;
use crate::config::reader::{Field, Reader};
use crate::config::{AdminSettings, Settings};

pub(super) fn admin(reader: &mut Reader<'_>) -> AdminSettings {
    let key = "admin.address";
    let settings = AdminSettings {
        directory: reader.path(Field {
            key: "admin.directory",
            default: default::ADMIN_DIRECTORY,
            meaning: "Where the agent is administered, as <node>.sock: status, dump, log levels, profiles, end. Made \
                      when missing, for root (the agent's user) alone; a directory that others may use is refused.",
        }),
        tcp: reader.choice(
            Field {
                key: "admin.tcp",
                default: false,
                meaning: "Whether status, dump, connections and log levels can be read at `admin.address` too, for \
                          `istioctl ztunnel-config`: by every process and every pod on the network of the node, \
                          without authentication. Nothing can be changed there.",
            },
            &[("off", false), ("on", true)],
        ),
        address: reader.address(Field {
            key,
            default: default::ADMIN,
            meaning: "Where `admin.tcp` serves: loopback only.",
        }),
    };
    if !settings.address.ip().is_loopback() {
        let reason = format!(
            "{} is not a loopback address; whoever reaches this port can read everything that the agent knows",
            settings.address.ip()
        );
        reader.complain(key, reason);
    }
    settings
}

/// Two servers cannot listen on one port; `[::]` takes the IPv4 addresses too.
pub(super) fn check_conflicts(reader: &mut Reader<'_>, settings: &Settings) {
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
