//! What an object demands of TLS to an application, as plain data.

use super::{Material, SubjectName};
use crate::base::Str;

/// What an object demands of TLS to an application.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TlsSettings {
    /// The object, for messages.
    pub by: Str,
    /// The server's name that is sent; `None`: the service's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<Str>,
    /// The certificate must have one of these; the server's name if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<SubjectName>,
    pub roots: Roots,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientCertificate>,
    /// Revoked certificates of servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl: Option<Material>,
}

/// Who vouches for servers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Roots {
    /// Nobody: neither chain nor name is verified.
    Unverified,
    System,
    Of(Vec<Material>),
}

/// With which a client proves who it is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ClientCertificate {
    pub chain: Material,
    pub key: Material,
}

impl TlsSettings {
    /// Everything that is read.
    pub(super) fn materials(&self) -> Vec<&Material> {
        let roots = match &self.roots {
            Roots::Of(materials) => &materials[..],
            Roots::System | Roots::Unverified => &[],
        };
        let client = self.client.iter().flat_map(|client| [&client.chain, &client.key]);
        roots.iter().chain(client).chain(&self.crl).collect()
    }
}
