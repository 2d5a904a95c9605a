//! The settings file.

use std::path::Path;

use super::Outcome;
use crate::config::{ConfigError, Overrides, Settings};

pub(super) fn read(file: Option<&Path>) -> Result<Settings, ConfigError> {
    Settings::load(file, &Overrides::default())
}

pub(super) fn judge(file: Option<&Path>, read: &Result<Settings, ConfigError>) -> Outcome {
    match (file, read) {
        (_, Err(error)) => Outcome::Failure(error.to_string()),
        (Some(file), Ok(_)) => Outcome::Pass(format!("{} is valid", file.display())),
        (None, Ok(_)) => Outcome::Pass("no file; the defaults hold".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_setting_fails_with_its_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "nod = \"a\"\n").unwrap();
        let outcome = judge(Some(file.path()), &read(Some(file.path())));
        assert!(matches!(&outcome, Outcome::Failure(why) if why.contains("nod")), "{outcome:?}");
        assert!(matches!(judge(None, &read(None)), Outcome::Pass(_)));
    }
}
