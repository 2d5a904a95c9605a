//! `[workloads]`: how an agent knows which pod is where.

use super::WorkloadsSettings;
use super::defaults as default;
use super::reader::{Field, Reader};

pub(super) fn read(reader: &mut Reader<'_>) -> WorkloadsSettings {
    WorkloadsSettings {
        directory: reader.path(Field {
            key: "workloads.directory",
            default: default::WORKLOADS_DIRECTORY,
            meaning: "Where the agent keeps what the container runtime said of each pod's sandbox, in a folder for the \
                      node that only root may look into: an agent that starts again takes no pod's word for which it is. \
                      What lies there counts until the machine's next start.",
        }),
        runtime_socket: reader.optional_path(Field {
            key: "workloads.runtime_socket",
            default: "",
            meaning: "Where the container runtime answers CRI: it is asked in which network namespace a pod runs that \
                      started before the first agent did. Empty: where containerd, CRI-O, k3s and cri-dockerd listen.",
        }),
    }
}
