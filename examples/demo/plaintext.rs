//! Before there is a mesh.

use anyhow::Result;
use serde_json::json;

use crate::stage::Stage;
use crate::support::lab::capture::Captured;

/// Where the client finds the page.
pub const PAGE: &str = "http://productpage.bookinfo:9080/productpage";

/// A header that says in plaintext what nobody between the nodes should read.
pub const SECRET: &str = "x-request-id: the-reader-s-secret";
const SECRET_VALUE: &str = "the-reader-s-secret";

pub fn run(stage: &mut Stage) -> Result<()> {
    let captured = fetch(stage)?;
    let found = plaintext(&captured);
    let ports = captured.packets_by_port();
    stage.figure("packets_by_port", json!(ports));
    stage.figure("plaintext_found", found);
    stage.check(
        found,
        "the capture between the nodes holds no plaintext, although nothing is encrypted",
    )
}

/// Asks for the page while the link between the nodes is recorded.
pub fn fetch(stage: &Stage) -> Result<Captured> {
    let capture = stage.lab.capture("node-a")?;
    stage.report.say("recording the link between node-a and node-b");
    let answer = stage.expect("curl", &["--header", SECRET, PAGE], 200)?;
    let served = answer.body.split("Reviews served by: <u>").nth(1);
    let served = served.and_then(|rest| rest.split('<').next()).unwrap_or("nobody");
    stage.report.evidence(&format!("reviews served by {served}"));
    stage.check(served != "nobody", "the page has no reviews")?;
    let captured = capture.finish(stage.lab.node("node-a")?, stage.lab.node("node-b")?)?;
    captured.save(&stage.lab.logs().join("capture.pcap"))?;
    Ok(captured)
}

/// Whether the request or its answer can be read off the packets.
pub fn plaintext(captured: &Captured) -> bool {
    [SECRET_VALUE, "GET /productpage", "HTTP/1.1 200 OK", "Comedy of Errors", "Reviewer1"]
        .iter()
        .any(|text| captured.contains(text))
}
