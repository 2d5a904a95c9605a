//! Whom we believe: chain, usage and the SPIFFE identity in a peer's certificate.
//!
//! The bytes parsed here are a stranger's. Host names play no part: an address may be anybody's, so the client
//! compares identities and the server compares trust domains (what the client may do is policy's question).

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CommonState, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, RootCertStore,
    SignatureScheme,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::provider::provider;
use super::revocation::{Chain, Role};
use super::{IdentityError, Trust};
use crate::base::Identity;

/// Accepts servers that prove to be one of the expected identities.
#[derive(Debug)]
pub(super) struct ExpectedServers {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) trust: Trust,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    pub(super) expected: Box<[Identity]>,
}

/// Accepts clients of our trust domain, by any of its names.
#[derive(Debug)]
pub(super) struct MeshClients {
    chain: Arc<dyn ClientCertVerifier>,
    roots: Arc<RootCertStore>,
    trust: Trust,
}

/// The SPIFFE identity in the certificate that the peer of a TLS session proved to own.
/// `None` before the handshake is done, and for a certificate without an Istio identity.
pub fn peer_identity(session: &CommonState) -> Option<Identity> {
    spiffe_identity(session.peer_certificates()?.first()?).ok()
}

/// The identity in a certificate: its one URI name (X.509-SVID 2: exactly one). Other kinds of names may stand
/// beside it; they mean nothing here.
pub(super) fn spiffe_identity(certificate: &CertificateDer<'_>) -> Result<Identity, IdentityError> {
    let none = |why: &str| IdentityError::NoIdentity(why.to_owned());
    let (rest, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_| none("it is not an X.509 certificate"))?;
    if !rest.is_empty() {
        return Err(none("bytes follow it"));
    }
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| none("its subject alternative names cannot be read"))?
        .ok_or_else(|| none("it has no subject alternative name"))?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => uri.parse::<Identity>().map_err(|error| none(&error.to_string())),
        (None, _) => Err(none("it has no URI name")),
        (Some(_), Some(_)) => Err(none("it has more than one URI name")),
    }
}

impl ServerCertVerifier for ExpectedServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        let presented = spiffe_identity(end_entity).map_err(IdentityError::into_tls)?;
        let chain = Chain {
            leaf: end_entity,
            intermediates,
            roots: &self.roots,
            role: Role::Server,
            at: now,
        };
        self.trust.refuse_revoked(&chain)?;
        let domains = &self.trust.trust_domains;
        if self.expected.iter().any(|expected| domains.are_the_same(expected, &presented)) {
            return Ok(ServerCertVerified::assertion());
        }
        let expected: Vec<String> = self.expected.iter().map(Identity::to_string).collect();
        Err(IdentityError::UnexpectedPeer { presented, expected: expected.join(" or ") }.into_tls())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl MeshClients {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        trust: Trust,
    ) -> Result<Self, rustls::client::VerifierBuilderError> {
        // Without the hints a client does not leave its certificate out because our list of roots and its
        // own differ for a moment, as they do while roots are replaced.
        let chain = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .clear_root_hint_subjects()
            .build()?;
        Ok(Self { chain, roots, trust })
    }
}

impl ClientCertVerifier for MeshClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let chain = Chain {
            leaf: end_entity,
            intermediates,
            roots: &self.roots,
            role: Role::Client,
            at: now,
        };
        self.trust.refuse_revoked(&chain)?;
        let presented = spiffe_identity(end_entity).map_err(IdentityError::into_tls)?;
        let domains = &self.trust.trust_domains;
        if domains.contains(&presented.trust_domain) {
            return Ok(ClientCertVerified::assertion());
        }
        Err(IdentityError::ForeignPeer { presented, ours: domains.own().clone() }.into_tls())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
