//! With real files and inotify, so in real time; each waits for what it expects, for up to [`PATIENCE`].

use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough for a change that should not be published to be published.
const A_WHILE: Duration = Duration::from_millis(300);

fn pod(name: &str, address: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nstatus: {{podIP: {address}}}\n"
    )
}

/// A running source and what it published last.
struct Running {
    states: mpsc::UnboundedReceiver<Translation>,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), SourceError>>,
}

impl Running {
    fn start(path: &Path) -> Self {
        let (sender, states) = mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        let source = DirectorySource::new(path, TranslateSettings::default());
        let publish = move |translation| drop(sender.send(translation));
        let task = tokio::spawn(source.run(publish, cancel.clone()));
        Self { states, cancel, task }
    }

    /// Waits for a state with these pods: names and addresses.
    async fn expect(&mut self, pods: &[&str]) -> Translation {
        let mut last = Vec::new();
        let found = timeout(PATIENCE, async {
            loop {
                let state = self.states.recv().await.expect("the source runs");
                last = summary(&state);
                if last == pods {
                    return state;
                }
            }
        });
        let found = found.await;
        found.unwrap_or_else(|_| panic!("expected {pods:?}, the last was {last:?}"))
    }

    async fn expect_nothing(&mut self) {
        let published = timeout(A_WHILE, self.states.recv()).await;
        assert!(published.is_err(), "{:?}", published.map(|state| state.map(|it| summary(&it))));
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.task.await.expect("no panic").expect("no error");
    }
}

fn summary(translation: &Translation) -> Vec<String> {
    let workloads = translation.mesh.workloads.iter();
    workloads.map(|it| format!("{} {}", it.key.name, it.addresses[0])).collect()
}

/// As editors and `kubectl` write: a temporary file, then a rename.
fn replace(path: &Path, text: &str) {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, text).unwrap();
    fs::rename(&temporary, path).unwrap();
}

#[tokio::test]
async fn files_are_followed() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("a.yaml"), pod("a", "10.0.0.1")).unwrap();
    fs::write(path(".hidden.yaml"), pod("h", "10.0.0.1")).unwrap();
    fs::write(path("backup.yaml~"), pod("h", "10.0.0.1")).unwrap();
    fs::write(path("README.md"), "---").unwrap();
    let mut source = Running::start(directory.path());
    source.expect(&["a 10.0.0.1"]).await;

    replace(&path("a.yaml"), &pod("a", "10.0.0.2"));
    source.expect(&["a 10.0.0.2"]).await;
    fs::write(
        path("b.json"),
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"b"},"status":{"podIP":"10.0.0.3"}}"#,
    )
    .unwrap();
    source.expect(&["a 10.0.0.2", "b 10.0.0.3"]).await;

    // A broken document keeps its last good version, says so once, and stops no other.
    replace(&path("a.yaml"), &pod("a", "{}"));
    let state = source.expect(&["a 10.0.0.2", "b 10.0.0.3"]).await;
    assert_eq!(state.complaints[0].field, "status.podIP");
    fs::write(path("c.yml"), pod("c", "10.0.0.4")).unwrap();
    source.expect(&["a 10.0.0.2", "b 10.0.0.3", "c 10.0.0.4"]).await;
    fs::remove_file(path("a.yaml")).unwrap();
    let state = source.expect(&["b 10.0.0.3", "c 10.0.0.4"]).await;
    assert!(state.complaints.is_empty());

    // What changes nothing is not published.
    replace(&path("c.yml"), &format!("# the same\n{}", pod("c", "10.0.0.4")));
    fs::write(path("notes.txt"), "x").unwrap();
    source.expect_nothing().await;
    fs::write(path("c.yml"), "").unwrap();
    source.expect(&["b 10.0.0.3"]).await;
    source.stop().await;
}

#[tokio::test]
async fn folders_are_followed() {
    let directory = TempDir::new().unwrap();
    let mut source = Running::start(directory.path());
    source.expect(&[]).await;
    let folder = directory.path().join("shop");
    fs::create_dir(&folder).unwrap();
    tokio::time::sleep(A_WHILE).await;
    fs::write(folder.join("a.yaml"), pod("a", "10.0.0.1")).unwrap();
    source.expect(&["a 10.0.0.1"]).await;
    fs::create_dir(folder.join("deeper")).unwrap();
    fs::write(folder.join("deeper/b.yaml"), pod("b", "10.0.0.2")).unwrap();
    // Too deep to be read, which is said.
    let state = source.expect(&["a 10.0.0.1"]).await;
    assert!(state.complaints[0].to_string().starts_with("shop/deeper: is not read"));
    // Its last manifest gone, the directory keeps its state; with another one it is followed again.
    fs::remove_dir_all(&folder).unwrap();
    source.expect_nothing().await;
    fs::write(directory.path().join("c.yaml"), pod("c", "10.0.0.3")).unwrap();
    source.expect(&["c 10.0.0.3"]).await;
    source.stop().await;
}

/// The kubelet's way to update a mounted ConfigMap.
#[tokio::test]
async fn a_config_map_is_swapped_as_one() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    for (version, address) in [("..1", "10.0.0.1"), ("..2", "10.0.0.2")] {
        fs::create_dir(path(version)).unwrap();
        fs::write(path(version).join("a.yaml"), pod("a", address)).unwrap();
    }
    symlink("..1", path("..data")).unwrap();
    symlink("..data/a.yaml", path("a.yaml")).unwrap();
    let mut source = Running::start(directory.path());
    source.expect(&["a 10.0.0.1"]).await;
    symlink("..2", path("..data_tmp")).unwrap();
    fs::rename(path("..data_tmp"), path("..data")).unwrap();
    source.expect(&["a 10.0.0.2"]).await;
    source.stop().await;
}

