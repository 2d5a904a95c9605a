//! The flags that replace values of the file.

/// What flags say; each one replaces the file's value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--node`
    pub node: Option<String>,
    /// `--directory`
    pub directory: Option<String>,
    /// `--log-level`
    pub log_level: Option<String>,
}

impl Overrides {
    /// The flag that overrides a key, and what it says.
    pub(super) fn get(&self, key: &str) -> Option<(&'static str, &str)> {
        let (flag, value) = match key {
            "node" => ("--node", &self.node),
            "source.directory" => ("--directory", &self.directory),
            "log.level" => ("--log-level", &self.log_level),
            _ => return None,
        };
        value.as_deref().map(|text| (flag, text))
    }
}
