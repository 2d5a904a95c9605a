//! Which endpoint of so many.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use isthmus::balance::{Caller, pick};

use super::{Meter, mesh};

/// Pods of the service: a usual one, and a large one.
const ENDPOINTS: [usize; 2] = [3, 100];

pub fn measure(meter: &mut impl Meter) -> Result<()> {
    for endpoints in ENDPOINTS {
        let name = format!("balance/{endpoints}");
        if !meter.wants(&name) {
            continue;
        }
        // The same choices at each run.
        fastrand::seed(7);
        let mesh = mesh::with(endpoints, [])?;
        let caller = Caller {
            workload: &mesh.client,
            address: mesh::CLIENT.into(),
            hash: None,
            subset: None,
        };
        let dialled = SocketAddr::from((mesh::ADDRESS, mesh::PORT));
        let run = |()| pick(&mesh.world, &mesh.service, mesh::PORT, caller, dialled, &[]);
        run(()).context("an endpoint")?;
        meter.measure(&name, || (), run);
    }
    Ok(())
}
