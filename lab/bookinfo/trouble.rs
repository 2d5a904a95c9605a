//! `POST /trouble?delay=MILLISECONDS&status=CODE`: from then on this process is slow, or answers with that status, or both; without
//! parameters it is well again. Only from the pod itself, so that no client of the service can do it. `/health` stays well:
//! what a readiness probe does not see is what outlier detection is for.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use http::request::Parts;
use http::{Method, StatusCode};

use crate::reply::{self, Reply};

static DELAY: AtomicU64 = AtomicU64::new(0);
/// 0: none.
static STATUS: AtomicU16 = AtomicU16::new(0);

/// Takes it down.
pub fn set(parts: &Parts, peer: SocketAddr) -> Reply {
    if !peer.ip().to_canonical().is_loopback() || parts.method != Method::POST {
        return reply::plain(StatusCode::FORBIDDEN, "POST, from the pod itself");
    }
    let (mut delay, mut status) = (0, 0);
    for (name, value) in parts.uri.query().unwrap_or_default().split('&').filter_map(pair) {
        let read = match name {
            "delay" => value.parse().map(|value| delay = value).is_ok(),
            "status" => {
                let code: Option<u16> = value.parse().ok();
                let code = code.filter(|code| StatusCode::from_u16(*code).is_ok());
                code.map(|code| status = code).is_some()
            }
            _ => false,
        };
        if !read {
            return reply::plain(StatusCode::BAD_REQUEST, &format!("{name}={value}"));
        }
    }
    DELAY.store(delay, Ordering::Relaxed);
    STATUS.store(status, Ordering::Relaxed);
    reply::plain(StatusCode::OK, &format!("delay={delay} status={status}"))
}

fn pair(parameter: &str) -> Option<(&str, &str)> {
    parameter.split_once('=')
}

/// Waits as long as it is slow; the answer if it fails.
pub async fn strikes() -> Option<Reply> {
    let delay = DELAY.load(Ordering::Relaxed);
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let status = StatusCode::from_u16(STATUS.load(Ordering::Relaxed)).ok()?;
    Some(reply::plain(status, "in trouble"))
}
