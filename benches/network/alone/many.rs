//! A thousand objects against one: HTTP/1.1 on 32 connections, to the same Service.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::Bench;
use crate::measure::{Client, sample};
use crate::options::Options;
use crate::record::case::Case;
use crate::record::figures::Measured;
use crate::sides::{Aim, service};
use crate::support::lab::wait;
use crate::usage::Usage;

const COUNT: usize = 1000;
const FILE: &str = "many-objects.yaml";
/// How long an agent may take to have them.
const PATIENCE: Duration = Duration::from_secs(60);

/// What there are many of.
pub struct Many {
    name: &'static str,
    /// The manifest of one, which concerns no request of the load.
    other: fn(usize) -> String,
    /// The one that does, and comes last.
    last: &'static str,
    /// The name of an object that only there is with many, in the agent's dump.
    mark: &'static str,
}

pub const ROUTES: Many = Many {
    name: "HTTPRoutes",
    other: |number| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
             metadata: {{name: other-{number}, namespace: bench}}\n\
             spec: {{parentRefs: [{{group: '', kind: Service, name: bare}}], rules: [{{matches: [{{path: \
             {{type: PathPrefix, value: /other/{number}}}}}], backendRefs: [{{name: bare, port: 9003}}]}}]}}\n---\n"
        )
    },
    last: "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
           metadata: {name: zz-last, namespace: bench}\n\
           spec: {parentRefs: [{group: '', kind: Service, name: bare}], rules: [{matches: [{path: \
           {type: PathPrefix, value: /items}}], backendRefs: [{name: bare, port: 9003}]}]}\n",
    mark: "other-999",
};

pub const POLICIES: Many = Many {
    name: "AuthorizationPolicies",
    other: |number| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: other-{number}, namespace: bench}}\n\
             spec: {{targetRefs: [{{group: '', kind: Service, name: bare}}], action: ALLOW, rules: [{{from: [{{source: \
             {{principals: [cluster.local/ns/other/sa/nobody-{number}]}}}}], to: [{{operation: {{paths: \
             [/other/{number}]}}}}]}}]}}\n---\n"
        )
    },
    last: "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
           metadata: {name: zz-last, namespace: bench}\n\
           spec: {targetRefs: [{group: '', kind: Service, name: bare}], action: ALLOW, rules: [{from: [{source: \
           {principals: [cluster.local/ns/bench/sa/client]}}], to: [{operation: {paths: ['/items/*']}}]}]}\n",
    mark: "other-999",
};

pub const SERVICES: Many = Many {
    name: "Services",
    other: |number| {
        format!(
            "apiVersion: v1\nkind: Service\n\
             metadata: {{name: other-{number}, namespace: bench, labels: {{istio.io/use-waypoint: waypoint}}}}\n\
             spec: {{clusterIP: 10.96.{0}.{1}, clusterIPs: [10.96.{0}.{1}], selector: {{app: server}}, ports: \
             [{{name: http, port: 9003}}]}}\n---\n",
            100 + number / 250,
            number % 250 + 1
        )
    },
    last: "",
    mark: "other-999",
};

/// Measures with one and with many, in turn.
pub fn run(bench: &mut Bench, options: &Options, many: &Many) -> Result<Measured> {
    let case = Case::named("h1-32").context("a case")?;
    let mut measured = Measured::default();
    for round in 0..options.rounds {
        for (side, count) in [("one", 1), ("many", COUNT)] {
            apply(bench, many, count)?;
            let aim = Aim { pod: "client", to: service(&bench.lab, "bench", "bare")? };
            let agents = bench.agents();
            let mut client = Client::start(bench, false, case, &aim, options.seconds)?;
            let before = Usage::of(&agents)?;
            let outcome = client.outcome()?;
            let used = Usage::of(&agents)?.since(&before);
            let sample = sample(case, &outcome, Some(&used));
            eprintln!("round {round}: {count} {}: {:.0} requests/s", many.name, sample[0].1);
            measured.add(side, sample);
        }
    }
    bench.lab.manifests.remove(FILE)?;
    Ok(measured)
}

/// Writes so many and waits until the agents have them.
fn apply(bench: &mut Bench, many: &Many, count: usize) -> Result<()> {
    let others: String = (1..count).map(|number| (many.other)(number)).collect();
    bench.lab.manifests.write(FILE, &(others + many.last))?;
    for agent in bench.lab.agents() {
        wait::within(PATIENCE, &format!("{} to have {count} {}", agent.node, many.name), || {
            let known = agent.dump()?.to_string().contains(many.mark);
            Ok((known == (count > 1)).then_some(()))
        })?;
    }
    // What is replaced is freed, and connections are judged again.
    std::thread::sleep(Duration::from_secs(2));
    Ok(())
}
