//! The store as operators see it.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::base::Identity;

/// One identity in the admin dump. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    pub identity: Identity,
    pub state: CertificateState,
    /// Hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// The next attempt, be it the rotation or the repetition of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Attempts that failed since the last success.
    pub failures: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// The words are those of `istioctl ztunnel-config certificate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum CertificateState {
    /// Asked for the first time, no answer yet.
    Initializing,
    /// Valid; with a last error, its renewal fails.
    Available,
    /// None was ever issued, or it has expired.
    Unavailable,
}

/// Seconds are enough, and so is an empty text for a year that has no spelling.
pub(super) fn timestamp(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .replace_nanosecond(0)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}
