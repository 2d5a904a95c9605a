//! The text of all metrics, part by part: a scrape holds one part and a list of the rest, however many series there
//! are, and a slow reader blocks no counter.
//!
//! This module writes labelled series instead of the registry, which can only write everything at once.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::exemplars::Exemplar;
use super::series::Shown;

/// The approximate size of a part, in bytes; exceeded by at most one series.
const PART: usize = 32 * 1024;

/// The end of the text (OpenMetrics 1.0).
const END: &str = "# EOF\n";

/// A counter of a series.
pub(super) type Count = AtomicU64;

/// What a scraper asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// The text format of Prometheus, 0.0.4.
    Prometheus,
    /// The same with exemplars.
    OpenMetrics,
}

/// A value that can be exposed as a histogram.
pub(super) trait Distribution {
    /// A request that counted in this bucket.
    fn exemplar(&self, bucket: usize) -> Option<Exemplar>;

    /// The sum, and the upper bounds with the number of values below; the last has none and counts all.
    fn read(&self, unit: f64) -> (f64, Vec<(Option<f64>, u64)>);
}

/// A scrape in progress: the next part whenever there is room for it.
pub struct Scrape {
    format: TextFormat,
    head: Option<String>,
    families: VecDeque<Family>,
    /// Series of the first family that were written.
    written: usize,
    ended: bool,
}

/// One family whose series are written one by one.
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    /// Writes one series by its number; `false` if there are no more.
    write: WriteSeries,
}

type WriteSeries = Box<dyn Fn(&str, usize, TextFormat, &mut String) -> bool + Send + Sync>;

/// The labels of a series as `key="value"` pairs.
pub(super) trait WriteLabels: Send + Sync + 'static {
    fn write(&self, pairs: &mut Pairs<'_>);

    /// Whether a counter that counts nothing is left out, because the series exists for others.
    fn hides_zero(&self) -> bool {
        false
    }
}

/// Labels that are being written.
pub(super) struct Pairs<'a> {
    text: &'a mut String,
    first: bool,
}

impl Scrape {
    /// `head`: the registry's text, without the end.
    pub(super) fn new(
        format: TextFormat,
        head: String,
        families: impl IntoIterator<Item = Family>,
    ) -> Self {
        let families = families.into_iter().collect();
        Self { format, head: Some(head), families, written: 0, ended: false }
    }
}

/// The registry's text in a format. The older one describes a counter by the name of its samples, with `_total`.
pub(super) fn head(text: String, format: TextFormat) -> String {
    if format == TextFormat::OpenMetrics {
        return text;
    }
    let counters: HashSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut out = String::with_capacity(text.len() + counters.len() * 2 * "_total".len());
    for line in text.lines() {
        let described = ["# HELP ", "# TYPE "].into_iter().find_map(|start| {
            let (name, rest) = line.strip_prefix(start)?.split_once(' ')?;
            counters.contains(name).then_some((start, name, rest))
        });
        _ = match described {
            Some((start, name, rest)) => writeln!(out, "{start}{name}_total {rest}"),
            None => writeln!(out, "{line}"),
        };
    }
    out
}

impl Iterator for Scrape {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if let Some(head) = self.head.take() {
            return Some(head.into());
        }
        let mut part = String::with_capacity(PART + PART / 2);
        while part.len() < PART
            && let Some(family) = self.families.front()
        {
            if self.written == 0 {
                family.describe(self.format, &mut part);
            }
            if (family.write)(family.name, self.written, self.format, &mut part) {
                self.written += 1;
            } else {
                self.families.pop_front();
                self.written = 0;
            }
        }
        if self.families.is_empty() && !self.ended {
            self.ended = true;
            part.push_str(END);
        }
        (!part.is_empty()).then(|| part.into())
    }
}

