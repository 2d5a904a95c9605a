//! tcp-echo: connections to each of its ports, and their shift between versions.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use super::stage::{NAMESPACE, Stage};
use crate::support::lab::wait;

/// Says a line to a port of the service, as the page does with `nc`; returns the word before it in the answer.
fn said(stage: &Stage, port: u16) -> Result<String> {
    let address = SocketAddr::from((stage.lab.service(NAMESPACE, "tcp-echo")?[0], port));
    let client = &stage.lab.pod("curl")?.attachment.namespace;
    let answer = client.run(|| -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"date\n")?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })??;
    let word = answer.strip_suffix(" date\n").with_context(|| format!("{answer:?}"))?;
    Ok(word.to_owned())
}

fn until_shared(stage: &Stage, expected: &[(&str, usize)]) -> Result<()> {
    let expected: BTreeMap<String, usize> =
        expected.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect();
    let mut last = BTreeMap::new();
    let found = wait::until(&format!("shares {expected:?}"), || {
        last.clear();
        for _ in 0..expected.values().sum() {
            *last.entry(said(stage, 9000)?).or_default() += 1;
        }
        Ok((last == expected).then_some(()))
    });
    found.with_context(|| format!("{last:?}"))
}

/// "TCP Traffic Shifting". The page's rules are for an ingress gateway, and say nothing to clients in the mesh; the same
/// rules for the mesh shift their connections, between the subsets of the page's DestinationRule.
#[test]
fn connections_are_shifted() -> Result<()> {
    let mut stage = Stage::of(&["tcp-echo/tcp-echo-services.yaml"], false)?;
    for port in [9000, 9001] {
        let word = said(&stage, port)?;
        anyhow::ensure!(["one", "two"].contains(&word.as_str()), "{port}: {word}");
    }
    stage.apply("tcp-echo/tcp-echo-all-v1.yaml")?;
    let rules = |routes: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: in-the-mesh}}\n\
             spec: {{hosts: [tcp-echo], tcp: [{{match: [{{port: 9000}}], route: [{routes}]}}]}}\n"
        )
    };
    let to = |subset: &str, weight: u32| {
        format!(
            "{{destination: {{host: tcp-echo, port: {{number: 9000}}, subset: {subset}}}, weight: {weight}}}"
        )
    };
    stage.lab.manifests.apply_in(NAMESPACE, &rules(&to("v1", 100)))?;
    until_shared(&stage, &[("one", 10)])?;
    stage.apply("tcp-echo/tcp-echo-20-v2.yaml")?;
    until_shared(&stage, &[("one", 10)])?;
    let shifted = rules(&format!("{}, {}", to("v1", 80), to("v2", 20)));
    stage.lab.manifests.apply_in(NAMESPACE, &shifted)?;
    until_shared(&stage, &[("one", 16), ("two", 4)])
}
