//! Reads single settings out of a TOML document and remembers which were asked for, so that what was not is unknown.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::complaint::Complaint;
use super::duration;
use super::overrides::Overrides;
use crate::base::{Str, nearest};

/// A setting, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// `<section>.<key>`, or the key alone at the top of the file.
    pub key: &'static str,
    /// What may be written, such as `number from 1 to 1000`.
    pub kind: String,
    /// The default as TOML; for a default that depends on the machine, what it depends on.
    pub default: String,
    /// A value as TOML that may be written; the default where that is the same everywhere.
    pub example: String,
    /// One or two sentences.
    pub meaning: &'static str,
    /// Why the default is what it is.
    pub reason: &'static str,
}

/// A setting that is asked for: what its row says, but for the permitted values.
pub(super) struct Field<T> {
    pub(super) key: &'static str,
    pub(super) default: T,
    pub(super) meaning: &'static str,
    pub(super) reason: &'static str,
}

pub(super) struct Reader<'a> {
    text: &'a str,
    table: DeTable<'a>,
    overrides: &'a Overrides,
    descriptions: Vec<Description>,
    complaints: Vec<Complaint>,
}

/// Where a value was written.
struct Place {
    /// The key, or the flag that overrides it.
    name: String,
    line: Option<usize>,
}

