//! istiod's CA as issuer, against a server over TLS that signs and fails as it is told.

mod server;

/// What the server takes from here.
mod wire {
    pub(super) use crate::identity::istio::messages::{
        CREATE_CERTIFICATE, CertificateRequest, CertificateResponse,
    };
    pub(super) use crate::identity::provider::provider;
    pub(super) use crate::identity::tls::ALPN_H2;
}

use std::sync::atomic::Ordering;

use rcgen::CertificateSigningRequestParams;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use self::server::{Answer, Authority, Istiod, State, replace};
use super::handshake::meet;
use super::*;

/// A CA, the files of an agent, and the agent's issuer.
struct Lab {
    home: TempDir,
    server_root: Authority,
    istiod: Istiod,
    issuer: IstioIssuer,
}

impl Lab {
    async fn new() -> Self {
        let server_root = Authority::new("control plane", None);
        let serving = server_root.serving("127.0.0.1");
        let istiod = Istiod::start(State::new(), Some(serving), 0).await;
        Self::with(server_root, istiod)
    }

    fn with(server_root: Authority, istiod: Istiod) -> Self {
        let home = tempfile::tempdir().unwrap();
        replace(&home.path().join("root.pem"), &server_root.pem);
        replace(&home.path().join("token"), "first.token\n");
        let settings = settings(home.path(), &format!("https://{}", istiod.address));
        let issuer = IstioIssuer::new(settings, Arc::new(SystemClock)).unwrap();
        Self { home, server_root, istiod, issuer }
    }

    fn answer(&self, answer: Answer) {
        *self.istiod.state.answer.lock() = answer;
    }

    async fn certify(&self) -> Result<WorkloadCertificate, IdentityError> {
        certify(&self.issuer, &reviews(), Arc::new(SystemClock)).await
    }

    /// The complaint about an answer.
    async fn fails(&self, answer: Answer) -> String {
        self.answer(answer);
        self.failure().await
    }

    async fn failure(&self) -> String {
        match self.certify().await {
            Ok(_) => panic!("the certificate was taken"),
            Err(error) => error.to_string(),
        }
    }
}

fn settings(home: &std::path::Path, address: &str) -> IstioIssuerSettings {
    IstioIssuerSettings {
        server: CaServer::Istiod,
        address: address.into(),
        ca_root: home.join("root.pem"),
        token_file: home.join("token"),
        cluster: "Kubernetes".into(),
        lifetime: Duration::from_secs(3600),
        connect_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_secs(4),
    }
}

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[tokio::test]
async fn asks_as_ztunnel_does_and_takes_the_answer() {
    let lab = Lab::new().await;
    let certificate = lab.certify().await.unwrap();
    assert_eq!(certificate.identity(), &reviews());
    let left = certificate.not_after().duration_since(SystemTime::now()).unwrap();
    assert!((3500..=3600).contains(&left.as_secs()), "{left:?}");

    let seen = lab.istiod.state.seen.lock()[0].clone();
    assert_eq!(seen.authorization, "Bearer first.token");
    assert_eq!(seen.cluster, "Kubernetes");
    assert_eq!(seen.message.validity_duration, 3600);
    let fields = seen.message.metadata.unwrap().fields;
    let wanted = "spiffe://cluster.local/ns/bookinfo/sa/reviews";
    assert_eq!(fields["ImpersonatedIdentity"].string_value.as_deref(), Some(wanted));
    assert_eq!(fields["ClusterID"].string_value.as_deref(), Some("Kubernetes"));
    let csr = CertificateSigningRequestParams::from_pem(&seen.message.csr).unwrap();
    assert_eq!(csr.params.distinguished_name, DistinguishedName::new());
    assert_eq!(csr.params.subject_alt_names, [SanType::URI(wanted.try_into().unwrap())]);
}

/// The bytes on the wire, as `protoc` writes them for the same message: numbers and kinds of the fields.
#[test]
fn the_request_has_the_fields_of_the_protocol() {
    use crate::identity::istio::messages::{CertificateRequest, Struct, Value};
    use prost::Message;
    let value = Value { string_value: Some("v".to_owned()) };
    let metadata = Some(Struct { fields: [("k".to_owned(), value)].into() });
    let request = CertificateRequest { csr: "c".to_owned(), validity_duration: 300, metadata };
    let metadata = b"\x0a\x08\x0a\x01k\x12\x03\x1a\x01v";
    let expected = [b"\x0a\x01c\x18\xac\x02\x22\x0a".as_slice(), metadata].concat();
    assert_eq!(request.encode_to_vec(), expected);
}

