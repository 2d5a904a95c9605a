//! Network namespaces by name, and work that is done inside them.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use super::command::run;
use super::private::NETWORK_NAMESPACES;

/// A network namespace, held open.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    handle: Arc<File>,
}

impl Namespace {
    /// Makes a namespace with its loopback up.
    pub fn create(name: &str) -> Result<Self> {
        run("ip", &["netns", "add", name])?;
        run("ip", &["-n", name, "link", "set", "lo", "up"])?;
        Self::named(name)
    }

    /// One that is there already.
    pub fn named(name: &str) -> Result<Self> {
        let path = PathBuf::from(NETWORK_NAMESPACES).join(name);
        Self::open(name, &path)
    }

    /// The one that the calling thread is in: the lab's own, which holds the link between the nodes.
    pub fn current() -> Result<Self> {
        Self::open("lab", Path::new("/proc/thread-self/ns/net"))
    }

    fn open(name: &str, path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self { name: name.to_owned(), handle: Arc::new(file) })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Runs `work` on a thread that is in this namespace, and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter()?;
                    Ok(work())
                })
                .join()
                .map_err(|_| anyhow!("the work in namespace {} panicked", self.name))?
        })
    }

    /// Moves the calling thread here, for good.
    pub fn enter(&self) -> Result<()> {
        setns(self.handle(), CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("enter the namespace {}", self.name))
    }

    /// Sets a kernel parameter below `/proc/sys/net`, such as `ipv4/ip_forward`.
    pub fn set(&self, parameter: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{parameter}");
        self.run(|| fs::write(&path, value))?
            .with_context(|| format!("write {value} to {path} in namespace {}", self.name))
    }
}
