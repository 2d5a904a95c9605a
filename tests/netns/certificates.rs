//! Certificates that change while connections are open, with real agents: a root is replaced, a certificate is
//! revoked, a trust domain has two names.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

use crate::support::lab::{Lab, Moment, PORT, private, wait};
use crate::{bookinfo, enrol, settle};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
/// Long enough for anything that happens at all.
const PATIENCE: Duration = Duration::from_secs(10);

const NO_DELETE: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-delete, namespace: bookinfo}
spec:
  selector: {matchLabels: {app: productpage}}
  action: DENY
  rules: [{to: [{operation: {methods: [DELETE]}}]}]
";

/// An authority that the test keeps.
struct Authority {
    certificate: String,
    key: String,
    params: CertificateParams,
}

impl Authority {
    fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, key: key.serialize_pem(), params })
    }

    /// Makes it the authority of a directory.
    fn install(&self, directory: &Path) -> Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        replace(&directory.join("ca-key.pem"), &self.key)?;
        replace(&directory.join("ca-cert.pem"), &self.certificate)
    }

    fn revocation_list(&self, serials: &[&str]) -> Result<String> {
        let signer = Issuer::new(self.params.clone(), KeyPair::from_pem(&self.key)?);
        let revoked = serials.iter().map(|serial| {
            // Positive and of sixteen bytes, as the authority makes them.
            let bytes = serial.parse::<u128>()?.to_be_bytes();
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from(bytes.to_vec()),
                revocation_time: date_time_ymd(2024, 1, 2),
                reason_code: None,
                invalidity_date: None,
            })
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2024, 2, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect::<Result<_>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&signer)?.pem()?)
    }
}

/// Writes a private file as a careful tool does: at once.
fn replace(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(new, path).with_context(|| format!("write {}", path.display()))
}

fn logged(lab: &Lab, since: &Moment, agents: usize, words: &[&str]) -> Result<()> {
    wait::until(&format!("{agents} lines with {words:?}"), || {
        let lines = lab.lines_since(since);
        let found = lines.iter().filter(|(_, line)| words.iter().all(|word| line.contains(word)));
        Ok((found.count() >= agents).then_some(()))
    })
}

/// A connection that the application has answered on, so that it is open from end to end.
fn open(lab: &Lab, from: &str, to: SocketAddr) -> Result<TcpStream> {
    let stream = lab.pod(from)?.attachment.namespace.run(|| TcpStream::connect(to))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    ask(&stream)?;
    Ok(stream)
}

fn ask(mut stream: &TcpStream) -> Result<()> {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: app\r\n\r\n")?;
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..length]);
    ensure!(answer.starts_with("HTTP/1.1 200"), "answered {answer:?}");
    Ok(())
}

/// Clients that ask again and again, each time on a new connection; a request that fails is remembered.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    fn start(lab: &Lab, pairs: &[(&str, SocketAddr)]) -> Result<Self> {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = pairs.iter().map(|(from, to)| {
            let (namespace, to) = (lab.pod(from)?.attachment.namespace.clone(), *to);
            let (stop, done) = (stop.clone(), done.clone());
            Ok(std::thread::spawn(move || {
                namespace.enter()?;
                while !stop.load(Ordering::Relaxed) {
                    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
                    stream.set_read_timeout(Some(PATIENCE))?;
                    let number = done.fetch_add(1, Ordering::Relaxed);
                    ask(&stream).with_context(|| format!("request {number} to {to}"))?;
                }
                Ok(())
            }))
        });
        let clients = clients.collect::<Result<_>>()?;
        Ok(Self { stop, done, clients })
    }

    /// Waits for as many more requests, all of which must have been answered.
    fn goes_on(&mut self, more: u64) -> Result<()> {
        let before = self.done.load(Ordering::Relaxed);
        wait::until("more requests", || {
            if let Some(at) = self.clients.iter().position(JoinHandle::is_finished) {
                let ended = self.clients.swap_remove(at).join();
                ended.map_err(|_| anyhow!("a client panicked"))?.context("a request failed")?;
            }
            Ok((self.done.load(Ordering::Relaxed) >= before + more).then_some(()))
        })
    }

    fn end(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.join().map_err(|_| anyhow!("a client panicked"))?.context("a request failed")?;
        }
        Ok(())
    }
}

