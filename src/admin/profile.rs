//! Profiles of the running agent under ztunnel's paths, in the format of `go tool pprof` (gzipped `profile.proto`),
//! with function names.
//!
//! Only one runs at a time: the process has one timer and one sampler. A client that disconnects ends its profile. A
//! separate thread collects and symbolizes, so that neither the control runtime nor traffic waits for it.

mod cpu;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod heap;
mod refused;

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::{Semaphore, SemaphorePermit};

use refused::{Refused, aside};

/// Held by the running profile.
static TURN: Semaphore = Semaphore::const_new(1);

/// ztunnel's bounds and defaults.
const SECONDS: (u32, RangeInclusive<u32>) = (10, 1..=300);
/// Samples per second of CPU time.
const FREQUENCY: (u32, RangeInclusive<u32>) = (100, 1..=1000);

/// A CPU profile: `seconds=10&frequency=100`.
pub(super) async fn cpu(query: &str) -> Result<Bytes, Refused> {
    let [seconds, frequency] = parse(query, [("seconds", SECONDS), ("frequency", FREQUENCY)])?;
    let _turn = turn()?;
    let failed = |why: String| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, why);
    let sampler = aside(move || cpu::start(frequency)).await?.map_err(failed)?;
    tokio::time::sleep(Duration::from_secs(seconds.into())).await;
    aside(move || cpu::finish(sampler, frequency)).await?.map_err(failed)
}

/// A heap profile: memory that was allocated while recording was on, and not freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) async fn heap() -> Result<Bytes, Refused> {
    let _turn = turn()?;
    heap::dump().await
}

/// Turns the recording of allocations on or off: `activate=true`. Turning it off discards the recording.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) async fn record_heap(query: &str) -> Result<&'static str, Refused> {
    let mut values = form_urlencoded::parse(query.as_bytes());
    let on = match (values.next(), values.next()) {
        (Some((name, value)), None) if name == "activate" => value.parse().ok(),
        _ => None,
    };
    let why = "say ?activate=true or ?activate=false\n";
    heap::record(on.ok_or_else(|| Refused::new(StatusCode::BAD_REQUEST, why))?).await
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) async fn heap() -> Result<Bytes, Refused> {
    Err(Refused::new(
        StatusCode::NOT_IMPLEMENTED,
        "this build has another allocator than jemalloc\n",
    ))
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) async fn record_heap(_: &str) -> Result<&'static str, Refused> {
    Err(Refused::new(
        StatusCode::NOT_IMPLEMENTED,
        "this build has another allocator than jemalloc\n",
    ))
}

fn turn() -> Result<SemaphorePermit<'static>, Refused> {
    let why = "another profile is being taken; ask again when it is done\n";
    TURN.try_acquire().map_err(|_| Refused::new(StatusCode::CONFLICT, why))
}

/// Two numbers within their bounds.
fn parse(
    query: &str,
    fields: [(&str, (u32, RangeInclusive<u32>)); 2],
) -> Result<[u32; 2], Refused> {
    let bad = |why: String| Refused::new(StatusCode::BAD_REQUEST, why);
    let mut values = [fields[0].1.0, fields[1].1.0];
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let index = fields.iter().position(|(field, _)| *field == name);
        let index = index.ok_or_else(|| bad(format!("{name}: say seconds or frequency\n")))?;
        let (field, (_, range)) = &fields[index];
        let number = value.parse().ok().filter(|number| range.contains(number));
        values[index] = number.ok_or_else(|| {
            bad(format!(
                "{field}={value}: say a number from {} to {}\n",
                range.start(),
                range.end()
            ))
        })?;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_bounded_and_refused_by_name() {
        let parse = |query| parse(query, [("seconds", SECONDS), ("frequency", FREQUENCY)]);
        assert_eq!(parse("").unwrap(), [10, 100]);
        assert_eq!(parse("frequency=1000&seconds=300").unwrap(), [300, 1000]);
        for (query, field) in [
            ("seconds=0", "seconds"),
            ("seconds=301", "seconds"),
            ("frequency=1001", "frequency"),
            ("hz=3", "hz"),
        ] {
            let refused = parse(query).unwrap_err();
            assert!(refused.status == 400 && refused.why.contains(field), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn one_profile_at_a_time() {
        let turn = turn().unwrap();
        assert_eq!(cpu("seconds=1").await.unwrap_err().status, 409);
        drop(turn);
    }
}
