//! Handshakes over memory, with the right peers and with every kind of wrong one.

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, NamedGroup, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::base::TrustDomains;
use crate::identity::provider::provider;
use crate::identity::verify::ExpectedServers;

/// A client that has no certificate to show.
#[derive(Debug)]
struct Nobody;

impl rustls::client::ResolvesClientCert for Nobody {
    fn resolve(
        &self,
        _hints: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Both sides' views of the peer, or both sides' complaints.
pub(super) struct Outcome {
    pub(super) client: Result<Seen, String>,
    pub(super) server: Result<Seen, String>,
}

#[derive(Debug)]
pub(super) struct Seen {
    pub(super) peer: Option<Identity>,
    h2: bool,
    suite: Option<rustls::CipherSuite>,
    kind: Option<rustls::HandshakeKind>,
    group: Option<NamedGroup>,
}

impl Seen {
    fn of(session: &rustls::CommonState) -> Self {
        Self {
            peer: peer_identity(session),
            h2: negotiated_h2(session),
            suite: session.negotiated_cipher_suite().map(|suite| suite.suite()),
            kind: session.handshake_kind(),
            group: session.negotiated_key_exchange_group().map(|group| group.name()),
        }
    }
}

impl Outcome {
    #[track_caller]
    fn refused_by_server(&self, why: &str) {
        let error = self.server.as_ref().expect_err("the server accepted");
        assert!(error.contains(why), "{error}");
        assert!(self.client.is_err(), "the client noticed nothing");
    }

    #[track_caller]
    fn refused_by_client(&self, why: &str) {
        let error = self.client.as_ref().expect_err("the client accepted");
        assert!(error.contains(why), "{error}");
        assert!(self.server.is_err(), "the server noticed nothing");
    }
}

/// In TLS 1.3 the client is done before it is judged: so a byte goes each way.
pub(super) async fn meet(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Outcome {
    let (near, far) = duplex(64 * 1024);
    let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
    let dial = async {
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.write_all(b"?").await?;
        stream.flush().await?;
        stream.read_exact(&mut [0]).await?;
        Ok::<_, std::io::Error>(Seen::of(stream.get_ref().1))
    };
    let accept = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.read_exact(&mut [0]).await?;
        stream.write_all(b"!").await?;
        stream.flush().await?;
        Ok::<_, std::io::Error>(Seen::of(stream.get_ref().1))
    };
    let (client, server) = tokio::join!(dial, accept);
    Outcome {
        client: client.map_err(|error| error.to_string()),
        server: server.map_err(|error| error.to_string()),
    }
}

struct Mesh {
    home: TempDir,
    issuer: LocalIssuer,
    clock: Arc<dyn Clock>,
}

impl Mesh {
    fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (home, issuer) = issuer(clock.clone());
        Self { home, issuer, clock }
    }

    fn directory(&self) -> std::path::PathBuf {
        self.home.path().join("ca")
    }

    async fn certificate(&self, identity: &Identity) -> WorkloadCertificate {
        certify(&self.issuer, identity, self.clock.clone()).await.unwrap()
    }

    /// Client and server configurations of reviews calling ratings.
    async fn pair(&self) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
        let client = self.certificate(&reviews()).await.client_config(&[ratings()]).unwrap();
        (client, self.certificate(&ratings()).await.server_config())
    }

    /// Presents a careless issuer's leaf, as a client.
    async fn pose_as(&self, names: &[&str]) -> Arc<ClientConfig> {
        let mut client = ClientConfig::clone(&*self.pair().await.0);
        client.client_auth_cert_resolver = Arc::new(posing(&self.directory(), names));
        Arc::new(client)
    }
}

fn posing(directory: &std::path::Path, names: &[&str]) -> SingleCertAndKey {
    let (issued, key) = careless_leaf(directory, names);
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    CertifiedKey::new(issued.chain, any_supported_type(&key).unwrap()).into()
}

