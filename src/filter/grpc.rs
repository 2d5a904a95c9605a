//! Statuses of gRPC ("Status codes and their use in gRPC"), as policies write them.

use std::fmt;

use http::StatusCode;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde_json::Value;

use crate::base::schema::Objection;

/// By number.
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
/// The highest status.
pub(super) const MOST: u32 = NAMES.len() as u32 - 1;
pub(super) const RESOURCE_EXHAUSTED: u32 = 8;
pub(super) const UNAVAILABLE: u32 = 14;

/// A status by its number or its name, such as 14 or `UNAVAILABLE`. The number may be too high.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WrittenStatus(pub(super) u32);

/// A name that is none of gRPC's.
pub(super) fn is_named(value: &Value) -> Option<Objection> {
    let name = value.as_str()?;
    number(name).is_none().then(|| ("", unknown(name)))
}

pub(super) fn number(name: &str) -> Option<u32> {
    NAMES.iter().position(|known| *known == name).map(|number| number as u32)
}

fn unknown(name: &str) -> String {
    format!("{name:?} is no status of gRPC; write its number, or a name such as UNAVAILABLE")
}

impl<'de> Deserialize<'de> for WrittenStatus {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = WrittenStatus;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "the number or the name of a status of gRPC")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                from: D,
            ) -> Result<WrittenStatus, D::Error> {
                from.deserialize_any(self)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<WrittenStatus, E> {
                Ok(WrittenStatus(number.try_into().unwrap_or(u32::MAX)))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<WrittenStatus, E> {
                number(name).map(WrittenStatus).ok_or_else(|| E::custom(unknown(name)))
            }
        }

        // The name is that of Kubernetes' type, by which the definition knows it.
        from.deserialize_newtype_struct("IntOrString", Reader)
    }
}

/// The HTTP status for a client that does not speak gRPC: the reverse of gRPC's "HTTP to gRPC Status Code Mapping", as in Envoy.
pub(super) fn http_of(grpc: u32) -> StatusCode {
    match grpc {
        0 => StatusCode::OK,
        3 | 9 | 11 => StatusCode::BAD_REQUEST,
        4 => StatusCode::GATEWAY_TIMEOUT,
        5 => StatusCode::NOT_FOUND,
        6 | 10 => StatusCode::CONFLICT,
        7 => StatusCode::FORBIDDEN,
        8 => StatusCode::TOO_MANY_REQUESTS,
        12 => StatusCode::NOT_IMPLEMENTED,
        14 => StatusCode::SERVICE_UNAVAILABLE,
        16 => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_read_by_number_and_by_name() {
        for (written, expected) in [
            (json!(14), Some(14)),
            (json!("UNAVAILABLE"), Some(14)),
            (json!("OK"), Some(0)),
            (json!("UNAUTHENTICATED"), Some(MOST)),
            (json!(u64::MAX), Some(u32::MAX)),
            (json!("unavailable"), None),
            (json!("14"), None),
            (json!(-1), None),
            (json!(1.5), None),
            (json!(true), None),
        ] {
            let read = serde_json::from_value::<WrittenStatus>(written.clone());
            assert_eq!(read.ok().map(|it| it.0), expected, "{written}");
            let is_wrong_text = written.is_string() && expected.is_none();
            assert_eq!(is_named(&written).is_some(), is_wrong_text, "{written}");
        }
    }
}
