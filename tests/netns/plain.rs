//! The lab itself, without a mesh: what the other tests stand on.

use anyhow::Result;

use crate::bookinfo;

#[test]
fn bookinfo_works_and_its_plaintext_is_seen_between_the_nodes() -> Result<()> {
    let lab = bookinfo()?;
    let capture = lab.capture("node-a")?;
    let url = "http://productpage.bookinfo:9080/productpage";
    let answer = lab.curl("curl", &[url, "--header", "x-request-id: seen-on-the-wire"])?;
    let captured = capture.finish(lab.node("node-a")?, lab.node("node-b")?)?;

    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("Reviews served by: <u>reviews-v"), "{}", answer.body);
    assert!(captured.contains("seen-on-the-wire"));
    assert!(captured.contains("HTTP/1.1 200 OK"));
    assert!(!captured.contains("never sent"));
    assert!(captured.packets_by_port().contains_key(&9080));
    Ok(())
}

#[test]
fn services_have_both_families_and_all_endpoints() -> Result<()> {
    let lab = bookinfo()?;
    for address in lab.service("bookinfo", "reviews")? {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..60 {
            let host = std::net::SocketAddr::new(address, 9080);
            let answer = lab.curl("curl", &[&format!("http://{host}/reviews/0")])?;
            assert_eq!(answer.status, 200, "{answer:?}");
            seen.insert(answer.json()["podname"].to_string());
        }
        assert_eq!(seen.len(), 3, "{seen:?}");
    }
    Ok(())
}

#[test]
fn the_client_address_arrives_and_unknown_service_addresses_are_refused_at_once() -> Result<()> {
    let lab = bookinfo()?;
    let answer = lab.curl("curl", &["http://details.bookinfo:9080/headers"])?;
    let peer = answer.json()["peer"].to_string();
    assert!(peer.contains(&lab.address("curl")?.to_string()), "{peer}");

    let refused = lab.curl("curl", &["http://10.96.200.200:9080/"])?;
    assert_eq!(refused.status, 0);
    assert!(refused.time.as_secs() < 2, "{refused:?}");
    assert!(lab.rules("curl")?.is_empty());
    Ok(())
}
