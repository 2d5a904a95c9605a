//! Slow start: a new endpoint gets a growing part of its share (Istio, WarmupConfiguration; Envoy, "Slow start mode").

use std::time::Duration;

/// How the share of a new endpoint grows.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Warmup {
    /// How long it takes until the endpoint has its whole share; not zero.
    pub duration: Duration,
    /// The least part of the share, from 0 to 1.
    pub least: f32,
    /// 1: the share grows evenly; the more, the faster at first. More than 0.
    pub aggression: f32,
}

impl Eq for Warmup {}

impl Warmup {
    /// The part of its share that an endpoint gets which is so old.
    pub(super) fn part(&self, age: Duration) -> f32 {
        // The first millisecond counts: nothing to the power of anything is nothing.
        let age = age.max(Duration::from_millis(1)).as_secs_f32();
        let grown = (age / self.duration.as_secs_f32()).min(1.0);
        grown.powf(1.0 / self.aggression).max(self.least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Envoy's formula: `max(minimum, (age / window) ^ (1 / aggression))`.
    #[test]
    fn the_share_grows_as_envoys() {
        for (aggression, least, seconds, expected) in [
            (1.0, 0.1, 0, 0.1),
            (1.0, 0.1, 5, 0.1),
            (1.0, 0.1, 50, 0.5),
            (1.0, 0.0, 25, 0.25),
            (1.0, 0.1, 100, 1.0),
            (1.0, 0.1, 500, 1.0),
            (2.0, 0.1, 25, 0.5),
            (0.5, 0.1, 50, 0.25),
            (1.0, 1.0, 1, 1.0),
        ] {
            let warmup = Warmup { duration: Duration::from_secs(100), least, aggression };
            let part = warmup.part(Duration::from_secs(seconds));
            assert!((part - expected).abs() < 1e-4, "{aggression} {least} {seconds}: {part}");
        }
    }
}