#[tokio::test]
async fn both_sides_prove_who_they_are() {
    let mesh = Mesh::new();
    let (client, server) = mesh.pair().await;
    for _ in 0..2 {
        let outcome = meet(client.clone(), server.clone()).await;
        let (client, server) = (outcome.client.unwrap(), outcome.server.unwrap());
        assert_eq!(client.peer, Some(ratings()));
        assert_eq!(server.peer, Some(reviews()));
        assert!(client.h2 && server.h2);
        assert_eq!(client.suite, Some(rustls::CipherSuite::TLS13_AES_256_GCM_SHA384));
        // The second round, too: nothing was kept to resume from.
        assert!(!matches!(client.kind, Some(rustls::HandshakeKind::Resumed)), "{client:?}");
    }
}

/// A recorded handshake of two agents stays secret; a peer that knows no better group costs no further round trip.
#[tokio::test]
async fn the_hybrid_group_comes_first_and_older_peers_are_understood() {
    let mesh = Mesh::new();
    let (client, server) = mesh.pair().await;
    let outcome = meet(client.clone(), server.clone()).await;
    let groups = [outcome.client.unwrap().group, outcome.server.unwrap().group];
    assert_eq!(groups, [Some(NamedGroup::X25519MLKEM768); 2]);

    let classical = |group| {
        let own = CryptoProvider::clone(&provider());
        Arc::new(CryptoProvider { kx_groups: vec![group], ..own })
    };
    for (group, name, another_round) in [
        (kx_group::X25519, NamedGroup::X25519, false),
        (kx_group::SECP256R1, NamedGroup::secp256r1, true),
    ] {
        let mut old = ServerConfig::builder_with_provider(classical(group))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(server.cert_resolver.clone());
        old.alpn_protocols = server.alpn_protocols.clone();
        let seen = meet(client.clone(), Arc::new(old)).await.client.unwrap();
        assert_eq!(seen.group, Some(name));
        let again = matches!(seen.kind, Some(rustls::HandshakeKind::FullWithHelloRetryRequest));
        assert_eq!(again, another_round, "{seen:?}");

        let mut roots = RootCertStore::empty();
        let authority = std::fs::read(mesh.directory().join("ca-cert.pem")).unwrap();
        roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(&authority).unwrap()).unwrap();
        let servers = ExpectedServers {
            roots: Arc::new(roots),
            trust: Trust::of("cluster.local"),
            algorithms: provider().signature_verification_algorithms,
            expected: [ratings()].as_slice().into(),
        };
        let mut old = ClientConfig::builder_with_provider(classical(group))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(servers))
            .with_client_cert_resolver(client.client_auth_cert_resolver.clone());
        old.alpn_protocols = client.alpn_protocols.clone();
        let seen = meet(Arc::new(old), server.clone()).await.server.unwrap();
        assert_eq!((seen.group, seen.peer), (Some(name), Some(reviews())));
    }
}

#[tokio::test]
async fn any_of_several_expected_servers_will_do() {
    let mesh = Mesh::new();
    let (_, server) = mesh.pair().await;
    let other = Identity::new("cluster.local", "bookinfo", "details");
    let client = mesh.certificate(&reviews()).await.client_config(&[other, ratings()]).unwrap();
    assert!(meet(client, server).await.client.is_ok());
    assert!(mesh.certificate(&reviews()).await.client_config(&[]).is_err());
}

#[tokio::test]
async fn a_server_with_another_identity_is_refused() {
    let mesh = Mesh::new();
    let client = mesh.certificate(&ratings()).await.client_config(&[ratings()]).unwrap();
    let server = mesh.certificate(&reviews()).await.server_config();
    meet(client, server).await.refused_by_client("sa/reviews, expected");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let mesh = Mesh::new();
    let (client, server) = mesh.pair().await;
    let mut anonymous = ClientConfig::clone(&client);
    anonymous.client_auth_cert_resolver = Arc::new(Nobody);
    meet(Arc::new(anonymous), server).await.refused_by_server("peer sent no certificates");
}

