//! Which lines are written: a level for everything, and others for parts of the agent.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::{ACCESS, AUDIT, LogError};

/// Libraries that are heard less, or not at all, unless they are named; who debugs hears them. HTTP/2's warns of what peers
/// do wrong, frame by frame: whoever floods an agent must not fill its log. Kubernetes' tells of each request that fails
/// without saying what was asked; `source` and `controller` tell that once a minute, with what is concerned. Its TLS
/// part, which tells of roots that could not be read again, is heard.
const LIBRARIES: [(&str, LevelFilter); 4] = [
    ("h2", LevelFilter::ERROR),
    ("kube_client::client", LevelFilter::OFF),
    ("kube_client::client::tls", LevelFilter::WARN),
    ("kube_runtime::watcher", LevelFilter::OFF),
];
/// What is always written of [`AUDIT`].
const AUDITED: LevelFilter = LevelFilter::INFO;
const QUIET: [LevelFilter; 3] = [LevelFilter::INFO, LevelFilter::WARN, LevelFilter::ERROR];

/// Levels by target, and as they are looked up.
#[derive(Clone, Debug)]
pub(super) struct Levels {
    everything: LevelFilter,
    parts: BTreeMap<String, LevelFilter>,
    targets: Targets,
    /// Of the access log, which each request and each connection asks for.
    access: LevelFilter,
}

impl Levels {
    pub(super) fn off() -> Self {
        Self::new(LevelFilter::OFF, BTreeMap::new())
    }

    fn new(everything: LevelFilter, parts: BTreeMap<String, LevelFilter>) -> Self {
        let by_name = parts.iter().map(|(target, level)| (target.as_str(), *level));
        let mut targets = Targets::new().with_default(everything).with_targets(by_name);
        let is_named = |library: &str| parts.keys().any(|part| library.starts_with(part.as_str()));
        for (library, level) in LIBRARIES {
            if QUIET.contains(&everything) && !is_named(library) {
                targets = targets.with_target(library, level.min(everything));
            }
        }
        targets = targets.with_target(AUDIT, AUDITED);
        let shown = |level: &Level| targets.would_enable(ACCESS, level);
        let access = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR];
        let access = access.into_iter().find(shown).map_or(LevelFilter::OFF, LevelFilter::from);
        Self { everything, parts, targets, access }
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

    pub(super) fn shows_access(&self, level: Level) -> bool {
        level <= self.access
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_heard_when_they_are_named_or_somebody_debugs() {
        let (client, tls) = ("kube_client::client::builder", "kube_client::client::tls");
        for (levels, target, level, heard) in [
            ("info", client, Level::ERROR, false),
            ("error", client, Level::ERROR, false),
            ("info", "kube_runtime::watcher", Level::WARN, false),
            ("info", tls, Level::WARN, true),
            ("info", tls, Level::INFO, false),
            ("info", "kube_client::config", Level::WARN, true),
            ("info", "isthmus::source", Level::ERROR, true),
            ("debug", client, Level::ERROR, true),
            ("info,kube_client=error", client, Level::ERROR, true),
            ("info,kube_client::client::builder=error", client, Level::ERROR, true),
            ("info", "h2::codec", Level::WARN, false),
            ("info,h2=warn", "h2::codec", Level::WARN, true),
        ] {
            let parsed: Levels = levels.parse().unwrap();
            assert_eq!(parsed.enabled(target, level), heard, "{levels} {target} {level}");
            assert_eq!(parsed.to_string(), levels);
        }
    }

    #[test]
    fn the_access_log_is_looked_up_as_every_target_is() {
        let all = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR];
        for levels in
            ["off", "info", "debug", "info,access=off", "error,access=debug", "access=warn"]
        {
            let parsed: Levels = levels.parse().unwrap();
            for level in all {
                assert_eq!(
                    parsed.shows_access(level),
                    parsed.enabled(ACCESS, level),
                    "{levels} {level}"
                );
            }
        }
    }
}
