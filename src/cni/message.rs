//! The messages between plugin and agent: one line of JSON each way.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest line, in bytes: a pod's names, paths and addresses are far shorter.
pub const MAX_LENGTH: usize = 64 * 1024;

/// The plugin's question. Unknown fields are ignored: plugin and agent may be of adjacent versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    pub command: Command,
    pub pod: Pod,
    /// The plugin's timeout, in milliseconds.
    pub patience: u64,
}

/// The CNI commands that concern the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Add,
    Check,
    Delete,
}

/// A pod's sandbox, as the runtime describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    /// The pod's UID; empty if the runtime does not report it.
    pub uid: String,
    /// The runtime's name of the sandbox.
    pub container: String,
    /// The path of the sandbox's network namespace, as the runtime sees it; may be empty at deletion.
    pub network_namespace: String,
    /// The addresses that earlier plugins assigned.
    pub addresses: Vec<IpAddr>,
}

/// The agent's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "why")]
pub enum Answer {
    /// Captured, with its certificate; or released, if that was requested.
    Done,
    /// Not in the mesh: nothing to do.
    NotEnrolled,
    /// The agent has not heard of the pod (yet).
    Unknown(String),
    /// It should be captured and is not.
    Refused(String),
}

impl Command {
    /// The CNI name.
    pub fn name(self) -> &'static str {
        match self {
            Command::Add => "ADD",
            Command::Check => "CHECK",
            Command::Delete => "DEL",
        }
    }
}

impl Answer {
    /// One word, for metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Answer::Done => "done",
            Answer::NotEnrolled => "not_enrolled",
            Answer::Unknown(_) => "unknown",
            Answer::Refused(_) => "refused",
        }
    }
}

impl Question {
    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.patience)
    }
}

impl Pod {
    /// For messages.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// A message as its line.
pub(super) fn line(message: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(message)?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answers() -> impl Strategy<Value = Answer> {
        prop_oneof![
            Just(Answer::Done),
            Just(Answer::NotEnrolled),
            ".*".prop_map(Answer::Unknown),
            ".*".prop_map(Answer::Refused),
        ]
    }

    proptest! {
        #[test]
        fn a_message_is_one_line_and_comes_back(
            names in proptest::array::uniform5(".*"),
            last in any::<u8>(),
            patience in any::<u64>(),
            answer in answers(),
        ) {
            let [namespace, name, uid, container, network_namespace] = names;
            let addresses = vec![IpAddr::from([10, 0, 0, last])];
            let pod = Pod { namespace, name, uid, container, network_namespace, addresses };
            let question = Question { command: Command::Add, pod, patience };
            let text = line(&question).unwrap();
            prop_assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(serde_json::from_slice::<Question>(&text).unwrap(), question);
            let text = line(&answer).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Answer>(&text).unwrap(), answer);
        }

        #[test]
        fn nothing_that_is_said_is_a_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            _ = serde_json::from_slice::<Question>(&text);
            _ = serde_json::from_slice::<Answer>(&text);
        }
    }
}
