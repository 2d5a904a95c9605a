//! Whether a request may reach a workload: allowed by the last of so many policies.

use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow, ensure};
use isthmus::base::Identity;
use isthmus::gate::{Gate, addressed};
use isthmus::policy::{Connection, Request};
use serde_json::{Value, json};

use super::{COUNTS, Meter, heads, mesh};

pub fn measure(meter: &mut impl Meter) -> Result<()> {
    for count in COUNTS {
        let piece = format!("policy/{count}");
        if !meter.wants(&piece) {
            continue;
        }
        let mesh = mesh::with(1, (0..count).map(policy))?;
        let web = mesh::pod_address(0);
        let workload = mesh.world.workload_at(web.into()).context("Pod web")?;
        let last = count - 1;
        let client = Identity::new("cluster.local", "shop", format!("client-{last}"));
        let host = Some(mesh.service.hostname.as_str());
        let to = addressed(&mesh.world, workload, mesh::TARGET_PORT, host, Some(&client));
        let gate = Gate::new(&mesh.world, workload, mesh::TARGET_PORT, &to);
        let connection = Connection {
            client: Some(&client),
            source: mesh::CLIENT.into(),
            destination: SocketAddr::from((web, mesh::TARGET_PORT)),
        };
        let sent = heads::request(&format!("/items/{last}/reviews?page=2"))?;
        let request = Request {
            method: sent.method(),
            path: sent.uri().path_and_query().map_or("/", |target| target.as_str()),
            host: "web.shop.svc.cluster.local",
            headers: sent.headers(),
        };
        let permit =
            gate.decide(&connection, Some(&request)).map_err(|denial| anyhow!(denial.why))?;
        let by = permit.policy.context("the policy that allowed")?;
        ensure!(by.name == name(last), "{by} allowed");
        let run = |()| gate.decide(&connection, Some(&request));
        meter.measure(&piece, || (), run);
    }
    Ok(())
}

fn name(number: usize) -> String {
    format!("policy-{number:04}")
}

fn policy(number: usize) -> Value {
    let principal = format!("cluster.local/ns/shop/sa/client-{number}");
    let rule = json!({
        "from": [{"source": {"principals": [principal]}}],
        "to": [{"operation": {"methods": ["GET"], "paths": [format!("/items/{number}/*")]}}],
    });
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": name(number), "namespace": "shop"},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "action": "ALLOW", "rules": [rule],
        },
    })
}
