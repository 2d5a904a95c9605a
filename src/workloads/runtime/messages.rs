//! The messages of `runtime.v1.RuntimeService` (kubernetes/cri-api, `pkg/apis/runtime/v1/api.proto`) for sandboxes and
//! their networks, written by hand: a few fields of a protocol that only grows, so the build needs no schema compiler.

use std::collections::HashMap;

pub(super) const LIST: &str = "/runtime.v1.RuntimeService/ListPodSandbox";
pub(super) const STATUS: &str = "/runtime.v1.RuntimeService/PodSandboxStatus";

/// `SANDBOX_READY` of `PodSandboxState`.
pub(super) const READY: i32 = 0;

/// `ListPodSandboxRequest` without a filter.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ListRequest {}

/// `ListPodSandboxResponse`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) items: Vec<Item>,
}

/// `PodSandbox`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Item {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) metadata: Option<Metadata>,
    #[prost(int32, tag = "3")]
    pub(super) state: i32,
    /// Nanoseconds.
    #[prost(int64, tag = "4")]
    pub(super) created_at: i64,
}

/// `PodSandboxMetadata`: the pod as the kubelet named it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Metadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) uid: String,
    #[prost(string, tag = "3")]
    pub(super) namespace: String,
}

/// `PodSandboxStatusRequest`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StatusRequest {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(bool, tag = "2")]
    pub(super) verbose: bool,
}

/// `PodSandboxStatusResponse`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
    /// The result of `verbose`, in the runtime's own format.
    #[prost(map = "string, string", tag = "2")]
    pub(super) info: HashMap<String, String>,
}

/// `PodSandboxStatus`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Status {
    #[prost(int32, tag = "3")]
    pub(super) state: i32,
    #[prost(message, optional, tag = "5")]
    pub(super) network: Option<Network>,
}

/// `PodSandboxNetworkStatus`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Network {
    #[prost(string, tag = "1")]
    pub(super) ip: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) additional: Vec<PodIp>,
}

/// `PodIP`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PodIp {
    #[prost(string, tag = "1")]
    pub(super) ip: String,
}
