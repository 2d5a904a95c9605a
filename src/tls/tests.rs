//! Handshakes over memory with servers of every kind, and files that change.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::TlsAcceptor;

use super::fixture::{Authority, Issued, pem, server, trusting};
use super::*;

const SOON: Duration = Duration::from_secs(10);

/// Whether a byte goes there and back, and the name that the server was asked for.
async fn speak(
    settings: TlsSettings,
    (name, protocol): (&str, Protocol),
    server: ServerConfig,
) -> Result<Option<String>, TlsFault> {
    let ready = Origin::new(settings).ready().await?;
    let (ours, theirs) = duplex(16 * 1024);
    let serving = tokio::spawn(async move {
        let mut stream = TlsAcceptor::from(Arc::new(server)).accept(theirs).await?;
        let asked = stream.get_ref().1.server_name().map(str::to_owned);
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.shutdown().await?;
        std::io::Result::Ok(asked)
    });
    let mut stream = ready.connect(name, protocol, ours, SOON).await?;
    stream.write_u8(7).await?;
    assert_eq!(stream.read_u8().await?, 7);
    Ok(serving.await.unwrap()?)
}

const WEB: (&str, Protocol) = ("web.example", Protocol::Bytes);

#[tokio::test]
async fn a_server_proves_the_name_that_is_wanted_to_an_authority_that_is_trusted() {
    let (ours, others) = (Authority::new(), Authority::new());
    const SPIFFE: &str = "spiffe://cluster.local/ns/shop/sa/web";
    let any = |name: &str| vec![SubjectName::Any(name.into())];
    let named = |names: Vec<SubjectName>| TlsSettings { names, ..trusting(&ours) };
    for (names, settings, passes) in [
        (&["web.example"][..], trusting(&ours), true),
        // Too wide for any authority (webpki).
        (&["*.example"], trusting(&ours), false),
        (&["other.example"], trusting(&ours), false),
        (&["web.example"], trusting(&others), false),
        (&["web.example"], TlsSettings { roots: Roots::System, ..trusting(&ours) }, false),
        (&["other.example"], named(any("other.example")), true),
        (&["web.example"], named(any("other.example")), false),
        (&["*.web.example"], named(any("a.web.example")), true),
        (&[SPIFFE], named(any(SPIFFE)), true),
        (&[SPIFFE], named(vec![SubjectName::Uri(SPIFFE.into())]), true),
        (&[SPIFFE], named(vec![SubjectName::Dns(SPIFFE.into())]), false),
        (&["web.example"], named(vec![SubjectName::Dns("web.example".into())]), true),
        (&["web.example"], named(vec![SubjectName::Uri("web.example".into())]), false),
        // Several names: one is enough.
        (&["b.example"], named([any("a.example"), any("b.example")].concat()), true),
        // A name of the wanted kind from an authority that nobody trusts.
        (
            &["other.example"],
            TlsSettings { names: any("other.example"), ..trusting(&others) },
            false,
        ),
        (&["other.example"], TlsSettings { roots: Roots::Unverified, ..trusting(&others) }, true),
    ] {
        let spoken = speak(settings.clone(), WEB, server(&ours.issue(names), None, &[])).await;
        assert_eq!(spoken.is_ok(), passes, "{names:?} {settings:?}: {spoken:?}");
        assert!(spoken.is_ok_and(|asked| asked.as_deref() == Some("web.example")) || !passes);
    }
}

#[tokio::test]
async fn revoked_servers_are_not_believed() {
    let (ours, others) = (Authority::new(), Authority::new());
    let issued = ours.issue(&["web.example"]);
    for (list, passes) in [(others.revokes_all(), true), (ours.revokes_all(), false)] {
        let settings = TlsSettings { crl: Some(pem(&list)), ..trusting(&ours) };
        let spoken = speak(settings, WEB, server(&issued, None, &[])).await;
        assert_eq!(spoken.is_ok(), passes, "{spoken:?}");
    }
}

