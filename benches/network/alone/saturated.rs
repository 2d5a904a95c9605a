//! Messages at layer 4 at a fixed rate, alone and while the worker of another namespace has all that it can do. The same messages
//! past the mesh tell what the machine itself adds: client, server and agents share its processors.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::lab::Bench;
use crate::measure::{Client, sample};
use crate::options::Options;
use crate::record::case::Case;
use crate::record::figures::Measured;
use crate::server::ECHO;
use crate::sides::{Aim, service};

pub fn run(bench: &mut Bench, options: &Options) -> Result<Measured> {
    let quiet = Case::named("l4-rate-1k").context("a case")?;
    let noise = Case::named("h1-128").context("a case")?;
    let of_noise = Aim { pod: "noisy-client", to: service(&bench.lab, "noisy", "noisy")? };
    let sides = [
        ("mesh", "client", bench.lab.address("server")?),
        ("past the mesh", "plain-client", bench.lab.address("plain-server")?),
    ];
    let mut measured = Measured::default();
    for round in 0..options.rounds {
        for (name, pod, server) in sides {
            let aim = Aim { pod, to: SocketAddr::new(server, ECHO) };
            for disturbed in [false, true] {
                // Longer than what it disturbs; dropping it ends it.
                let lasts = options.seconds + 60;
                let noisy = disturbed
                    .then(|| Client::start(bench, false, noise, &of_noise, lasts))
                    .transpose()?;
                let outcome =
                    Client::start(bench, false, quiet, &aim, options.seconds)?.outcome()?;
                drop(noisy);
                let side =
                    format!("{name}, {}", if disturbed { "disturbed" } else { "undisturbed" });
                eprintln!("round {round}: {side}: p99 {:.0} us", outcome.p99.unwrap_or_default());
                measured.add(&side, sample(quiet, &outcome, None));
            }
        }
    }
    Ok(measured)
}
