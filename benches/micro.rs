//! How long each piece of work that every request pays takes, on one processor: `cargo bench`. What follows
//! `--` goes to Criterion: part of a name, `--save-baseline before`, `--baseline before`.

mod work;

use anyhow::Result;
use criterion::{BatchSize, Criterion};

use work::Meter;

/// As in the program itself.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

struct Clock(Criterion);

impl Meter for Clock {
    /// Criterion itself leaves out what does not fit its arguments.
    fn wants(&mut self, _: &str) -> bool {
        true
    }

    fn measure<I, O>(&mut self, name: &str, input: impl Fn() -> I, run: impl Fn(I) -> O) {
        self.0.bench_function(name, |bencher| {
            bencher.iter_batched(&input, &run, BatchSize::SmallInput);
        });
    }
}

fn main() -> Result<()> {
    let mut clock = Clock(Criterion::default().configure_from_args());
    work::all(&mut clock)?;
    clock.0.final_summary();
    Ok(())
}