#[tokio::test]
async fn a_client_shows_the_certificate_of_its_object() {
    let ours = Authority::new();
    let certificate =
        |issued: Issued| ClientCertificate { chain: pem(&issued.chain), key: pem(&issued.key) };
    let own = certificate(ours.issue(&["client.example"]));
    let strange = certificate(Authority::new().issue(&["client.example"]));
    for (client, passes) in [(Some(own), true), (Some(strange), false), (None, false)] {
        let settings = TlsSettings { client, ..trusting(&ours) };
        let server = server(&ours.issue(&["web.example"]), Some(&ours), &[]);
        let spoken = speak(settings, WEB, server).await;
        assert_eq!(spoken.is_ok(), passes, "{spoken:?}");
    }
}

#[tokio::test]
async fn the_protocol_is_agreed_on() {
    let ours = Authority::new();
    for (protocol, offered, passes) in [
        (Protocol::Http2, &[b"h2".as_slice(), b"http/1.1"][..], true),
        (Protocol::Http2, &[b"http/1.1"], false),
        (Protocol::Http2, &[], false),
        (Protocol::Http1, &[b"h2", b"http/1.1"], true),
        (Protocol::Http1, &[], true),
        (Protocol::Http1, &[b"h2"], false),
        (Protocol::Bytes, &[b"h2"], true),
        (Protocol::Bytes, &[], true),
    ] {
        let server = server(&ours.issue(&["web.example"]), None, offered);
        let spoken = speak(trusting(&ours), ("web.example", protocol), server).await;
        assert_eq!(spoken.is_ok(), passes, "{protocol:?} {offered:?}: {spoken:?}");
    }
}

#[tokio::test]
async fn what_is_no_name_is_proven_by_nobody() {
    let ours = Authority::new();
    for name in ["", "a b", "-", "a..b", "*.example"] {
        let ready = Origin::new(trusting(&ours)).ready().await.unwrap();
        let connected = ready.connect(name, Protocol::Bytes, duplex(64).0, SOON).await;
        assert!(matches!(connected, Err(TlsFault::Name(_))), "{name:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn files_are_read_again_when_they_change_and_bad_ones_replace_nothing() {
    let (directory, ours) = (tempfile::tempdir().unwrap(), Authority::new());
    let file = directory.path().join("ca.pem");
    let roots = Roots::Of(vec![Material::File(file.clone())]);
    let origin = Origin::new(TlsSettings { roots, ..trusting(&ours) });
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let later = || tokio::time::advance(Duration::from_secs(11));
    assert!(matches!(origin.ready().await, Err(TlsFault::Material { .. })), "there is no file");
    write(&ours.pem());
    later().await;
    let first = origin.ready().await.unwrap().number();
    later().await;
    assert_eq!(origin.ready().await.unwrap().number(), first, "it is the same");
    write("nonsense");
    later().await;
    assert_eq!(origin.ready().await.unwrap().number(), first, "the last good one stays");
    write(&(Authority::new().pem() + "\n"));
    assert_eq!(origin.ready().await.unwrap().number(), first, "not looked at yet");
    later().await;
    assert_ne!(origin.ready().await.unwrap().number(), first);
}

#[test]
fn keys_are_shown_nowhere() {
    let issued = Authority::new().issue(&["client.example"]);
    let client = ClientCertificate { chain: pem(&issued.chain), key: pem(&issued.key) };
    let settings = TlsSettings { client: Some(client), ..trusting(&Authority::new()) };
    let origin = Origin::new(settings);
    let shown = format!("{origin:?} {}", serde_json::to_string(&origin).unwrap());
    assert!(shown.contains("DestinationRule shop/web"), "{shown}");
    let secret: Vec<&str> = issued.key.lines().filter(|line| line.len() > 20).collect();
    assert!(!secret.is_empty() && !secret.iter().any(|line| shown.contains(line)), "{shown}");
    let folder = Material::File(Path::new("/").to_owned());
    let fault = folder.key().expect_err("a folder is no key").to_string();
    assert!(fault.contains("regular file"), "{fault}");
}
