//! helloworld: failover between localities.

use anyhow::{Context, Result};

use super::stage::{NAMESPACE, Stage};
use crate::support::lab::curl::Answer;
use crate::support::lab::wait;

const HELLO: &str = "http://helloworld:5000/headers";

/// Two regions, a node each. The client, and v1, are in the first.
const NODES: &str = "
apiVersion: v1
kind: Node
metadata: {name: node-a, labels: {topology.kubernetes.io/region: region1, topology.kubernetes.io/zone: zone1}}
---
apiVersion: v1
kind: Node
metadata: {name: node-b, labels: {topology.kubernetes.io/region: region2, topology.kubernetes.io/zone: zone3}}
";

fn version(answer: &Answer) -> String {
    answer.json()["version"].as_str().unwrap_or_default().to_owned()
}

/// The object of "Locality failover" and "Locality weighted distribution", which are in no file of the samples.
fn rule(locality: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: helloworld}}\nspec:\n  \
         host: helloworld.{NAMESPACE}.svc.cluster.local\n  trafficPolicy:\n    connectionPool: {{http: {{maxRequestsPerConnection: 1}}}}\n    \
         loadBalancer: {{simple: ROUND_ROBIN, localityLbSetting: {{enabled: true, {locality}}}}}\n    \
         outlierDetection: {{consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 1m}}\n"
    )
}

/// "Locality Load Balancing": the own region first, another when it fails, or both by weight.
fn follow(waypoint: bool) -> Result<()> {
    let mut stage = Stage::with(&["helloworld/helloworld.yaml"], waypoint, NODES)?;
    stage.until("the other region", &[HELLO], |it| version(it) == "v2")?;
    let failover = rule("failover: [{from: region1, to: region2}]");
    stage.lab.manifests.apply_in(NAMESPACE, &failover)?;
    stage.until_shared(&[HELLO], &[("v1", 20)], version)?;
    stage.lab.stop_program("helloworld-v1")?;
    stage.until_shared(&[HELLO], &[("v2", 20)], version)?;
    stage.lab.start_program("helloworld-v1")?;
    let weighted = rule(
        "distribute: [{from: region1/zone1/*, to: {'region1/zone1/*': 70, 'region2/zone3/*': 30}}]",
    );
    stage.lab.manifests.apply_in(NAMESPACE, &weighted)?;
    // The first of them may still be the old rule's.
    let mut last = None;
    wait::until("both regions", || {
        last = stage.shares(&[HELLO], 40, version)?;
        let of = |name| last.as_ref().and_then(|it| it.get(name)).copied().unwrap_or_default();
        Ok((of("v1") > of("v2") && of("v2") > 0).then_some(()))
    })
    .with_context(|| format!("{last:?}"))
}

#[test]
fn requests_stay_in_their_region_until_it_fails() -> Result<()> {
    follow(true)
}

#[test]
fn connections_stay_in_their_region_until_it_fails() -> Result<()> {
    follow(false)
}