impl Family {
    /// A counter of each series; `name` without `_total`.
    pub(super) fn counter<K: WriteLabels + ?Sized, V: Send + Sync + 'static>(
        series: &Arc<Vec<Shown<K, V>>>,
        (name, help): (&'static str, &'static str),
        value: fn(&V) -> &Count,
    ) -> Self {
        let series = series.clone();
        let write: WriteSeries = Box::new(move |name, number, _, out| {
            let Some((labels, series)) = series.get(number) else { return false };
            let value = value(&series.counts).load(Ordering::Relaxed);
            if value == 0 && labels.hides_zero() {
                return true;
            }
            // Writing to a String cannot fail.
            _ = writeln!(out, "{name}_total{{{}}} {value}", text(&**labels));
            true
        });
        Self { name, help, kind: "counter", write }
    }

    /// A histogram of each series.
    pub(super) fn histogram<
        K: WriteLabels + ?Sized,
        V: Send + Sync + 'static,
        D: Distribution + 'static,
    >(
        series: &Arc<Vec<Shown<K, V>>>,
        (name, help): (&'static str, &'static str),
        unit: f64,
        value: fn(&V) -> &D,
    ) -> Self {
        let series = series.clone();
        let write: WriteSeries = Box::new(move |name, number, format, out| {
            let Some((labels, series)) = series.get(number) else { return false };
            let (labels, value) = (text(&**labels), value(&series.counts));
            let (sum, buckets) = value.read(unit);
            let count = buckets.last().map_or(0, |(_, below)| *below);
            // The series exists for other metrics, of which this one is disabled or has other labels.
            if count == 0 {
                return true;
            }
            _ = writeln!(out, "{name}_sum{{{labels}}} {sum:?}");
            _ = writeln!(out, "{name}_count{{{labels}}} {count}");
            for (bucket, (bound, below)) in buckets.into_iter().enumerate() {
                _ = match bound {
                    Some(bound) => {
                        write!(out, "{name}_bucket{{le=\"{bound:?}\",{labels}}} {below}")
                    }
                    None => write!(out, "{name}_bucket{{le=\"+Inf\",{labels}}} {below}"),
                };
                if format == TextFormat::OpenMetrics
                    && let Some(exemplar) = value.exemplar(bucket)
                {
                    out.push_str(&exemplar.text());
                }
                out.push('\n');
            }
            true
        });
        Self { name, help, kind: "histogram", write }
    }

    fn describe(&self, format: TextFormat, out: &mut String) {
        let Self { name, help, kind, .. } = self;
        let end = match (format, *kind) {
            (TextFormat::Prometheus, "counter") => "_total",
            _ => "",
        };
        _ = write!(out, "# HELP {name}{end} {help}.\n# TYPE {name}{end} {kind}\n");
    }
}

impl<'a> Pairs<'a> {
    pub(super) fn new(text: &'a mut String) -> Self {
        Self { text, first: true }
    }

    /// All pairs, as they were written.
    pub(super) fn put_written(&mut self, pairs: &str) {
        self.text.push_str(pairs);
        self.first = false;
    }

    pub(super) fn put(&mut self, key: &str, value: &str) {
        if !self.first {
            self.text.push(',');
        }
        self.first = false;
        self.text.push_str(key);
        self.text.push_str("=\"");
        // Most values are plain, and copied at once.
        for part in value.split_inclusive(['\\', '"', '\n']) {
            let plain = part.trim_end_matches(['\\', '"', '\n']);
            self.text.push_str(plain);
            self.text.push_str(match part.as_bytes().last().filter(|_| plain.len() < part.len()) {
                Some(b'\\') => "\\\\",
                Some(b'"') => "\\\"",
                Some(b'\n') => "\\n",
                _ => "",
            });
        }
        self.text.push('"');
    }
}

fn text(labels: &(impl WriteLabels + ?Sized)) -> String {
    let mut text = String::with_capacity(1024);
    labels.write(&mut Pairs::new(&mut text));
    text
}

#[cfg(test)]
mod tests {
    use super::super::series::Series;
    use super::*;

    struct Value(String);
    impl WriteLabels for Value {
        fn write(&self, pairs: &mut Pairs<'_>) {
            pairs.put("first", &self.0);
            pairs.put("second", "");
        }
    }

    fn scrape(values: impl IntoIterator<Item = String>) -> Scrape {
        let shown = |it| (Arc::new(Value(it)), Arc::new(Series::<Count>::default()));
        let series = Arc::new(values.into_iter().map(shown).collect());
        let families = [Family::counter(&series, ("name", "Help"), |count| count)];
        Scrape::new(TextFormat::Prometheus, "head 1\n".to_owned(), families)
    }

    #[test]
    fn counters_are_described_by_the_name_that_the_format_wants() {
        let text = "# HELP a A.\n# TYPE a counter\na_total 1\n# HELP b B.\n# TYPE b gauge\nb 1\n";
        assert_eq!(head(text.to_owned(), TextFormat::OpenMetrics), text);
        let older = text.replace(" a ", " a_total ");
        assert_eq!(head(text.to_owned(), TextFormat::Prometheus), older);
    }

    #[test]
    fn values_cannot_end_their_quotes() {
        let text: Vec<_> = scrape(["a\"b\\\nc\\\\".to_owned()]).flatten().collect();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "head 1\n# HELP name_total Help.\n# TYPE name_total counter\n\
             name_total{first=\"a\\\"b\\\\\\nc\\\\\\\\\",second=\"\"} 0\n# EOF\n"
        );
    }

    #[test]
    fn however_many_series_a_part_is_small() {
        let many = scrape((0..20_000).map(|it| format!("{it:0300}")));
        let parts: Vec<Bytes> = many.collect();
        assert!(parts.len() > 100);
        assert!(parts.iter().all(|part| part.len() < PART + 1024), "no part holds them all");
        let text = String::from_utf8(parts.concat()).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("name_total{")).count(), 20_000);
        assert_eq!(text.matches("# TYPE").count(), 1);
        assert!(text.ends_with("} 0\n# EOF\n"));
        assert!(scrape([]).flatten().collect::<Vec<_>>().ends_with(b"counter\n# EOF\n"));
    }
}
