use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener as StdListener;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn error(opened: io::Result<Door>) -> String {
    opened.err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn root_and_the_agents_own_user_administer_and_nobody_else() {
    for (peer, own, may) in [
        (0, 0, true),
        (0, 65532, true),
        (65532, 65532, true),
        (1000, 0, false),
        (1000, 65532, false),
        (65534, 0, false),
        (65534, 65532, false),
        (u32::MAX, 0, false),
    ] {
        assert_eq!(may_administer(peer, own), may, "user {peer} asks an agent of user {own}");
    }
}

#[tokio::test]
async fn the_socket_is_its_users_alone_and_says_who_asks() {
    let above = tempfile::tempdir().unwrap();
    let directory = above.path().join("not/there/yet");
    let door = Door::open(&directory, "node-a").unwrap();
    let path = directory.join("node-a.sock");
    assert_eq!((mode(&directory), mode(&path)), (0o700, 0o600));
    assert_eq!(socket_names(&directory).unwrap(), ["node-a.sock"], "and nothing is left over");
    let (_client, accepted) = tokio::join!(connect(&path), door.accept());
    let (_, caller) = accepted.unwrap().unwrap();
    assert_eq!(caller.uid, own_user());
    assert_eq!(u32::try_from(caller.pid).unwrap(), std::process::id());
    drop(door);
    assert!(!path.exists(), "who ends is not found any more");
}

#[tokio::test]
async fn names_of_nodes_may_be_as_long_as_dns_allows() {
    let above = tempfile::tempdir().unwrap();
    let directory = above.path().join("d".repeat(100));
    let node = "n".repeat(253);
    let door = Door::open(&directory, &node).unwrap();
    let path = directory.join(socket_name(&node));
    let (client, accepted) = tokio::join!(connect(&path), door.accept());
    assert!(client.is_ok() && accepted.unwrap().is_some());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_nothing_else_is() {
    let above = tempfile::tempdir().unwrap();
    let directory = above.path().join("admin");
    drop(Door::open(&directory, "node-a").unwrap());
    let path = directory.join("node-a.sock");
    drop(StdListener::bind(&path).unwrap());
    let door = Door::open(&directory, "node-a").unwrap();
    assert!(tokio::join!(connect(&path), door.accept()).0.is_ok());
    drop(door);

    fs::write(&path, "not a socket").unwrap();
    assert!(error(Door::open(&directory, "node-a")).contains("is no socket"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "not a socket");
    fs::remove_file(&path).unwrap();
    let elsewhere = above.path().join("elsewhere.sock");
    let _other = StdListener::bind(&elsewhere).unwrap();
    symlink(&elsewhere, &path).unwrap();
    assert!(error(Door::open(&directory, "node-a")).contains("is no socket"));
    assert!(connect(&path).await.is_err(), "a link is not followed");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(error(Door::open(&directory, "node-a")).contains("is no socket"));
}

#[tokio::test]
async fn a_directory_that_others_may_use_is_refused() {
    let above = tempfile::tempdir().unwrap();
    let directory = above.path().join("admin");
    for mode in [0o755, 0o711, 0o770, 0o702] {
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
        let refused = error(Door::open(&directory, "node-a"));
        assert!(refused.contains(&format!("mode {mode:o}")), "{mode:o}: {refused}");
        fs::remove_dir(&directory).unwrap();
    }
    let real = above.path().join("real");
    DirBuilder::new().mode(0o700).create(&real).unwrap();
    symlink(&real, &directory).unwrap();
    assert!(error(Door::open(&directory, "node-a")).contains("no link"), "a link");
    fs::remove_file(&directory).unwrap();
    fs::write(&directory, "").unwrap();
    assert!(!error(Door::open(&directory, "node-a")).is_empty(), "a file");
    assert_eq!(fs::read_dir(&real).unwrap().count(), 0);
}

/// An upgrade: the successor has the name at once; its predecessor takes it back when the successor goes away, whether
/// or not it could clear up, and leaves it alone while it is there.
#[tokio::test(start_paused = true)]
async fn the_newest_agent_has_the_name() {
    let above = tempfile::tempdir().unwrap();
    let directory = above.path().join("admin");
    let path = directory.join("node-a.sock");
    let mut first = Door::open(&directory, "node-a").unwrap();
    assert!(tokio::time::timeout(5 * LOOK, first.lost()).await.is_err(), "it has it");
    let second = Door::open(&directory, "node-a").unwrap();
    let asked = tokio::join!(connect(&path), second.accept());
    assert!(asked.0.is_ok() && asked.1.unwrap().is_some());
    assert!(tokio::time::timeout(5 * LOOK, first.lost()).await.is_err(), "a successor has it");
    let third = Door::open(&directory, "node-a").unwrap();
    drop(second);
    assert!(path.exists(), "the third one's");
    drop(third);
    first.lost().await;
    fs::remove_dir_all(&directory).unwrap();
    first.lost().await;
    first.reopen().unwrap();
    assert!(tokio::join!(connect(&path), first.accept()).0.is_ok());
    // One that is killed leaves its file.
    fs::remove_file(&path).unwrap();
    drop(StdListener::bind(&path).unwrap());
    first.lost().await;
    first.reopen().unwrap();
    assert!(tokio::join!(connect(&path), first.accept()).0.is_ok());
}
