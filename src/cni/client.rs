//! The plugin's end of the agent's socket. It blocks: the plugin does one thing and ends.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::message::{Answer, MAX_LENGTH, Question, line};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// What the agent's answer may come later than it was asked to.
const SLACK: Duration = Duration::from_secs(2);

/// Asks the agent. One that is not there is waited for as long as `absent`: it may be restarting. One that goes away
/// without an answer, as in an upgrade, is asked again.
///
/// # Errors
/// Nobody answered.
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

/// It was there, and did not do what it should.
fn is_final(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::InvalidData)
}

fn exchange(mut stream: UnixStream, question: &Question, left: Duration) -> io::Result<Answer> {
    // Zero would mean to wait for ever.
    stream.set_read_timeout(Some(left.max(PAUSE)))?;
    stream.set_write_timeout(Some(left.max(PAUSE)))?;
    stream.write_all(&line(question)?)?;
    let mut text = Vec::new();
    BufReader::new(stream.take(MAX_LENGTH as u64)).read_until(b'\n', &mut text)?;
    if text.is_empty() {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "the agent closed the connection"));
    }
    serde_json::from_slice(&text).map_err(|error| {
        io::Error::new(ErrorKind::InvalidData, format!("the agent's answer is none: {error}"))
    })
}
