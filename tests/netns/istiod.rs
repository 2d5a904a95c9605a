//! Agents whose certificates are signed by a CA that speaks istiod's protocol, over a real network, with its failures:
//! away at the start, refusing, away again. The CA is the one that the issuer's own tests have.

#[path = "../../src/identity/istio/messages.rs"]
#[allow(dead_code, reason = "the agent's side uses all of it")]
mod messages;
#[path = "../../src/identity/tests/istio/server.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "as in the issuer's own tests")]
mod server;

/// What the server takes from the agent's room elsewhere.
mod wire {
    use std::sync::Arc;

    pub(super) use super::messages::{CREATE_CERTIFICATE, CertificateRequest, CertificateResponse};

    pub(super) const ALPN_H2: &[u8] = b"h2";

    pub(super) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
        Arc::new(rustls::crypto::aws_lc_rs::default_provider())
    }
}

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, ensure};
use tokio::sync::oneshot;

use crate::support::lab::{Lab, Moment, private, wait};
use crate::{bookinfo, enrol, settle};
use server::{Answer, Authority, Istiod, State};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const RATINGS: &str = "http://ratings.bookinfo:9080/ratings/0";
const PORT: u16 = 15012;

/// The CA on a node; it ends with this value.
struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Running {
    /// Serves on the address of `node`; returns when it does.
    fn start(lab: &Lab, node: &str, state: &Arc<State>, tls: &Authority) -> Result<Self> {
        let node = lab.node(node)?;
        let (namespace, address) = (node.namespace.clone(), node.addresses[0]);
        let (state, tls) = (state.clone(), tls.serving(&address.to_string()));
        let (stop, stopped) = oneshot::channel();
        let (started, ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            namespace.enter()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let at = SocketAddr::new(address, PORT);
                let istiod = Istiod::start_at(at, state, Some(tls)).await;
                started.send(())?;
                // An error means that the test is over.
                _ = stopped.await;
                istiod.stop().await;
                Ok(())
            })
        });
        let running = Self { stop: Some(stop), thread: Some(thread) };
        ready.recv().map_err(|_| anyhow!("the CA did not start"))?;
        Ok(running)
    }

    fn end(mut self) -> Result<()> {
        drop(self.stop.take());
        let thread = self.thread.take().context("ended twice")?;
        thread.join().map_err(|_| anyhow!("the CA panicked"))?
    }
}

/// The files of the agents: the CA's root and their token.
struct Files {
    root: PathBuf,
    token: PathBuf,
}

impl Files {
    fn new(root: &Authority) -> Self {
        let directory = Path::new(private::DIRECTORY);
        let files =
            Self { root: directory.join("istiod-root.pem"), token: directory.join("token") };
        server::replace(&files.root, &root.pem);
        server::replace(&files.token, "first.token\n");
        files
    }

    fn settings(&self, address: IpAddr) -> String {
        format!(
            "[identity]\nissuer = \"istio\"\nistio_address = \"https://{address}:{PORT}\"\n\
             istio_ca_root = \"{}\"\nistio_token_file = \"{}\"\n",
            self.root.display(),
            self.token.display()
        )
    }
}

fn logged(lab: &Lab, since: &Moment, words: &[&str]) -> Result<()> {
    wait::until(&format!("a line with {words:?}"), || {
        let lines = lab.lines_since(since);
        let found = lines.iter().any(|(_, line)| words.iter().all(|word| line.contains(word)));
        Ok(found.then_some(()))
    })
}

fn metric(lab: &Lab, name: &str) -> Result<f64> {
    Ok(lab.metrics()?.sum(name, &[]))
}

/// Waits for the certificates that nobody asks for, too: they come after their back-off.
fn all_issued(lab: &mut Lab) -> Result<()> {
    wait::until("all certificates to be there", || {
        let agents = lab.agents().iter();
        let dumps = agents.map(|agent| agent.dump()).collect::<Result<Vec<_>>>()?;
        let mut all = dumps.iter().flat_map(|dump| dump["certificates"].as_array()).flatten();
        Ok(all.all(|it| it["state"] == "Available").then_some(()))
    })
}

/// Trap 19, with everything real.
#[test]
fn agents_live_with_an_istiod_that_comes_and_goes() -> Result<()> {
    let mut lab = bookinfo()?;
    let (control_plane, state) = (Authority::new("control plane", None), State::new());
    let files = Files::new(&control_plane);
    let settings = files.settings(lab.node("node-a")?.addresses[0]);
    // Away at the start: agents run, capture, and refuse.
    lab.start_agents(&settings)?;
    let since = lab.moment()?;
    enrol(&mut lab)?;
    settle(&lab, "curl", &[DETAILS], 0)?;
    logged(&lab, &since, &["connection failed", "IDENTITY_ERROR", "15012"])?;
    logged(&lab, &since, &["certificate not issued", "that istiod runs"])?;
    ensure!(metric(&lab, "isthmus_certificate_failures_total")? >= 1.0);
    ensure!(metric(&lab, "isthmus_certificates")? == 0.0);

    // It comes: nobody has to be told.
    let istiod = Running::start(&lab, "node-a", &state, &control_plane)?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let asked: BTreeSet<String> = (state.seen.lock().iter())
        .filter_map(|seen| {
            seen.message.metadata.as_ref()?.fields.get("ImpersonatedIdentity")?.string_value.clone()
        })
        .collect();
    for account in ["default/sa/curl", "bookinfo/sa/bookinfo-details"] {
        ensure!(asked.contains(&format!("spiffe://cluster.local/ns/{account}")), "{asked:?}");
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
    for series in lab.metrics()?.find("isthmus_certificate_soonest_expiry_timestamp_seconds", &[]) {
        let left = series.value - now;
        ensure!((23.0..=24.0).contains(&(left / 3600.0)), "{left} seconds are left");
    }

    // It refuses, as one that does not trust the agent does.
    *state.answer.lock() = Answer::Refuse(tonic::Status::unauthenticated("no"));
    let since = lab.moment()?;
    lab.kill_and_restart_agent("node-a", &settings)?;
    settle(&lab, "curl", &[DETAILS], 0)?;
    logged(&lab, &since, &["certificate not issued", "CA_TRUSTED_NODE_ACCOUNTS"])?;
    // The token is replaced, and the CA is content.
    server::replace(&files.token, "second.token\n");
    *state.answer.lock() = Answer::Sign;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let last = state.seen.lock().last().map(|seen| seen.authorization.clone());
    ensure!(last.as_deref() == Some("Bearer second.token"), "{last:?}");

    all_issued(&mut lab)?;
    // It goes away: what was issued stays in use, for new connections too, and nothing of the token is in the logs.
    istiod.end()?;
    assert_eq!(lab.curl("stranger", &[DETAILS])?.status, 200);
    assert_eq!(lab.curl("curl", &[RATINGS])?.status, 200);
    for entry in fs::read_dir(lab.logs())? {
        let log = fs::read_to_string(entry?.path())?;
        ensure!(!log.contains("first.token") && !log.contains("second.token"), "{log}");
    }
    Ok(())
}
