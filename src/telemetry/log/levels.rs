//! Which lines are written: a level for everything, and others for parts of the agent.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::{AUDIT, LogError};

/// HTTP/2's library warns of what peers do wrong, frame by frame: whoever floods an agent must not fill its log. At
/// these levels it is not heard unless it is named; who debugs hears it.
const H2: &str = "h2";
/// What is always written of [`AUDIT`].
const AUDITED: LevelFilter = LevelFilter::INFO;
const QUIET: [LevelFilter; 2] = [LevelFilter::INFO, LevelFilter::WARN];

/// Levels by target, and as they are looked up.
#[derive(Clone, Debug)]
pub(super) struct Levels {
    everything: LevelFilter,
    parts: BTreeMap<String, LevelFilter>,
    targets: Targets,
}

impl Levels {
    pub(super) fn off() -> Self {
        Self::new(LevelFilter::OFF, BTreeMap::new())
    }

    fn new(everything: LevelFilter, parts: BTreeMap<String, LevelFilter>) -> Self {
        let by_name = parts.iter().map(|(target, level)| (target.as_str(), *level));
        let mut targets = Targets::new().with_default(everything).with_targets(by_name);
        if QUIET.contains(&everything) && !parts.contains_key(H2) {
            targets = targets.with_target(H2, LevelFilter::ERROR);
        }
        targets = targets.with_target(AUDIT, AUDITED);
        Self { everything, parts, targets }
    }

    /// These with others on top: what is said anew holds, all else stays.
    pub(super) fn with(&self, text: &str) -> Result<Self, LogError> {
        let (mut everything, mut parts) = (self.everything, self.parts.clone());
        for part in text.split(',').map(str::trim) {
            let refuse = || LogError::Level(part.chars().take(100).collect());
            let level = |name: &str| level(name.trim()).ok_or_else(refuse);
            match part.split_once('=').or_else(|| part.rsplit_once(':')) {
                Some((target, name)) if is_target(target.trim()) => {
                    parts.insert(target.trim().to_owned(), level(name)?);
                }
                Some(_) => return Err(refuse()),
                None => everything = level(part)?,
            }
        }
        Ok(Self::new(everything, parts))
    }

    pub(super) fn enabled(&self, target: &str, level: Level) -> bool {
        self.targets.would_enable(target, &level)
    }

    /// The most that any target logs.
    pub(super) fn max(&self) -> LevelFilter {
        self.parts.values().copied().max().unwrap_or(AUDITED).max(self.everything).max(AUDITED)
    }
}

impl FromStr for Levels {
    type Err = LogError;

    /// Without a level for everything else, that is `info`.
    fn from_str(text: &str) -> Result<Self, LogError> {
        Self::new(LevelFilter::INFO, BTreeMap::new()).with(text)
    }
}

/// `info,access=off`: what can be given again.
impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.everything)?;
        self.parts.iter().try_for_each(|(target, level)| write!(f, ",{target}={level}"))
    }
}

/// `tracing` takes numbers and the empty text for levels too; here they are more likely mistakes.
fn level(name: &str) -> Option<LevelFilter> {
    let is_word = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_word.then(|| LevelFilter::from_str(name).ok()).flatten()
}

/// A path of modules.
fn is_target(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte))
}
