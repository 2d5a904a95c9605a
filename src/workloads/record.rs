//! The record of a sandbox, and whether it is still valid: pure.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::base::Str;
use crate::sock::NamespaceId;

/// Changes when a field changes its meaning.
const VERSION: u32 = 1;

/// The sandbox of a pod: what its containers share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The pod's own UID (`metadata.uid`).
    pub pod: Str,
    /// The runtime's name of the sandbox; empty if no runtime reported it.
    pub container: Str,
    /// The path of its network namespace.
    pub network_namespace: Str,
    /// The namespace that was at the path at that time.
    pub namespace: NamespaceId,
    pub addresses: Vec<IpAddr>,
}

/// Where a pod is, as the container runtime reported it. Unknown fields are ignored: agents of adjacent versions read
/// the same directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The kernel's ID of the boot in which it was recorded: after a reboot, inodes are reused.
    pub boot: String,
    /// The workload's uid.
    pub workload: String,
    /// The pod's own UID.
    pub pod: String,
    pub container: String,
    pub network_namespace: String,
    pub namespace: NamespaceId,
    pub addresses: Vec<IpAddr>,
}

/// Why a file is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    Unreadable(#[from] std::io::Error),
    #[error(transparent)]
    Syntax(#[from] serde_json::Error),
    #[error("version {0} is unknown")]
    Version(u32),
    #[error("{0} is empty")]
    Empty(&'static str),
    #[error("network_namespace is not an absolute path")]
    RelativePath,
    /// Its name says so.
    #[error("it is of another namespace")]
    OtherNamespace,
}

/// Why a record is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stale {
    #[error("it was written before the machine's last start")]
    Boot,
    #[error("its network namespace is gone")]
    Gone,
    #[error("another network namespace is at its path")]
    Replaced,
}

impl Record {
    pub(super) fn new(workload: &str, sandbox: &Sandbox, boot: &str) -> Self {
        Self {
            version: VERSION,
            boot: boot.to_owned(),
            workload: workload.to_owned(),
            pod: sandbox.pod.to_string(),
            container: sandbox.container.to_string(),
            network_namespace: sandbox.network_namespace.to_string(),
            namespace: sandbox.namespace,
            addresses: sandbox.addresses.clone(),
        }
    }

    /// # Errors
    /// The text is not a record, or one of an incompatible version.
    pub fn parse(text: &[u8]) -> Result<Self, RecordError> {
        let record: Self = serde_json::from_slice(text)?;
        if record.version != VERSION {
            return Err(RecordError::Version(record.version));
        }
        for (field, value) in [
            ("boot", &record.boot),
            ("workload", &record.workload),
            ("pod", &record.pod),
            ("network_namespace", &record.network_namespace),
        ] {
            if value.is_empty() {
                return Err(RecordError::Empty(field));
            }
        }
        if !record.network_namespace.starts_with('/') {
            return Err(RecordError::RelativePath);
        }
        Ok(record)
    }

    pub(super) fn print(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }

    /// One file per namespace: two pods cannot both have it.
    pub(super) fn file_name(&self) -> String {
        format!("{}-{}.json", self.namespace.device, self.namespace.inode)
    }

    /// Whether it is valid, in this `boot`, with the namespace that is at its path `now`.
    pub(super) fn counts(&self, boot: &str, now: Option<&NamespaceId>) -> Result<(), Stale> {
        if self.boot != boot {
            return Err(Stale::Boot);
        }
        let now = now.ok_or(Stale::Gone)?;
        if self.namespace.is_still(now) { Ok(()) } else { Err(Stale::Replaced) }
    }

    pub(super) fn sandbox(&self) -> Sandbox {
        Sandbox {
            pod: self.pod.as_str().into(),
            container: self.container.as_str().into(),
            network_namespace: Str::from(self.network_namespace.as_str()),
            namespace: self.namespace,
            addresses: self.addresses.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> Record {
        let sandbox = Sandbox {
            pod: "p".into(),
            container: "c".into(),
            network_namespace: "/run/netns/n".into(),
            namespace: NamespaceId { device: 4, inode: 7, cookie: Some(1) },
            addresses: vec!["10.0.0.1".parse().unwrap()],
        };
        Record::new("w", &sandbox, "boot")
    }

    #[test]
    fn it_counts_in_its_boot_and_while_its_namespace_stands_at_its_path() {
        let id = |inode, cookie| NamespaceId { device: 4, inode, cookie };
        for (case, boot, now, expected) in [
            ("the same", "boot", Some(id(7, Some(1))), Ok(())),
            ("a kernel without cookies", "boot", Some(id(7, None)), Ok(())),
            ("gone", "boot", None, Err(Stale::Gone)),
            ("recreated", "boot", Some(id(8, Some(2))), Err(Stale::Replaced)),
            ("recreated with its inode", "boot", Some(id(7, Some(2))), Err(Stale::Replaced)),
            ("after a reboot", "next", Some(id(7, Some(1))), Err(Stale::Boot)),
        ] {
            assert_eq!(record().counts(boot, now.as_ref()), expected, "{case}");
        }
    }

    #[test]
    fn what_says_too_little_is_no_record() {
        let good = String::from_utf8(record().print().unwrap()).unwrap();
        assert_eq!(Record::parse(good.as_bytes()).unwrap(), record());
        for (from, to) in [
            (r#""version":1"#, r#""version":2"#),
            (r#""pod":"p""#, r#""pod":"""#),
            (r#""workload":"w""#, r#""workload":"""#),
            (r#""boot":"boot""#, r#""boot":"""#),
            ("/run/netns/n", "run/netns/n"),
            (r#""inode":7"#, r#""inode":-7"#),
            ("{", ""),
        ] {
            let text = good.replacen(from, to, 1);
            assert_ne!(text, good);
            assert!(Record::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_record_comes_back(
            names in proptest::array::uniform4("[^/]{1,20}"),
            numbers in any::<(u64, u64, Option<u64>)>(),
            lasts in proptest::collection::vec(any::<u8>(), 0..3),
        ) {
            let [workload, pod, container, path] = names;
            let sandbox = Sandbox {
                pod: pod.into(),
                container: container.into(),
                network_namespace: format!("/{path}").into(),
                namespace: NamespaceId { device: numbers.0, inode: numbers.1, cookie: numbers.2 },
                addresses: lasts.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect(),
            };
            let record = Record::new(&workload, &sandbox, "boot");
            let read = Record::parse(&record.print().unwrap()).unwrap();
            prop_assert_eq!(read.sandbox(), sandbox);
            prop_assert_eq!(read, record);
        }

        #[test]
        fn no_file_is_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".*") {
            _ = Record::parse(&bytes);
            _ = Record::parse(text.as_bytes());
        }

        #[test]
        fn no_damage_to_a_record_is_a_panic(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
            let mut text = record().print().unwrap();
            let at = at.index(text.len());
            text[at] = byte;
            _ = Record::parse(&text);
            _ = Record::parse(&text[..at]);
        }
    }
}
