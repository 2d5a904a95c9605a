//! What a process is told on its command line.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Bookinfo's port, for all four services.
pub const PORT: u16 = 9080;

/// How long a call may take; Bookinfo's productpage gives reviews three seconds.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// One service of Bookinfo.
#[derive(Parser, Debug)]
pub struct Settings {
    /// Which service this process is
    #[arg(long)]
    pub service: Service,
    /// Which version: reviews v1 shows no stars, v2 black ones, v3 red ones
    #[arg(long, default_value = "v1")]
    pub version: Version,
    /// Where to listen; `[::]` takes IPv4 too
    #[arg(long, default_value = "[::]:9080")]
    pub listen: SocketAddr,
    /// The name that answers carry, so that one sees who answered
    #[arg(long, env = "HOSTNAME", default_value = "unknown")]
    pub pod: String,
    /// Appended to the names of the services that are called, such as `bookinfo.svc.cluster.local`
    #[arg(long, default_value = "")]
    pub domain: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Service {
    Productpage,
    Details,
    Reviews,
    Ratings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Version {
    V1,
    V2,
    V3,
}

impl Settings {
    /// The name and port under which this process reaches another service.
    pub fn authority(&self, service: Service) -> String {
        if self.domain.is_empty() {
            format!("{service}:{PORT}")
        } else {
            format!("{service}.{}:{PORT}", self.domain)
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Service::Productpage => "productpage",
            Service::Details => "details",
            Service::Reviews => "reviews",
            Service::Ratings => "ratings",
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::V1 => "v1",
            Version::V2 => "v2",
            Version::V3 => "v3",
        })
    }
}
