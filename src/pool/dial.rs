//! A new tunnel: TCP from the client's network namespace, mutual TLS as the client, HTTP/2.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::alert::{Alert, Alerted};
use super::{Pool, PoolError, TunnelKey};
use crate::base::{Need, Reason, ports};
use crate::identity::{self, Role, WorkloadCertificate};
use crate::sock::{self, SocketFactory};
use crate::telemetry::Handshake;
use crate::tunnel::{self, TUNNEL_BYTES, Tunnel};

/// Dials in a task of its own: a caller that gives up must not take the tunnel from those that wait for it.
pub(super) async fn dial(
    pool: &Pool,
    key: &TunnelKey,
    sockets: &Arc<dyn SocketFactory>,
    certificate: Arc<WorkloadCertificate>,
) -> Result<(Tunnel, Alert), PoolError> {
    let dialling = establish(pool.clone(), key.clone(), sockets.clone(), certificate);
    match pool.site.runtime.spawn(dialling).await {
        Ok(dialled) => dialled,
        Err(error) => Err(PoolError { reason: Reason::ConnectFailure, why: error.to_string() }),
    }
}

async fn establish(
    pool: Pool,
    key: TunnelKey,
    sockets: Arc<dyn SocketFactory>,
    certificate: Arc<WorkloadCertificate>,
) -> Result<(Tunnel, Alert), PoolError> {
    let room = pool.shared.settings.rooms.of(&key.client_uid);
    let place = room.take(TUNNEL_BYTES, Need::Place).ok_or_else(|| no_room(&key))?;
    let deadline = pool.shared.settings.connect_timeout;
    let stream = sock::connect(sockets.as_ref(), key.address, None, deadline)
        .await
        .map_err(|error| connect_error(&key, &error))?;
    let config = certificate
        .client_config(std::slice::from_ref(&key.server))
        .map_err(|error| PoolError { reason: Reason::IdentityFailure, why: error.to_string() })?;
    // The name is neither sent nor verified: the identity in the certificate counts.
    let name = ServerName::IpAddress(key.address.ip().into());
    let handshake = TlsConnector::from(config).connect(name, stream);
    let tls = match tokio::time::timeout(deadline, handshake).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            let reason = identity::reason_of(&error);
            return Err(PoolError { reason, ..tls_error(&key, &error.to_string()) });
        }
        Err(_) => return Err(tls_error(&key, "the handshake took too long")),
    };
    if !identity::negotiated_h2(tls.get_ref().1) {
        return Err(tls_error(&key, "the server does not speak HTTP/2 (ALPN)"));
    }
    identity::count_agreed(Handshake::TunnelClient, tls.get_ref().1);
    let proven = certificate.proven(tls.get_ref().1, Role::Server);
    let (stream, alert) = Alerted::new(tls);
    let handshake = tunnel::handshake(stream, pool.shared.settings.tunnels.max_streams, &room);
    let (tunnel, driver) = handshake.await.map_err(|error| PoolError {
        reason: Reason::Http2Failure,
        why: format!("tunnel to {}: {error}", key.address),
    })?;
    let revoker = tunnel.revoker();
    tokio::spawn(async move {
        let _place = place;
        tokio::select! {
            biased;
            () = driver => {}
            // Ending here drops the driver, which cuts every stream.
            () = proven.revoked() => {
                revoker.revoke();
                tracing::warn!(server = %key.server, address = %key.address, flag = Reason::CertRevoked.flag(), "cut a tunnel: the server's certificate is revoked");
            }
        }
    });
    Ok((tunnel, alert))
}

fn no_room(key: &TunnelKey) -> PoolError {
    let why = format!(
        "no tunnel to {}: the connections of {} hold as much memory as they may (layer4.max_bytes, \
         layer4.max_workload_bytes)",
        key.address, key.client_uid
    );
    PoolError { reason: Reason::Overflow, why }
}

fn connect_error(key: &TunnelKey, error: &io::Error) -> PoolError {
    if error.kind() == io::ErrorKind::TimedOut {
        let why = format!(
            "{} did not answer; does a NetworkPolicy or firewall block port {}?",
            key.address,
            ports::HBONE
        );
        return PoolError { reason: Reason::NetworkPolicy, why };
    }
    let why = format!("connect to {}: {error}; does the agent of its node run?", key.address);
    PoolError { reason: Reason::ConnectFailure, why }
}

fn tls_error(key: &TunnelKey, error: &str) -> PoolError {
    let why = format!("TLS with {}, expected to be {}: {error}", key.address, key.server);
    PoolError { reason: Reason::TlsFailure, why }
}
