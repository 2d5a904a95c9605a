//! Logs and counts panics of the agent.

use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of panics. A panic ends its own task and nothing else, so it must be reported.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// The thread on which the agent starts and ends.
const MAIN_THREAD: &str = "main";

/// From now on a panic is logged and counted instead of printed on standard error, which nobody collects. The task that
/// it ended says whom it affected.
pub fn report_panics() {
    let standard = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        report(info);
        // It ends the process, perhaps before the log is written.
        if std::thread::current().name() == Some(MAIN_THREAD) {
            standard(info);
        }
    }));
}

/// The number of panics so far.
pub(super) fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

fn report(info: &PanicHookInfo<'_>) {
    PANICS.fetch_add(1, Ordering::Relaxed);
    let thread = std::thread::current();
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let message = info.payload_as_str().unwrap_or("no message");
    tracing::error!(
        thread = thread.name().unwrap_or_default(),
        %location,
        "a task panicked, which is a bug in the agent; please report it: {message}"
    );
}
