//! Fuzz target of what callers of the controller send.

use std::time::Duration;

use prost::Message;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use super::request;
use crate::base::Str;
use crate::identity::ca_messages::CertificateRequest;

/// A call: a line for the header `authorization`, then the message.
pub fn call(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    if let Ok(value) = AsciiMetadataValue::try_from(&bytes[..end]) {
        let mut headers = MetadataMap::new();
        headers.insert("authorization", value);
        let token = request::token(&headers);
        assert!(token.is_err() || token.is_ok_and(|token| !token.is_empty()));
    }
    let Ok(message) = CertificateRequest::decode(bytes.get(end + 1..).unwrap_or_default()) else {
        return;
    };
    assert_eq!(CertificateRequest::decode(&*message.encode_to_vec()), Ok(message.clone()));
    let ours = Str::from("cluster.local");
    if let Ok(identity) = request::identity(&message, &ours) {
        assert_eq!(identity.trust_domain, ours);
    }
    _ = request::signing_request(&message);
    let limit = Duration::from_secs(3600);
    let lifetime = request::lifetime(&message, limit);
    assert!(lifetime <= limit && !lifetime.is_zero());
}
