//! The one form of heads that routes and policies see: host, path and headers.

use anyhow::{Context, Result};
use http::{Request, Version};
use isthmus::l7::bench;

use super::Meter;

pub fn measure(meter: &mut impl Meter) -> Result<()> {
    let http1 = request("/items/1?page=2")?;
    let connection = Request::clone(&http1);
    let (mut parts, ()) = connection.into_parts();
    parts.headers.insert("connection", "keep-alive, x-hop".parse()?);
    parts.headers.insert("x-hop", "1".parse()?);
    parts.headers.insert("te", "trailers, gzip".parse()?);
    let hops = Request::from_parts(parts, ());
    let (mut parts, ()) = http1.clone().into_parts();
    parts.version = Version::HTTP_2;
    parts.uri = "http://web.shop.svc.cluster.local/items/1?page=2".parse()?;
    parts.headers.remove("host");
    let http2 = Request::from_parts(parts, ());
    for (name, request) in [("http1", http1), ("http1-hops", hops), ("http2", http2)] {
        let name = format!("head/{name}");
        if meter.wants(&name) {
            bench::canonical(request.clone()).context("a good request")?;
            meter.measure(&name, || request.clone(), bench::canonical);
        }
    }
    Ok(())
}

/// About what a browser's request brings, for the service `web`.
pub fn request(target: &str) -> Result<Request<()>> {
    let request = Request::get(target)
        .header("host", "web.shop.svc.cluster.local")
        .header(
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        )
        .header("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
        .header("accept-language", "en-US,en;q=0.5")
        .header("accept-encoding", "gzip, deflate, br, zstd")
        .header("cookie", "session=0123456789abcdef0123456789abcdef")
        .header("x-version", "one")
        .header("x-request-id", "6a1b1c2d-0000-4000-8000-000000000000")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    Ok(request.body(())?)
}
