//! The settings of agent and controller: one TOML file, and the flags that override it.
//!
//! Every setting is read in one place, [`read`](sections), which states its key, default, permitted values and
//! meaning. The reference `docs/settings.md` and the commented `config/agent.toml` are made from the same
//! statements ([`describe`]), so they cannot differ from what is read.
//!
//! Invariants: a key that nobody reads is refused; all complaints are reported at once; a [`Settings`] that exists
//! is consistent. `cli` calls this room at the start. It watches nothing, reads no environment, and makes neither
//! files nor directories.

mod complaint;
mod controller;
mod defaults;
mod duration;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod layers;
mod memory;
mod names;
mod observed;
mod reader;
mod sections;
#[cfg(test)]
mod tests;
mod workloads;

pub use complaint::{Complaint, ConfigError};
pub use controller::ControllerSettings;
pub use defaults::{CONTROLLER_FILE, DEFAULT_FILE};
pub use memory::{MemoryBound, MemoryPart};
pub use reader::Description;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::Str;
use crate::telemetry::LogFormat;
use reader::Reader;

/// Everything that an operator can set. `docs/settings.md` tells what each field means.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Settings {
    pub node: Str,
    pub cluster: Str,
    pub trust_domain: Str,
    /// Other names of the trust domain.
    pub trust_domain_aliases: Vec<Str>,
    pub cluster_domain: Str,
    pub root_namespace: Str,
    /// Namespaces whose ServiceEntries clients of all namespaces see; `*` for all.
    pub public_service_entries: Vec<Str>,
    /// What objects may have in the label `istio.io/rev` to be this mesh's.
    pub revisions: Vec<Str>,
    pub missing_waypoint: MissingWaypoint,
    pub same_node: SameNode,
    pub source: SourceSettings,
    pub identity: IdentitySettings,
    pub admin: AdminSettings,
    pub metrics: MetricsSettings,
    pub readiness: ReadinessSettings,
    pub log: LogSettings,
    pub layer4: Layer4Settings,
    pub layer7: Layer7Settings,
    pub pool: PoolSettings,
    pub drain: DrainSettings,
    pub takeover: TakeoverSettings,
    pub workloads: WorkloadsSettings,
    pub dns: DnsSettings,
    pub controller: ControllerSettings,
    pub cni: CniSettings,
}

/// `[source]`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SourceSettings {
    pub kind: SourceKind,
    pub directory: PathBuf,
    /// `None`: the service account of the pod that the agent runs in.
    pub kubeconfig: Option<PathBuf>,
}

/// Where the mesh's objects come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// Files on this machine.
    Directory,
    /// The API server of a cluster.
    Kubernetes,
}

/// `[identity]`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct IdentitySettings {
    pub issuer: IssuerKind,
    pub ca_directory: PathBuf,
    #[serde(serialize_with = "duration::serialize")]
    pub lifetime: Duration,
    /// `None`: nothing is revoked.
    pub crl: Option<PathBuf>,
    /// A URI that the issuer accepts: `https://`, or `http://` with a loopback address, and a port.
    pub istio_address: Str,
    pub istio_ca_root: PathBuf,
    pub istio_token_file: PathBuf,
    /// As `istio_address`.
    pub controller_address: Str,
    pub controller_root: PathBuf,
    pub controller_token_file: PathBuf,
}

/// Who signs the certificates of workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IssuerKind {
    /// A CA in a directory of this machine.
    Local,
    /// istiod, over gRPC.
    Istio,
    /// `isthmus controller`, over gRPC.
    Controller,
}

/// What becomes of traffic for an object whose waypoint does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingWaypoint {
    /// It is refused.
    Refuse,
    /// It goes on at layer 4, unless policies are attached that only a waypoint enforces.
    Layer4,
}

/// How workloads of one node reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SameNode {
    /// The bytes stay in the process; policies are judged as for a tunnel.
    InProcess,
    /// Through a tunnel, as between nodes.
    Mtls,
}

