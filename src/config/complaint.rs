//! What is wrong with a file of settings, for its author.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// One thing to repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The path of the key, such as `pool.max_streams`; the flag, such as `--node`; empty for the whole file.
    pub key: String,
    /// Counted from 1; `None` when the cause is no line of the file.
    pub line: Option<usize>,
    /// What is wrong and what to write instead.
    pub reason: String,
}

/// The settings cannot be used. All that is wrong with them, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// `None` when there is none, only flags.
    pub file: Option<PathBuf>,
    /// Never empty.
    pub complaints: Vec<Complaint>,
}

impl Complaint {
    pub(super) fn unreadable(error: &io::Error) -> Self {
        let reason = format!("cannot be read: {error}; check the path given with --config");
        Self { key: String::new(), line: None, reason }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.reason)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "the settings in {} cannot be used:", file.display())?,
            None => f.write_str("the settings cannot be used:")?,
        }
        for complaint in &self.complaints {
            write!(f, "\n  {complaint}")?;
        }
        Ok(())
    }
}
