//! Files of certificates and keys that are not there.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use super::code::Code;
use super::finding::Finding;
use super::snapshot::Snapshot;
use crate::base::ObjectKey;
use crate::model::Demand;
use crate::source::objects::DestinationRule;
use crate::tls::{Material, Roots, TlsSettings};

/// In front of the key of the object that asks for TLS.
const BY: &str = "DestinationRule ";

pub(super) fn find(cx: &Snapshot<'_>, found: &mut Vec<Finding>) {
    let mut told = BTreeSet::new();
    for service in &cx.mesh.services {
        for demand in service.encryption.wishes().flat_map(|wish| wish.demands()) {
            let Demand::Tls(origin) = demand else { continue };
            let settings = origin.settings();
            let Some(key) = settings.by.strip_prefix(BY).and_then(key) else { continue };
            for (field, path) in files(settings) {
                let Err(error) = File::open(path) else { continue };
                if !told.insert((key.clone(), path.to_owned())) {
                    continue;
                }
                let message = format!("{}: {error}", path.display());
                let field = format!("spec.trafficPolicy.tls.{field}");
                let code = Code::FileMissing;
                found.push(Finding::of::<DestinationRule>(cx.objects, &key, code, field, message));
            }
        }
    }
}

fn key(text: &str) -> Option<ObjectKey> {
    let (namespace, name) = text.split_once('/')?;
    Some(ObjectKey::new(namespace, name))
}

fn files(settings: &TlsSettings) -> Vec<(&'static str, &Path)> {
    let mut all: Vec<(&'static str, &Material)> = Vec::new();
    if let Roots::Of(roots) = &settings.roots {
        all.extend(roots.iter().map(|it| ("caCertificates", it)));
    }
    if let Some(client) = &settings.client {
        all.extend([("clientCertificate", &client.chain), ("privateKey", &client.key)]);
    }
    all.extend(settings.crl.iter().map(|it| ("caCrl", it)));
    all.into_iter().filter_map(|(field, material)| Some((field, path(material)?))).collect()
}

fn path(material: &Material) -> Option<&Path> {
    match material {
        Material::File(path) => Some(path),
        Material::Pem(_) => None,
    }
}