/// The serial numbers of an agent's certificates in decimal, as istioctl wants them, by identity.
pub(super) fn serials(lab: &mut Lab, node: &str) -> Result<Vec<(String, String)>> {
    let agent = lab.agents().iter().find(|agent| agent.node == node).context("no such agent")?;
    let dump = agent.dump()?;
    let certificates = dump["certificates"].as_array().context("no certificates")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let serial = |it: &serde_json::Value| text(&it["certChain"][0]["serialNumber"]);
    Ok(certificates.iter().map(|it| (text(&it["identity"]), serial(it))).collect())
}

fn serial_of(lab: &mut Lab, node: &str, account: &str) -> Result<String> {
    let all = serials(lab, node)?;
    let found = all.into_iter().find(|(identity, _)| identity.ends_with(account));
    found.map(|(_, serial)| serial).with_context(|| format!("no certificate of {account}"))
}

/// Changes an authority's files, and waits until every certificate of the node is another and the load went on.
fn step(
    lab: &mut Lab,
    load: &mut Load,
    node: &str,
    change: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let before = serials(lab, node)?;
    ensure!(before.len() >= 3 && before.iter().all(|(_, serial)| !serial.is_empty()));
    change(&ca_of(node))?;
    wait::until("all certificates to be reissued", || {
        let now = serials(lab, node)?;
        Ok(before.iter().all(|one| !now.contains(one)).then_some(()))
    })?;
    load.goes_on(100)
}

fn ca_of(node: &str) -> PathBuf {
    Path::new(private::DIRECTORY).join(format!("ca-{node}"))
}

#[test]
fn a_root_is_replaced_under_load_and_no_request_fails() -> Result<()> {
    let mut lab = bookinfo()?;
    // Of the same name, as istiod's are.
    let (old, new) = (Authority::new("mesh root")?, Authority::new("mesh root")?);
    let nodes = ["node-a", "node-b"];
    for node in nodes {
        old.install(&ca_of(node))?;
    }
    lab.start_agents_each(|node| {
        format!("[identity]\nissuer = \"local\"\nca_directory = \"{}\"\n", ca_of(node).display())
    })?;
    enrol(&mut lab)?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let details = SocketAddr::new(lab.address("details-v1")?, PORT);
    let ratings = SocketAddr::new(lab.address("ratings-v1")?, PORT);
    let through_service = SocketAddr::new(lab.service("bookinfo", "details")?[0], PORT);
    let long = open(&lab, "curl", details)?;
    let pairs = [("curl", details), ("stranger", through_service), ("productpage-v1", ratings)];
    let mut load = Load::start(&lab, &pairs)?;
    load.goes_on(100)?;
    let certificate = |text: String| move |ca: &Path| replace(&ca.join("ca-cert.pem"), &text);
    for node in nodes {
        let both = format!("{}{}", old.certificate, new.certificate);
        step(&mut lab, &mut load, node, certificate(both)).context("trust the new root")?;
    }
    for node in nodes {
        let both = format!("{}{}", new.certificate, old.certificate);
        let switch = |ca: &Path| {
            replace(&ca.join("ca-key.pem"), &new.key)?;
            replace(&ca.join("ca-cert.pem"), &both)
        };
        step(&mut lab, &mut load, node, switch).context("sign with the new root")?;
    }
    for node in nodes {
        let only = certificate(new.certificate.clone());
        step(&mut lab, &mut load, node, only).context("forget the old root")?;
    }
    ask(&long).context("a connection from before the rotation")?;
    load.end()?;
    drop(long);

    // The old root is gone for good: an agent that falls back to it is not understood.
    let since = lab.moment()?;
    old.install(&ca_of("node-b"))?;
    settle(&lab, "curl", &[DETAILS], 0)?;
    logged(&lab, &since, 1, &["TLS_FAILURE"])?;
    // Broken files change nothing.
    let since = lab.moment()?;
    replace(&ca_of("node-b").join("ca-cert.pem"), &new.certificate)?;
    logged(&lab, &since, 1, &["the one before goes on signing", "does not belong"])?;
    new.install(&ca_of("node-b"))?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    Ok(())
}

