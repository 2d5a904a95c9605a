//! Arguments and subcommands; no logic of the mesh.

mod agent;
mod analyze;
mod check;
mod client;
mod cni;
mod connections;
mod explain;
mod manual;
mod observe;
mod output;
mod preview;
mod status;
mod table;
mod top;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use agent::Agent;
use output::{Output, complain, print, show};

use crate::app;
use crate::config::{self, Overrides, Settings};
use crate::source;

/// The user's input is wrong: settings, manifests, or arguments (clap uses the same code).
const EXIT_INVALID: u8 = 2;

/// `analyze` has found warnings, and nothing worse.
const EXIT_WARNINGS: u8 = 3;

/// The text in `--help`; `docs/troubleshooting.md` has it too.
const EXIT_CODES: &str = "\
Exit codes:
  0  done; a reader that went away early (isthmus check DIR | head) changes nothing
  1  it failed, and standard error says why; ready: not ready
  2  arguments, settings or manifests are wrong; check: something would be refused, or fails; analyze:
     there are errors
  3  analyze: there are warnings, and no errors; explain: it is refused, or that depends;
     preview: something would be decided otherwise";

/// The ambient service mesh in one binary.
#[derive(Parser)]
#[command(name = "isthmus", version, max_term_width = 110, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent of this node
    Run(Run),
    /// Run a replica of the cluster's controller: it signs certificates and writes statuses
    Controller(RunController),
    /// Validate a directory of manifests without running; without one, look at this node, its agent and its cluster
    Check(Check),
    /// Find what is wrong with manifests that are valid: routes and policies that do nothing, hosts that lead nowhere
    Analyze(analyze::Analyze),
    /// Show what a running agent does
    Status(Status),
    /// Show the connections that are open in a running agent
    Connections(Connections),
    /// Explain what becomes of a connection or request, and why: its whole way, from both nodes
    Explain(Box<explain::Explain>),
    /// Tell which connections and requests of the last hour a change would have decided otherwise
    Preview(preview::Preview),
    /// Show recent connections and requests of a running agent, with their verdicts; and follow new ones
    Observe(observe::Observe),
    /// Show what the services of a running agent's node do now, in the terminal
    Top(top::Top),
    /// Print everything a running agent knows, as JSON
    Dump(Agent),
    /// Ask a running agent for one of its pages; without a path, for the list of them
    Admin(Ask),
    /// Tell by the exit status whether the agent that keeps this file is ready (setting `readiness.file`)
    Ready {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Be the CNI plugin of this node, as a container runtime runs it; or remove it
    Cni(cni::Cni),
    /// Print the script by which a shell completes arguments of this program
    Completions(manual::Completions),
    /// Print this program's manual page, or write the pages of all subcommands
    Man(manual::Man),
    /// Print the version
    Version,
}

#[derive(Args)]
struct Run {
    /// The settings
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
    /// This node's name, instead of the setting `node`
    #[arg(long)]
    node: Option<String>,
    /// The manifests, instead of the setting `source.directory`
    #[arg(long, value_name = "DIR")]
    directory: Option<String>,
    /// Log levels, instead of the setting `log.level`
    #[arg(long, value_name = "LEVELS")]
    log_level: Option<String>,
}

#[derive(Args)]
struct RunController {
    /// The settings
    #[arg(long, value_name = "FILE", default_value = config::CONTROLLER_FILE)]
    config: PathBuf,
    /// Log levels, instead of the setting `log.level`
    #[arg(long, value_name = "LEVELS")]
    log_level: Option<String>,
}