impl<'a> Reader<'a> {
    /// Syntax errors become complaints; what could be read is read all the same.
    pub(super) fn new(text: &'a str, overrides: &'a Overrides) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let complaints = errors
            .iter()
            .map(|error| Complaint {
                key: String::new(),
                line: error.span().map(|span| line_of(text, span.start)),
                reason: format!("is not TOML: {}", error.message()),
            })
            .collect();
        let table = table.into_inner();
        Self { text, table, overrides, descriptions: Vec::new(), complaints }
    }

    /// A text that must pass `check`.
    pub(super) fn text(
        &mut self,
        field: Field<&str>,
        kind: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Str {
        let literal = quoted(field.default);
        self.describe(&field, kind, literal.clone(), literal);
        self.read(&field, Str::from(field.default), |text: &str| {
            check(text).map(|()| Str::from(text))
        })
    }

    /// A text whose default depends on the machine; described by `default_text`, with an example.
    pub(super) fn machine_text(
        &mut self,
        field: Field<&str>,
        kind: &str,
        (default_text, example): (&str, &str),
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Str {
        self.describe(&field, kind, default_text.to_owned(), quoted(example));
        self.read(&field, Str::from(field.default), |text: &str| {
            check(text).map(|()| Str::from(text))
        })
    }

    pub(super) fn path(&mut self, field: Field<&str>) -> PathBuf {
        let literal = quoted(field.default);
        self.describe(&field, "absolute path", literal.clone(), literal);
        self.read(&field, PathBuf::from(field.default), |text: &str| {
            let path = PathBuf::from(text);
            let relative = || format!("{text:?} is not an absolute path; begin it with /");
            path.is_absolute().then_some(path).ok_or_else(relative)
        })
    }

    /// A path that need not be given; its default is the empty text.
    pub(super) fn optional_path(&mut self, field: Field<&str>) -> Option<PathBuf> {
        self.describe(&field, "absolute path, or empty", quoted(""), quoted(""));
        self.read(&field, None, |text: &str| {
            let path = PathBuf::from(text);
            if text.is_empty() {
                return Ok(None);
            }
            let relative = || format!("{text:?} is not an absolute path; begin it with /");
            path.is_absolute().then_some(Some(path)).ok_or_else(relative)
        })
    }

    /// A list of texts, each of which must pass `check`.
    pub(super) fn texts(
        &mut self,
        field: Field<&[&str]>,
        kind: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Vec<Str> {
        let items: Vec<String> = field.default.iter().map(quoted).collect();
        let literal = format!("[{}]", items.join(", "));
        self.describe(&field, &format!("list of {kind}s"), literal.clone(), literal);
        let default = field.default.iter().map(|text| Str::from(*text)).collect();
        self.read_value(&field, default, |value| {
            let wrong = |value: &DeValue<'_>| {
                format!("is a {}; write a list of texts, such as [\"a\", \"b\"]", value.type_str())
            };
            let items = value.as_array().ok_or_else(|| wrong(value))?;
            items
                .iter()
                .map(|item| {
                    let text = item.get_ref().as_str().ok_or_else(|| wrong(item.get_ref()))?;
                    check(text).map(|()| Str::from(text))
                })
                .collect()
        })
    }

    /// A list of texts whose case does not matter.
    pub(super) fn lower_case_texts(
        &mut self,
        field: Field<&[&str]>,
        kind: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Vec<Str> {
        let read = self.texts(field, kind, check);
        read.into_iter().map(|text| Str::from(text.to_ascii_lowercase())).collect()
    }

    pub(super) fn address(&mut self, field: Field<SocketAddr>) -> SocketAddr {
        let literal = quoted(field.default);
        self.describe(&field, "address and port", literal.clone(), literal);
        self.read(&field, field.default, |text: &str| {
            text.parse().map_err(|_| {
                format!(
                    "{text:?} is not an address with a port, such as \"127.0.0.1:15000\" or \
                     \"[::]:15020\""
                )
            })
        })
    }

    pub(super) fn switch(&mut self, field: Field<bool>) -> bool {
        self.choice(field, &[("on", true), ("off", false)])
    }

    pub(super) fn choice<T: Copy + PartialEq>(
        &mut self,
        field: Field<T>,
        choices: &[(&str, T)],
    ) -> T {
        let names: Vec<String> = choices.iter().map(|(name, _)| quoted(name)).collect();
        let kind = format!("one of {}", names.join(", "));
        let default = choices.iter().find(|(_, value)| *value == field.default);
        let literal = default.map(|(name, _)| quoted(name)).unwrap_or_default();
        self.describe(&field, &kind, literal.clone(), literal);
        self.read(&field, field.default, |text: &str| {
            let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
            found.ok_or_else(|| format!("{text:?} is not possible; give {kind}"))
        })
    }

    pub(super) fn duration(
        &mut self,
        field: Field<Duration>,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let (from, to) = (duration::format(*range.start()), duration::format(*range.end()));
        let literal = quoted(duration::format(field.default));
        let kind = format!("duration from {from} to {to}");
        self.describe(&field, &kind, literal.clone(), literal);
        self.read(&field, field.default, |text: &str| match duration::parse(text) {
            Some(value) if range.contains(&value) => Ok(value),
            Some(_) => Err(format!("{text:?} is out of range; give a {kind}")),
            None => Err(format!(
                "{text:?} is not a duration; write a number and a unit: \"500ms\", \"10s\", \"5m\" or \"24h\""
            )),
        })
    }

    pub(super) fn number(&mut self, field: Field<usize>, range: RangeInclusive<usize>) -> usize {
        let literal = field.default.to_string();
        self.number_described(field, range, literal.clone(), literal)
    }

    /// A number whose default depends on the machine.
    pub(super) fn machine_number(
        &mut self,
        field: Field<usize>,
        range: RangeInclusive<usize>,
        (default_text, example): (&str, usize),
    ) -> usize {
        self.number_described(field, range, default_text.to_owned(), example.to_string())
    }

    fn number_described(
        &mut self,
        field: Field<usize>,
        range: RangeInclusive<usize>,
        default: String,
        example: String,
    ) -> usize {
        let kind = format!("number from {} to {}", range.start(), range.end());
        self.describe(&field, &kind, default, example);
        self.read_value(&field, field.default, |value| {
            let integer = value
                .as_integer()
                .ok_or_else(|| format!("is a {}; give a {kind}", value.type_str()))?;
            usize::from_str_radix(integer.as_str(), integer.radix())
                .ok()
                .filter(|number| range.contains(number))
                .ok_or_else(|| format!("{integer} is out of range; give a {kind}"))
        })
    }

    /// Adds a complaint about a value that was read before.
    pub(super) fn complain(&mut self, key: &str, reason: String) {
        let line = self.lookup(key).and_then(|value| self.line(value));
        self.complaints.push(Complaint { key: key.to_owned(), line, reason });
    }

    /// All complaints, those about keys that nobody asked for included, in the order of the file.
    pub(super) fn finish(mut self) -> Vec<Complaint> {
        let table = std::mem::take(&mut self.table);
        for (key, value) in &table {
            let name = key.get_ref().as_ref();
            let inner = format!("{name}.");
            let is_section = self.descriptions.iter().any(|known| known.key.starts_with(&inner));
            match value.get_ref().as_table() {
                Some(section) if is_section => {
                    for key in section.keys() {
                        self.check_known(&inner, key);
                    }
                }
                None if is_section => {
                    let line = Some(line_of(self.text, value.span().start));
                    let reason = format!("is a section; write [{name}] on a line of its own");
                    self.complaints.push(Complaint { key: name.to_owned(), line, reason });
                }
                _ => self.check_known("", key),
            }
        }
        self.complaints.sort_by_key(|complaint| complaint.line.unwrap_or(0));
        self.complaints
    }

    pub(super) fn into_descriptions(self) -> Vec<Description> {
        self.descriptions
    }

    fn check_known(&mut self, section: &str, key: &Spanned<Cow<'_, str>>) {
        let name = key.get_ref().as_ref();
        let full = format!("{section}{name}");
        if self.descriptions.iter().any(|known| known.key == full) {
            return;
        }
        let siblings =
            self.descriptions.iter().filter_map(|known| match known.key.rsplit_once('.') {
                Some((owner, name)) if section.trim_end_matches('.') == owner => Some(name),
                Some((owner, _)) if section.is_empty() => Some(owner),
                None if section.is_empty() => Some(known.key),
                _ => None,
            });
        let last = |known: &Description| known.key.rsplit('.').next().unwrap_or(known.key);
        // In the wrong section, or in the one where it was before.
        let misplaced = self.descriptions.iter().find(|known| last(known) == name);
        let elsewhere = || {
            let meant = nearest(name, self.descriptions.iter().map(last))?;
            self.descriptions.iter().find(|known| last(known) == meant).map(|known| known.key)
        };
        let found = misplaced.map(|known| known.key);
        let reason = match found.or_else(|| nearest(name, siblings)).or_else(elsewhere) {
            Some(candidate) => format!("is not a setting; did you mean `{candidate}`?"),
            None => "is not a setting; docs/settings.md lists all".to_owned(),
        };
        let line = Some(line_of(self.text, key.span().start));
        self.complaints.push(Complaint { key: full, line, reason });
    }

    fn describe<T>(&mut self, field: &Field<T>, kind: &str, default: String, example: String) {
        let Field { key, meaning, reason, .. } = *field;
        let kind = kind.to_owned();
        self.descriptions.push(Description { key, kind, default, example, meaning, reason });
    }

    fn read<T, D>(
        &mut self,
        field: &Field<D>,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        self.read_value(field, default, |value| match value.as_str() {
            Some(text) => parse(text),
            None => Err(format!("is a {}; write it in quotes", value.type_str())),
        })
    }

    /// A flag's value, or else the file's, or else the default; the default too when the value is bad.
    fn read_value<T, D>(
        &mut self,
        field: &Field<D>,
        default: T,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> T {
        let (place, read) = if let Some((flag, text)) = self.overrides.get(field.key) {
            let value = DeValue::String(Cow::Borrowed(text));
            (Place { name: flag.to_owned(), line: None }, parse(&value))
        } else if let Some(value) = self.lookup(field.key) {
            (Place { name: field.key.to_owned(), line: self.line(value) }, parse(value.get_ref()))
        } else {
            return default;
        };
        read.unwrap_or_else(|reason| {
            self.complaints.push(Complaint { key: place.name, line: place.line, reason });
            default
        })
    }

    fn lookup(&self, key: &str) -> Option<&Spanned<DeValue<'a>>> {
        match key.split_once('.') {
            Some((section, name)) => self.table.get(section)?.get_ref().as_table()?.get(name),
            None => self.table.get(key),
        }
    }

    fn line(&self, value: &Spanned<DeValue<'_>>) -> Option<usize> {
        Some(line_of(self.text, value.span().start))
    }
}

/// As a TOML string.
fn quoted(text: impl Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}
