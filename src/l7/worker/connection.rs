//! How a connection begins, whichever half it came to: what it speaks, and its part of the byte budget.

use std::time::Duration;

use tokio::net::TcpStream;

use super::context::Context;
use crate::base::Reason;
use crate::l7::budget::Reserved;
use crate::l7::budget::seat::{Order, Seat};
use crate::l7::message::detect;
use crate::l7::version::Version;
use crate::model::AppProtocol;
use crate::sock::Rewind;
use crate::tunnel::Carrier;

/// What a connection carries.
pub(in crate::l7) enum Carries {
    /// With what the connection may buffer.
    Http(Version, Rewind<Carrier>, Reserved),
    Bytes(Rewind<Carrier>),
}

/// Why a connection is not served.
pub(in crate::l7) type Refusal = (Reason, String);

/// Finds out what a connection carries; `None` when it was asked to leave before it said anything, by which it loses nothing.
/// `said`: what its port is said to speak. `wait`: how long it may stay silent.
pub(in crate::l7) async fn begin(
    context: &Context,
    seat: &Seat,
    stream: Carrier,
    said: AppProtocol,
    wait: Duration,
) -> Option<Result<Carries, Refusal>> {
    let detecting = async { detect::detect(adopt(stream)?, said, wait).await };
    let detected = tokio::select! {
        detected = detecting => detected,
        () = context.drain.cancelled() => return None,
        () = seat.told(Order::Leave) => return None,
    };
    Some(match detected {
        Ok((Some(version), stream)) => match context.buffers(seat.share(), version) {
            Ok(buffers) => {
                seat.head_begins();
                Ok(Carries::Http(version, stream, buffers))
            }
            Err(why) => Err((Reason::Overflow, why)),
        },
        Ok((None, stream)) => Ok(Carries::Bytes(stream)),
        Err(error) => {
            let why = format!("the client broke off before it said anything: {error}");
            Err((Reason::PeerReset, why))
        }
    })
}

/// Takes the stream from the runtime of layer 4 to the worker's own, so that its events wake nobody else.
fn adopt(stream: Carrier) -> std::io::Result<Carrier> {
    Ok(match stream {
        Carrier::Tcp(stream) => Carrier::Tcp(TcpStream::from_std(stream.into_std()?)?),
        // Its events come from its tunnel, which stays where it is.
        Carrier::Hbone(stream) => Carrier::Hbone(stream),
        // Its events come from its other end.
        Carrier::Local(stream) => Carrier::Local(stream),
        // It is no client's.
        Carrier::Joined(stream) => Carrier::Joined(stream),
    })
}