#[tokio::test]
async fn another_authority_is_refused_in_both_directions() {
    let (mesh, other) = (Mesh::new(), Mesh::new());
    let (client, server) = mesh.pair().await;
    let (_, foreign_server) = other.pair().await;
    meet(client.clone(), foreign_server).await.refused_by_client("UnknownIssuer");
    let mut foreign_client = ClientConfig::clone(&client);
    foreign_client.client_auth_cert_resolver =
        other.pair().await.0.client_auth_cert_resolver.clone();
    meet(Arc::new(foreign_client), server).await.refused_by_server("UnknownIssuer");
}

/// Trap 24: the service account has the same name, and the roots are the same, but the mesh is another.
#[tokio::test]
async fn another_trust_domain_under_the_same_roots_is_refused() {
    let mesh = Mesh::new();
    let elsewhere = "spiffe://elsewhere.local/ns/bookinfo/sa/reviews";
    let client = mesh.pose_as(&[elsewhere]).await;
    let (ours, server) = mesh.pair().await;
    meet(client, server).await.refused_by_server("not of our trust domain cluster.local");

    let foreign: Identity = "spiffe://elsewhere.local/ns/bookinfo/sa/ratings".parse().unwrap();
    let mut server = ServerConfig::clone(&*mesh.pair().await.1);
    server.cert_resolver = Arc::new(posing(&mesh.directory(), &[&foreign.to_string()]));
    meet(ours, Arc::new(server)).await.refused_by_client("elsewhere.local");
}

/// Peers of an alias are accepted in both directions, and only by those who know it for an alias.
#[tokio::test]
async fn an_alias_of_the_trust_domain_is_accepted() {
    let mesh = Mesh::new();
    let renamed =
        |identity: &Identity| Identity { trust_domain: "old.mesh".into(), ..identity.clone() };
    let trust = Trust {
        trust_domains: TrustDomains::new("cluster.local".into(), &["old.mesh".into()]),
        ..Trust::of("cluster.local")
    };
    let certificate = async |identity: &Identity| {
        let request = KeyRequest::new(identity).unwrap();
        let issued = mesh.issuer.issue(identity, &request.csr).await.unwrap();
        let (key, clock) = (request.into_key(), mesh.clock.clone());
        WorkloadCertificate::new(identity, key, issued, 1, &trust, clock).unwrap()
    };
    let (client, server) = (certificate(&reviews()).await, certificate(&ratings()).await);
    let posing_client = mesh.pose_as(&[&renamed(&reviews()).to_string()]).await;
    let outcome = meet(posing_client.clone(), server.server_config()).await;
    assert_eq!(outcome.server.unwrap().peer, Some(renamed(&reviews())), "as what it proved to be");
    meet(posing_client, mesh.pair().await.1).await.refused_by_server("not of our trust domain");

    let posing_server = |name: &Identity| {
        let mut config = ServerConfig::clone(&*server.server_config());
        config.cert_resolver = Arc::new(posing(&mesh.directory(), &[&name.to_string()]));
        Arc::new(config)
    };
    let config = || client.client_config(&[ratings()]).unwrap();
    assert!(meet(config(), posing_server(&renamed(&ratings()))).await.client.is_ok());
    // Another account of the alias is another account.
    meet(config(), posing_server(&renamed(&reviews())))
        .await
        .refused_by_client("sa/reviews, expected");
    let strict = mesh.pair().await.0;
    meet(strict, posing_server(&renamed(&ratings()))).await.refused_by_client("old.mesh");
}

#[tokio::test]
async fn two_names_are_refused_in_both_directions() {
    let mesh = Mesh::new();
    let names = [reviews().to_string(), ratings().to_string()];
    let names = [names[0].as_str(), names[1].as_str()];
    let (client, server) = mesh.pair().await;
    let posing_client = mesh.pose_as(&names).await;
    meet(posing_client, server.clone()).await.refused_by_server("more than one URI");
    let mut posing_server = ServerConfig::clone(&server);
    posing_server.cert_resolver = Arc::new(posing(&mesh.directory(), &names));
    meet(client, Arc::new(posing_server)).await.refused_by_client("more than one URI");
}

