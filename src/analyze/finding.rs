//! One finding, as people and programs read it.

use crate::base::{ObjectKey, Str};
use crate::source::objects::Typed;
use crate::source::{Complaint, Objects, Origin, Severity, made_of};

use super::code::{Code, Level};

/// Something that is wrong. The order is that of a report: by file, then by object, then by code.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Finding {
    /// The path below the directory; absent for an object of the API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Str>,
    /// Counts the documents of the file from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<usize>,
    pub kind: Str,
    /// Empty for kinds without a namespace, and where it could not be read.
    pub namespace: Str,
    pub name: Str,
    pub code: Code,
    pub severity: Level,
    /// The path of the field; empty for the object as a whole.
    pub field: String,
    /// What is wrong, and what follows from it.
    pub message: String,
    /// What to do.
    pub mend: Str,
}

impl Finding {
    /// About an object of this type.
    pub(super) fn of<T: Typed>(
        objects: &Objects,
        key: &ObjectKey,
        code: Code,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        let origin = objects.origin(T::KIND, key);
        Self::at(origin, T::KIND.name(), key, code).with(field, message)
    }

    /// What the translation says.
    pub(super) fn complained(code: Code, complaint: &Complaint) -> Self {
        let nameless = ObjectKey::new("", "");
        let key = complaint.object.as_ref().unwrap_or(&nameless);
        let found = Self::at(complaint.origin.as_ref(), &complaint.kind, key, code);
        let severity = match complaint.severity {
            Severity::Error => Level::Error,
            Severity::Warning => Level::Warning,
            Severity::Note => Level::Info,
        };
        Self { severity, ..found.with(complaint.field.clone(), complaint.reason.clone()) }
    }

    fn at(origin: Option<&Origin>, kind: &str, key: &ObjectKey, code: Code) -> Self {
        // What stands for a Deployment is called so.
        let (name, kind) = made_of(&key.name).unwrap_or((&key.name, kind));
        let (file, document) = match origin {
            Some(Origin::File { file, document }) => (Some(file.clone()), Some(*document)),
            Some(Origin::Api { .. }) | None => (None, None),
        };
        let row = code.described();
        Self {
            file,
            document,
            kind: kind.into(),
            namespace: key.namespace.clone(),
            name: name.into(),
            code,
            severity: row.level,
            field: String::new(),
            message: String::new(),
            mend: row.mend.into(),
        }
    }

    fn with(self, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), ..self }
    }

    /// The same with another severity than its code mostly has.
    pub(super) fn of_level(self, severity: Level) -> Self {
        Self { severity, ..self }
    }
}
