//! `[identity]`: who signs certificates, and how the agent reaches and authenticates the issuer.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::Str;
use crate::config::check::{self, DAY, SECOND};

/// Who signs the certificates of workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IssuerKind {
    /// A CA in a directory of this machine.
    Local,
    /// istiod, over gRPC.
    Istio,
    /// `isthmus controller`, over gRPC.
    Controller,
}

/// What the address of an issuer is, for people.
const CA_ADDRESS: &str = "https:// address with a port";

section! {
    /// `[identity]`
    pub struct IdentitySettings in "identity." {
        /// Who signs certificates: `local` is a CA in a directory of this machine, `istio` is istiod, `controller` is
        /// `isthmus controller` in the cluster.
        issuer: IssuerKind = IssuerKind::Local, choice(&[
                ("local", IssuerKind::Local),
                ("istio", IssuerKind::Istio),
                ("controller", IssuerKind::Controller),
            ]),
            because "It needs no cluster; the chart sets another.";

        /// Where the local CA keeps ca-cert.pem and ca-key.pem; made when missing. The agents of one mesh on one machine
        /// share it.
        ca_directory: PathBuf = "/var/lib/isthmus/ca", path(),
            because "What an agent keeps between runs lies below `/var/lib` (FHS 3.0, 5.8).";

        /// How long a certificate is valid; it is renewed at half of it.
        lifetime: Duration = DAY, duration(10 * SECOND..=365 * DAY),
            because "Istio's `SECRET_TTL`: with rotation at half life there are 12 hours to repair an issuer that fails.";

        /// Certificate revocation lists in PEM, watched for changes: peers whose certificate they revoke are refused and cut.
        crl: Option<PathBuf> = "", optional_path(),
            because "Certificates live for a day; few issuers of workloads revoke any.";

        /// Where istiod signs certificates, when it is the issuer. Plain http:// is for this machine only.
        istio_address: Str = "https://istiod.istio-system.svc:15012", text(CA_ADDRESS, check::ca_address),
            because "ztunnel's `CA_ADDRESS`: the Service that every installation of Istio has.";

        /// The roots that the certificate of istiod's server must come from, as PEM; read again for each connection.
        istio_ca_root: PathBuf = "/var/run/secrets/istio/root-cert.pem", path(),
            because "ztunnel's `CA_ROOT_CA`: where Istio's charts mount the ConfigMap istio-ca-root-cert.";

        /// The agent's own service account token with the audience of istiod (istio-ca); read again for each request.
        istio_token_file: PathBuf = "/var/run/secrets/tokens/istio-token", path(),
            because "ztunnel's `AUTH_TOKEN`: where Istio's charts mount the projected token of audience istio-ca.";

        /// Where `isthmus controller` signs certificates, when it is the issuer.
        controller_address: Str = "https://isthmus-controller.isthmus-system.svc:15012",
            text(CA_ADDRESS, check::ca_address),
            because "The Service that the manifests under `config` install.";

        /// The roots that the certificate of the controller's server must come from, as PEM, watched for changes: when they
        /// change, the agent renews all certificates.
        controller_root: PathBuf = "/var/run/secrets/isthmus/ca/root-cert.pem", path(),
            because "Where these manifests mount the ConfigMap isthmus-ca-root.";

        /// The agent's own service account token with the audience istio-ca; read again for each request.
        controller_token_file: PathBuf = "/var/run/secrets/tokens/istio-token", path(),
            because "Where these manifests mount the projected token of audience istio-ca.";
    }
}
