//! The messages of `istio.v1.auth.IstioCertificateService` (istio/api, `security/v1alpha1/ca.proto`), by hand: they are
//! three fields of a protocol that has not changed in years, so no compiler of schemas is needed for the build.

use std::collections::HashMap;

/// The one method.
pub const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// The field of [`CertificateRequest::metadata`] with the identity that is wanted, when it is not the caller's own
/// (istio, `security/pkg/server/ca/server.go`).
pub const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// The field of [`CertificateRequest::metadata`] with the caller's cluster, as the schema names it.
pub const CLUSTER_ID: &str = "ClusterID";

/// `IstioCertificateRequest`
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateRequest {
    /// A signing request in PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// Seconds; the server may shorten it.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

/// `IstioCertificateResponse`
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateResponse {
    /// PEM: the certificate, its parents, and at last the roots, which may be several in the one text.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// `google.protobuf.Struct`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Struct {
    #[prost(map = "string, message", tag = "1")]
    pub fields: HashMap<String, Value>,
}

/// `google.protobuf.Value` with the one kind that is used here.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    #[prost(string, optional, tag = "3")]
    pub string_value: Option<String>,
}
