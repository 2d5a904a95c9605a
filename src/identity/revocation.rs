//! Certificate revocation lists: read from a file, followed while agents run, asked in every handshake and again for
//! established tunnels whenever they change.
//!
//! As in ztunnel, both directions are checked, and all certificates of a chain but the root;
//! who stands on no list is not revoked, and a list's own expiry is ignored, since a list that is late must not stop a
//! mesh. A list counts only when the authority that it names has signed it: while a root is replaced by one of the same
//! name, the list of either says nothing of the other's certificates.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use super::IdentityError;
use super::provider::provider;
use super::watch::Watch;
use crate::telemetry::{AgentMetrics, Reporter};

/// More than any list needs (some million certificates); keeps a wrong path from filling the memory.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// The lists in force.
pub struct Revocations {
    file: Option<PathBuf>,
    current: ArcSwap<Lists>,
    changes: watch::Sender<u64>,
    metrics: AgentMetrics,
}

/// What a file held.
#[derive(Default)]
pub(super) struct Lists {
    text: Vec<u8>,
    lists: Vec<List>,
}

/// Why a file's lists cannot be used. Compared, so that what is looked at again and again is reported once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ListsError {
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("it is longer than {MAX_FILE} bytes")]
    TooLong,
    #[error("it is not PEM: {0}")]
    NotPem(String),
    #[error("list {number} in it cannot be read: {cause}")]
    List { number: usize, cause: String },
    #[error("it holds no certificate revocation list in PEM")]
    Empty,
    /// The task that read it.
    #[error("{0}")]
    Broken(String),
}

struct List {
    crl: CertRevocationList<'static>,
    /// It was complained of already that it cannot be used.
    complained: AtomicBool,
}

/// The peer's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// A peer's chain that was verified without regard to revocation.
pub(super) struct Chain<'a> {
    pub(super) leaf: &'a CertificateDer<'a>,
    pub(super) intermediates: &'a [CertificateDer<'a>],
    pub(super) roots: &'a RootCertStore,
    pub(super) role: Role,
    pub(super) at: UnixTime,
}

impl Revocations {
    /// Nothing is revoked, ever.
    pub fn none() -> Arc<Self> {
        Arc::new(Self::with(None, Lists::default(), AgentMetrics::default()))
    }

    /// Reads the lists of a file. Blocks on it: call it while starting.
    ///
    /// # Errors
    /// The file cannot be used: the mesh would accept certificates that it revokes.
    pub fn open(file: PathBuf, metrics: AgentMetrics) -> Result<Arc<Self>, IdentityError> {
        let lists = Lists::read(&file).map_err(|error| IdentityError::Revocations {
            file: file.display().to_string(),
            reason: error.to_string(),
        })?;
        lists.tell(&file);
        Ok(Arc::new(Self::with(Some(file), lists, metrics)))
    }

    fn with(file: Option<PathBuf>, lists: Lists, metrics: AgentMetrics) -> Self {
        let (current, changes) = (ArcSwap::from_pointee(lists), watch::Sender::new(0));
        Self { file, current, changes, metrics }
    }

