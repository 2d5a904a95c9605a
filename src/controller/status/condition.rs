//! One condition of a status (Kubernetes API, `meta/v1` Condition).

use serde_json::{Value, json};

/// The longest message that the API takes, in bytes.
const LONGEST: usize = 32_768;

/// A condition, without its times and generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) kind: &'static str,
    pub(super) holds: bool,
    /// One word in CamelCase, for machines.
    pub(super) reason: &'static str,
    /// For people.
    pub(super) message: String,
}

impl Condition {
    pub(super) fn holds(
        kind: &'static str,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, holds: true, reason, message: message.into() }
    }

    pub(super) fn fails(
        kind: &'static str,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, holds: false, reason, message: message.into() }
    }

    /// Without `lastTransitionTime`, which depends on the previous condition.
    fn json(&self, generation: Option<i64>) -> Value {
        let status = if self.holds { "True" } else { "False" };
        let mut condition = json!({
            "type": self.kind,
            "status": status,
            "reason": self.reason,
            "message": shortened(&self.message),
        });
        if let Some(generation) = generation {
            condition["observedGeneration"] = generation.into();
        }
        condition
    }
}

/// The list as in the status.
pub(super) fn list(conditions: &[Condition], generation: Option<i64>) -> Value {
    conditions.iter().map(|condition| condition.json(generation)).collect()
}

/// Several sentences as one message, each once.
pub(super) fn joined<'a>(messages: impl IntoIterator<Item = &'a str>) -> String {
    let mut all: Vec<&str> = Vec::new();
    for message in messages {
        if !all.contains(&message) {
            all.push(message);
        }
    }
    all.join("; ")
}

fn shortened(message: &str) -> &str {
    let mut end = message.len().min(LONGEST);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}
