//! The operator's interface to a running agent: administration on a root-only socket, metrics on 15020, readiness on
//! 15021.
//!
//! Ports reveal quantities and health, never content: every process of the node, and every host-network pod, can reach
//! them, even on loopback. Pages that reveal secrets or change something are served on the socket only ([`door`]). Each
//! change there is logged with the process that requested it, whatever the log level.
//!
//! This room runs on the control runtime, so that a scrape or a dump never delays a connection. It knows nothing of the
//! other rooms: `app` gives it a [`Dump`] to query and a [`Readiness`] to read. It changes only the log level and the
//! recording of allocations, and stops the agent on request (`POST /quitquitquit`).

mod body;
mod connections;
mod door;
mod hurried;
mod pages;
mod parts;
mod port;
mod probe;
mod profile;
mod readiness;
mod ready_file;
mod serve;

pub use body::{MAX_SCRAPES, Scrapes};
pub use connections::{ConnectionFilter, MAX_CONNECTIONS_SHOWN, QueryError};
pub use door::{connect, may_administer, socket_name, socket_names};
pub use parts::{Admin, Dump};
pub use readiness::{Readiness, Task};
pub use ready_file::keep_ready_file;
pub use serve::{Addresses, AdminError, Servers};
