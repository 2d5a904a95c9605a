//! Whom peers may be, besides having a chain to our roots; and what a peer has proven, to be looked at again.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CommonState, RootCertStore};

use super::revocation::{Chain, Revocations, Role};
use crate::base::TrustDomains;

/// What all certificates of an agent share when they judge a peer.
#[derive(Clone, Debug)]
pub struct Trust {
    pub trust_domains: TrustDomains,
    pub revocations: Arc<Revocations>,
}

/// The chain that a peer proved to own in a handshake. Empty where nothing can be revoked.
pub struct ProvenPeer(Option<Box<Proof>>);

struct Proof {
    chain: Vec<CertificateDer<'static>>,
    role: Role,
    at: UnixTime,
    roots: Arc<RootCertStore>,
    revocations: Arc<Revocations>,
}

impl Trust {
    /// One trust domain and nothing revoked.
    pub fn of(trust_domain: &str) -> Self {
        let trust_domains = TrustDomains::new(trust_domain.into(), &[]);
        Self { trust_domains, revocations: Revocations::none() }
    }

    /// For verifiers: the library's own error, which sends the peer the alert made for it.
    pub(super) fn refuse_revoked(&self, chain: &Chain<'_>) -> Result<(), rustls::Error> {
        if self.revocations.revoke(chain) {
            self.revocations.count(chain.role);
            return Err(rustls::CertificateError::Revoked.into());
        }
        Ok(())
    }
}

impl ProvenPeer {
    pub(super) fn of(
        session: &CommonState,
        role: Role,
        at: Option<UnixTime>,
        roots: &Arc<RootCertStore>,
        trust: &Trust,
    ) -> Self {
        match (session.peer_certificates(), at) {
            (Some(chain), Some(at)) => Self::from_chain(chain, role, at, roots, trust),
            _ => Self(None),
        }
    }

    pub(super) fn from_chain(
        chain: &[CertificateDer<'_>],
        role: Role,
        at: UnixTime,
        roots: &Arc<RootCertStore>,
        trust: &Trust,
    ) -> Self {
        let revocations = &trust.revocations;
        Self(revocations.are_watched().then(|| {
            Box::new(Proof {
                chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
                role,
                at,
                roots: roots.clone(),
                revocations: revocations.clone(),
            })
        }))
    }

    /// Waits until the peer's certificate, or one that vouches for it, is revoked.
    pub async fn revoked(self) {
        let Some(proof) = self.0 else { return std::future::pending().await };
        let mut changes = proof.revocations.subscribe();
        // Also at the beginning: the lists may have changed since the handshake.
        while !proof.is_revoked() {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        proof.revocations.count(proof.role);
    }
}

impl Proof {
    /// As of the handshake, so that a certificate that has expired since counts as before.
    fn is_revoked(&self) -> bool {
        let Some((leaf, intermediates)) = self.chain.split_first() else { return false };
        let chain = Chain { leaf, intermediates, roots: &self.roots, role: self.role, at: self.at };
        self.revocations.revoke(&chain)
    }
}

impl fmt::Debug for ProvenPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProvenPeer").field(&self.0.is_some()).finish()
    }
}
