//! Kinds of Gateway API and Istio that are known and not carried out. Of most only that there is one is kept. A
//! BackendTLSPolicy wants traffic encrypted, which must not be lost; what else stands in it is nobody's business here, so
//! nothing in it is an error.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use super::{Labelled, Labels};

/// Kinds whose metadata alone are read.
macro_rules! named {
    ($($kind:ident)*) => {
        $(
            #[derive(Clone, Debug, Deserialize)]
            pub struct $kind {
                #[serde(default)]
                pub metadata: ObjectMeta,
            }

            impl Labelled for $kind {
                fn labels(&self) -> Option<&Labels> {
                    self.metadata.labels()
                }

                fn annotations(&self) -> Option<&Labels> {
                    self.metadata.annotations()
                }
            }
        )*
    };
}

named! { EnvoyFilter WasmPlugin }

/// `gateway.networking.k8s.io/v1` BackendTLSPolicy.
#[derive(Clone, Debug, Deserialize)]
pub struct BackendTlsPolicy {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: Value,
}

impl Labelled for BackendTlsPolicy {
    fn labels(&self) -> Option<&Labels> {
        self.metadata.labels()
    }

    fn annotations(&self) -> Option<&Labels> {
        self.metadata.annotations()
    }
}
