//! Cases of Isthmus alone: many objects against one, idle connections and workloads, a neighbour that saturates its worker, and one
//! processor against two.

mod cores;
mod idle;
mod many;
mod saturated;

use anyhow::{Result, bail};

use super::lab::Bench;
use super::options::Options;
use super::record::figures::Measured;

/// Measures one of `record::case::ALONE`.
pub fn case(bench: &mut Bench, options: &Options, name: &str) -> Result<Measured> {
    match name {
        "many-routes" => many::run(bench, options, &many::ROUTES),
        "many-policies" => many::run(bench, options, &many::POLICIES),
        "many-services" => many::run(bench, options, &many::SERVICES),
        "idle" => idle::connections(bench),
        "workloads" => idle::workloads(bench, options),
        "saturated" => saturated::run(bench, options),
        "cores" => cores::run(bench, options),
        _ => bail!("there is no case {name}"),
    }
}
