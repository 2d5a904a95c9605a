use std::os::unix::fs::PermissionsExt;

use super::*;

const LIST_TEXT: &str =
    "{\"cniVersion\":\"1.0.0\", \"name\":\"lab\",\n \"plugins\":[{\"type\":\"ptp\"}]}";
const SINGLE_TEXT: &str = "{\"cniVersion\":\"0.3.1\",  \"name\":\"lab\",\"type\":\"bridge\"}";

struct Host {
    directory: tempfile::TempDir,
    installer: Installer,
}

fn host(files: &[(&str, &str)]) -> Host {
    let directory = tempfile::tempdir().unwrap();
    let (conf, bin) = (directory.path().join("net.d"), directory.path().join("bin"));
    for made in [&conf, &bin] {
        fs::create_dir(made).unwrap();
    }
    let program = directory.path().join("program");
    fs::write(&program, "first").unwrap();
    let entry = Entry { socket: "/run/isthmus/cni.sock".into(), exclude_namespaces: Vec::new() };
    let installer = Installer { conf_directory: conf, bin_directory: bin, program, entry };
    let host = Host { directory, installer };
    files.iter().for_each(|(name, text)| host.write(name, text));
    host
}

impl Host {
    fn path(&self, name: &str) -> PathBuf {
        self.installer.conf_directory.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.installer.conf_directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn has_plugin(&self, name: &str) -> bool {
        without_plugin(&self.read(name)).unwrap().is_some()
    }
}

#[test]
fn the_first_list_gets_the_plugin_and_gives_it_back() {
    let host = host(&[("10-lab.conflist", LIST_TEXT), ("20-other.conflist", LIST_TEXT)]);
    set_mode(&host.path("10-lab.conflist"), 0o640).unwrap();
    assert!(host.installer.install().unwrap());
    assert!(!host.installer.install().unwrap(), "nothing is left to do");
    assert!(host.has_plugin("10-lab.conflist"));
    assert!(!host.has_plugin("20-other.conflist"));
    let mode = fs::metadata(host.path("10-lab.conflist")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let program = host.installer.bin_directory.join(PLUGIN);
    assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);
    host.installer.uninstall().unwrap();
    assert_eq!(host.read("10-lab.conflist"), LIST_TEXT);
    assert_eq!(host.names(), ["10-lab.conflist", "20-other.conflist"]);
    assert!(!program.exists());
    host.installer.uninstall().unwrap();
}

#[test]
fn a_single_plugin_gets_a_list_beside_it() {
    let host = host(&[("10-lab.conf", SINGLE_TEXT)]);
    assert!(host.installer.install().unwrap());
    assert!(!host.installer.install().unwrap());
    assert!(host.has_plugin("10-lab.conflist"));
    assert_eq!(host.names(), ["10-lab.conf.isthmus-original", "10-lab.conflist"]);
    host.installer.uninstall().unwrap();
    assert_eq!(host.names(), ["10-lab.conf"]);
    assert_eq!(host.read("10-lab.conf"), SINGLE_TEXT);
}

#[test]
fn a_single_plugin_that_is_written_anew_replaces_the_old_one() {
    let host = host(&[("10-lab.conf", SINGLE_TEXT)]);
    host.installer.install().unwrap();
    host.write("10-lab.conf", &SINGLE_TEXT.replace("bridge", "ptp"));
    assert!(host.installer.install().unwrap());
    assert!(host.read("10-lab.conflist").contains("ptp"));
    host.installer.uninstall().unwrap();
    assert_eq!(host.read("10-lab.conf"), SINGLE_TEXT.replace("bridge", "ptp"));
}

#[test]
fn a_list_that_is_written_anew_gets_the_plugin_again() {
    let host = host(&[("10-lab.conflist", LIST_TEXT)]);
    host.installer.install().unwrap();
    let changed = LIST_TEXT.replace("ptp", "bridge");
    host.write("10-lab.conflist", &changed);
    assert!(host.installer.install().unwrap());
    host.installer.uninstall().unwrap();
    assert_eq!(host.read("10-lab.conflist"), changed);
}

#[test]
fn a_list_that_is_changed_around_the_plugin_keeps_the_change() {
    let host = host(&[("10-lab.conflist", LIST_TEXT)]);
    host.installer.install().unwrap();
    let changed = host.read("10-lab.conflist").replace("\"ptp\"", "\"ptp\", \"mtu\": 1400");
    host.write("10-lab.conflist", &changed);
    host.installer.uninstall().unwrap();
    let left = host.read("10-lab.conflist");
    assert!(left.contains("1400") && !left.contains("isthmus"), "{left}");
    assert_eq!(host.names(), ["10-lab.conflist"]);
}

#[test]
fn another_configuration_that_comes_first_takes_the_plugin_over() {
    let host = host(&[("10-lab.conflist", LIST_TEXT)]);
    host.installer.install().unwrap();
    host.write("05-new.conflist", LIST_TEXT);
    assert!(host.installer.install().unwrap());
    assert!(host.has_plugin("05-new.conflist"));
    assert_eq!(host.read("10-lab.conflist"), LIST_TEXT);
    host.installer.uninstall().unwrap();
    assert_eq!(host.names(), ["05-new.conflist", "10-lab.conflist"]);
}

#[test]
fn without_a_network_there_is_nothing_to_do_yet() {
    let host = host(&[("notes.txt", "")]);
    assert!(matches!(host.installer.install(), Err(InstallError::NoNetwork(_))));
    host.write("10-lab.conflist", "{\"plugins\": ");
    let error = host.installer.install().unwrap_err().to_string();
    assert!(error.contains("10-lab.conflist") && error.contains("is not JSON"), "{error}");
    assert_eq!(host.read("10-lab.conflist"), "{\"plugins\": ");
    host.write("10-lab.conf", SINGLE_TEXT);
    host.write("10-lab.conflist", LIST_TEXT);
    assert!(matches!(host.installer.install(), Err(InstallError::Both(..))));
}

#[test]
fn the_program_is_replaced_when_it_is_another_one() {
    let host = host(&[("10-lab.conflist", LIST_TEXT)]);
    host.installer.install().unwrap();
    fs::write(host.directory.path().join("program"), "other").unwrap();
    assert!(host.installer.install().unwrap());
    let program = host.installer.bin_directory.join(PLUGIN);
    assert_eq!(fs::read_to_string(program).unwrap(), "other");
}
