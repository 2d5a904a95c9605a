//! Where tunnels to a workload are best served.

use std::sync::Arc;

use super::{Addressed, Gate};
use crate::base::Str;
use crate::model::Workload;
use crate::world::World;

/// The namespace whose worker authorizes requests to the workload, by any service of its namespace; `None` where layer 4 judges
/// alone. A guess of what streams will need before they are known, by which nothing is permitted: each stream is judged by a
/// [`Gate`] of its own.
pub fn home(world: &World, workload: &Arc<Workload>) -> Option<Str> {
    let worker = |port, addressed: &Addressed| {
        let gate = Gate::new(world, workload, port, addressed);
        gate.needs_http().then(|| gate.worker().clone())
    };
    let mut served = world.leading_to(&workload.key.namespace, workload).peekable();
    if served.peek().is_none() {
        // No service leads there, so its ports are alike.
        return worker(0, &Addressed::Workload);
    }
    served.find_map(|(served, port)| worker(port, &Addressed::Service(served)))
}