/// Each side judges by its own clock.
#[tokio::test]
async fn an_expired_certificate_is_refused_in_both_directions() {
    let mesh = Mesh::new();
    let yesterday: Arc<dyn Clock> = Arc::new(Fixed(SystemTime::now() - 2 * DAY));
    let (home, issuer) = issuer(yesterday.clone());
    let old = certify(&issuer, &reviews(), yesterday.clone()).await.unwrap();
    let old_server = certify(&issuer, &ratings(), yesterday).await.unwrap().server_config();
    // The same authority today.
    let directory = home.path().join("ca");
    let issuer =
        LocalIssuer::open(settings(&directory, "cluster.local"), mesh.clock.clone()).unwrap();
    let fresh = certify(&issuer, &ratings(), mesh.clock.clone()).await.unwrap();

    let client = fresh.client_config(&[ratings()]).unwrap();
    meet(client, old_server).await.refused_by_client("expired");
    let mut client = ClientConfig::clone(&*fresh.client_config(&[ratings()]).unwrap());
    let old_client = old.client_config(&[ratings()]).unwrap();
    client.client_auth_cert_resolver = old_client.client_auth_cert_resolver.clone();
    meet(Arc::new(client), fresh.server_config()).await.refused_by_server("expired");
}

#[tokio::test]
async fn a_client_must_offer_h2() {
    let mesh = Mesh::new();
    let (client, server) = mesh.pair().await;
    let mut silent = ClientConfig::clone(&client);
    silent.alpn_protocols.clear();
    meet(Arc::new(silent), server.clone()).await.refused_by_server("no server certificate chain");
    let mut other = ClientConfig::clone(&client);
    other.alpn_protocols = vec![b"http/1.1".to_vec()];
    meet(Arc::new(other), server).await.refused_by_server("known protocol");
}

/// The library accepts a server that chooses nothing: the caller must ask, and can.
#[tokio::test]
async fn a_server_that_does_not_choose_h2_is_seen() {
    let mesh = Mesh::new();
    let (client, server) = mesh.pair().await;
    let mut silent = ServerConfig::clone(&server);
    silent.alpn_protocols.clear();
    let outcome = meet(client, Arc::new(silent)).await;
    assert!(!outcome.client.unwrap().h2);
}

/// The build has no TLS 1.2, so its greeting is written by hand.
fn tls_1_2_hello(extensions: &[u8]) -> Vec<u8> {
    let mut hello = vec![0x03, 0x03];
    hello.extend([7; 32]);
    // No session, the suite ECDHE-ECDSA-AES128-GCM-SHA256, no compression.
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0, extensions.len() as u8]);
    hello.extend(extensions);
    let mut record = vec![0x16, 0x03, 0x01, 0, hello.len() as u8 + 4, 1, 0, 0, hello.len() as u8];
    record.extend(hello);
    record
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let mesh = Mesh::new();
    let (_, server) = mesh.pair().await;
    // signature_algorithms, supported_groups and ALPN, as a modern client has them.
    let common =
        [0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 0x17, 0, 16, 0, 5, 0, 3, 2, b'h', b'2'];
    let versions = [0, 43, 0, 3, 2, 3, 3];
    let named = [&common[..], &versions].concat();
    for (extensions, why) in [
        (&common[..], "SupportedVersionsExtensionRequired"),
        (&named[..], "Tls12NotOfferedOrEnabled"),
    ] {
        let hello = tls_1_2_hello(extensions);
        let (mut near, far) = duplex(4096);
        near.write_all(&hello).await.unwrap();
        let accepted = TlsAcceptor::from(server.clone()).accept(far).await;
        let error = accepted.map(drop).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        let mut alert = [0; 7];
        near.read_exact(&mut alert).await.unwrap();
        assert_eq!((alert[0], alert[5]), (0x15, 2), "not a fatal alert: {alert:?}");
    }
}
