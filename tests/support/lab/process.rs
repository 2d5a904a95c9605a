//! Long-running processes inside a namespace, with a log each. They end with the lab, however it ends.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::netns::Namespace;
use super::wait;

/// How many lines of a log an error quotes.
const QUOTED_LINES: usize = 15;

/// A process in a namespace; killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    namespace: Namespace,
}

/// A command that will run inside `namespace`, and be killed when the thread that starts it ends.
#[allow(unsafe_code)]
pub fn command(namespace: &Namespace, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    command.stdin(Stdio::null());
    let namespace = namespace.clone();
    let enter = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        setns(namespace.handle(), CloneFlags::CLONE_NEWNET)?;
        Ok(())
    };
    // SAFETY: between fork and exec only two system calls are made, on a descriptor that the closure keeps
    // open; nothing is allocated and no lock is taken.
    unsafe { command.pre_exec(enter) };
    command
}

impl Process {
    /// Starts `command` (of [`command`]) with its output in `<logs>/<name>.log`.
    pub fn start(
        name: &str,
        namespace: &Namespace,
        mut command: Command,
        logs: &Path,
    ) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {name} ({})", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), child, log, namespace: namespace.clone() })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that the process has printed so far.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The last lines of the log, for an error message.
    pub fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n")
    }

    /// Waits until the process accepts connections on `port`, and fails at once when it has ended.
    pub fn wait_for_port(&mut self, port: u16) -> Result<()> {
        let namespace = self.namespace.clone();
        namespace.run(|| {
            wait::until(&format!("{} to listen on port {port}", self.name), || {
                self.must_run()?;
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                Ok(TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok())
            })
            .map(drop)
        })?
    }

    /// Fails with the end of the log when the process is no more.
    pub fn must_run(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} has ended ({status}); it said last:\n{}", self.name, self.last_lines());
        }
        Ok(())
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Waits until the process has ended by itself; returns its exit code, `None` for a signal.
    pub fn wait_for_end(&mut self) -> Result<Option<i32>> {
        let status =
            wait::until(&format!("{} to end", self.name), || Ok(self.child.try_wait()?))?;
        Ok(status.code())
    }

    /// Asks the process to end, and waits until it has; returns its exit code, `None` for a signal.
    pub fn terminate(&mut self) -> Result<Option<i32>> {
        self.signal(Signal::SIGTERM)?;
        self.wait_for_end()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
