//! What an operator sees of a running agent: administration on a socket that only root may open, metrics on 15020,
//! readiness on 15021.
//!
//! Ports tell how much and how well, never what: every process of the node, and every pod on its network, can reach them,
//! loopback too. Whatever tells secrets or changes something is asked over the socket ([`door`]); what is changed there is
//! logged with the process that asked, and no log level silences that.
//!
//! Runs on the control runtime, so that a scrape or a dump never holds up a connection. It knows nothing of the
//! other rooms: `app` gives it a [`Dump`] to ask and a [`Readiness`] to read. It changes nothing but
//! the log level and whether allocations are recorded, and ends the agent when asked to (`POST /quitquitquit`).

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
pub use connections::{ConnectionFilter, MAX_CONNECTIONS_SHOWN};
pub use door::{connect, may_administer, socket_name, socket_names};
pub use parts::{Admin, Dump};
pub use readiness::{Readiness, Task};
pub use ready_file::keep_ready_file;
pub use serve::{Addresses, AdminError, Servers};
