//! Heap profiles: while recording is on, jemalloc samples one allocation per so many bytes (`.cargo/config.toml`).

use bytes::Bytes;
use http::StatusCode;
use jemalloc_pprof::{JemallocProfCtl, PROF_CTL};
use tokio::sync::OwnedMutexGuard;

use super::refused::{Refused, aside};

pub(super) async fn dump() -> Result<Bytes, Refused> {
    let mut control = control().await?;
    if !control.activated() {
        let why = "nothing is recorded; first POST /debug/pprof/heap/profiling?activate=true, and wait a while\n";
        return Err(Refused::new(StatusCode::CONFLICT, why));
    }
    let dumped = aside(move || control.dump_pprof()).await?;
    dumped.map(Bytes::from).map_err(|error| {
        let why = format!(
            "jemalloc's profile: {error:#}; can the agent write to its temporary directory?\n"
        );
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, why)
    })
}

pub(super) async fn record(on: bool) -> Result<&'static str, Refused> {
    let mut control = control().await?;
    let (changed, said) = match (on, control.activated()) {
        (true, false) => (control.activate(), "recording allocations\n"),
        (false, true) => (control.deactivate(), "no longer recording allocations\n"),
        (true, true) => (Ok(()), "recording allocations already\n"),
        (false, false) => (Ok(()), "recording no allocations already\n"),
    };
    changed.map_err(|error| {
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, format!("jemalloc: {error}\n"))
    })?;
    tracing::info!(on, "recording of allocations");
    Ok(said)
}

async fn control() -> Result<OwnedMutexGuard<JemallocProfCtl>, Refused> {
    match PROF_CTL.as_ref() {
        Some(control) => Ok(control.clone().lock_owned().await),
        None => {
            let why =
                "this build's jemalloc was made without prof:true (.cargo/config.toml says how)\n";
            Err(Refused::new(StatusCode::NOT_IMPLEMENTED, why))
        }
    }
}