/// The same by the clock: certificates that live for ten seconds are replaced every five, with both agents' tunnels.
#[test]
fn certificates_are_renewed_under_load_and_no_request_fails() -> Result<()> {
    let mut lab = bookinfo()?;
    let ca = ca_of("all");
    lab.start_agents(&format!(
        "[identity]\nissuer = \"local\"\nlifetime = \"10s\"\nca_directory = \"{}\"\n",
        ca.display()
    ))?;
    enrol(&mut lab)?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let details = SocketAddr::new(lab.address("details-v1")?, PORT);
    let ratings = SocketAddr::new(lab.address("ratings-v1")?, PORT);
    let long = open(&lab, "curl", details)?;
    let mut load = Load::start(&lab, &[("curl", details), ("productpage-v1", ratings)])?;
    for _ in 0..3 {
        for node in ["node-a", "node-b"] {
            step(&mut lab, &mut load, node, |_| Ok(())).context("wait for the renewal")?;
        }
    }
    ask(&long).context("a connection that is older than every certificate")?;
    ensure!(lab.metrics()?.sum("isthmus_certificate_failures_total", &[]) == 0.0);
    load.end()
}

/// Waits until the connection ends, which it must.
fn ended(mut connection: &TcpStream) -> Result<()> {
    let mut rest = [0; 64];
    match connection.read(&mut rest) {
        Ok(0) => Ok(()),
        Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => Ok(()),
        other => Err(anyhow!("the connection is open still: {other:?}")),
    }
}

fn rejections(lab: &Lab, reporter: &str) -> Result<f64> {
    Ok(lab.metrics()?.sum("istio_crl_policy_rejections_total", &[("reporter", reporter)]))
}

/// Agents that follow one file of revocation lists, which is empty.
fn with_revocation_lists() -> Result<(Lab, Authority, PathBuf)> {
    let mut lab = bookinfo()?;
    let authority = Authority::new("mesh root")?;
    let (ca, crl) = (ca_of("all"), Path::new(private::DIRECTORY).join("crl.pem"));
    authority.install(&ca)?;
    replace(&crl, &authority.revocation_list(&[])?)?;
    lab.start_agents(&format!(
        "[identity]\nissuer = \"local\"\nca_directory = \"{}\"\ncrl = \"{}\"\n",
        ca.display(),
        crl.display()
    ))?;
    enrol(&mut lab)?;
    Ok((lab, authority, crl))
}

