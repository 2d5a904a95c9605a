//! The way to the controller for what is no certificate: the same address, roots and token.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};

use super::connect::{Connector, Target};
use super::files::Token;
use super::settings::IstioIssuerSettings;
use crate::identity::{Clock, IdentityError};

/// A silent connection is asked whether it lives after so long, and must answer in so long.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_PATIENCE: Duration = Duration::from_secs(5);

/// Connects to the controller as this node's agent: the controller proves its name to the agent, and the agent's token says
/// to the controller on which node it runs.
#[derive(Clone)]
pub struct ControllerLink {
    connector: Connector,
    token_file: PathBuf,
}

impl ControllerLink {
    /// Checks the settings; connects nowhere.
    ///
    /// # Errors
    /// The address is not one of a CA.
    pub fn new(
        settings: &IstioIssuerSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, IdentityError> {
        let unusable = |reason| IdentityError::Refused(format!("{}: {reason}", settings.address));
        let connector = Connector {
            target: Target::parse(&settings.address).map_err(unusable)?,
            ca_root: settings.ca_root.clone(),
            limit: settings.connect_timeout,
            clock,
        };
        Ok(Self { connector, token_file: settings.token_file.clone() })
    }

    /// A new connection, and the value of `authorization` for each call. It may lead to another replica than the last one.
    ///
    /// # Errors
    /// The controller cannot be reached or proves another name, or there is no token; in words.
    pub async fn open(&self) -> Result<(Channel, AsciiMetadataValue), String> {
        let bearer = Token::read(&self.token_file).await?.bearer()?;
        let endpoint = Endpoint::from(self.connector.target.uri.clone())
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_PATIENCE)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect_with_connector(self.connector.clone()).await;
        let channel = channel.map_err(|error| {
            let cause = std::error::Error::source(&error);
            cause.map_or_else(|| error.to_string(), ToString::to_string)
        })?;
        Ok((channel, bearer))
    }
}
