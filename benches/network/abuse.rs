//! One client that takes what it can of a waypoint worker, and another one's requests: how many succeed, and how much longer they
//! take than undisturbed, as ratios of one run.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::json;

use super::http::HTTP;
use super::lab::Bench;
use super::record::figures;
use super::siege::{self, ATTACKS, Aim, Attack, REQUESTS, Times, Victim};
use super::support::lab::wait;

const HOST: &str = "bare.bench";
const WORKER: [(&str, &str); 1] = [("namespace", "bench")];
/// The victim, and the one beside it on its node with another identity.
const VICTIM: &str = "client";
const ATTACKER: &str = "neighbour";
/// Connections that may rest when an attack is over.
const AT_REST: f64 = 150.0;

/// What an attack came to: the p99 of its rounds, as ratios to the undisturbed ones.
#[derive(Default)]
struct Ratios {
    undisturbed: Vec<f64>,
    burst: Vec<f64>,
    then: Vec<f64>,
    application: Vec<f64>,
    failed: Option<String>,
}

pub fn run(bench: &mut Bench, rounds: usize) -> Result<()> {
    let to = SocketAddr::new(bench.lab.service("bench", "bare")?[0], HTTP);
    let aim = Aim { host: HOST, path: "/items/1", large: "/items/1", to, at: to };
    let mut report = Vec::new();
    for (name, attack) in ATTACKS {
        let mut ratios = Ratios::default();
        for _ in 0..rounds {
            round(bench, attack, &aim, &mut ratios)?;
            recovered(bench).context(name)?;
        }
        let [burst, then, application] =
            [&ratios.burst, &ratios.then, &ratios.application].map(|all| median(all));
        eprintln!(
            "{name}: p99 × {burst:.2} in the burst, then × {then:.2}; of the application itself × {application:.2} in the \
             burst"
        );
        report.push(json!({
            "attack": name, "rounds": rounds, "requests_per_round": 2 * REQUESTS,
            "all_answered": ratios.failed.is_none(), "first_failure": ratios.failed,
            "undisturbed_p99_microseconds": median(&ratios.undisturbed),
            "p99_in_the_burst_to_undisturbed": burst,
            "p99_afterwards_to_undisturbed": then,
            "p99_of_the_application_itself_in_the_burst_to_undisturbed": application,
        }));
    }
    println!("{}", serde_json::to_string_pretty(&json!({ "attacks": report }))?);
    Ok(())
}

/// Times the victim, and beside it the application itself, past the mesh: root on a node is taken for a probe. An
/// application that has more to do than it can makes everybody wait, whatever the mesh does.
fn round(bench: &Bench, attack: Attack, aim: &Aim, ratios: &mut Ratios) -> Result<()> {
    let direct = SocketAddr::new(bench.lab.address("server")?, HTTP);
    let victims = [
        Victim { place: &bench.lab.pod(VICTIM)?.attachment.namespace, aim: *aim },
        Victim { place: &bench.lab.node("node-b")?.namespace, aim: Aim { to: direct, ..*aim } },
    ];
    let [alone, application] = [victims[0].times()?, victims[1].times()?];
    ratios.undisturbed.push(p99(&alone) * 1e6);
    match siege::beside(&bench.lab, ATTACKER, attack, aim, &victims) {
        Ok([[victim, beside], [later, _]]) => {
            ratios.burst.push(p99(&victim) / p99(&alone));
            ratios.application.push(p99(&beside) / p99(&application));
            ratios.then.push(p99(&later) / p99(&alone));
        }
        Err(error) => ratios.failed = Some(format!("{error:#}")),
    }
    Ok(())
}

fn median(samples: &[f64]) -> f64 {
    figures::median(samples).unwrap_or(f64::NAN)
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
