//! One client that takes what it can of a waypoint worker, and another one's requests: how many succeed, and how much longer they
//! take than undisturbed, as ratios of one run.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::json;

use super::Bench;
use super::http::HTTP;
use super::report::median;
use super::siege::{self, ATTACKS, Aim, REQUESTS, Times};
use super::support::lab::wait;

const HOST: &str = "server.bench";
const WORKER: [(&str, &str); 1] = [("namespace", "bench")];
/// The victim, and the one beside it on its node with another identity.
const VICTIM: &str = "client";
const ATTACKER: &str = "neighbour";
/// Connections that may rest when an attack is over.
const AT_REST: f64 = 150.0;

pub fn run(bench: &mut Bench, rounds: usize) -> Result<()> {
    let to = SocketAddr::new(bench.lab.service("bench", "server")?[0], HTTP);
    let aim = Aim { host: HOST, path: "/items/1", large: "/items/1", to, at: to };
    alone(bench, &aim)?;
    let mut report = Vec::new();
    for (name, attack) in ATTACKS {
        let (mut burst, mut then, mut undisturbed) = (Vec::new(), Vec::new(), Vec::new());
        let mut failed = None;
        for _ in 0..rounds {
            let alone = alone(bench, &aim)?;
            undisturbed.push(p99(&alone) * 1e6);
            match siege::beside(&bench.lab, (ATTACKER, VICTIM), attack, &aim) {
                Ok([at_once, later]) => {
                    burst.push(p99(&at_once) / p99(&alone));
                    then.push(p99(&later) / p99(&alone));
                }
                Err(error) => failed = Some(format!("{error:#}")),
            }
            recovered(bench).context(name)?;
        }
        eprintln!("{name}: p99 × {:.2} in the burst, then × {:.2}", median(&burst), median(&then));
        report.push(json!({
            "attack": name, "rounds": rounds, "requests_per_round": 2 * REQUESTS,
            "all_answered": failed.is_none(), "first_failure": failed,
            "undisturbed_p99_microseconds": median(&undisturbed),
            "p99_in_the_burst_to_undisturbed": median(&burst),
            "p99_afterwards_to_undisturbed": median(&then),
        }));
    }
    println!("{}", serde_json::to_string_pretty(&json!({ "attacks": report }))?);
    Ok(())
}

fn alone(bench: &Bench, aim: &Aim) -> Result<Times> {
    bench.lab.pod(VICTIM)?.attachment.namespace.run(|| siege::victim(aim))?
}

fn p99(times: &Times) -> f64 {
    times.p(99).as_secs_f64()
}

/// Waits until the worker holds nothing of an attack any more.
fn recovered(bench: &Bench) -> Result<()> {
    wait::within(std::time::Duration::from_secs(60), "the worker to be free again", || {
        let metrics = bench.lab.metrics()?;
        let requests = metrics.sum("isthmus_worker_requests", &WORKER);
        let connections = metrics.sum("isthmus_worker_connections", &WORKER);
        Ok((requests == 0.0 && connections < AT_REST).then_some(()))
    })
}
