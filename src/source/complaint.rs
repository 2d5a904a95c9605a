//! What is wrong with the objects, in the words that the operator sees.

use std::fmt;

use crate::base::{ObjectKey, Str};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Severity {
    /// Something is refused or denied because of it.
    Error,
    /// The object is in force, but does not do what it seems to say.
    Warning,
    /// For information: nothing has to be changed.
    Note,
}

/// Where an object was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Origin {
    File {
        /// The path below the directory.
        file: Str,
        /// Counts the documents of the file that are not empty, from 1; 0 stands for the file as a whole.
        document: usize,
    },
    /// An object of the API server.
    Api {
        /// `metadata.generation` of what was read last, which may not be what is in force; 0 for kinds that have none.
        generation: i64,
    },
}

/// One complaint. The order is that of reading: by origin, then by object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Complaint {
    /// `None` for what was put together in the program.
    pub origin: Option<Origin>,
    /// As written in the object; empty when it could not be read.
    pub kind: Str,
    /// `None` when it could not be read.
    pub object: Option<ObjectKey>,
    /// The path of the field, such as `spec.rules[0].matches`; empty for the object as a whole.
    pub field: String,
    pub severity: Severity,
    /// What is wrong, what follows from it, and what to check.
    pub reason: String,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { file, document: 0 } => f.write_str(file),
            Origin::File { file, document } => write!(f, "{file}, document {document}"),
            Origin::Api { generation } => write!(f, "generation {generation}"),
        }
    }
}

/// `file, document N: Kind namespace/name: field: reason`, without the parts that are unknown.
impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An object of the API is found by its name alone.
        if let Some(origin @ Origin::File { .. }) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        match &self.object {
            Some(key) if self.kind.is_empty() => write!(f, "{key}: ")?,
            Some(key) => write!(f, "{} {key}: ", self.kind)?,
            None if self.kind.is_empty() => {}
            None => write!(f, "{}: ", self.kind)?,
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.reason)
    }
}
