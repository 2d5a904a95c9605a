//! Fuzz target of the messages between agents in a takeover.

use super::Message;

/// One message.
pub fn message(bytes: &[u8]) {
    let Ok(message) = serde_json::from_slice::<Message>(bytes) else { return };
    let written = serde_json::to_vec(&message).unwrap_or_default();
    let again = serde_json::from_slice::<Message>(&written).map(|it| format!("{it:?}"));
    assert_eq!(again.ok(), Some(format!("{message:?}")), "what was read is written and read again");
}
