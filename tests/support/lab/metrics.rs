//! Prometheus' text format, as far as a lab reads it.

use std::collections::BTreeMap;

/// The series of one scrape: name, labels and value.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    series: Vec<Series>,
}

/// One line of a scrape.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Metrics {
    /// Lines that cannot be read are left out.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self { series: lines.filter_map(Series::parse).collect() }
    }

    /// The scrapes of several agents as one.
    pub fn merge(all: impl IntoIterator<Item = Metrics>) -> Self {
        Self { series: all.into_iter().flat_map(|metrics| metrics.series).collect() }
    }

    /// The sum of all series with this name and these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).map(|series| series.value).sum()
    }

    /// The series with this name and these labels.
    pub fn find<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Series> {
        self.series.iter().filter(move |series| {
            series.name == name
                && labels.iter().all(|(label, value)| {
                    series.labels.get(*label).is_some_and(|found| found == value)
                })
        })
    }
}

impl Series {
    fn parse(line: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let value = value.parse().ok()?;
        let Some((name, labels)) = series.split_once('{') else {
            return Some(Self { name: series.to_owned(), labels: BTreeMap::new(), value });
        };
        let labels = labels.strip_suffix('}')?;
        Some(Self { name: name.to_owned(), labels: parse_labels(labels), value })
    }
}

/// `a="x",b="y"`, with the escapes `\\`, `\"` and `\n` in the values.
fn parse_labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut characters = after.char_indices();
        let mut end = after.len();
        while let Some((index, character)) = characters.next() {
            match character {
                '"' => {
                    end = index + 1;
                    break;
                }
                '\\' => match characters.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, escaped)) => value.push(escaped),
                    None => break,
                },
                other => value.push(other),
            }
        }
        labels.insert(name.trim_start_matches(',').to_owned(), value);
        rest = &after[end..];
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_read_with_their_labels() {
        let text = "# TYPE a counter\na{b=\"c d\",e=\"f\\\"g,h=\\n\"} 3\na{b=\"x\"} 4\nplain 1.5\nbroken{b=\"c\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.sum("a", &[]), 7.0);
        assert_eq!(metrics.sum("a", &[("b", "c d"), ("e", "f\"g,h=\n")]), 3.0);
        assert_eq!(metrics.sum("a", &[("b", "nobody")]), 0.0);
        assert_eq!(metrics.sum("plain", &[]), 1.5);
        assert_eq!(metrics.series.len(), 3);
    }
}
