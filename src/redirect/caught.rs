//! Counts of packets that the rules dropped: read from the kernel's counters while the rules are in force.

use super::{
    Place, check,
    error::Error,
    netlink::{Socket, Subsystem},
    nftables, node,
};

/// Packets dropped since the table was last applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caught {
    /// New connections that would have reached a workload past its agent.
    pub inbound: u64,
    /// New connections that would have left a workload past its agent.
    pub outbound: u64,
    /// Packets from the address of the node's probes that a node received.
    pub spoofed: u64,
}

/// A query to one network namespace that can be repeated from any thread. It holds a socket there.
pub struct Catches {
    socket: Socket,
    place: Place,
}

impl Catches {
    /// For the calling thread's namespace.
    ///
    /// # Errors
    /// As [`apply`](super::apply).
    pub fn here(place: Place) -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(Subsystem::Netfilter)?, place })
    }

    /// The packets dropped so far. All zero if there is no table.
    ///
    /// # Errors
    /// As [`apply`](super::apply).
    pub fn read(&mut self) -> Result<Caught, Error> {
        let table = self.place.table();
        let mut counted =
            |counter| Ok(nftables::counted(&mut self.socket, table, counter)?.unwrap_or_default());
        Ok(match self.place {
            Place::Workload => Caught {
                inbound: counted(check::INBOUND)?,
                outbound: counted(check::OUTBOUND)?,
                spoofed: 0,
            },
            Place::Node => Caught { spoofed: counted(node::SPOOFED)?, ..Caught::default() },
        })
    }
}

impl Caught {
    /// The packets dropped since `earlier`, which was read from the same namespace. A replaced table counts from zero.
    #[must_use]
    pub fn since(&self, earlier: &Caught) -> Caught {
        let grown = |now: u64, then: u64| now.checked_sub(then).unwrap_or(now);
        Caught {
            inbound: grown(self.inbound, earlier.inbound),
            outbound: grown(self.outbound, earlier.outbound),
            spoofed: grown(self.spoofed, earlier.spoofed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_never_goes_backwards() {
        let read = |inbound| Caught { inbound, ..Caught::default() };
        assert_eq!(read(7).since(&read(5)), read(2));
        assert_eq!(read(5).since(&read(5)), read(0));
        // The table was replaced in between.
        assert_eq!(read(3).since(&read(5)), read(3));
    }
}
