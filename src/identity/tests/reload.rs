//! The local authority's files change while agents run: rotation of the root, and mistakes.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::handshake::meet;
use super::*;
use crate::telemetry::AgentMetrics;

/// An agent's store over a directory with an authority, both running.
struct Agent {
    home: TempDir,
    store: Arc<CertificateStore>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Agent {
    /// With the authority of another agent, or a separate one.
    fn new(like: Option<&Agent>) -> Self {
        let home = tempfile::tempdir().unwrap();
        if let Some(other) = like {
            let (certificate, key) = other.pair();
            write(home.path(), "ca-key.pem", &key);
            write(home.path(), "ca-cert.pem", &certificate);
        }
        let clock = Arc::new(SystemClock);
        let issuer = LocalIssuer::open(settings(home.path(), "cluster.local"), clock.clone());
        let issuer = Arc::new(issuer.unwrap());
        let trust = Trust::of("cluster.local");
        let store = StoreSettings { trust, metrics: AgentMetrics::default() };
        let store = Arc::new(CertificateStore::new(issuer.clone(), store, clock));
        let running = tokio::spawn({
            let store = store.clone();
            async move { store.run(CancellationToken::new()).await }
        });
        let following = tokio::spawn(async move { issuer.follow(CancellationToken::new()).await });
        let _tasks = [running, following].map(AbortOnDropHandle::new).into();
        Self { home, store, _tasks }
    }

    fn pair(&self) -> (String, String) {
        let read = |name: &str| fs::read_to_string(self.home.path().join(name)).unwrap();
        (read("ca-cert.pem"), read("ca-key.pem"))
    }

    async fn certificate(&self) -> Arc<WorkloadCertificate> {
        self.store.certificate(&reviews()).await.unwrap()
    }

    /// Does something, and waits for the certificate to be another.
    async fn renewed_after(&self, change: impl FnOnce(&Path)) -> Arc<WorkloadCertificate> {
        let before = self.certificate().await.generation();
        let mut changes = self.store.subscribe();
        change(self.home.path());
        let renewed = async {
            loop {
                changes.changed().await.unwrap();
                let now = self.certificate().await;
                if now.generation() != before {
                    return now;
                }
            }
        };
        timeout(Duration::from_secs(20), renewed).await.expect("no new certificate")
    }
}

/// As a careful tool writes files: at once.
fn write(directory: &Path, name: &str, text: &str) {
    let new = directory.join(".new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
    fs::rename(new, directory.join(name)).unwrap();
}

async fn trust_each_other(one: &Agent, other: &Agent) -> bool {
    let (one, other) = (one.certificate().await, other.certificate().await);
    let client = |of: &WorkloadCertificate| of.client_config(&[reviews()]).unwrap();
    let there = meet(client(&one), other.server_config()).await;
    let back = meet(client(&other), one.server_config()).await;
    let ok = [there.client.is_ok(), there.server.is_ok(), back.client.is_ok(), back.server.is_ok()];
    assert!(ok.iter().all(|it| *it == ok[0]), "{ok:?}");
    ok[0]
}

/// The procedure of the documentation, step by step; at each the two agents understand each other.
#[tokio::test]
async fn a_root_is_replaced_without_a_moment_of_distrust() {
    let first = Agent::new(None);
    let second = Agent::new(Some(&first));
    let stranger = Agent::new(None);
    let (old, _) = first.pair();
    let (new, new_key) = stranger.pair();
    let stays = first.certificate().await;
    assert!(trust_each_other(&first, &second).await);
    assert!(!trust_each_other(&first, &stranger).await);
    let agents = [&first, &second];
    // 1. The new root is trusted.
    for agent in agents {
        agent.renewed_after(|home| write(home, "ca-cert.pem", &format!("{old}{new}"))).await;
        assert!(trust_each_other(&first, &second).await);
    }
    // 2. The new pair signs.
    for agent in agents {
        let switch = |home: &Path| {
            write(home, "ca-key.pem", &new_key);
            write(home, "ca-cert.pem", &format!("{new}{old}"));
        };
        agent.renewed_after(switch).await;
        assert!(trust_each_other(&first, &second).await);
    }
    // 3. The old root is not trusted any more.
    for agent in agents {
        agent.renewed_after(|home| write(home, "ca-cert.pem", &new)).await;
        assert!(trust_each_other(&first, &second).await);
    }
    assert!(trust_each_other(&first, &stranger).await);
    // Who still shows a certificate of the old root is refused.
    let now = first.certificate().await;
    let mut late = rustls::ClientConfig::clone(&*now.client_config(&[reviews()]).unwrap());
    let old = stays.client_config(&[reviews()]).unwrap();
    late.client_auth_cert_resolver = old.client_auth_cert_resolver.clone();
    let outcome = meet(Arc::new(late), now.server_config()).await;
    assert!(outcome.server.unwrap_err().contains("UnknownIssuer"));
    let outcome = meet(now.client_config(&[reviews()]).unwrap(), stays.server_config()).await;
    assert!(outcome.client.unwrap_err().contains("UnknownIssuer"));
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_the_last_authority_in_force() {
    let agent = Agent::new(None);
    let (certificate, key) = agent.pair();
    let home = agent.home.path();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let issuer = LocalIssuer::open(settings(home, "cluster.local"), clock.clone()).unwrap();
    let before = certify(&issuer, &reviews(), clock.clone()).await.unwrap();
    let other = KeyPair::generate().unwrap().serialize_pem();
    let half = &certificate[..certificate.len() / 2];
    for (name, text, why) in [
        ("ca-key.pem", other.as_str(), "does not belong"),
        ("ca-cert.pem", half, "ca-cert.pem"),
        ("ca-cert.pem", "", "holds no certificate"),
    ] {
        write(home, name, text);
        let error = issuer.reload().await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        let after = certify(&issuer, &reviews(), clock.clone()).await.unwrap();
        let outcome = meet(after.client_config(&[reviews()]).unwrap(), before.server_config());
        assert!(outcome.await.client.is_ok());
        write(home, "ca-cert.pem", &certificate);
        write(home, "ca-key.pem", &key);
        assert_eq!(issuer.reload().await, Ok(false));
    }
    // A file that is gone is a mistake too: no other authority is made in its place.
    fs::remove_file(home.join("ca-cert.pem")).unwrap();
    fs::remove_file(home.join("ca-key.pem")).unwrap();
    let error = issuer.reload().await.unwrap_err().to_string();
    assert!(error.contains("cannot be read"), "{error}");
    assert!(!home.join("ca-cert.pem").exists());
    assert!(certify(&issuer, &reviews(), clock).await.is_ok());
}
