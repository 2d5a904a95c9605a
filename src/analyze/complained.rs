//! What the translation complains of, as findings. It knows best what it does not carry out.

use super::code::Code;
use super::finding::Finding;
use crate::source::objects::Kind;
use crate::source::{Complaint, Severity, Topic};

pub(super) fn find(complaints: &[Complaint]) -> Vec<Finding> {
    let coded = complaints.iter().filter_map(|it| Some(Finding::complained(code(it)?, it)));
    coded.collect()
}

/// `None` for notes that only inform about what is left to others.
fn code(complaint: &Complaint) -> Option<Code> {
    let Some(topic) = complaint.topic else {
        return match complaint.severity {
            Severity::Error => Some(Code::Refused),
            Severity::Warning if complaint.kind == Kind::VirtualService.name() => {
                Some(Code::VirtualServiceField)
            }
            Severity::Warning => Some(Code::NoEffect),
            Severity::Note => None,
        };
    };
    Some(match topic {
        Topic::NoWaypoint => Code::RouteWithoutWaypoint,
        Topic::PortNotHttp => Code::RouteOnTcpPort,
        Topic::Unaddressed => Code::RouteUnaddressed,
        Topic::ParentMissing => Code::ParentMissing,
        Topic::BackendMissing => Code::BackendMissing,
        Topic::NoBackend => Code::NoBackend,
        Topic::NeverReached => Code::NeverReached,
        Topic::Outdone if complaint.kind == Kind::DestinationRule.name() => Code::RuleOutdone,
        Topic::Outdone => Code::Outdone,
        Topic::SubsetMissing => Code::SubsetMissing,
        Topic::HostMissing => Code::HostMissing,
        Topic::SelectsNothing => Code::SelectsNothing,
        Topic::TargetMissing => Code::TargetMissing,
        Topic::NeverMatches => Code::NeverMatches,
        Topic::DisablesMutualTls => Code::DisablesMutualTls,
        Topic::WaypointMissing => Code::WaypointMissing,
        Topic::WaypointOfOtherTraffic => Code::WaypointOfOtherTraffic,
        Topic::NoEndpoint if complaint.kind == Kind::ServiceEntry.name() => {
            Code::EntryWithoutEndpoint
        }
        Topic::NoEndpoint => Code::ServiceWithoutEndpoint,
        Topic::TlsUnusable => Code::TlsUnusable,
        Topic::NotCarriedOut => Code::NotCarriedOut,
    })
}