#[tokio::test]
async fn the_directory_itself_may_be_replaced() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    for (name, address) in [("one", "10.0.0.1"), ("two", "10.0.0.2")] {
        fs::create_dir(path(name)).unwrap();
        fs::write(path(name).join("a.yaml"), pod("a", address)).unwrap();
    }
    symlink("one", path("current")).unwrap();
    let mut source = Running::start(&path("current"));
    source.expect(&["a 10.0.0.1"]).await;
    symlink("two", path("next")).unwrap();
    fs::rename(path("next"), path("current")).unwrap();
    source.expect(&["a 10.0.0.2"]).await;
    replace(&path("two/a.yaml"), &pod("a", "10.0.0.3"));
    source.expect(&["a 10.0.0.3"]).await;

    // Gone, it keeps its last state; restored, it is followed again.
    fs::remove_file(path("current")).unwrap();
    source.expect_nothing().await;
    fs::create_dir(path("current")).unwrap();
    fs::write(path("current/a.yaml"), pod("a", "10.0.0.4")).unwrap();
    source.expect(&["a 10.0.0.4"]).await;
    replace(&path("current/a.yaml"), &pod("a", "10.0.0.5"));
    source.expect(&["a 10.0.0.5"]).await;
    source.stop().await;
}

#[tokio::test]
async fn a_directory_that_is_missing_at_first_is_an_error() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("missing");
    let source = DirectorySource::new(&path, TranslateSettings::default());
    let outcome = source.run(|_| {}, CancellationToken::new()).await;
    assert!(outcome.unwrap_err().to_string().contains("missing"));
}

const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                      metadata: {name: p, namespace: shop}\nspec: {action: DENY, rules: [{}]}\n";

/// Whether an agent that starts with this directory denies everything, and what it says of it.
fn denies_everything(directory: &Path) -> (bool, Vec<String>) {
    let state = check(directory, &TranslateSettings::default()).unwrap();
    let mesh_wide = |it: &crate::model::AuthorizationPolicy| {
        it.broken.is_some() && it.scope == crate::model::Scope::Mesh
    };
    let denies = state.mesh.policies.iter().any(|it| mesh_wide(it));
    (denies, state.complaints.iter().map(ToString::to_string).collect())
}

#[test]
fn what_cannot_be_read_at_a_start_denies_everything() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("p.yaml");
    let expect = |denies: bool, what: &str| {
        let (found, complaints) = denies_everything(directory.path());
        assert_eq!(
            (found, complaints.len()),
            (denies, usize::from(denies)),
            "{what}: {complaints:?}"
        );
    };
    fs::write(&path, POLICY).unwrap();
    expect(false, "a file");
    fs::write(&path, format!("{POLICY}#{}", "x".repeat(17 << 20))).unwrap();
    expect(true, "too large");
    for (target, what) in
        [("nowhere.yaml", "a link to nowhere"), ("p.yaml", "a loop"), ("/dev/zero", "a device")]
    {
        fs::remove_file(&path).unwrap();
        symlink(target, &path).unwrap();
        expect(true, what);
    }
    fs::remove_file(&path).unwrap();
    symlink("nowhere", directory.path().join("README")).unwrap();
    symlink("lost+found", directory.path().join("lost+found")).unwrap();
    expect(false, "another link to nowhere, and what is the file system's");
    symlink("folder", directory.path().join("folder")).unwrap();
    expect(true, "what may be a folder");
}

/// A link whose target goes away is no deletion.
#[tokio::test]
async fn a_folder_behind_a_link_that_breaks_keeps_its_objects() {
    let directory = TempDir::new().unwrap();
    let elsewhere = TempDir::new().unwrap();
    fs::write(elsewhere.path().join("a.yaml"), pod("a", "10.0.0.1")).unwrap();
    fs::write(directory.path().join("c.yaml"), pod("c", "10.0.0.3")).unwrap();
    symlink(elsewhere.path(), directory.path().join("current")).unwrap();
    let mut source = Running::start(directory.path());
    source.expect(&["a 10.0.0.1", "c 10.0.0.3"]).await;
    fs::remove_dir_all(elsewhere.path()).unwrap();
    fs::write(directory.path().join("d.yaml"), pod("d", "10.0.0.4")).unwrap();
    let state = source.expect(&["a 10.0.0.1", "c 10.0.0.3", "d 10.0.0.4"]).await;
    assert!(
        state.complaints.iter().any(|it| it.to_string().starts_with("current: cannot be read"))
    );
    fs::remove_file(directory.path().join("current")).unwrap();
    source.expect(&["c 10.0.0.3", "d 10.0.0.4"]).await;
    source.stop().await;
}

#[test]
fn what_is_passed_over_is_said() {
    let directory = TempDir::new().unwrap();
    fs::create_dir_all(directory.path().join("a/b")).unwrap();
    for name in ["p.YAML", "a/p.Yml", "a/b/p.yaml", "notes.txt", "a/.hidden.yaml"] {
        fs::write(directory.path().join(name), POLICY).unwrap();
    }
    let (_, mut complaints) = denies_everything(directory.path());
    complaints.sort();
    let starts = ["a/b: is not read", "a/p.Yml: is not read", "p.YAML: is not read"];
    assert_eq!(complaints.len(), starts.len(), "{complaints:?}");
    for (complaint, start) in complaints.iter().zip(starts) {
        assert!(complaint.starts_with(start), "{complaint}");
    }
}
