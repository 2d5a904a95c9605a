//! References to what takes requests (Gateway API, BackendObjectReference): as they are written, and what they lead to.

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::base::schema::forms::{GROUP, KIND, LABEL, NAME};
use crate::base::schema::{Rule, text};
use crate::base::{ObjectKey, Str};
use Rule::{Fields, Number, Text, With};

/// The ports that the API server accepts.
pub const PORT: Rule = Number(1, 65535);

/// The references that the API server accepts.
pub const SCHEMA: Rule = With(
    &Fields(&[
        ("group", Text(GROUP)),
        ("kind", Text(KIND)),
        ("name", Text(NAME)),
        ("namespace", Text(LABEL)),
        ("port", PORT),
    ]),
    &[services_have_ports],
);

/// A reference as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendObject {
    #[serde(default)]
    pub group: String,
    #[serde(default = "service_kind")]
    pub kind: String,
    #[serde(default)]
    pub namespace: Option<String>,
    pub name: String,
    #[serde(default)]
    pub port: Option<u16>,
}

/// The target of a reference.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum BackendRef {
    Service {
        service: ObjectKey,
        port: u16,
    },
    /// Cannot be used: its share of requests is answered with this status (500; 503 of a GRPCRoute), not given to the others.
    Invalid {
        #[serde(serialize_with = "super::text")]
        status: StatusCode,
        why: Str,
    },
}

/// The kind of a reference that names none.
pub fn service_kind() -> String {
    "Service".to_owned()
}

/// A reference to a Service names a port.
pub fn services_have_ports(value: &Value) -> Option<(&'static str, String)> {
    let is_service =
        text(value, "group").is_none() && text(value, "kind").is_none_or(|it| it == "Service");
    let missing = is_service && value.get("port").is_none();
    missing.then(|| ("port", "is missing: a Service as a backend needs it".to_owned()))
}
