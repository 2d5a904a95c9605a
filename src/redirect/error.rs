//! Why the kernel rejected the rules, in words for the operator.

use nix::errno::Errno;

/// A failure to read or change the rules of a network namespace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No netlink socket.
    #[error("cannot open a netlink socket for {subsystem}: {errno}; {}", hint(*errno))]
    Open { subsystem: &'static str, errno: Errno },
    /// The socket failed in between; whether the request took effect is unknown, so apply again.
    #[error("netlink request to {subsystem} failed: {errno}; retry")]
    Conversation { subsystem: &'static str, errno: Errno },
    /// The kernel's own error. `object` is for example `rule 3 (probes) of chain nat_output in table inet isthmus`.
    #[error("the kernel rejected {object}: {errno}{}; {}", said(detail), hint(*errno))]
    Refused { object: String, errno: Errno, detail: String },
    /// No answer in time; whether the request took effect is unknown, so apply again.
    #[error("no answer from the kernel about {object} within {seconds} s; is the node overloaded?")]
    Timeout { object: String, seconds: u64 },
    /// The answer is not valid netlink.
    #[error("the kernel's answer about {object} is malformed: {what}")]
    Malformed { object: String, what: &'static str },
    /// A netlink attribute holds at most 65531 bytes.
    #[error("{object} is too large for a netlink message")]
    TooLarge { object: String },
}

impl Error {
    /// The errno of a rejection.
    pub(super) fn refusal(&self) -> Option<Errno> {
        match self {
            Error::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// The kernel's explanation (extended acknowledgement), if there is one.
fn said(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({detail})") }
}

/// The likely cause of an errno from nf_tables or rtnetlink, and what to check.
fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM | Errno::EACCES => {
            "the agent needs CAP_NET_ADMIN in the user namespace that owns this network namespace"
        }
        Errno::ENOENT => {
            "a part of nf_tables seems to be missing: check that the modules nf_tables, nft_ct, nft_redir, \
             nft_nat and nft_chain_nat can be loaded (`modprobe nft_redir`)"
        }
        Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT => {
            "the kernel lacks nf_tables with inet NAT (Linux 5.2 or later) or conntrack zones: check \
             `modprobe nf_tables` and CONFIG_NF_CONNTRACK_ZONES"
        }
        Errno::ENETDOWN => "the loopback interface is down: `ip link set lo up` in this namespace",
        Errno::EMSGSIZE | Errno::ENOBUFS | Errno::ENOMEM => {
            "the kernel is short of socket memory: check net.core.wmem_max and the memory of the node"
        }
        _ => "check `nft list ruleset` and the kernel's log for conflicts",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_object_errno_and_cause() {
        let error = Error::Refused {
            object: "table inet isthmus".into(),
            errno: Errno::EPERM,
            detail: String::new(),
        };
        let text = error.to_string();
        for part in ["table inet isthmus", "EPERM", "CAP_NET_ADMIN"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn the_kernels_own_words_are_kept() {
        let error = Error::Refused {
            object: "a route".into(),
            errno: Errno::ENETDOWN,
            detail: "Nexthop device is not up".into(),
        };
        assert!(error.to_string().contains("(Nexthop device is not up)"), "{error}");
    }
}
