//! Kinds of Gateway API and Istio that are known and not carried out, of which only that there is one is kept; and
//! BackendTLSPolicy, which is read where it is translated: what it wants encrypted must not be lost, whatever else is wrong.

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
