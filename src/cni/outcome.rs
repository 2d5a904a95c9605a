//! A plugin's answer to the runtime (CNI specification 1.1, "Execution Protocol").

use serde_json::{Value, json};

/// From the specification.
pub(super) const UNSUPPORTED_VERSION: u32 = 1;
/// From the specification: a variable of the environment is missing or wrong.
pub(super) const INVALID_ENVIRONMENT: u32 = 4;
/// From the specification: the configuration is malformed.
pub(super) const INVALID_CONFIG: u32 = 7;
/// From the specification: the runtime should retry later.
pub(super) const TRY_AGAIN: u32 = 11;
/// The plugin's own (100 and above): the pod belongs to the mesh and is not captured.
pub(super) const NOT_CAPTURED: u32 = 100;

/// Every version of the specification that chains plugins (`prevResult`, since 0.3.0).
pub(super) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The version of a configuration that names none.
pub(super) const LATEST: &str = "1.1.0";

/// Why the plugin fails. The kubelet shows `message; details` in an Event of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: u32,
    pub(super) message: String,
    pub(super) details: String,
}

impl Failure {
    pub(super) fn new(code: u32, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: details.into() }
    }

    pub(super) fn show(&self, version: &str) -> Value {
        json!({
            "cniVersion": version,
            "code": self.code,
            "msg": self.message,
            "details": self.details,
        })
    }
}

/// The answer to `VERSION`.
pub(super) fn versions() -> Value {
    json!({"cniVersion": LATEST, "supportedVersions": VERSIONS})
}
