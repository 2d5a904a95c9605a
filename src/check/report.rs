//! All checks, and how they are printed.

use std::fmt;

use super::outcome::Outcome;
use super::rows::{ROWS, Row, Section};

/// The outcomes, in the order in which they are looked at.
#[derive(Clone, Debug, Default)]
pub struct Report(Vec<(&'static Row, Outcome)>);

/// One check in a report, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Line {
    pub id: &'static str,
    pub section: Section,
    pub title: &'static str,
    /// `pass`, `warning`, `failure` or `not checked`.
    pub outcome: &'static str,
    pub message: String,
    /// What to do, unless it passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<&'static str>,
}

impl Report {
    /// Adds the outcome of a check of the table.
    pub(super) fn add(&mut self, id: &str, outcome: Outcome) {
        // A test holds ids and table together.
        if let Some(row) = ROWS.iter().find(|row| row.id == id) {
            self.0.push((row, outcome));
        }
    }

    pub fn lines(&self) -> Vec<Line> {
        let line = |(row, outcome): &(&'static Row, Outcome)| Line {
            id: row.id,
            section: row.section,
            title: row.title,
            outcome: outcome.name(),
            message: outcome.message().to_owned(),
            mend: matches!(outcome, Outcome::Warning(_) | Outcome::Failure(_)).then_some(row.mend),
        };
        self.0.iter().map(line).collect()
    }

    /// Whether some check has failed.
    pub fn has_failed(&self) -> bool {
        self.0.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failure(_)))
    }

    fn count(&self, name: &str) -> usize {
        self.0.iter().filter(|(_, outcome)| outcome.name() == name).count()
    }
}

/// `{"checks": [...], "counts": {...}}`
impl serde::Serialize for Report {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let counts = [
            ("passed", self.count("pass")),
            ("warnings", self.count("warning")),
            ("failures", self.count("failure")),
            ("notChecked", self.count("not checked")),
        ];
        let mut report = to.serialize_struct("Report", 2)?;
        report.serialize_field("checks", &self.lines())?;
        report.serialize_field(
            "counts",
            &counts.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        )?;
        report.end()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut section = None;
        for (row, outcome) in &self.0 {
            if section != Some(row.section) {
                let gap = if section.is_some() { "\n" } else { "" };
                writeln!(f, "{gap}{}", row.section)?;
                section = Some(row.section);
            }
            let mark = match outcome {
                Outcome::Pass(_) => "ok  ",
                Outcome::Warning(_) => "warn",
                Outcome::Failure(_) => "FAIL",
                Outcome::Unknown(_) => "?   ",
            };
            let not = if matches!(outcome, Outcome::Unknown(_)) { "not checked: " } else { "" };
            // What was read somewhere cannot look like another line.
            let message = outcome.message().replace(|char: char| char.is_control(), " ");
            writeln!(f, "  {mark}  {}: {not}{message}  [{}]", row.title, row.id)?;
            if matches!(outcome, Outcome::Warning(_) | Outcome::Failure(_)) {
                writeln!(f, "        {}", row.mend)?;
            }
        }
        let count = |name| self.count(name);
        writeln!(
            f,
            "\n{} passed, {} warnings, {} failures, {} not checked",
            count("pass"),
            count("warning"),
            count("failure"),
            count("not checked")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failure_fails_and_what_is_not_known_never_passes() {
        let mut report = Report::default();
        report.add("settings", Outcome::Pass("fine".into()));
        report.add("kernel-version", Outcome::Warning("old\nok  forged".into()));
        report.add("clock", Outcome::Unknown("no agent".into()));
        assert!(!report.has_failed());
        let text = report.to_string();
        assert!(text.contains("?     clock: not checked: no agent  [clock]"), "{text}");
        assert!(text.contains("1 passed, 1 warnings, 0 failures, 1 not checked"), "{text}");
        assert!(!text.contains("\nok  forged"), "{text}");
        report.add("clock", Outcome::Failure("behind".into()));
        assert!(report.has_failed());
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["checks"][3]["outcome"], "failure");
        assert!(json["checks"][3]["mend"].is_string() && json["checks"][0]["mend"].is_null());
        assert_eq!(json["counts"]["notChecked"], 1);
    }
}
