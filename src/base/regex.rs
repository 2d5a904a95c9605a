//! Regular expressions of objects, bounded in what they cost.
//!
//! Whoever may write an object may write expressions: a few characters of them can take much memory, and do so in every agent. One
//! costs its compiled form, and what each thread that searches with it keeps: the states of the automaton that it has met, as far as
//! they fit, and what it works with. Both are known when it is compiled, so that every expression has a weight in bytes; one that is
//! heavier than [`MAX_WEIGHT`] is none. What the expressions of one object weigh together is counted while the object is read
//! ([`metered`]), before it costs anything. They are compiled for good when the object is in force ([`Regexes::take_up`]), so that one
//! that is not takes no more than what was written, and neither do thousands that are read at once.
//!
//! A search takes time in proportion to the text. Where the states do not fit, the automaton is simulated, and takes time in proportion
//! to its size as well, which is bounded for that reason too.

use std::cell::RefCell;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
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

/// An expression, compiled while its object is in force. Clones are the same one.
#[derive(Clone)]
pub struct Regex(Arc<Compiled>);

struct Compiled {
    /// None while its object is not in force.
    form: ArcSwapOption<meta::Regex>,
    written: Str,
    captures: WhichCaptures,
    groups: usize,
}

/// The expressions of one object.
#[derive(Clone, Debug, Default)]
pub struct Regexes {
    all: Vec<Regex>,
    /// What they weigh together, in bytes.
    weight: usize,
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
        METER.with_borrow(|meter| match meter {
            Some(Meter { read, budget }) if read.weight >= *budget => {
                Err(RegexError::Budget(*budget))
            }
            _ => Ok(()),
        })?;
        let form = build(whole, groups).map_err(|error| {
            match (error.size_limit(), error.syntax_error()) {
                (Some(_), _) => large(text),
                (None, Some(error)) => unreadable(text, last_line(error)),
                (None, None) => unreadable(text, last_line(&error)),
            }
        })?;
        if matches!(groups, WhichCaptures::All) && form.captures_len() > MAX_GROUPS {
            let why = format!("it has more than {} groups", MAX_GROUPS - 1);
            return Err(unreadable(text, why));
        }
        let weight = weigh(&form);
        if weight > MAX_WEIGHT {
            return Err(large(text));
        }
        let regex = Self(Arc::new(Compiled {
            form: ArcSwapOption::empty(),
            written: whole.into(),
            captures: groups,
            groups: form.captures_len(),
        }));
        METER.with_borrow_mut(|meter| {
            let Some(Meter { read, budget }) = meter else {
                regex.0.form.store(Some(Arc::new(form)));
                return Ok(());
            };
            read.weight = read.weight.saturating_add(weight);
            read.all.push(regex.clone());
            if read.weight > *budget { Err(RegexError::Budget(*budget)) } else { Ok(()) }
        })?;
        Ok(regex)
    }

    /// Asks something of the compiled form. A request that began when its object was in force compiles it for itself. `None` only if
    /// that fails, which it did not when the object was read.
    fn with<T>(&self, ask: impl FnOnce(&meta::Regex) -> T) -> Option<T> {
        if let Some(form) = &*self.0.form.load() {
            return Some(ask(form));
        }
        self.0.again().as_ref().map(ask)
    }

    /// As it was compiled.
    pub fn as_str(&self) -> &str {
        &self.0.written
    }

    /// Whether it matches somewhere in the text.
    pub fn is_match(&self, text: &str) -> bool {
        self.with(|form| form.is_match(text)).unwrap_or_default()
    }

    /// Whether it matches the whole text. Alternatives are tried leftmost first, so that [`Regex::whole`] anchors; this refuses a
    /// match that is not anchored.
    pub fn is_whole(&self, text: &str) -> bool {
        let found = self.with(|form| form.find(text)).flatten();
        found.is_some_and(|found| found.range() == (0..text.len()))
    }

    /// How many groups it has, with the whole match.
    pub fn groups(&self) -> usize {
        self.0.groups
    }

    /// Shows all matches, with their groups, until `see` has enough of them.
    pub fn captures(&self, text: &str, see: impl FnMut(Captures) -> ControlFlow<()>) {
        self.with(|form| _ = form.captures_iter(text).try_for_each(see));
    }
}

impl Compiled {
    fn again(&self) -> Option<meta::Regex> {
        build(&self.written, self.captures).ok()
    }
}

impl Regexes {
    /// In bytes, while they are compiled.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Gives up the compiled forms.
    pub fn lay_down(&self) {
        self.all.iter().for_each(|regex| regex.0.form.store(None));
    }

    #[cfg(test)]
    pub fn are_laid_down(&self) -> bool {
        self.all.iter().all(|regex| regex.0.form.load().is_none())
    }

    /// Compiles those that are laid down, so that no request has to.
    pub fn take_up(&self) {
        for Regex(regex) in &self.all {
            if regex.form.load().is_none() {
                regex.form.store(regex.again().map(Arc::new));
            }
        }
    }
}

fn build(whole: &str, captures: WhichCaptures) -> Result<meta::Regex, Box<meta::BuildError>> {
    let config = Config::new()
        .which_captures(captures)
        .nfa_size_limit(Some(MAX_AUTOMATON))
        .hybrid_cache_capacity(MET)
        .onepass_size_limit(Some(MET))
        .dfa(false)
        .backtrack(false);
    meta::Regex::builder().configure(config).build(whole).map_err(Box::new)
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

/// The expressions of an object, as far as it was read.
struct Meter {
    read: Regexes,
    budget: usize,
}

thread_local! {
    /// Readers are called by serde, which passes nothing on to them.
    static METER: RefCell<Option<Meter>> = const { RefCell::new(None) };
}

/// Reads an object, all of whose expressions may weigh `budget` bytes. No more are compiled than that and one, and none of them stays
/// so before it is taken up.
pub fn metered<T>(budget: usize, read: impl FnOnce() -> T) -> T {
    struct Before(Option<Meter>);
    impl Drop for Before {
        fn drop(&mut self) {
            METER.replace(self.0.take());
        }
    }
    let _before = Before(METER.replace(Some(Meter { read: Regexes::default(), budget })));
    read()
}

/// The expressions of the object that is being read, for it to keep.
pub fn regexes_so_far() -> Regexes {
    METER.with_borrow(|meter| meter.as_ref().map(|meter| meter.read.clone()).unwrap_or_default())
}

#[cfg(test)]
mod tests;
