use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;

/// An agent that waits, with one listener; counts how often it was paused, and whether it was released.
struct Waiting {
    path: PathBuf,
    address: std::net::SocketAddr,
    paused: Arc<AtomicUsize>,
    released: mpsc::Receiver<()>,
    _directory: tempfile::TempDir,
}

fn waiting() -> Waiting {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_path(directory.path(), "node-a");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let paused = Arc::new(AtomicUsize::new(0));
    let (done, released) = mpsc::channel();
    let (counter, ears) = (paused.clone(), Ears::open(&path).unwrap());
    std::thread::spawn(move || {
        let pause = || {
            counter.fetch_add(1, Ordering::SeqCst);
            let socket = listener.as_fd().try_clone_to_owned()?;
            Ok((vec![Listener { owner: "uid".into(), port: address.port(), socket }], ()))
        };
        ears.wait_for_successor("node-a", pause, |()| done.send(()).unwrap());
    });
    Waiting { path, address, paused, released, _directory: directory }
}

fn ask(waiting: &Waiting, node: &str) -> Result<Option<Successor>, TakeoverError> {
    Successor::ask(&waiting.path, node)
}

#[test]
fn sockets_change_hands_and_the_predecessor_stops_only_then() {
    let waiting = waiting();
    let successor = ask(&waiting, "node-a").unwrap().unwrap();
    let (inherited, port) = (successor.inherited.clone(), waiting.address.port());
    assert!(inherited.take("other", port).is_none());
    let socket = inherited.take("uid", port).unwrap();
    assert!(inherited.take("uid", port).is_none(), "given once");
    assert!(waiting.released.try_recv().is_err());
    successor.serving().unwrap();
    waiting.released.recv().unwrap();
    let listener = TcpListener::from(socket);
    let _dialled = TcpStream::connect(waiting.address).unwrap();
    listener.accept().unwrap();
}

#[test]
fn a_successor_that_fails_changes_nothing_and_the_next_one_gets_everything() {
    let waiting = waiting();
    drop(ask(&waiting, "node-a").unwrap().unwrap());
    let refused = ask(&waiting, "node-b").err().unwrap();
    assert!(refused.to_string().contains("node-a"), "{refused}");
    let channel = Channel::connect(&waiting.path).unwrap();
    channel.send(b"\xffnonsense", &[]).unwrap();
    let successor = ask(&waiting, "node-a").unwrap().unwrap();
    assert!(waiting.released.try_recv().is_err());
    successor.serving().unwrap();
    waiting.released.recv().unwrap();
    assert_eq!(waiting.paused.load(Ordering::SeqCst), 2);
}

#[test]
fn without_a_predecessor_there_is_nothing_to_take() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_path(directory.path(), "node-a");
    assert!(Successor::ask(&path, "node-a").unwrap().is_none());
    drop(ChannelListener::bind(&path).unwrap());
    assert!(Successor::ask(&path, "node-a").unwrap().is_none(), "a socket that nobody serves");
}

/// Two upgrades in quick succession: the third agent asks the first, which is handing over to the second.
#[test]
fn who_asks_while_another_takes_over_gets_the_sockets_of_that_one() {
    let first = waiting();
    let second = ask(&first, "node-a").unwrap().unwrap();
    let (path, port) = (first.path.clone(), first.address.port());
    let third = std::thread::spawn(move || Successor::ask(&path, "node-a").unwrap());
    let socket = second.inherited.take("uid", port).unwrap();
    let ears = Ears::open(&first.path).unwrap();
    second.serving().unwrap();
    first.released.recv().unwrap();
    let pause = || {
        let socket = socket.try_clone()?;
        Ok((vec![Listener { owner: "uid".into(), port, socket }], ()))
    };
    let serving = std::thread::spawn(move || {
        let third = third.join().unwrap().expect("there is an agent to ask");
        assert!(third.inherited.take("uid", port).is_some());
        third.serving().unwrap();
    });
    ears.wait_for_successor("node-a", pause, |()| ());
    serving.join().unwrap();
}

/// The second agent is ended when it listens already, but does not serve.
#[test]
fn an_agent_whose_successor_went_away_is_found_again() {
    let first = waiting();
    let second = ask(&first, "node-a").unwrap().unwrap();
    let ears = Ears::open(&first.path).unwrap();
    let path = first.path.clone();
    let third = std::thread::spawn(move || Successor::ask(&path, "node-a").unwrap());
    let asked = ears.listener.accept().unwrap();
    drop((second, asked, ears));
    let third = third.join().unwrap().expect("the first agent serves still");
    third.serving().unwrap();
    first.released.recv().unwrap();
}
