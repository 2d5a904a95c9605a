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
        /// The issuer of certificates: `local` is a CA in a directory of this machine, `istio` is istiod, `controller`
        /// is `isthmus controller` in the cluster.
        issuer: IssuerKind = IssuerKind::Local, choice(&[
                ("local", IssuerKind::Local),
                ("istio", IssuerKind::Istio),
                ("controller", IssuerKind::Controller),
            ]),
            because "It needs no cluster; the chart sets another.";

        /// The directory of the local CA's ca-cert.pem and ca-key.pem; created if it is missing. The agents of one mesh
        /// on one machine share it.
        ca_directory: PathBuf = "/var/lib/isthmus/ca", path(),
            because "Persistent state belongs below `/var/lib` (FHS 3.0, 5.8).";

        /// The lifetime of a certificate; it is renewed at half of it.
        lifetime: Duration = DAY, duration(10 * SECOND..=365 * DAY),
            because "Istio's `SECRET_TTL`: with rotation at half life there are 12 hours to repair an issuer that fails.";

        /// A file of certificate revocation lists in PEM, watched for changes: peers with a revoked certificate are
        /// rejected, and their tunnels cut.
        crl: Option<PathBuf> = "", optional_path(),
            because "Certificates live for a day; few issuers of workloads revoke any.";

        /// The address of istiod's CA, for the issuer `istio`. Plain http:// is accepted for loopback addresses only.
        istio_address: Str = "https://istiod.istio-system.svc:15012", text(CA_ADDRESS, check::ca_address),
            because "ztunnel's `CA_ADDRESS`: the Service that every installation of Istio has.";

        /// The trusted roots of istiod's server certificate, in PEM; read for each connection.
        istio_ca_root: PathBuf = "/var/run/secrets/istio/root-cert.pem", path(),
            because "ztunnel's `CA_ROOT_CA`: where Istio's charts mount the ConfigMap istio-ca-root-cert.";

        /// The agent's service account token with the audience of istiod (istio-ca); read for each request.
        istio_token_file: PathBuf = "/var/run/secrets/tokens/istio-token", path(),
            because "ztunnel's `AUTH_TOKEN`: where Istio's charts mount the projected token of audience istio-ca.";

        /// The address of `isthmus controller`, for the issuer `controller`.
        controller_address: Str = "https://isthmus-controller.isthmus-system.svc:15012",
            text(CA_ADDRESS, check::ca_address),
            because "The Service that the manifests under `config` install.";

        /// The trusted roots of the controller's server certificate, in PEM, watched for changes: when they change, the
        /// agent renews all certificates.
        controller_root: PathBuf = "/var/run/secrets/isthmus/ca/root-cert.pem", path(),
            because "Where these manifests mount the ConfigMap isthmus-ca-root.";

        /// The agent's service account token with the audience istio-ca; read for each request.
        controller_token_file: PathBuf = "/var/run/secrets/tokens/istio-token", path(),
            because "Where these manifests mount the projected token of audience istio-ca.";
    }
}
