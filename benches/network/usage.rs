//! What processes use: processor time, voluntary context switches, and, on request, system calls.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;

/// USER_HZ, which Linux shows to programs whatever its own clock is.
const TICKS: f64 = 100.0;

/// What some processes have used so far.
#[derive(Debug, Default)]
pub struct Usage {
    /// User and system time, in seconds.
    pub cpu: f64,
    /// Voluntary context switches.
    pub switches: u64,
    /// Seconds on a processor, by the name of the thread.
    pub threads: BTreeMap<String, f64>,
}

impl Usage {
    /// Of these processes.
    pub fn of(processes: &[u32]) -> Result<Self> {
        let mut usage = Self::default();
        for process in processes {
            let directory = PathBuf::from(format!("/proc/{process}"));
            usage.cpu += time(&directory)?;
            for thread in fs::read_dir(directory.join("task"))? {
                // A thread may end meanwhile.
                let _ = usage.add_thread(&thread?.path());
            }
        }
        Ok(usage)
    }

    fn add_thread(&mut self, thread: &Path) -> Result<()> {
        const KEY: &str = "voluntary_ctxt_switches:";
        let status = fs::read_to_string(thread.join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(KEY)).context(KEY)?;
        self.switches += line.trim().parse::<u64>()?;
        // Nanoseconds on a processor (proc-schedstat).
        let schedule = fs::read_to_string(thread.join("schedstat"))?;
        let time = schedule.split_whitespace().next().context("a time")?.parse::<f64>()? / 1e9;
        let name = fs::read_to_string(thread.join("comm"))?;
        let kind = kind(name.trim());
        *self.threads.entry(kind.to_owned()).or_default() += time;
        Ok(())
    }

    pub fn since(&self, before: &Self) -> Self {
        let threads = self.threads.iter().map(|(name, time)| {
            (name.clone(), time - before.threads.get(name).copied().unwrap_or_default())
        });
        Self {
            cpu: self.cpu - before.cpu,
            switches: self.switches.saturating_sub(before.switches),
            threads: threads.collect(),
        }
    }
}

/// The name of a thread without the number that tells it from others of its kind.
fn kind(name: &str) -> &str {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    stem.strip_suffix(['-', '_', ':']).unwrap_or(name)
}

/// User and system time of a process, in seconds (proc(5), fields 14 and 15 of `stat`).
fn time(process: &Path) -> Result<f64> {
    let stat = fs::read_to_string(process.join("stat"))?;
    let fields = fields(&stat);
    let ticks = |at: usize| Ok::<u64, anyhow::Error>(fields.get(at).context("a time")?.parse()?);
    Ok((ticks(11)? + ticks(12)?) as f64 / TICKS)
}

/// The fields of `stat` after the name in parentheses, which may hold spaces.
fn fields(stat: &str) -> Vec<&str> {
    stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect()
}

/// The processes and all their descendants.
pub fn with_children(roots: &[u32]) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        if let Some(parent) = fields(&stat).get(1).and_then(|it| it.parse::<u32>().ok()) {
            parents.push((process, parent));
        }
    }
    let mut found = roots.to_vec();
    let mut at = 0;
    while let Some(process) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, parent)| *parent == process).map(|(it, _)| *it));
        at += 1;
    }
    Ok(found)
}

/// How many system calls the processes make in so many seconds.
pub fn calls(processes: &[u32], seconds: u64) -> Result<f64> {
    let mut perf = Command::new("perf");
    perf.args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &list(processes)]);
    perf.args(["sleep", &seconds.to_string()]);
    let output = perf.stdin(Stdio::null()).output().context("start perf (Debian: linux-perf)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find(|line| line.contains("sys_enter"));
    let count = line.and_then(|line| line.split(',').next());
    count.and_then(|it| it.parse().ok()).with_context(|| {
        format!("perf counts no system calls here, which takes root of the machine: {said}")
    })
}

/// perf, which samples the stacks of a process.
pub struct Perf(Child);

impl Perf {
    /// Samples for so many seconds into a file.
    pub fn sample(process: u32, seconds: u64, to: &Path) -> Result<Self> {
        let mut perf = Command::new("perf");
        perf.args(["record", "-q", "-F", "499", "--call-graph", "dwarf,16384"]);
        perf.args(["-p", &process.to_string(), "-o"]).arg(to);
        perf.args(["sleep", &seconds.to_string()]);
        perf.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(perf.spawn().context("start perf (Debian: linux-perf)")?))
    }

    /// Waits until it has written its file.
    pub fn wait(mut self) -> Result<()> {
        let status = self.0.wait()?;
        ensure!(status.success(), "perf record failed: {status}");
        Ok(())
    }
}

fn list(processes: &[u32]) -> String {
    processes.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// A line of `/proc/PROCESS/status`, in bytes.
pub fn status(process: u32, key: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("a size")?.parse::<u64>()? * 1024)
}

/// Lets processes and all their threads run on these processors only.
pub fn pin(processes: &[u32], cpus: &[usize]) -> Result<()> {
    let mut set = nix::sched::CpuSet::new();
    for cpu in cpus {
        set.set(*cpu)?;
    }
    for process in processes {
        for thread in fs::read_dir(format!("/proc/{process}/task"))? {
            let name = thread?.file_name();
            let id: i32 = name.to_str().context("a thread")?.parse()?;
            // A thread may end meanwhile.
            let _ = nix::sched::sched_setaffinity(Pid::from_raw(id), &set);
        }
    }
    ensure!(!processes.is_empty(), "no process to bind");
    Ok(())
}
