//! The agent's end of the socket.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::message::{Answer, Command, MAX_LENGTH, Pod, Question, line};
use crate::telemetry::CniMetrics;

/// Concurrent questions; more wait. A node has some hundred pods.
const MAX_QUESTIONS: usize = 256;
/// The timeout for the plugin's question.
const HEAR: Duration = Duration::from_secs(5);
/// The longest time that any question is processed, whatever it asks.
const MAX_PATIENCE: Duration = Duration::from_secs(60);
/// How often the path is checked: a system call.
const LOOK: Duration = Duration::from_secs(2);
/// The backoff after an error of the listener.
const PAUSE: Duration = Duration::from_millis(100);

/// The room that knows the pods of this node.
pub trait Pods: Send + Sync + 'static {
    /// Ready when the pod is captured, or is known not to be in the mesh; no later than `patience`.
    fn add(&self, pod: Pod, patience: Duration) -> impl Future<Output = Answer> + Send;
    /// Ends the capture of a sandbox that is about to be deleted.
    fn delete(&self, pod: Pod) -> impl Future<Output = Answer> + Send;
    /// Whether the pod is in the required state.
    fn check(&self, pod: Pod) -> impl Future<Output = Answer> + Send;
}

/// Takes over the path from its owner. Only root may connect.
///
/// # Errors
/// The socket cannot be created.
fn listen(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers at `path` until cancelled; questions that are open then are closed, and the plugin asks the successor. If a
/// successor took the path and went away, this agent takes it back.
///
/// # Errors
/// The socket cannot be created at the start.
pub async fn serve(
    path: &Path,
    pods: Arc<impl Pods>,
    metrics: CniMetrics,
    cancel: CancellationToken,
) -> io::Result<()> {
    let mut listener = listen(path)?;
    let places = Arc::new(Semaphore::new(MAX_QUESTIONS));
    let tasks = TaskTracker::new();
    loop {
        let accepting = accept(&listener, &places, &tasks, &pods, &metrics, &cancel);
        tokio::select! {
            () = cancel.cancelled() => break,
            () = accepting => {}
            () = taken(path, inode(path)) => match listen(path) {
                Ok(again) => listener = again,
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "the CNI plugin cannot reach this agent");
                    tokio::time::sleep(LOOK).await;
                }
            },
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// Accepts questions without end.
async fn accept(
    listener: &UnixListener,
    places: &Arc<Semaphore>,
    tasks: &TaskTracker,
    pods: &Arc<impl Pods>,
    metrics: &CniMetrics,
    cancel: &CancellationToken,
) {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections of the CNI plugin; will retry, and pods wait");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (pods, metrics, cancel) = (pods.clone(), metrics.clone(), cancel.clone());
        tasks.spawn(async move {
            let answering = cancel.run_until_cancelled(answer(stream, &*pods, &metrics));
            if let Some(Err(error)) = answering.await {
                tracing::debug!(%error, "a question of the CNI plugin was not answered");
            }
            drop(place);
        });
    }
}

/// Waits until another socket, or none, is at the path.
async fn taken(path: &Path, own: Option<u64>) {
    while inode(path) == own {
        tokio::time::sleep(LOOK).await;
    }
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|it| it.ino())
}

async fn answer(mut stream: UnixStream, pods: &impl Pods, metrics: &CniMetrics) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    if peer.uid() != 0 {
        let why = format!("a process of user {} asked; only root may", peer.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let (from, mut to) = stream.split();
    let mut text = Vec::new();
    let mut from = BufReader::new(from.take(MAX_LENGTH as u64));
    timeout(HEAR, from.read_until(b'\n', &mut text)).await??;
    let question: Question = serde_json::from_slice(&text)?;
    let patience = question.patience().min(MAX_PATIENCE);
    let key = question.pod.key();
    let mut counted = Counted { metrics, command: question.command.name(), outcome: UNANSWERED };
    let begun = Instant::now();
    let answer = match question.command {
        Command::Add => pods.add(question.pod, patience).await,
        Command::Check => pods.check(question.pod).await,
        Command::Delete => pods.delete(question.pod).await,
    };
    if question.command == Command::Add && !matches!(answer, Answer::NotEnrolled) {
        metrics.add(begun.elapsed());
    }
    if let Answer::Unknown(why) | Answer::Refused(why) = &answer {
        tracing::warn!(pod = key, command = ?question.command, "not captured: {why}");
    }
    to.write_all(&line(&answer)?).await?;
    counted.outcome = answer.outcome();
    Ok(())
}

const UNANSWERED: &str = "unanswered";

/// A question; counted when it ends, however it ends.
struct Counted<'a> {
    metrics: &'a CniMetrics,
    command: &'static str,
    outcome: &'static str,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.metrics.request(self.command, self.outcome);
    }
}
