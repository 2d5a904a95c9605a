//! CPU profiles: a signal at each tick of the process's CPU time samples the stack of the running thread.

use bytes::Bytes;
use mappings::MAPPINGS;
use pprof::{ProfilerGuard, ProfilerGuardBuilder};
use pprof_util::{StackProfile, WeightedStack};

/// No sample is taken inside these: the unwinder takes their locks, which the thread may hold already. System calls
/// happen there, so their time is not in the profile.
const BLOCKED: [&str; 4] = ["libc", "libgcc", "pthread", "vdso"];

const SECOND: f64 = 1e9;

pub(super) fn start(frequency: u32) -> Result<ProfilerGuard<'static>, String> {
    let frequency = i32::try_from(frequency).unwrap_or(i32::MAX);
    let builder = ProfilerGuardBuilder::default().frequency(frequency).blocklist(&BLOCKED);
    builder.build().map_err(|error| format!("the sampler does not start: {error}\n"))
}

pub(super) fn finish(sampler: ProfilerGuard<'static>, frequency: u32) -> Result<Bytes, String> {
    let report = sampler.report().build_unresolved();
    // Stops the signals before the work that they would count.
    drop(sampler);
    let report = report.map_err(|error| format!("the samples cannot be read: {error}\n"))?;
    let period = SECOND / f64::from(frequency);
    let mut profile =
        StackProfile { mappings: MAPPINGS.clone().unwrap_or_default(), ..StackProfile::default() };
    for (stack, count) in &report.data {
        // The outermost function comes first there. A stack that ends in address 0 was not unwound to its end.
        let addresses = stack.frames.iter().rev().map(|frame| frame.ip().addr());
        let addrs = addresses.filter(|address| *address != 0).collect();
        profile.push_stack(WeightedStack { addrs, weight: *count as f64 * period }, None);
    }
    let unit = ("cpu", "nanoseconds");
    Ok(profile.to_pprof(unit, unit, None).into())
}
