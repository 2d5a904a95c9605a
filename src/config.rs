//! The settings of agent and controller: one TOML file, and the flags that override it.
//!
//! Every setting is one row under `config/sections`, which states its key, type, default, permitted values, meaning and
//! the reason for the default. The reference `docs/settings.md` and the commented `config/agent.toml` are generated
//! from the same rows ([`describe`]), so they cannot differ from what is read.
//!
//! Invariants: an unknown key is rejected; all complaints are reported at once; a [`Settings`] that exists is
//! consistent. `cli` calls this room at startup. It watches nothing, reads no environment, and creates neither files
//! nor directories.

mod check;
mod complaint;
mod duration;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod memory;
mod overrides;
mod reader;
#[macro_use]
mod section;
mod sections;
#[cfg(test)]
mod tests;

pub use complaint::{Complaint, ConfigError};
pub use memory::{MemoryBound, MemoryPart};
pub use overrides::Overrides;
pub use reader::Description;
pub use sections::{
    AdminSettings, CniSettings, ControllerSettings, DnsSettings, DrainSettings, IdentitySettings,
    IssuerKind, Layer4Settings, Layer7Settings, LogSettings, MetricsSettings, MissingWaypoint,
    ObserveSettings, Otlp, PoolSettings, ReadinessSettings, SameNode, Settings, SourceKind,
    SourceSettings, TakeoverSettings, TracingSettings, WorkloadsSettings,
};

use std::path::Path;

use reader::Reader;

/// Where `isthmus run` looks for its file when `--config` is not given.
pub const DEFAULT_FILE: &str = "/etc/isthmus/agent.toml";
/// Where `isthmus controller` looks for its own.
pub const CONTROLLER_FILE: &str = "/etc/isthmus/controller.toml";

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
