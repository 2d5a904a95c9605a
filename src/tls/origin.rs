//! What an object demands, and the version of its certificates and keys that is in use.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Ready, TlsFault, TlsSettings};

/// How long files that were read are believed without another look.
const FRESH: Duration = Duration::from_secs(10);
/// How long what cannot be read is not tried again: each request would read it.
const PAUSE: Duration = Duration::from_secs(1);

/// TLS to applications as one object demands it.
pub struct Origin {
    settings: TlsSettings,
    current: ArcSwapOption<Current>,
    /// Held while certificates and keys are read.
    reading: Mutex<()>,
}

struct Current {
    ready: Result<Arc<Ready>, TlsFault>,
    /// When to look again; `None`: never.
    look: Option<Instant>,
}

impl Origin {
    pub fn new(settings: TlsSettings) -> Self {
        Self { settings, current: ArcSwapOption::empty(), reading: Mutex::default() }
    }

    pub fn settings(&self) -> &TlsSettings {
        &self.settings
    }

    /// The name that the server is asked for; `host` is what the connection is for.
    pub fn server_name<'a>(&'a self, host: &'a str) -> &'a str {
        self.settings.sni.as_deref().unwrap_or(host)
    }

    /// The version in use. Files are looked at once in a while; those that cannot be used any more do not replace the last version
    /// that could.
    pub async fn ready(&self) -> Result<Arc<Ready>, TlsFault> {
        if let Some(current) = self.in_use() {
            return current;
        }
        Box::pin(self.read()).await
    }

    fn in_use(&self) -> Option<Result<Arc<Ready>, TlsFault>> {
        let current = self.current.load();
        let current = current.as_ref()?;
        let is_due = current.look.is_some_and(|look| look <= Instant::now());
        (!is_due).then(|| current.ready.clone())
    }

    async fn read(&self) -> Result<Arc<Ready>, TlsFault> {
        let _alone = self.reading.lock().await;
        if let Some(current) = self.in_use() {
            return current;
        }
        let before = self.current.load_full();
        let last = before.as_ref().and_then(|current| current.ready.as_ref().ok().cloned());
        let (settings, known) = (self.settings.clone(), last.clone());
        let read = tokio::task::spawn_blocking(move || match known {
            Some(known) if known.is_current() => Ok(known),
            _ => Ready::make(&settings).map(Arc::new),
        });
        let read = read.await.map_err(|error| TlsFault::material(&self.settings.by, error));
        let ready = match (read.and_then(|read| read), last) {
            (Err(fault), Some(last)) => {
                tracing::warn!(
                    by = %self.settings.by, %fault,
                    "certificates or keys of TLS to applications cannot be used; the last ones stay in use"
                );
                Ok(last)
            }
            (read, _) => read,
        };
        let look = match &ready {
            Ok(ready) => ready.has_files().then(|| Instant::now() + FRESH),
            Err(_) => Some(Instant::now() + PAUSE),
        };
        self.current.store(Some(Arc::new(Current { ready: ready.clone(), look })));
        ready
    }
}

/// By what was written: what was read is not part of it.
impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings
    }
}

impl Eq for Origin {}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.settings.fmt(f)
    }
}

impl serde::Serialize for Origin {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.settings.serialize(to)
    }
}
