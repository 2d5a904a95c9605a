//! The certificates of an agent: issuer, trust, and the files that are watched while the agent runs.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::base::TrustDomains;
use crate::config::{IssuerKind, Settings};
use crate::identity::{
    CaServer, CertificateStore, ISTIO_CONNECT_TIMEOUT, ISTIO_REQUEST_TIMEOUT, Issuer, IstioIssuer,
    IstioIssuerSettings, LocalIssuer, LocalIssuerSettings, Revocations, StoreSettings, SystemClock,
    Trust,
};
use crate::telemetry::Telemetry;

/// The store, and what changes under it.
pub(super) struct Certificates {
    pub(super) store: Arc<CertificateStore>,
    /// Its files are watched.
    local: Option<Arc<LocalIssuer>>,
    /// Its roots are watched.
    controller: Option<Arc<IstioIssuer>>,
    revocations: Arc<Revocations>,
}

impl Certificates {
    pub(super) fn new(settings: &Settings, telemetry: &Telemetry) -> anyhow::Result<Self> {
        let clock = Arc::new(SystemClock);
        let metrics = telemetry.agent().clone();
        let (mut local, mut controller) = (None, None);
        let issuer: Arc<dyn Issuer> = match settings.identity.issuer {
            IssuerKind::Local => {
                let issuer = LocalIssuer::open(local_settings(settings), clock.clone())?;
                local.insert(Arc::new(issuer)).clone()
            }
            IssuerKind::Istio => {
                Arc::new(IstioIssuer::new(istio_settings(settings), clock.clone())?)
            }
            IssuerKind::Controller => {
                let issuer = IstioIssuer::new(controller_settings(settings), clock.clone())?;
                controller.insert(Arc::new(issuer)).clone()
            }
        };
        let revocations = match &settings.identity.crl {
            Some(file) => Revocations::open(file.clone(), metrics.clone())?,
            None => Revocations::none(),
        };
        let trust =
            Trust { trust_domains: trust_domains(settings), revocations: revocations.clone() };
        let store = StoreSettings { trust, metrics };
        let store = Arc::new(CertificateStore::new(issuer, store, clock));
        Ok(Self { store, local, controller, revocations })
    }

    /// Starts what runs in the background.
    pub(super) fn spawn(self, tasks: &TaskTracker, cancel: &CancellationToken) {
        let Self { store, local, controller, revocations } = self;
        let until = cancel.clone();
        tasks.spawn(async move { store.run(until).await });
        if let Some(local) = local {
            let until = cancel.clone();
            tasks.spawn(async move { local.follow(until).await });
        }
        if let Some(controller) = controller {
            let until = cancel.clone();
            tasks.spawn(async move { controller.follow(until).await });
        }
        let until = cancel.clone();
        tasks.spawn(async move { revocations.follow(until).await });
    }
}

/// The names of this mesh, from the settings.
pub(super) fn trust_domains(settings: &Settings) -> TrustDomains {
    TrustDomains::new(settings.trust_domain.clone(), &settings.trust_domain_aliases)
}

fn local_settings(settings: &Settings) -> LocalIssuerSettings {
    LocalIssuerSettings {
        directory: settings.identity.ca_directory.clone(),
        trust_domain: settings.trust_domain.clone(),
        lifetime: settings.identity.lifetime,
    }
}

fn istio_settings(settings: &Settings) -> IstioIssuerSettings {
    IstioIssuerSettings {
        server: CaServer::Istiod,
        address: settings.identity.istio_address.clone(),
        ca_root: settings.identity.istio_ca_root.clone(),
        token_file: settings.identity.istio_token_file.clone(),
        cluster: settings.cluster.clone(),
        lifetime: settings.identity.lifetime,
        connect_timeout: ISTIO_CONNECT_TIMEOUT,
        request_timeout: ISTIO_REQUEST_TIMEOUT,
    }
}

pub(super) fn controller_settings(settings: &Settings) -> IstioIssuerSettings {
    IstioIssuerSettings {
        server: CaServer::Controller,
        address: settings.identity.controller_address.clone(),
        ca_root: settings.identity.controller_root.clone(),
        token_file: settings.identity.controller_token_file.clone(),
        ..istio_settings(settings)
    }
}
