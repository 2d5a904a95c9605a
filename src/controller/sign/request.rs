//! The content of a request: the identity and the signing request in a protobuf message.

use std::time::Duration;

use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use tonic::metadata::MetadataMap;

use super::authorize::quoted;
use super::refusal::{Kind, Refusal};
use crate::base::{Identity, Str};
use crate::identity::ca_messages::{CertificateRequest, IMPERSONATED_IDENTITY};

/// istiod's default lifetime for requests without one.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The bearer token of a call.
pub(super) fn token(headers: &MetadataMap) -> Result<&str, Refusal> {
    let refused = |why: &str| Refusal::new(Kind::Token, why.to_owned());
    let value = headers.get("authorization").ok_or_else(|| {
        refused(
            "the token is missing; an agent sends its service account's (`authorization: Bearer`)",
        )
    })?;
    let text = value.to_str().map_err(|_| refused("the header authorization is not text"))?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() => {
            Ok(token)
        }
        _ => Err(refused("the header authorization is not `Bearer` and a token")),
    }
}

/// The requested identity, in this mesh's trust domain.
pub(super) fn identity(
    message: &CertificateRequest,
    trust_domain: &Str,
) -> Result<Identity, Refusal> {
    let refused = |why: String| Refusal::new(Kind::Identity, why);
    let fields = message.metadata.as_ref().map(|metadata| &metadata.fields);
    let text = fields.and_then(|fields| fields.get(IMPERSONATED_IDENTITY)?.string_value.as_deref());
    let text = text.ok_or_else(|| {
        refused(format!("the request does not say for whom ({IMPERSONATED_IDENTITY})"))
    })?;
    let identity: Identity = text.parse().map_err(|_| {
        let form = "spiffe://<trust domain>/ns/<namespace>/sa/<service account>";
        refused(format!("{} is not of the form {form}", quoted(text)))
    })?;
    if identity.trust_domain != *trust_domain {
        return Err(refused(format!(
            "{identity} is not of this mesh's trust domain, {trust_domain}; check the setting trust_domain of agent \
             and controller"
        )));
    }
    Ok(identity)
}

/// The signing request, not verified yet.
pub(super) fn signing_request(
    message: &CertificateRequest,
) -> Result<CertificateSigningRequestDer<'static>, Refusal> {
    CertificateSigningRequestDer::from_pem_slice(message.csr.as_bytes())
        .map_err(|error| Refusal::new(Kind::Request, format!("the request is not PEM: {error}")))
}

/// The requested lifetime.
pub(super) fn lifetime(message: &CertificateRequest, limit: Duration) -> Duration {
    let asked = u64::try_from(message.validity_duration).ok().filter(|seconds| *seconds > 0);
    asked.map_or(DEFAULT_LIFETIME, Duration::from_secs).min(limit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::ca_messages::{Struct, Value};

    fn asking(identity: &str) -> CertificateRequest {
        let value = Value { string_value: Some(identity.to_owned()) };
        let fields = [(IMPERSONATED_IDENTITY.to_owned(), value)].into();
        CertificateRequest { metadata: Some(Struct { fields }), ..CertificateRequest::default() }
    }

    #[test]
    fn only_identities_of_this_mesh_are_taken() {
        let ours = Str::from("cluster.local");
        let taken = |text| identity(&asking(text), &ours);
        assert_eq!(
            taken("spiffe://cluster.local/ns/shop/sa/web").unwrap(),
            Identity::new("cluster.local", "shop", "web")
        );
        for text in [
            "spiffe://other.example/ns/shop/sa/web",
            "spiffe://cluster.local/ns/shop/sa/web/x",
            "spiffe://cluster.local/ns/shop/sa/../web",
            "spiffe://cluster.local/ns//sa/web",
            "spiffe://CLUSTER.local/ns/shop/sa/web",
            "spiffe://cluster.local/ns/shop/sa/web,spec.nodeName=node2",
            "shop/web",
            "",
        ] {
            assert_eq!(taken(text).unwrap_err().kind, Kind::Identity, "{text}");
        }
        assert!(identity(&CertificateRequest::default(), &ours).is_err());
    }

    #[test]
    fn a_token_is_a_bearers() {
        let with = |value: &str| {
            let mut headers = MetadataMap::new();
            headers.insert("authorization", value.parse().unwrap());
            token(&headers).map(str::to_owned).ok()
        };
        assert_eq!(with("Bearer a.b.c").as_deref(), Some("a.b.c"));
        assert_eq!(with("bearer a.b.c").as_deref(), Some("a.b.c"));
        for bad in ["Basic a", "Bearer", "Bearer ", "a.b.c"] {
            assert_eq!(with(bad), None, "{bad}");
        }
        assert!(token(&MetadataMap::new()).is_err());
    }

    #[test]
    fn lifetimes_are_capped() {
        let hour = Duration::from_secs(3600);
        let of = |seconds| {
            let message =
                CertificateRequest { validity_duration: seconds, ..CertificateRequest::default() };
            lifetime(&message, hour)
        };
        assert_eq!(of(60), Duration::from_secs(60));
        assert_eq!([of(i64::MAX), of(0), of(-1)], [hour; 3]);
    }

    proptest! {
        #[test]
        fn no_message_is_a_panic(csr: String, name: String, seconds: i64) {
            let message = CertificateRequest { csr, validity_duration: seconds, ..asking(&name) };
            _ = identity(&message, &Str::from("cluster.local"));
            _ = signing_request(&message);
            prop_assert!(lifetime(&message, Duration::from_secs(9)) <= Duration::from_secs(9));
        }
    }
}
