//! Selections and decisions over small worlds.

use super::*;
use crate::base::Reason;
use crate::model::*;
use crate::world::World;
use crate::world::fixture::{self, Fixture, backend, bound_to, key, service, waypoint, workload};

mod decisions;
mod selections;
