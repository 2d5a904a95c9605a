//! The plugin's end of the agent's socket. It blocks: the plugin does one thing and exits.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::message::{Answer, MAX_LENGTH, Question, line};

/// The interval between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// How much later than the requested timeout the agent's answer may arrive.
const SLACK: Duration = Duration::from_secs(2);

/// Asks the agent. If no agent listens, it retries for as long as `absent`: the agent may be restarting. If the agent
/// closes the connection without an answer, as in an upgrade, it asks again.
///
/// # Errors
/// No agent answered.
pub(super) fn ask(path: &Path, question: &Question, absent: Duration) -> io::Result<Answer> {
    let started = Instant::now();
    let last = started + question.patience() + SLACK;
    let mut gone = started;
    loop {
        let now = Instant::now();
        let left = last.saturating_duration_since(now);
        let error = match UnixStream::connect(path) {
            Ok(stream) => match exchange(stream, question, left) {
                Ok(answer) => return Ok(answer),
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => {
                    gone = Instant::now();
                    error
                }
            },
            Err(error) => error,
        };
        if gone.elapsed() + PAUSE > absent || Instant::now() + PAUSE > last {
            return Err(error);
        }
        std::thread::sleep(PAUSE);
    }
}

/// An agent was there, and its answer is missing or malformed.
fn is_final(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::InvalidData)
}

fn exchange(mut stream: UnixStream, question: &Question, left: Duration) -> io::Result<Answer> {
    // Zero would mean no timeout.
    stream.set_read_timeout(Some(left.max(PAUSE)))?;
    stream.set_write_timeout(Some(left.max(PAUSE)))?;
    stream.write_all(&line(question)?)?;
    let mut text = Vec::new();
    BufReader::new(stream.take(MAX_LENGTH as u64)).read_until(b'\n', &mut text)?;
    if text.is_empty() {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "the agent closed the connection"));
    }
    serde_json::from_slice(&text).map_err(|error| {
        io::Error::new(ErrorKind::InvalidData, format!("the agent's answer is malformed: {error}"))
    })
}
