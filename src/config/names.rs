//! Settings that are lists of names.

use super::reader::{Field, Reader};
use super::sections::check_name;
use crate::base::Str;

/// Every namespace.
const ALL: &str = "*";

pub(super) fn trust_domain_aliases(reader: &mut Reader<'_>) -> Vec<Str> {
    reader.texts(
        Field {
            key: "trust_domain_aliases",
            default: &[],
            meaning: "Other names of the trust domain, as MeshConfig.trustDomainAliases: peers of them are \
                      accepted, and a policy that names one means all. Such as [\"old.example\"].",
        },
        "DNS name",
        check_name,
    )
}

/// None by default: an entry claims hosts and addresses that nobody gave its namespace.
pub(super) fn public_service_entries(reader: &mut Reader<'_>) -> Vec<Str> {
    reader.texts(
        Field {
            key: "public_service_entries",
            default: &[],
            meaning: "Namespaces whose ServiceEntries hold for clients of every namespace, as those of the root \
                      namespace do; \"*\" for all, as in Istio. Others hold for clients of their own namespace. \
                      Whoever may write entries there decides where others' traffic to hosts and addresses \
                      outside of the mesh goes.",
        },
        "namespace",
        |text| if text == ALL { Ok(()) } else { check_name(text) },
    )
}

/// Istio's revision where nobody names one.
const DEFAULT_REVISION: &str = "default";

pub(super) fn revisions(reader: &mut Reader<'_>) -> Vec<Str> {
    reader.texts(
        Field {
            key: "revisions",
            default: &[DEFAULT_REVISION],
            meaning: "What Gateways (or their namespaces) and routes may have in the label istio.io/rev to be this mesh's: \
                      its revision, and tags of it. Those of other revisions are left alone; objects without the label \
                      are everybody's. The controller needs the same value.",
        },
        "DNS name",
        check_name,
    )
}
