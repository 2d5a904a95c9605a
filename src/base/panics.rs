//! Catches panics, so that a panic ends one task only.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// Runs a task and catches its panic; returns the panic's message. What the task held is dropped in either case.
///
/// A plain wrapper: an async function would hold the task's future twice.
pub fn caught<F: Future>(task: F) -> impl Future<Output = Result<F::Output, String>> {
    let caught = AssertUnwindSafe(task).catch_unwind();
    caught.map(|ended| ended.map_err(|panic| panic_text(&*panic).to_owned()))
}

/// The message of a panic.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_and_ends_nothing_else() {
        async fn task(fails: bool, argument: u8) -> u8 {
            assert!(!fails, "with {argument}");
            argument
        }
        assert_eq!(caught(task(false, 7)).await, Ok(7));
        assert_eq!(caught(task(true, 7)).await, Err("with 7".to_owned()));
    }
}
