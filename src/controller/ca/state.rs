//! The Secret's content: the CA that signs, the next one, and the roots of the previous one.

use std::time::SystemTime;

use k8s_openapi::jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use super::CaError;
use crate::base::Str;
use crate::identity::{
    Authority, CA_ROOTS, Pair, certificates, create_authority, verify_authority,
};

/// The name of CAs that the controller creates: only these are rotated automatically.
pub(super) const OWN_NAME: &str = "Isthmus CA";

/// A CA in Istio's four parts, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Material {
    pub(super) pair: Pair,
    /// The parents up to the roots; may be empty.
    pub(super) chain: String,
    pub(super) roots: String,
}

/// A CA that is trusted already and signs later.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) material: Material,
    /// Since when agents are told to trust it.
    pub(super) announced: Option<SystemTime>,
}

/// Roots of a CA that no longer signs.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Old {
    pub(super) roots: String,
    /// When its last certificate expires.
    pub(super) until: Option<SystemTime>,
}

/// All of it, including the private keys: it must never be printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) signing: Material,
    pub(super) next: Option<Next>,
    pub(super) old: Option<Old>,
    /// An operator requests a new root.
    pub(super) asked: bool,
}

impl Material {
    /// A new root that signs itself.
    pub(super) fn create(trust_domain: &Str, now: SystemTime) -> Result<Self, CaError> {
        let pair = create_authority(OWN_NAME, trust_domain, now)?;
        let roots = pair.certificate.clone();
        Ok(Self { chain: roots.clone(), roots, pair })
    }

    /// Checked as an agent would: agents that trust its roots must trust what it signs.
    pub(super) fn authority(&self, now: SystemTime) -> Result<Authority, CaError> {
        let authority = Authority::of_parts(&self.pair, &self.chain, &self.roots, now)?;
        verify_authority(&authority, now)?;
        Ok(authority)
    }

    /// Whether the controller created it and it is its own root.
    pub(super) fn is_own(&self, authority: &Authority) -> bool {
        authority.is_root() && authority.common_name().is_some_and(|it| it.starts_with(OWN_NAME))
    }
}

impl State {
    pub(super) fn new(signing: Material) -> Self {
        Self { signing, next: None, old: None, asked: false }
    }

    /// The roots that are trusted now, each once.
    pub(super) fn trusted(&self) -> Result<Vec<CertificateDer<'static>>, CaError> {
        let texts = [
            Some(&self.signing.roots),
            self.next.as_ref().map(|next| &next.material.roots),
            self.old.as_ref().map(|old| &old.roots),
        ];
        let mut trusted = Vec::new();
        for text in texts.into_iter().flatten() {
            for root in certificates(CA_ROOTS, text)? {
                if !trusted.contains(&root) {
                    trusted.push(root);
                }
            }
        }
        Ok(trusted)
    }

    /// In words, for operators.
    pub(super) fn phase(&self) -> String {
        match (&self.next, &self.old) {
            (Some(Next { announced: Some(at), .. }), _) => {
                format!("the next root has been announced since {}", timestamp(*at))
            }
            (Some(_), _) => "the next root is being announced".to_owned(),
            (None, Some(Old { until: Some(at), .. })) => {
                format!("the previous root is trusted until {}", timestamp(*at))
            }
            (None, Some(_)) => "the previous root is still trusted".to_owned(),
            (None, None) => "none".to_owned(),
        }
    }
}

/// RFC 3339, in whole seconds.
pub(super) fn timestamp(time: SystemTime) -> String {
    let whole = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let known = i64::try_from(whole).ok().and_then(|it| Timestamp::from_second(it).ok());
    known.map_or_else(|| "unknown".to_owned(), |it| it.to_string())
}