/// `[readiness]`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ReadinessSettings {
    pub address: SocketAddr,
    /// `None`: no file tells.
    pub file: Option<PathBuf>,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct AdminSettings {
    pub directory: PathBuf,
    /// Whether what the agent knows can be read at `address`, without authentication.
    pub tcp: bool,
    pub address: SocketAddr,
}

/// `[metrics]`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MetricsSettings {
    pub address: SocketAddr,
    pub max_series: usize,
    pub max_namespace_series: usize,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct AddressSettings {
    pub address: SocketAddr,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LogSettings {
    /// Valid for [`crate::telemetry::check_levels`].
    pub level: Str,
    pub format: LogFormat,
    pub max_queued_bytes: usize,
}

/// `[layer4]`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Layer4Settings {
    pub threads: usize,
    pub max_connections: usize,
    pub max_peer_connections: usize,
    pub max_peer_tunnels: usize,
    pub max_bytes: usize,
    pub max_workload_bytes: usize,
    #[serde(serialize_with = "duration::serialize")]
    pub connect_timeout: Duration,
}

/// `[layer7]`: the budget of each waypoint worker.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Layer7Settings {
    pub threads: usize,
    pub max_connections: usize,
    pub max_requests: usize,
    pub max_buffered_bytes: usize,
    pub max_headers: usize,
    pub max_streams: usize,
    pub upgrades: Vec<Str>,
    pub tenant_share: usize,
    pub client_share: usize,
    #[serde(serialize_with = "duration::serialize")]
    pub head_timeout: Duration,
    #[serde(serialize_with = "duration::serialize")]
    pub idle_timeout: Duration,
    #[serde(serialize_with = "duration::serialize")]
    pub detect_timeout: Duration,
}

/// `[pool]`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PoolSettings {
    pub max_streams: usize,
    #[serde(serialize_with = "duration::serialize")]
    pub idle_timeout: Duration,
}

/// `[drain]`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DrainSettings {
    #[serde(serialize_with = "duration::serialize")]
    pub deadline: Duration,
}

/// `[dns]`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DnsSettings {
    pub enabled: bool,
    pub resolv_conf: PathBuf,
}

/// `[cni]`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CniSettings {
    pub enabled: bool,
    pub conf_directory: PathBuf,
    pub bin_directory: PathBuf,
    pub socket: PathBuf,
    /// Besides those that are always excluded.
    pub exclude_namespaces: Vec<Str>,
}

/// `[workloads]`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct WorkloadsSettings {
    pub directory: PathBuf,
    /// `None`: where the usual container runtimes listen.
    pub runtime_socket: Option<PathBuf>,
}

/// `[takeover]`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TakeoverSettings {
    pub directory: PathBuf,
}

/// What flags say; each one replaces the file's value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--node`
    pub node: Option<String>,
    /// `--directory`
    pub directory: Option<String>,
    /// `--log-level`
    pub log_level: Option<String>,
}

impl Settings {
    /// Reads a file; without one, the defaults and the flags are all there is.
    pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let Some(path) = path else { return Self::parse("", overrides) };
        let fail = |complaints| ConfigError { file: Some(path.to_path_buf()), complaints };
        let text = std::fs::read_to_string(path)
            .map_err(|error| fail(vec![Complaint::unreadable(&error)]))?;
        Self::parse(&text, overrides).map_err(|error| fail(error.complaints))
    }

    /// Reads the text of a file.
    pub fn parse(text: &str, overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(text, overrides);
        let settings = sections::read(&mut reader);
        let complaints = reader.finish();
        if complaints.is_empty() {
            Ok(settings)
        } else {
            Err(ConfigError { file: None, complaints })
        }
    }
}

/// Every setting, in the order of the file.
pub fn describe() -> Vec<Description> {
    let overrides = Overrides::default();
    let mut reader = Reader::new("", &overrides);
    sections::read(&mut reader);
    reader.into_descriptions()
}
