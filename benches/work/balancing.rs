//! Which endpoint of so many.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use isthmus::balance::{Caller, pick};
use isthmus::model::Service;
use isthmus::traffic::Heard;
use serde_json::{Value, json};

use super::{Meter, mesh};

/// Pods of the service: a usual one, and a large one.
const ENDPOINTS: [usize; 2] = [3, 100];

/// What a DestinationRule says, if there is one.
fn policies() -> [(&'static str, Option<Value>); 5] {
    let simple = |name: &str| Some(json!({"loadBalancer": {"simple": name}}));
    [
        ("", None),
        ("outliers/", Some(json!({"outlierDetection": {}}))),
        ("ejected/", Some(json!({"outlierDetection": {}}))),
        ("turns/", simple("ROUND_ROBIN")),
        ("hash/", Some(json!({"loadBalancer": {"consistentHash": {"useSourceIp": true}}}))),
    ]
}

pub fn measure(meter: &mut impl Meter) -> Result<()> {
    for (kind, policy) in policies() {
        for endpoints in ENDPOINTS {
            let name = format!("balance/{kind}{endpoints}");
            if !meter.wants(&name) {
                continue;
            }
            // The same choices at each run.
            fastrand::seed(7);
            let rule = policy.as_ref().map(|policy| {
                json!({
                    "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
                    "metadata": {"name": "web", "namespace": "shop"},
                    "spec": {"host": "web", "trafficPolicy": policy},
                })
            });
            let mesh = mesh::with(endpoints, rule)?;
            if kind == "ejected/" {
                eject_one(&mesh.service, &mesh.client)?;
            }
            let caller = Caller {
                workload: &mesh.client,
                address: mesh::CLIENT.into(),
                hash: None,
                subset: None,
                session: None,
            };
            let dialled = SocketAddr::from((mesh::ADDRESS, mesh::PORT));
            let run = |()| pick(&mesh.world, &mesh.service, mesh::PORT, caller, dialled, &[]);
            run(()).context("an endpoint")?;
            meter.measure(&name, || (), run);
        }
    }
    Ok(())
}

fn eject_one(service: &Service, client: &isthmus::model::Workload) -> Result<()> {
    let destination = service.destination(client, mesh::PORT).context("a policy")?;
    let address = service.endpoints.first().and_then(|it| it.addresses.first());
    let address = SocketAddr::new(*address.context("an address")?, mesh::TARGET_PORT);
    let hosts = destination.records(&[address]).context("outlier detection")?;
    let host = hosts.first().context("a record")?;
    for _ in 0..5 {
        let mut attempt = destination.attempt(address, host, 10).context("an attempt")?;
        attempt.heard(Heard::Failed);
    }
    Ok(())
}
