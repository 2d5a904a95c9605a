//! `[identity]`: who signs certificates, and how whoever does is reached and known.

use std::net::IpAddr;
use std::path::PathBuf;

use super::{DAY, SECOND, default};
use crate::base::Str;
use crate::config::reader::{Field, Reader};
use crate::config::{IdentitySettings, IssuerKind};

pub(super) fn read(reader: &mut Reader<'_>) -> IdentitySettings {
    IdentitySettings {
        issuer: issuer(reader),
        ca_directory: ca_directory(reader),
        lifetime: reader.duration(
            Field {
                key: "identity.lifetime",
                default: default::LIFETIME,
                meaning: "How long a certificate is valid; it is renewed at half of it.",
            },
            10 * SECOND..=365 * DAY,
        ),
        crl: reader.optional_path(Field {
            key: "identity.crl",
            default: "",
            meaning: "Certificate revocation lists in PEM, watched for changes: peers whose certificate they revoke \
                      are refused and cut.",
        }),
        istio_address: ca_address(
            reader,
            "identity.istio_address",
            default::ISTIO_ADDRESS,
            "Where istiod signs certificates, when it is the issuer. Plain http:// is for this \
             machine only.",
        ),
        istio_ca_root: reader.path(Field {
            key: "identity.istio_ca_root",
            default: default::ISTIO_CA_ROOT,
            meaning: "The roots that the certificate of istiod's server must come from, as PEM; read anew for \
                      each connection.",
        }),
        istio_token_file: reader.path(Field {
            key: "identity.istio_token_file",
            default: default::ISTIO_TOKEN_FILE,
            meaning: "The agent's own service account token with the audience of istiod (istio-ca); read anew \
                      for each request.",
        }),
        controller_address: ca_address(
            reader,
            "identity.controller_address",
            default::CONTROLLER_ADDRESS,
            "Where `isthmus controller` signs certificates, when it is the issuer.",
        ),
        controller_root: reader.path(Field {
            key: "identity.controller_root",
            default: default::CONTROLLER_ROOT,
            meaning: "The roots that the certificate of the controller's server must come from, as PEM, watched \
                      for changes: other roots have all certificates issued anew.",
        }),
        controller_token_file: reader.path(Field {
            key: "identity.controller_token_file",
            default: default::CONTROLLER_TOKEN_FILE,
            meaning: "The agent's own service account token with the audience istio-ca; read anew for each \
                      request.",
        }),
    }
}

fn ca_directory(reader: &mut Reader<'_>) -> PathBuf {
    reader.path(Field {
        key: "identity.ca_directory",
        default: default::CA_DIRECTORY,
        meaning: "Where the local CA keeps ca-cert.pem and ca-key.pem; made when missing. The agents of \
                  one mesh on one machine share it.",
    })
}

fn issuer(reader: &mut Reader<'_>) -> IssuerKind {
    reader.choice(
        Field {
            key: "identity.issuer",
            default: IssuerKind::Local,
            meaning: "Who signs certificates: `local` is a CA in a directory of this machine, `istio` is istiod, \
                      `controller` is `isthmus controller` in the cluster.",
        },
        &[
            ("local", IssuerKind::Local),
            ("istio", IssuerKind::Istio),
            ("controller", IssuerKind::Controller),
        ],
    )
}

fn ca_address(
    reader: &mut Reader<'_>,
    key: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Str {
    reader.text(Field { key, default, meaning }, "https:// address with a port", check_ca_address)
}

/// What the issuer needs: a host with a port, and TLS wherever a token would cross a network.
fn check_ca_address(text: &str) -> Result<(), String> {
    let wrong =
        |why: &str| Err(format!("{text:?} {why}; write it as {:?}", default::ISTIO_ADDRESS));
    let Ok(uri) = text.parse::<http::Uri>() else { return wrong("is not an address") };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let loopback =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if loopback => {}
        Some("http") => return wrong("would send the agent's token in plain text"),
        _ => return wrong("does not begin with https://"),
    }
    if uri.port_u16().is_none_or(|port| port == 0) {
        return wrong("has no port");
    }
    let bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
    if bare { Ok(()) } else { wrong("goes on after the port") }
}
