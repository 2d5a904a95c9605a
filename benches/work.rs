//! What every request pays, piece by piece: the same pieces for the clock (`micro.rs`) and for the count of instructions
//! (`instructions.rs`). They need neither root nor a network. Meshes are made of objects as an API server has them, and by
//! the agent's own translation, so that the pieces stay what they are when the model changes.

mod balancing;
mod filters;
mod heads;
mod mesh;
mod policies;
mod records;
mod routes;

use anyhow::Result;

/// How many routes and policies a service has: one, many, and far too many.
const COUNTS: [usize; 3] = [1, 100, 1000];

/// What measures pieces of work.
pub trait Meter {
    /// Whether this piece is to be measured. Asked before anything is made for it.
    fn wants(&mut self, name: &str) -> bool;

    /// Measures `run` alone: `input` is made before, and what `run` returns is dropped afterwards.
    fn measure<I, O>(&mut self, name: &str, input: impl Fn() -> I, run: impl Fn(I) -> O);
}

/// Has everything measured that `meter` wants, always in the same order.
pub fn all(meter: &mut impl Meter) -> Result<()> {
    heads::measure(meter)?;
    routes::measure(meter)?;
    filters::measure(meter)?;
    policies::measure(meter)?;
    balancing::measure(meter)?;
    records::measure(meter);
    Ok(())
}
