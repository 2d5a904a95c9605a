//! The source that the settings choose.

use tokio_util::sync::CancellationToken;

use super::settings::translate_settings;
use crate::config::{Settings, SourceKind};
use crate::source::{
    Asked, DirectorySource, KubernetesSource, LastRead, Source, SourceError, Translation,
};

pub(super) enum AnySource {
    Directory(DirectorySource),
    Kubernetes(KubernetesSource),
}

impl AnySource {
    pub(super) fn new(settings: &Settings) -> Self {
        let names = translate_settings(settings);
        match settings.source.kind {
            SourceKind::Directory => {
                AnySource::Directory(DirectorySource::new(settings.source.directory.clone(), names))
            }
            SourceKind::Kubernetes => AnySource::Kubernetes(KubernetesSource::new(
                settings.source.kubeconfig.clone(),
                names,
            )),
        }
    }

    pub(super) fn last_read(&self) -> LastRead {
        match self {
            AnySource::Directory(source) => source.last_read(),
            AnySource::Kubernetes(source) => source.last_read(),
        }
    }

    pub(super) fn asked(&self) -> Asked {
        match self {
            AnySource::Directory(source) => source.asked(),
            AnySource::Kubernetes(source) => source.asked(),
        }
    }
}

impl Source for AnySource {
    async fn run(
        self,
        publish: impl FnMut(Translation) + Send,
        cancel: CancellationToken,
    ) -> Result<(), SourceError> {
        match self {
            AnySource::Directory(source) => source.run(publish, cancel).await,
            AnySource::Kubernetes(source) => source.run(publish, cancel).await,
        }
    }
}
