//! Which traces are recorded: a share of their ids.

use super::ids::TraceId;

/// A share of all traces, decided by 56 bits of their ids, as OpenTelemetry's consistent sampling does
/// (<https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/>): a trace that one rate records every higher rate
/// records too, whichever agent decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Rate(u64);

/// The number of values that 56 bits have.
const ALL: u64 = 1 << 56;

impl Rate {
    pub const NONE: Self = Self(0);

    /// 0 to 100. Numbers outside are taken for the nearest bound.
    pub fn of_percentage(percentage: f64) -> Self {
        // 2^56 has no rounding in a float; a product of it has some that does not matter.
        Self(((percentage.clamp(0.0, 100.0) / 100.0) * ALL as f64) as u64)
    }

    /// So many of so many; all, where that is not less than one.
    pub fn of_fraction(numerator: u32, denominator: u32) -> Self {
        let share = u128::from(numerator) * u128::from(ALL) / u128::from(denominator.max(1));
        Self(u64::try_from(share).unwrap_or(ALL).min(ALL))
    }

    pub fn samples(self, trace: TraceId) -> bool {
        (trace.0 as u64) & (ALL - 1) < self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_shares() {
        for (numerator, denominator, percentage) in [
            (0, 100, 0.0),
            (5, 100, 5.0),
            (1, 1_000, 0.1),
            (100, 100, 100.0),
            (3, 2, 100.0),
            (1, 0, 100.0),
        ] {
            let (Rate(one), Rate(other)) =
                (Rate::of_fraction(numerator, denominator), Rate::of_percentage(percentage));
            // What a float rounds.
            assert!(one.abs_diff(other) <= 16, "{numerator}/{denominator}");
        }
    }

    #[test]
    fn rates_are_exact_and_nested() {
        /// As many ids, evenly spread over what decides.
        const IDS: u64 = 10_000;
        let ids = || (0..IDS).map(|at| TraceId(u128::from(ALL / IDS * at)));
        for (percentage, sampled) in
            [(0.0, 0), (0.01, 1), (0.1, 10), (1.0, 100), (33.3, 3330), (100.0, IDS as usize)]
        {
            let rate = Rate::of_percentage(percentage);
            let taken = ids().filter(|id| rate.samples(*id)).count();
            // An id that lies exactly on the bound may fall to either side.
            assert!(taken.abs_diff(sampled) <= 1, "{percentage} %: {taken}");
            let higher = Rate::of_percentage(percentage + 1.0);
            assert!(ids().all(|id| !rate.samples(id) || higher.samples(id)), "{percentage}");
        }
        assert!(!Rate::of_percentage(f64::NAN).samples(TraceId(0)));
        assert!(Rate::of_percentage(200.0).samples(TraceId(u128::MAX)));
        assert!(!Rate::of_percentage(-1.0).samples(TraceId(0)));
    }

    #[test]
    fn ids_at_random_are_sampled_at_the_rate() {
        let rate = Rate::of_percentage(10.0);
        let taken = (0..20_000).filter(|_| rate.samples(TraceId::random())).count();
        assert!((1_600..2_400).contains(&taken), "{taken}");
    }
}
