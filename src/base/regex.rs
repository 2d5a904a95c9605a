//! Regular expressions of objects, bounded in what they cost.
//!
//! Whoever may write an object may write expressions: a few characters of them can take much memory, and do so in every agent. One
//! costs its compiled form, and what each thread that searches with it keeps: the states of the automaton that it has met, as far as
//! they fit, and what it works with. Both are known when it is compiled, so that every expression has a weight in bytes; one that is
//! heavier than [`MAX_WEIGHT`] is none. What the expressions of one object weigh together is counted while the object is read
//! ([`metered`]), before it costs anything.
//!
//! A search takes time in proportion to the text. Where the states do not fit, the automaton is simulated, and takes time in proportion
//! to its size as well, which is bounded for that reason too.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use regex_automata::meta::{self, Config};
use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::util::captures::Captures;
use regex_automata::util::syntax;

use super::Str;

/// How long a text is that an object may have, in bytes. Gateway API and Istio allow for 1024 and less.
const LONGEST: usize = 4 * 1024;
/// What each automaton of an expression may take, in bytes.
const MAX_AUTOMATON: usize = 256 * 1024;
/// What a thread keeps of the states that it has met, of each automaton, in bytes. Beyond that it begins anew, or simulates.
const MET: usize = 32 * 1024;
/// How many of them there may be: forward, backward, and one that looks for the end first.
const AUTOMATA: usize = 3;
/// What one expression may weigh, in bytes.
pub const MAX_WEIGHT: usize = 1024 * 1024;
/// How many groups an expression may have whose groups are looked at, with the whole match. Each costs a place for every state.
const MAX_GROUPS: usize = 32;

/// An expression that is compiled. Clones are the same one.
#[derive(Clone)]
pub struct Regex(Arc<Compiled>);

struct Compiled {
    regex: meta::Regex,
    written: Str,
}

/// Why a text is no expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegexError {
    #[error("{0}")]
    Unreadable(String),
    /// The object has more than it may, whatever this one is.
    #[error("the regular expressions of this object take more than {} KiB together", .0 / 1024)]
    Budget(usize),
}

impl Regex {
    /// One that has to match the whole text.
    pub fn whole(text: &str) -> Result<Self, RegexError> {
        // By itself first: a text such as `a)(b` would otherwise escape from the group around it.
        check(text)?;
        Self::compile(text, &format!("^(?:{text})$"), WhichCaptures::Implicit)
    }

    /// One that may match anywhere in a text.
    pub fn anywhere(text: &str) -> Result<Self, RegexError> {
        check(text)?;
        Self::compile(text, text, WhichCaptures::Implicit)
    }

    /// The same, of which the groups are looked at.
    pub fn with_groups(text: &str) -> Result<Self, RegexError> {
        check(text)?;
        Self::compile(text, text, WhichCaptures::All)
    }

    fn compile(text: &str, whole: &str, groups: WhichCaptures) -> Result<Self, RegexError> {
        let meter = METER.get();
        if let Some(Meter { spent, budget }) = meter
            && spent >= budget
        {
            return Err(RegexError::Budget(budget));
        }
        let config = Config::new()
            .which_captures(groups)
            .nfa_size_limit(Some(MAX_AUTOMATON))
            .hybrid_cache_capacity(MET)
            .onepass_size_limit(Some(MET))
            .dfa(false)
            .backtrack(false);
        let built = meta::Regex::builder().configure(config).build(whole);
        let regex = built.map_err(|error| match (error.size_limit(), error.syntax_error()) {
            (Some(_), _) => large(text),
            (None, Some(error)) => unreadable(text, last_line(error)),
            (None, None) => unreadable(text, last_line(&error)),
        })?;
        if matches!(groups, WhichCaptures::All) && regex.captures_len() > MAX_GROUPS {
            let why = format!("it has more than {} groups", MAX_GROUPS - 1);
            return Err(unreadable(text, why));
        }
        let weight = weigh(&regex);
        if weight > MAX_WEIGHT {
            return Err(large(text));
        }
        if let Some(Meter { spent, budget }) = meter {
            METER.set(Some(Meter { spent: spent.saturating_add(weight), budget }));
            if spent + weight > budget {
                return Err(RegexError::Budget(budget));
            }
        }
        Ok(Self(Arc::new(Compiled { regex, written: whole.into() })))
    }

    /// As it was compiled.
    pub fn as_str(&self) -> &str {
        &self.0.written
    }

    /// Whether it matches somewhere in the text.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.regex.is_match(text)
    }

    /// Whether it matches the whole text. Alternatives are tried leftmost first, so that [`Regex::whole`] anchors; this refuses a
    /// match that is not anchored.
    pub fn is_whole(&self, text: &str) -> bool {
        let found = self.0.regex.find(text);
        found.is_some_and(|found| found.range() == (0..text.len()))
    }

    /// How many groups it has, with the whole match.
    pub fn groups(&self) -> usize {
        self.0.regex.captures_len()
    }

    /// All matches, with their groups.
    pub fn captures<'t>(&'t self, text: &'t str) -> impl Iterator<Item = Captures> + 't {
        self.0.regex.captures_iter(text)
    }
}

/// What it takes, in bytes: the compiled form, and what a thread keeps when it has met as many states as fit.
fn weigh(regex: &meta::Regex) -> usize {
    regex.memory_usage() + regex.create_cache().memory_usage() + AUTOMATA * MET
}

/// Parses it, which is all that it costs.
fn check(text: &str) -> Result<(), RegexError> {
    if text.len() > LONGEST {
        let start: String = text.chars().take(32).collect();
        return Err(unreadable(&start, "and so on, is longer than 4096 bytes"));
    }
    syntax::parse(text).map(|_| ()).map_err(|error| unreadable(text, last_line(&error)))
}

fn large(text: &str) -> RegexError {
    unreadable(text, "it is too large when it is compiled")
}

/// Before its last line, the library draws where the expression is wrong.
fn last_line(error: &impl fmt::Display) -> String {
    let told = error.to_string();
    told.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

fn unreadable(text: &str, why: impl AsRef<str>) -> RegexError {
    RegexError::Unreadable(format!("{text:?} is not a regular expression: {}", why.as_ref()))
}

impl PartialEq for Regex {
    /// Both are written alike.
    fn eq(&self, other: &Self) -> bool {
        self.0.written == other.0.written
    }
}

impl Eq for Regex {}

impl fmt::Display for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.written)
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regex({:?})", self.0.written)
    }
}

/// What the expressions of an object weigh, as far as it was read.
#[derive(Clone, Copy)]
struct Meter {
    spent: usize,
    budget: usize,
}

thread_local! {
    /// Readers are called by serde, which passes nothing on to them.
    static METER: Cell<Option<Meter>> = const { Cell::new(None) };
}

/// Reads an object, all of whose expressions may weigh `budget` bytes. No more are compiled than that and one.
pub fn metered<T>(budget: usize, read: impl FnOnce() -> T) -> T {
    struct Before(Option<Meter>);
    impl Drop for Before {
        fn drop(&mut self) {
            METER.set(self.0);
        }
    }
    let _before = Before(METER.replace(Some(Meter { spent: 0, budget })));
    read()
}

/// What the expressions of the object weigh that is being read.
pub fn weight_of_regexes() -> usize {
    METER.get().map_or(0, |meter| meter.spent)
}

#[cfg(test)]
mod tests;
