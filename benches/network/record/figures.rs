//! The figures of one or more runs: by case, side and metric, a sample for each round. They are kept as JSON.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// By metric: `rate` in the case's unit; `cpu`, processor seconds of all proxies for the case's unit of work; `switches`, their
/// voluntary context switches for each request, connection or MiB; `calls`, their system calls for the same; `p50` and `p99` in
/// microseconds; `cpu of THREAD`; of cases of Isthmus alone also `bytes` and others.
pub type Metrics = BTreeMap<String, Vec<f64>>;

/// All cases.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Figures {
    pub cases: BTreeMap<String, Measured>,
}

/// One case.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    pub run: Run,
    pub sides: BTreeMap<String, Metrics>,
}

/// When and on what a case was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Run {
    pub date: String,
    pub commit: String,
    pub machine: String,
    pub seconds: u64,
    pub rounds: usize,
    /// What else is to be known of it; may be empty.
    pub note: String,
}

impl Figures {
    /// Those of a file; none if there is no file.
    pub fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(path)?;
        serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
    }

    pub fn text(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(path, self.text()?).with_context(|| format!("write {}", path.display()))
    }

    /// The samples of a metric; empty if it was not measured.
    pub fn samples(&self, case: &str, side: &str, metric: &str) -> &[f64] {
        let metrics = self.cases.get(case).and_then(|case| case.sides.get(side));
        metrics.and_then(|metrics| metrics.get(metric)).map_or(&[], Vec::as_slice)
    }

    pub fn median(&self, case: &str, side: &str, metric: &str) -> Option<f64> {
        median(self.samples(case, side, metric))
    }
}

impl Measured {
    /// Adds what one round brought.
    pub fn add(&mut self, side: &str, sample: impl IntoIterator<Item = (String, f64)>) {
        let metrics = self.sides.entry(side.to_owned()).or_default();
        for (metric, figure) in sample {
            metrics.entry(metric).or_default().push(rounded(figure));
        }
    }
}

/// The middle one, or the mean of both; `None` of nothing.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length.is_multiple_of(2) => {
            Some(f64::midpoint(sorted[middle - 1], sorted[middle]))
        }
        _ => Some(sorted[middle]),
    }
}

/// The lowest and the highest.
pub fn spread(samples: &[f64]) -> Option<(f64, f64)> {
    let least = samples.iter().copied().min_by(f64::total_cmp)?;
    Some((least, samples.iter().copied().max_by(f64::total_cmp)?))
}

/// To four digits: more would only be noise in the file.
fn rounded(figure: f64) -> f64 {
    if figure == 0.0 || !figure.is_finite() {
        return 0.0;
    }
    let scale = 10_f64.powf(3.0 - figure.abs().log10().floor());
    (figure * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[3.0, 1.0]), Some(2.0));
        assert_eq!(median(&[9.0, 1.0, 4.0]), Some(4.0));
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[9.0, 1.0, 4.0]), Some((1.0, 9.0)));
    }

    #[test]
    fn figures_have_four_digits() {
        for (figure, kept) in [(123_456.0, 123_500.0), (1.23456, 1.235), (0.001_234_56, 0.001_235)]
        {
            assert!((rounded(figure) / kept - 1.0).abs() < 1e-9, "{figure}");
        }
        assert!(rounded(f64::NAN) == 0.0);
    }
}
