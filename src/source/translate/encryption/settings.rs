//! `ClientTLSSettings` of a DestinationRule.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::super::Context;
use crate::base::{ObjectKey, Str};
use crate::model::Demand;
use crate::source::objects::{ClientTls, DestinationRule, Kind};
use crate::tls::{ClientCertificate, Material, Origin, Roots, SubjectName, TlsSettings};

/// In `caCertificates`: the roots of the system, as without it.
const SYSTEM: &str = "system";

/// What is said. Without a mode that is DISABLE, the first of the enumeration. A mode that is not known asks for no less than any
/// other.
pub(super) fn demand(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    field: &str,
    written: Option<&Value>,
) -> Demand {
    let Some(written) = written.filter(|written| !written.is_null()) else {
        return Demand::Nothing;
    };
    let tls: ClientTls = match serde_json::from_value(written.clone()) {
        Ok(tls) => tls,
        // The rule as a whole says which field is wrong.
        Err(error) => return Demand::Impossible(error.to_string().into()),
    };
    match tls.mode.as_deref() {
        None | Some("" | "DISABLE") => Demand::Plaintext,
        Some("ISTIO_MUTUAL") => Demand::Mesh,
        Some(mode @ ("SIMPLE" | "MUTUAL")) => {
            match settings(cx, key, field, &tls, mode == "MUTUAL") {
                Ok(settings) => Demand::Tls(Origin::new(settings).into()),
                Err(why) => Demand::Impossible(why.into()),
            }
        }
        Some(other) => Demand::Impossible(
            format!("{other:?} is none of DISABLE, SIMPLE, MUTUAL and ISTIO_MUTUAL").into(),
        ),
    }
}

fn settings(
    cx: &mut Context<'_>,
    key: &ObjectKey,
    field: &str,
    tls: &ClientTls,
    mutual: bool,
) -> Result<TlsSettings, String> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let ClientTls {
        mode: _,
        client_certificate,
        private_key,
        ca_certificates,
        credential_name,
        subject_alt_names,
        sni,
        insecure_skip_verify,
        ca_crl,
    } = tls;
    if let Some(name) = given(credential_name) {
        return Err(format!(
            "the Secret {name:?} of credentialName is not read; name files below the directory of the namespace \
             (clientCertificate, privateKey, caCertificates)"
        ));
    }
    let file = |name: &str, path: &str| file(cx, key, path).map_err(|why| format!("{name}: {why}"));
    let unverified = *insecure_skip_verify == Some(true);
    let roots = match given(ca_certificates) {
        _ if unverified => Roots::Unverified,
        None => Roots::System,
        Some(path) if path == SYSTEM => Roots::System,
        Some(path) => Roots::Of(vec![file("caCertificates", &path)?]),
    };
    let crl = given(ca_crl).map(|path| file("caCrl", &path)).transpose()?;
    let client = match (mutual, given(client_certificate), given(private_key)) {
        (false, ..) => None,
        (true, Some(chain), Some(private)) => Some(ClientCertificate {
            chain: file("clientCertificate", &chain)?,
            key: file("privateKey", &private)?,
        }),
        (true, ..) => return Err("MUTUAL needs clientCertificate and privateKey".into()),
    };
    let names = subject_alt_names.iter().filter(|name| !name.is_empty());
    let settings = TlsSettings {
        by: format!("{} {key}", Kind::DestinationRule).into(),
        sni: given(sni).map(Str::from),
        names: names.map(|name| SubjectName::Any(name.as_str().into())).collect(),
        roots,
        client,
        crl,
    };
    tell(cx, key, field, tls, mutual);
    Ok(settings)
}

/// What is said besides.
fn tell(cx: &mut Context<'_>, key: &ObjectKey, field: &str, tls: &ClientTls, mutual: bool) {
    if tls.insecure_skip_verify == Some(true) {
        let reason = "anybody who answers is taken for the server: neither the chain nor the name of its certificate is verified";
        cx.warn::<DestinationRule>(key, format!("{field}.insecureSkipVerify"), reason);
    }
    if !mutual && (tls.client_certificate.is_some() || tls.private_key.is_some()) {
        let reason = "has no effect: SIMPLE sends no certificate of the client; say MUTUAL";
        cx.warn::<DestinationRule>(key, format!("{field}.clientCertificate"), reason);
    }
}

/// A file of the object's namespace. No object names one outside of its own namespace's directory.
fn file(cx: &Context<'_>, key: &ObjectKey, written: &str) -> Result<Material, String> {
    let Some(directory) = &cx.settings.tls_directory else {
        return Err(format!(
            "{written:?} cannot be read: the setting tls.directory names no directory"
        ));
    };
    below(directory, &key.namespace, written).map(Material::File)
}

/// The path within the namespace's directory, which is also what an absolute path is relative to.
fn below(directory: &Path, namespace: &str, written: &str) -> Result<PathBuf, String> {
    let mut path = directory.to_owned();
    let parts = Path::new(namespace).components().chain(Path::new(written).components());
    let mut named = 0;
    for part in parts {
        match part {
            Component::Normal(part) => {
                path.push(part);
                named += 1;
            }
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(format!("{written:?} leads out of the directory of the namespace"));
            }
        }
    }
    // A namespace has one part, and the file at least one more.
    let is_within = named > 1 && Path::new(namespace).components().count() == 1;
    is_within.then_some(path).ok_or_else(|| format!("{written:?} is not the path of a file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_of_the_objects_own_namespace() {
        for (namespace, written, expected) in [
            ("shop", "ca.pem", Some("/d/shop/ca.pem")),
            ("shop", "/etc/certs/ca.pem", Some("/d/shop/etc/certs/ca.pem")),
            ("shop", "./a//b", Some("/d/shop/a/b")),
            ("shop", "../evil/key.pem", None),
            ("shop", "/etc/../../key.pem", None),
            ("shop", "a/..", None),
            ("shop", "", None),
            ("shop", "/", None),
            ("..", "key.pem", None),
            ("", "key.pem", None),
            ("a/b", "key.pem", None),
        ] {
            let found = below(Path::new("/d"), namespace, written);
            assert_eq!(found.ok(), expected.map(PathBuf::from), "{namespace:?} {written:?}");
        }
    }
}