    /// Takes over what changes in the file, until cancelled. Spawn it once.
    pub async fn follow(&self, cancel: CancellationToken) {
        let Some(file) = &self.file else { return };
        let mut watch = Watch::new(file.parent().unwrap_or(Path::new("/")).to_owned());
        // The last error reported, because the file is read repeatedly.
        let mut refused = None;
        loop {
            match self.reload(file).await {
                Ok(()) => refused = None,
                Err(reason) if refused.as_ref() == Some(&reason) => {}
                Err(reason) => {
                    let file = file.display();
                    tracing::error!(
                        %file, %reason,
                        "the certificate revocation lists cannot be used; those read before stay in force"
                    );
                    refused = Some(reason);
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = watch.changed() => {}
            }
        }
    }

    pub(super) async fn reload(&self, file: &Path) -> Result<(), ListsError> {
        let (path, current) = (file.to_owned(), self.current.load_full());
        let read = tokio::task::spawn_blocking(move || {
            let text = read(&path)?;
            if text == current.text { Ok(None) } else { Lists::parse(text).map(Some) }
        });
        if let Some(lists) = read.await.map_err(|error| ListsError::Broken(error.to_string()))?? {
            lists.tell(file);
            self.current.store(Arc::new(lists));
            self.changes.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    /// Whether anything can be revoked at all.
    pub(super) fn are_watched(&self) -> bool {
        self.file.is_some()
    }

    /// Moves when other lists are in force.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// A peer was refused or cut.
    pub(super) fn count(&self, role: Role) {
        self.metrics.crl_rejected(match role {
            Role::Client => Reporter::Destination,
            Role::Server => Reporter::Source,
        });
    }

    /// Whether some certificate of the chain is revoked.
    pub(super) fn revoke(&self, chain: &Chain<'_>) -> bool {
        self.current.load().revoke(chain)
    }
}

impl Lists {
    fn read(file: &Path) -> Result<Self, ListsError> {
        Self::parse(read(file)?)
    }

    pub(super) fn parse(text: Vec<u8>) -> Result<Self, ListsError> {
        let mut lists = Vec::new();
        for list in CertificateRevocationListDer::pem_slice_iter(&text) {
            let list = list.map_err(|error| ListsError::NotPem(error.to_string()))?;
            let number = lists.len() + 1;
            let crl = OwnedCertRevocationList::from_der(&list)
                .map_err(|error| ListsError::List { number, cause: error.to_string() })?;
            lists.push(List { crl: crl.into(), complained: AtomicBool::new(false) });
        }
        if lists.is_empty() {
            return Err(ListsError::Empty);
        }
        Ok(Self { text, lists })
    }

    pub(super) fn revoke(&self, chain: &Chain<'_>) -> bool {
        self.lists.iter().any(|list| list.revokes(chain))
    }

    fn tell(&self, file: &Path) {
        let (file, lists) = (file.display(), self.lists.len());
        tracing::info!(%file, lists, "certificate revocation lists are in force");
    }
}

impl List {
    fn revokes(&self, chain: &Chain<'_>) -> bool {
        self.concerns(chain)
            && match self.verify(chain) {
                Ok(()) => false,
                Err(webpki::Error::CertRevoked) => true,
                Err(error) => {
                    self.complain(&error);
                    false
                }
            }
    }

    /// It is of an authority with the name of one that signed in this chain. Most are not, which costs nothing.
    fn concerns(&self, chain: &Chain<'_>) -> bool {
        std::iter::once(chain.leaf).chain(chain.intermediates).any(|certificate| {
            EndEntityCert::try_from(certificate).is_ok_and(|it| it.issuer() == self.crl.issuer())
        })
    }

    /// The chain once more, with this list: the library finds out which key must have signed it.
    fn verify(&self, chain: &Chain<'_>) -> Result<(), webpki::Error> {
        let lists = [&self.crl];
        let options = RevocationOptionsBuilder::new(&lists)
            .map_err(|_| webpki::Error::UnknownRevocationStatus)?
            .with_depth(RevocationCheckDepth::Chain)
            .with_status_policy(UnknownStatusPolicy::Allow)
            .with_expiration_policy(ExpirationPolicy::Ignore)
            .build();
        let usage = match chain.role {
            Role::Client => KeyUsage::client_auth(),
            Role::Server => KeyUsage::server_auth(),
        };
        EndEntityCert::try_from(chain.leaf)?
            .verify_for_usage(
                provider().signature_verification_algorithms.all,
                &chain.roots.roots,
                chain.intermediates,
                chain.at,
                usage,
                Some(options),
                None,
            )
            .map(drop)
    }

    /// Once: every handshake would say the same.
    fn complain(&self, error: &webpki::Error) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %error,
                "a certificate revocation list says nothing of certificates of an authority with its issuer's name: \
                 it is signed with another key, or that authority may not sign lists (cRLSign)"
            );
        }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, ListsError> {
    use std::io::Read;
    let failed = |error: std::io::Error| ListsError::Unreadable(error.to_string());
    let mut text = Vec::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(MAX_FILE + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE {
        return Err(ListsError::TooLong);
    }
    Ok(text)
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations").field("file", &self.file).finish_non_exhaustive()
    }
}