#[tokio::test]
async fn keeps_one_connection_and_reads_the_token_each_time() {
    let lab = Lab::new().await;
    lab.certify().await.unwrap();
    replace(&lab.home.path().join("token"), "second.token");
    lab.certify().await.unwrap();
    let state = &lab.istiod.state;
    let tokens: Vec<_> = state.seen.lock().iter().map(|seen| seen.authorization.clone()).collect();
    assert_eq!(tokens, ["Bearer first.token", "Bearer second.token"]);
    assert_eq!(state.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn several_roots_are_all_trusted() {
    let lab = Lab::new().await;
    lab.answer(Answer::SignWithRoots(3));
    let request = KeyRequest::new(&reviews()).unwrap();
    let issued = lab.issuer.issue(&reviews(), &request.csr).await.unwrap();
    assert_eq!((issued.chain.len(), issued.roots.len()), (2, 3));
    lab.certify().await.unwrap();
}

#[tokio::test]
async fn a_refusal_says_what_to_check() {
    let lab = Lab::new().await;
    let token = lab.home.path().join("token").display().to_string();
    let advice = ["CA_TRUSTED_NODE_ACCOUNTS", "bookinfo/reviews", "Kubernetes", token.as_str()];
    let denied = Status::permission_denied("not you: Bearer first.token");
    let text = lab.fails(Answer::Refuse(denied)).await;
    contains(&text, &advice);
    contains(&text, &["not you: Bearer (the token);"]);
    assert!(!text.contains("first.token"), "{text}");
    let text = lab.fails(Answer::Refuse(Status::unauthenticated("who?"))).await;
    contains(&text, &advice);
    let text = lab.fails(Answer::Refuse(Status::unavailable("going away"))).await;
    contains(&text, &["going away", "check the address https://127.0.0.1:"]);
    let text = lab.fails(Answer::Refuse(Status::internal("no signer"))).await;
    contains(&text, &["no signer", "istiod's log"]);
    let text = lab.fails(Answer::Refuse(Status::unimplemented(""))).await;
    contains(&text, &["no CA is served there"]);
    lab.answer(Answer::Sign);
    lab.certify().await.unwrap();
}

#[tokio::test]
async fn a_hung_ca_is_given_up_and_dialled_anew() {
    let mut lab = Lab::new().await;
    let mut hasty = settings(lab.home.path(), &format!("https://{}", lab.istiod.address));
    hasty.request_timeout = Duration::from_millis(500);
    lab.issuer = IstioIssuer::new(hasty, Arc::new(SystemClock)).unwrap();
    contains(&lab.fails(Answer::Hang).await, &["no answer within 500ms"]);
    assert_eq!(lab.istiod.state.connections.load(Ordering::Relaxed), 1);
    lab.answer(Answer::Sign);
    lab.certify().await.unwrap();
    assert_eq!(lab.istiod.state.connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_silent_port_is_given_up() {
    let mut lab = Lab::new().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", silent.local_addr().unwrap());
    let mut hasty = settings(lab.home.path(), &address);
    hasty.connect_timeout = Duration::from_millis(200);
    lab.issuer = IstioIssuer::new(hasty, Arc::new(SystemClock)).unwrap();
    contains(&lab.failure().await, &["no connection within 200ms", &address]);
}

#[tokio::test]
async fn answers_that_peers_would_refuse_are_refused() {
    let lab = Lab::new().await;
    let other = "spiffe://cluster.local/ns/bookinfo/sa/ratings";
    contains(&lab.fails(Answer::OtherName(other)).await, &["it is for spiffe", "ratings"]);
    let other = "spiffe://elsewhere/ns/bookinfo/sa/reviews";
    contains(&lab.fails(Answer::OtherName(other)).await, &["it is for spiffe://elsewhere"]);
    contains(&lab.fails(Answer::OtherKey).await, &["cannot be used", "KeyMismatch"]);
    contains(&lab.fails(Answer::NoParent).await, &["cannot be used", "UnknownIssuer"]);
    contains(&lab.fails(Answer::OtherRoots).await, &["cannot be used", "UnknownIssuer"]);
}

#[tokio::test]
async fn garbage_is_refused() {
    const BROKEN: &str = "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n";
    const EMPTY: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let lab = Lab::new().await;
    contains(&lab.fails(Answer::Texts(&[])).await, &["the answer holds 0 elements"]);
    contains(&lab.fails(Answer::Texts(&["a"])).await, &["the answer holds 1 elements"]);
    contains(&lab.fails(Answer::Texts(&["a", "b"])).await, &["no certificate in PEM"]);
    contains(&lab.fails(Answer::Texts(&[BROKEN, "b"])).await, &["not PEM"]);
    contains(&lab.fails(Answer::Texts(&[EMPTY, "b"])).await, &["not an X.509 certificate"]);
}

#[tokio::test]
async fn only_the_right_server_gets_the_token() {
    let (ours, theirs) = (Authority::new("ours", None), Authority::new("theirs", None));
    for serving in [theirs.serving("127.0.0.1"), ours.serving("istiod.example")] {
        let istiod = Istiod::start(State::new(), Some(serving), 0).await;
        let root = Authority::new("placeholder", None);
        let lab = Lab::with(root, istiod);
        replace(&lab.home.path().join("root.pem"), &ours.pem);
        let text = lab.failure().await;
        contains(&text, &["the TLS handshake failed: invalid peer certificate", "root.pem"]);
        assert!(lab.istiod.state.seen.lock().is_empty());
    }
}

#[tokio::test]
async fn a_server_without_http_2_is_refused() {
    let root = Authority::new("control plane", None);
    let mut serving = root.serving("127.0.0.1");
    serving.alpn_protocols.clear();
    let lab = Lab::with(root, Istiod::start(State::new(), Some(serving), 0).await);
    contains(&lab.failure().await, &["does not speak HTTP/2"]);
    assert!(lab.istiod.state.seen.lock().is_empty());
}

#[tokio::test]
async fn the_server_is_known_by_the_name_in_the_address() {
    let root = Authority::new("control plane", None);
    let serving = root.serving("localhost");
    let mut lab = Lab::with(root, Istiod::start(State::new(), Some(serving), 0).await);
    contains(&lab.failure().await, &["invalid peer certificate"]);
    let address = format!("https://localhost:{}", lab.istiod.address.port());
    let named = settings(lab.home.path(), &address);
    lab.issuer = IstioIssuer::new(named, Arc::new(SystemClock)).unwrap();
    lab.certify().await.unwrap();
}

#[tokio::test]
async fn a_restarted_ca_with_new_roots_is_found_again() {
    let mut lab = Lab::new().await;
    lab.certify().await.unwrap();
    let (port, state) = (lab.istiod.address.port(), lab.istiod.state.clone());
    let root = Authority::new("renewed", None);
    let renewed = Some(root.serving("127.0.0.1"));
    lab.istiod.stop().await;
    let away = certify(&lab.issuer, &reviews(), Arc::new(SystemClock)).await.err().unwrap();
    contains(&away.to_string(), &["check the address", "root.pem"]);

    lab.istiod = Istiod::start(state, renewed, port).await;
    contains(&lab.failure().await, &["invalid peer certificate"]);
    replace(&lab.home.path().join("root.pem"), &(lab.server_root.pem.clone() + &root.pem));
    lab.certify().await.unwrap();
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let lab = Lab::new().await;
    let (token, root) = (lab.home.path().join("token"), lab.home.path().join("root.pem"));
    replace(&token, "\n");
    contains(&lab.failure().await, &["the token in", "/token", "the file is empty"]);
    replace(&token, "two words");
    contains(&lab.failure().await, &["it is not one word"]);
    std::fs::remove_file(&token).unwrap();
    contains(&lab.failure().await, &["/token", "No such file"]);
    assert_eq!(lab.istiod.state.connections.load(Ordering::Relaxed), 0);
    replace(&token, "first.token");
    replace(&root, "nothing");
    contains(&lab.failure().await, &["root.pem", "it holds no certificate"]);
    std::fs::remove_file(&root).unwrap();
    contains(&lab.failure().await, &["root.pem", "No such file"]);
    assert!(lab.istiod.state.seen.lock().is_empty());
}

#[tokio::test]
async fn plain_text_is_for_this_machine_only() {
    let istiod = Istiod::start(State::new(), None, 0).await;
    let mut lab = Lab::with(Authority::new("unused", None), istiod);
    let plain = settings(lab.home.path(), &format!("http://{}", lab.istiod.address));
    lab.issuer = IstioIssuer::new(plain, Arc::new(SystemClock)).unwrap();
    lab.certify().await.unwrap();

    for (address, reason) in [
        ("http://10.0.0.1:15010", "plain text"),
        ("http://istiod.istio-system.svc:15010", "plain text"),
        ("http://localhost.example:15010", "plain text"),
        ("istiod.istio-system.svc:15012", "https://"),
        ("https://istiod.istio-system.svc", "15012"),
        ("https://is tiod:15012", "not a URI"),
    ] {
        let settings = settings(lab.home.path(), address);
        let refused = IstioIssuer::new(settings, Arc::new(SystemClock)).err().unwrap();
        contains(&refused.to_string(), &[address, reason, "check the settings"]);
    }
}

#[tokio::test]
async fn a_store_with_this_issuer_makes_mutual_tls() {
    let lab = Lab::new().await;
    let settings = StoreSettings { trust: Trust::of("cluster.local"), metrics: Default::default() };
    let store =
        Arc::new(CertificateStore::new(Arc::new(lab.issuer), settings, Arc::new(SystemClock)));
    let cancel = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn({
        let (store, cancel) = (store.clone(), cancel.clone());
        async move { store.run(cancel).await }
    });
    let client = store.certificate(&reviews()).await.unwrap();
    let server = store.certificate(&ratings()).await.unwrap();
    let client = client.client_config(&[ratings()]).unwrap();
    let outcome = meet(client, server.server_config()).await;
    assert_eq!(outcome.client.unwrap().peer, Some(ratings()));
    assert_eq!(outcome.server.unwrap().peer, Some(reviews()));

    lab.istiod.state.seen.lock().clear();
    *lab.istiod.state.answer.lock() = Answer::Refuse(Status::permission_denied("no"));
    let productpage = Identity::new("cluster.local", "bookinfo", "productpage");
    let refused = store.certificate(&productpage).await.err().unwrap().to_string();
    contains(&refused, &["no certificate for", "productpage", "the CA at https://127.0.0.1:"]);
    cancel.cancel();
    running.await.unwrap();
}

/// Other roots in the file: all certificates are reissued; the same ones in another order, and a file that is half written,
/// change nothing.
#[tokio::test]
async fn followed_roots_have_everything_issued_anew_when_they_change() {
    let lab = Lab::new().await;
    let file = lab.home.path().join("root.pem");
    let (one, two) = (lab.server_root.pem.clone(), Authority::new("next", None).pem);
    let revisions = lab.issuer.revisions().unwrap();
    let moves = async |count| {
        let moved = revisions.clone().wait_for(|it| *it == count).await.is_ok();
        assert!(moved);
    };
    let stands = async |count| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(*revisions.borrow(), count);
    };
    let changes = async {
        stands(0).await;
        replace(&file, "-----BEGIN CERTIFICATE-----\nhalf");
        stands(0).await;
        replace(&file, &(one.clone() + &two));
        moves(1).await;
        replace(&file, &(two.clone() + &one));
        stands(1).await;
        replace(&file, &two);
        moves(2).await;
    };
    let following =
        lab.issuer.follow_with(Duration::ZERO, Duration::from_millis(50), CancellationToken::new());
    tokio::select! {
        () = following => {}
        () = changes => {}
    }
}

#[tokio::test]
async fn the_controllers_refusals_name_what_to_check() {
    let lab = Lab::new().await;
    let address = format!("https://{}", lab.istiod.address);
    let settings =
        IstioIssuerSettings { server: CaServer::Controller, ..settings(lab.home.path(), &address) };
    let issuer = IstioIssuer::new(settings, Arc::new(SystemClock)).unwrap();
    let failure = async || {
        let made = certify(&issuer, &reviews(), Arc::new(SystemClock)).await;
        made.err().unwrap().to_string()
    };
    lab.answer(Answer::Refuse(Status::permission_denied("no pod")));
    contains(&failure().await, &["no pod", "a pod with the account", "runs on this node"]);
    lab.istiod.stop().await;
    contains(&failure().await, &["the controller runs", "new workloads wait"]);
}
