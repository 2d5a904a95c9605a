//! Is the data path alive? Probed on each request, on layer 4's own threads.

use std::time::Duration;

use tokio::runtime::Handle;

/// The reason if it is not.
pub(super) const LAYER4: &str = "layer4 (its threads do not answer: stuck, or far too busy)";

/// If no thread of a runtime runs a task for so long, all of them are stuck or hopelessly busy: ztunnel's timeout.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether a thread of each runtime runs a task in time.
pub(super) async fn answers(runtimes: &[Handle]) -> bool {
    let tasks = runtimes.iter().map(|runtime| runtime.spawn(async {}));
    let all = futures_util::future::try_join_all(tasks);
    matches!(tokio::time::timeout(PATIENCE, all).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_runtime_whose_threads_are_all_stuck_does_not_answer() {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let runtimes = [Handle::current(), runtime.handle().clone()];
        assert!(answers(&runtimes).await);
        let (release, stuck) = mpsc::channel::<()>();
        let task = runtime.spawn(async move { _ = stuck.recv() });
        assert!(!answers(&runtimes).await);
        drop(release);
        task.await.unwrap();
        assert!(answers(&runtimes).await);
        runtime.shutdown_background();
    }
}