#[test]
fn a_revoked_peer_is_cut_and_refused_in_both_directions() -> Result<()> {
    let (mut lab, authority, crl) = with_revocation_lists()?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    let details = SocketAddr::new(lab.address("details-v1")?, PORT);
    let (one, other) = (open(&lab, "curl", details)?, open(&lab, "stranger", details)?);
    // One that a worker of layer 7 looks into.
    lab.manifests.apply(NO_DELETE)?;
    settle(&lab, "curl", &["-X", "DELETE", "http://productpage.bookinfo:9080/health"], 403)?;
    let productpage = SocketAddr::new(lab.address("productpage-v1")?, PORT);
    let guarded = open(&lab, "curl", productpage)?;

    // The client's certificate.
    let client = serial_of(&mut lab, "node-a", "sa/curl")?;
    let since = lab.moment()?;
    replace(&crl, &authority.revocation_list(&[&client])?)?;
    ended(&one)?;
    ended(&guarded)?;
    logged(
        &lab,
        &since,
        1,
        &[
            "CERT_REVOKED",
            "cut: the client's certificate is revoked",
            "dst.workload=\"details-v1\"",
        ],
    )?;
    ask(&other).context("a connection of somebody else")?;
    ensure!(rejections(&lab, "destination")? >= 1.0);
    settle(&lab, "curl", &[DETAILS], 0)?;
    logged(&lab, &since, 1, &["connection failed", "CERT_REVOKED", "direction=\"inbound\""])?;
    let told = "the server broke it off: received fatal alert: CertificateRevoked";
    logged(
        &lab,
        &since,
        1,
        &["connection failed", "CERT_REVOKED", "direction=\"outbound\"", told],
    )?;
    assert_eq!(lab.curl("stranger", &[DETAILS])?.status, 200);

    // Lists that cannot be read change nothing, loudly.
    let since = lab.moment()?;
    replace(&crl, "no list")?;
    logged(&lab, &since, 2, &["those read before stay in force", "crl.pem"])?;
    assert_eq!(lab.curl("curl", &[DETAILS])?.status, 0);

    // The server's certificate.
    let server = serial_of(&mut lab, "node-b", "sa/bookinfo-details")?;
    let since = lab.moment()?;
    replace(&crl, &authority.revocation_list(&[&server])?)?;
    ended(&other)?;
    logged(&lab, &since, 1, &["CERT_REVOKED", "src.workload=\"stranger\""])?;
    ensure!(rejections(&lab, "source")? >= 1.0);
    settle(&lab, "stranger", &[DETAILS], 0)?;

    replace(&crl, &authority.revocation_list(&[])?)?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    settle(&lab, "stranger", &[DETAILS], 200)?;
    Ok(())
}

#[test]
fn a_trust_domain_may_have_two_names() -> Result<()> {
    let mut lab = bookinfo()?;
    lab.start_agents_each(|node| match node {
        "node-a" => "trust_domain = \"old.mesh\"\ntrust_domain_aliases = [\"new.mesh\"]\n".into(),
        _ => "trust_domain = \"new.mesh\"\ntrust_domain_aliases = [\"old.mesh\"]\n".into(),
    })?;
    enrol(&mut lab)?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    // The client proves to be old.mesh/...; a policy means it by either name.
    let only = |source: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: details, namespace: bookinfo}}\n\
             spec:\n  selector: {{matchLabels: {{app: details}}}}\n  action: ALLOW\n  \
             rules: [{{from: [{{source: {{{source}}}}}]}}]\n"
        )
    };
    for (source, curl, stranger) in [
        ("principals: [new.mesh/ns/default/sa/curl]", 200, 0),
        ("principals: [old.mesh/ns/default/sa/stranger]", 0, 200),
        ("serviceAccounts: [default/curl]", 200, 0),
        ("principals: [else.mesh/ns/default/sa/curl]", 0, 0),
        ("trustDomains: [new.mesh]", 200, 200),
        ("trustDomains: [else.mesh]", 0, 0),
        ("notTrustDomains: [else.mesh]", 200, 200),
    ] {
        lab.manifests.apply(&only(source))?;
        settle(&lab, "curl", &[DETAILS], curl).context(source)?;
        settle(&lab, "stranger", &[DETAILS], stranger).context(source)?;
    }
    // Trap 24: a name that is no alias is another mesh, whatever the roots.
    lab.kill_and_restart_agent("node-a", "trust_domain = \"else.mesh\"\n")?;
    settle(&lab, "curl", &[DETAILS], 0)?;
    lab.kill_and_restart_agent("node-a", "trust_domain = \"new.mesh\"\n")?;
    settle(&lab, "curl", &[DETAILS], 200)?;
    Ok(())
}
