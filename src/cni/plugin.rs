//! The plugin itself: one run of the program per command of the runtime.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::ask;
use super::message::{Answer, Command, MAX_LENGTH, Pod, Question};
use super::network::{Network, pod};
use super::outcome::{
    Failure, INVALID_CONFIG, INVALID_ENVIRONMENT, LATEST, NOT_CAPTURED, TRY_AGAIN, versions,
};

/// The runtime's command; a program that is started without it is not a plugin.
const COMMAND: &str = "CNI_COMMAND";
/// The timeout of a pod's capture and certificate: well below the two minutes that the kubelet gives the runtime, and
/// long enough for a certificate whose issuer was just restarted.
const ADD_PATIENCE: Duration = Duration::from_secs(25);
/// Releasing is quick, and nothing depends on it.
const DELETE_PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for an agent that does not listen when a pod starts; the kubelet retries soon.
const ABSENT: Duration = Duration::from_secs(5);
/// The longest configuration, in bytes: it contains the result of the earlier plugins.
const MAX_CONFIG: usize = 16 * MAX_LENGTH;

/// Whether a container runtime started the process: without arguments, and with a command in its environment.
pub fn is_plugin_call() -> bool {
    std::env::args_os().len() == 1 && std::env::var_os(COMMAND).is_some()
}

/// Runs the command of the environment and standard input, and reports the result on standard output.
pub fn plugin() -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let mut config = Vec::new();
    let read = std::io::stdin().take(MAX_CONFIG as u64).read_to_end(&mut config);
    let outcome = match read {
        Ok(_) => run(variable, &config),
        Err(error) => Err((LATEST.to_owned(), unreadable(&error))),
    };
    let (output, code) = match outcome {
        Ok(output) => (output, ExitCode::SUCCESS),
        Err((version, failure)) => (Some(failure.show(&version)), ExitCode::FAILURE),
    };
    let written = output.map_or(Ok(()), |it| writeln!(std::io::stdout(), "{it}"));
    // A runtime that does not read takes no answer either.
    if written.is_err() { ExitCode::FAILURE } else { code }
}

fn unreadable(error: &std::io::Error) -> Failure {
    Failure::new(INVALID_CONFIG, "cannot read the network configuration", error.to_string())
}

/// The output; a failure comes with the version of its format.
fn run(
    variable: impl Fn(&str) -> Option<String>,
    config: &[u8],
) -> Result<Option<Value>, (String, Failure)> {
    let command = variable(COMMAND).unwrap_or_default();
    if command == "VERSION" {
        return Ok(Some(versions()));
    }
    let network = Network::parse(config).map_err(|failure| (LATEST.to_owned(), failure))?;
    let fail = |failure| (network.version.clone(), failure);
    match command.as_str() {
        "ADD" => add(&network, pod(variable).map_err(fail)?).map(Some).map_err(fail),
        "DEL" => {
            // Never fails: the agent notices what it is not told.
            if let Ok(Some(pod)) = pod(variable) {
                delete(&network.socket, pod);
            }
            Ok(None)
        }
        "CHECK" => check(&network, pod(variable).map_err(fail)?).map(|()| None).map_err(fail),
        // STATUS never fails: a node whose plugin is unavailable is drained of its pods, and pods of excluded
        // namespaces, the agent's own among them, can start. GC: the agent checks by itself.
        "STATUS" | "GC" => Ok(None),
        other => Err(fail(Failure::new(
            INVALID_ENVIRONMENT,
            format!("{COMMAND} is {other:?}"),
            "plugin isthmus knows ADD, DEL, CHECK, STATUS, GC and VERSION",
        ))),
    }
}

fn add(network: &Network, pod: Option<Pod>) -> Result<Value, Failure> {
    let result = match &network.previous {
        Value::Null => json!({"cniVersion": network.version}),
        previous => previous.clone(),
    };
    let Some(pod) = pod else { return Ok(result) };
    let key = pod.key();
    let excluded = network.exclude_namespaces.contains(&pod.namespace);
    let pod = Pod { addresses: network.addresses(), ..pod };
    let patience = if excluded { ABSENT } else { ADD_PATIENCE };
    match question(Command::Add, pod, patience).ask(&network.socket, ABSENT) {
        Ok(Answer::Done | Answer::NotEnrolled) => Ok(result),
        Ok(Answer::Unknown(_)) | Err(_) if excluded => Ok(result),
        Ok(Answer::Unknown(why)) => {
            Err(Failure::new(TRY_AGAIN, format!("pod {key} cannot be captured yet"), why))
        }
        Ok(Answer::Refused(why)) => {
            Err(Failure::new(NOT_CAPTURED, format!("pod {key} cannot be captured"), why))
        }
        Err(error) => Err(absent(&key, network, &error)),
    }
}

fn absent(key: &str, network: &Network, error: &std::io::Error) -> Failure {
    Failure::new(
        TRY_AGAIN,
        format!("pod {key} cannot start: the Isthmus agent of this node does not answer"),
        format!(
            "{}: {error}; check DaemonSet isthmus-system/isthmus and the log of its pod on this node. After an \
             incomplete removal run `isthmus cni uninstall` on the node",
            network.socket.display()
        ),
    )
}

fn check(network: &Network, pod: Option<Pod>) -> Result<(), Failure> {
    let Some(pod) = pod else { return Ok(()) };
    let key = pod.key();
    match question(Command::Check, pod, DELETE_PATIENCE).ask(&network.socket, ABSENT) {
        Ok(Answer::Refused(why)) => {
            Err(Failure::new(NOT_CAPTURED, format!("pod {key} is not captured"), why))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(absent(&key, network, &error)),
    }
}

fn delete(socket: &Path, pod: Pod) {
    let asked = question(Command::Delete, pod, DELETE_PATIENCE).ask(socket, Duration::ZERO);
    if let Err(error) = asked {
        // Some runtimes log it.
        eprintln!("isthmus: cannot notify the agent: {error}");
    }
}

fn question(command: Command, pod: Pod, patience: Duration) -> Question {
    let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
    Question { command, pod, patience }
}

impl Question {
    fn ask(&self, socket: impl AsRef<OsStr>, absent: Duration) -> std::io::Result<Answer> {
        ask(Path::new(socket.as_ref()), self, absent)
    }
}

#[cfg(test)]
mod tests;
