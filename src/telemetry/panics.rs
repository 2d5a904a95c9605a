//! Panics in the agent's log, and their number.

use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicU64, Ordering};

/// Of this process. A panic ends the task that it happens in and nothing else, so somebody must be told.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// The thread on which the agent starts and ends.
const MAIN_THREAD: &str = "main";

/// From now on a panic is a line in the log and counted, and no text on the standard error, which nobody collects. Whom
/// it concerned says the task that it ended.
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

/// How many panics there were.
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
        "a task panicked, which is a defect of the agent; please report it: {message}"
    );
}
