//! What one check has found.

/// What one check has found, with a word on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Pass(String),
    /// It works, and something is worth a look.
    Warning(String),
    Failure(String),
    /// It could not be asked; why.
    Unknown(String),
}

impl Outcome {
    /// As reports call it.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Pass(_) => "pass",
            Outcome::Warning(_) => "warning",
            Outcome::Failure(_) => "failure",
            Outcome::Unknown(_) => "not checked",
        }
    }

    /// What was found.
    pub fn message(&self) -> &str {
        match self {
            Outcome::Pass(text)
            | Outcome::Warning(text)
            | Outcome::Failure(text)
            | Outcome::Unknown(text) => text,
        }
    }
}