#[derive(Args)]
struct Check {
    /// The directory of manifests, which are read with the settings of --config alone
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
    #[command(flatten)]
    agent: Agent,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Status {
    #[command(flatten)]
    from: Agent,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Ask {
    #[command(flatten)]
    agent: Agent,
    /// Change something: pages that do so take nothing else
    #[arg(long)]
    post: bool,
    /// Such as /logging?level=debug
    #[arg(value_name = "PATH", default_value = "/")]
    path: String,
}

#[derive(Args)]
struct Connections {
    #[command(flatten)]
    from: Agent,
    /// Only those that this workload is an end of
    #[arg(long, value_name = "NAMESPACE/NAME")]
    workload: Option<String>,
    /// How many at the most; the oldest come first
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    #[command(flatten)]
    output: Output,
}

/// Runs the subcommand.
pub fn main() -> ExitCode {
    if crate::cni::is_plugin_call() {
        return crate::cni::plugin();
    }
    match Arguments::parse().command {
        Command::Run(run) => run_agent(&run),
        Command::Controller(run) => run_controller(&run),
        Command::Check(Check { directory: Some(directory), agent, output }) => {
            check_directory(&directory, agent.config(), output)
        }
        Command::Check(Check { agent, output, .. }) => check::node(&agent, output),
        Command::Analyze(asked) => analyze::run(&asked),
        Command::Status(Status { from, output }) => {
            show(from.get("/status").and_then(|it| output.answer(it, status::table)))
        }
        Command::Connections(asked) => {
            let path = connections::path(asked.workload.as_deref(), asked.limit);
            let answer = asked.from.get(&path);
            show(answer.and_then(|it| asked.output.answer(it, connections::table)))
        }
        Command::Explain(explain) => explain.run(),
        Command::Preview(preview) => preview.run(),
        Command::Observe(asked) => observe::run(&asked),
        Command::Top(asked) => top::run(&asked),
        Command::Dump(from) => show(from.get("/config_dump")),
        Command::Admin(ask) => show(ask.agent.ask(ask.post, &ask.path)),
        Command::Ready { file } if file.exists() => ExitCode::SUCCESS,
        Command::Ready { .. } => ExitCode::FAILURE,
        Command::Cni(cni) => cni::run(&cni),
        Command::Completions(asked) => show(Ok(asked.script(Arguments::command()))),
        Command::Man(asked) => show(asked.pages(Arguments::command(), EXIT_CODES)),
        Command::Version => show(Ok(format!("isthmus {}\n", env!("CARGO_PKG_VERSION")))),
    }
}

fn run_agent(run: &Run) -> ExitCode {
    let overrides = Overrides {
        node: run.node.clone(),
        directory: run.directory.clone(),
        log_level: run.log_level.clone(),
    };
    run_with(&run.config, &overrides, app::run)
}

fn run_controller(run: &RunController) -> ExitCode {
    let overrides = Overrides { log_level: run.log_level.clone(), ..Overrides::default() };
    run_with(&run.config, &overrides, app::run_controller)
}

fn run_with(
    config: &Path,
    overrides: &Overrides,
    run: impl FnOnce(Settings) -> anyhow::Result<()>,
) -> ExitCode {
    let settings = match Settings::load(Some(config), overrides) {
        Ok(settings) => settings,
        Err(error) => {
            complain(&error);
            return ExitCode::from(EXIT_INVALID);
        }
    };
    match run(settings) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("isthmus: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn check_directory(directory: &Path, config: Option<&Path>, output: Output) -> ExitCode {
    let settings = match Settings::load(config, &Overrides::default()) {
        Ok(settings) => settings,
        Err(error) => {
            complain(&error);
            return ExitCode::from(EXIT_INVALID);
        }
    };
    let translation = match source::check(directory, &app::translate_settings(&settings)) {
        Ok(translation) => translation,
        Err(error) => {
            complain(format_args!("isthmus: {error:#}"));
            return ExitCode::from(EXIT_INVALID);
        }
    };
    let text = match check::report(&translation, output) {
        Ok(text) => text,
        Err(error) => return show(Err::<String, _>(error)),
    };
    match print(text.as_bytes()) {
        Ok(_) if check::is_refused(&translation) => ExitCode::from(EXIT_INVALID),
        Ok(_) => ExitCode::SUCCESS,
        Err(code) => code,
    }
}
