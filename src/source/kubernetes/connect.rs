//! The way to the API server.

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::answer::bounded;
use super::health::{CONNECT, chain};
use crate::source::SourceError;

/// How long a connection may be silent. Watches hear a bookmark about once a minute; a server that is cut off without a
/// word is noticed after this time.
const SILENCE: Duration = Duration::from_secs(100);

/// A client of the API server, by `kubeconfig`, or by the service account of the pod that this runs in. The service
/// account's token and roots are read anew when they change.
///
/// # Errors
/// The file or the service account cannot be read, or says nothing usable. The server itself is not asked yet.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, SourceError> {
    let failed = |cause: String| SourceError::Cluster { cause };
    let mut config = match kubeconfig {
        Some(path) => {
            let in_file = |cause: String| failed(format!("{}: {cause}", path.display()));
            let read = Kubeconfig::read_from(path).map_err(|error| in_file(chain(&error)))?;
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(read, &options).await;
            config.map_err(|error| in_file(chain(&error)))?
        }
        None => Config::incluster().map_err(|error| failed(chain(&error)))?,
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    config.write_timeout = Some(CONNECT);
    // It would try again up to 15 times by itself, with pauses up to minutes, without a word meanwhile: whoever asks knows
    // how long to wait and what to tell.
    config.default_retry = false;
    Client::try_from(config).map(bounded).map_err(|error| failed(chain(&error)))
}
