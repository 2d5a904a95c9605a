//! Requests with everything on one processor, clients and servers too, and on two.

use anyhow::{Context, Result, ensure};

use crate::lab::Bench;
use crate::measure::{Client, sample};
use crate::options::Options;
use crate::record::case::{Case, Side};
use crate::record::figures::Measured;
use crate::sides;
use crate::usage::pin;

/// With what, at layer 4 and 7.
const CASES: [&str; 2] = ["h1-32", "l4-requests"];

pub fn run(bench: &mut Bench, options: &Options) -> Result<Measured> {
    let processors = std::thread::available_parallelism()?.get();
    ensure!(processors >= 2, "this machine has one processor");
    let mut measured = Measured::default();
    for round in 0..options.rounds {
        for (count, cpus) in [("one", &[0][..]), ("two", &[0, 1])] {
            pin(&everything(bench), cpus)?;
            for name in CASES {
                let case = Case::named(name).context("a case")?;
                let aim = sides::aim(&bench.lab, Side::Isthmus, case)?;
                let mut client = Client::start(bench, false, case, &aim, options.seconds)?;
                let sample = sample(case, &client.outcome()?, None);
                eprintln!("round {round}: {name}, {count}: {:.0} requests/s", sample[0].1);
                measured.add(&format!("{name}, {count}"), sample);
            }
        }
    }
    pin(&everything(bench), &(0..processors).collect::<Vec<_>>())?;
    Ok(measured)
}

/// Agents, servers, and this process, whose clients inherit it.
fn everything(bench: &mut Bench) -> Vec<u32> {
    let mut all = bench.agents();
    all.extend(bench.servers.iter().map(|server| server.id()));
    all.push(std::process::id());
    all
}
