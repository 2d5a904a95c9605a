//! What is wrong with the objects, in the words that the operator sees.

use std::fmt::{self, Write};

use crate::base::{ObjectKey, Str};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Severity {
    /// Something is refused or denied because of it.
    Error,
    /// The object is in force, but does not do what it seems to say.
    Warning,
    /// For information: nothing has to be changed.
    Note,
}

/// Where an object was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Origin {
    File {
        /// The path below the directory.
        file: Str,
        /// Counts the documents of the file that are not empty, from 1; 0 stands for the file as a whole.
        document: usize,
    },
    /// An object of the API server.
    Api {
        /// `metadata.generation` of what was read last, which may not be what is in force; 0 for kinds that have none.
        generation: i64,
    },
}

/// What a complaint means for the `status` of its route: one condition of Gateway API. Complaints with the same
/// condition are one condition with all their reasons in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Condition {
    pub kind: ConditionType,
    pub reason: ConditionReason,
    /// Index in `spec.parentRefs`, of a policy in `spec.targetRefs`; `None`: every parent that the route is attached to.
    pub parent: Option<usize>,
}

/// `type` of a condition (Gateway API, RouteConditionType).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum ConditionType {
    /// `False`: the route, or this parent of it, is not in force.
    Accepted,
    /// `False`: a backend cannot be used.
    ResolvedRefs,
    /// `True`: some rules are good and some are not; `Accepted` stays `True`. The message has to begin with `Dropped
    /// Rule`, or with `Fall Back` where the last good version stays in force.
    PartiallyInvalid,
    /// Whether an accepted policy takes effect for a target, and all of it (GEP-713).
    Programmed,
}

/// `reason` of a condition (Gateway API, RouteConditionReason).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum ConditionReason {
    /// Something that we do not understand or carry out.
    UnsupportedValue,
    /// Filters that exclude each other.
    IncompatibleFilters,
    /// The parent has no port of this number or name.
    NoMatchingParent,
    /// The parent itself does not exist, so that there is nobody to write an entry for.
    ParentNotFound,
    /// Another kind of route has taken the parent's port (GEP-1426).
    Conflicted,
    BackendNotFound,
    RefNotPermitted,
    InvalidKind,
    /// What a policy is attached to does not exist, or is nothing that requests pass (GEP-713).
    TargetNotFound,
    /// A policy cannot be attached to such a thing (GEP-713).
    Invalid,
    /// An annotation says that the policy is another implementation's.
    Ignored,
    /// A part of a policy takes no effect (GEP-713).
    PartiallyProgrammed,
    /// A policy takes no effect, because its target is a route in the clients' namespace.
    ConsumerRoute,
    /// A policy takes no effect, because more specific ones set the same (GEP-713).
    Overridden,
    /// What the object asks for is not carried out, so that traffic is refused.
    NotSupported,
    /// A reference leads to no certificates of an authority (GEP-1897).
    InvalidCaCertificateRef,
    /// There is no authority by which servers could be verified (GEP-1897).
    NoValidCaCertificate,
}

/// One complaint. The order is that of reading: by origin, then by object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Complaint {
    /// `None` for what was put together in the program.
    pub origin: Option<Origin>,
    /// As written in the object; empty when it could not be read.
    pub kind: Str,
    /// `None` when it could not be read.
    pub object: Option<ObjectKey>,
    /// The path of the field, such as `spec.rules[0].matches`; empty for the object as a whole.
    pub field: String,
    pub severity: Severity,
    /// What is wrong, what follows from it, and what to check.
    pub reason: String,
    /// For routes: what the status says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
    /// What it is about, where more is known than its words say.
    #[serde(skip)]
    pub topic: Option<Topic>,
}

/// What a complaint is about, for whoever sorts complaints (`isthmus analyze`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Routes or policies of requests are for a service without a waypoint.
    NoWaypoint,
    /// Routes of requests are for a port that is said to speak something else.
    PortNotHttp,
    /// Nobody addresses the parent of a route.
    Unaddressed,
    /// The parent of a route, or its port.
    ParentMissing,
    /// What a route leads to.
    BackendMissing,
    /// A rule leads nowhere.
    NoBackend,
    NeverReached,
    /// Another route, or rule of the same host, holds.
    Outdone,
    SubsetMissing,
    /// No service has the host.
    HostMissing,
    SelectsNothing,
    TargetMissing,
    /// A value of a policy that no connection and no request has.
    NeverMatches,
    DisablesMutualTls,
    /// The waypoint that an object names.
    WaypointMissing,
    /// It takes traffic of another kind.
    WaypointOfOtherTraffic,
    NoEndpoint,
    /// TLS that is asked for and cannot be carried out.
    TlsUnusable,
    /// The kind as a whole.
    NotCarriedOut,
}

impl Condition {
    /// For every parent.
    pub fn of(kind: ConditionType, reason: ConditionReason) -> Self {
        Self { kind, reason, parent: None }
    }

    /// For one parent, by its index in `spec.parentRefs`, or one target of a policy.
    pub fn of_parent(kind: ConditionType, reason: ConditionReason, parent: usize) -> Self {
        Self { kind, reason, parent: Some(parent) }
    }

    /// The condition's `status` when there is a complaint of it.
    pub fn status(self) -> bool {
        self.kind == ConditionType::PartiallyInvalid
            || self.reason == ConditionReason::PartiallyProgrammed
    }
}

impl ConditionType {
    /// As the API spells it.
    pub fn name(self) -> &'static str {
        match self {
            ConditionType::Accepted => "Accepted",
            ConditionType::ResolvedRefs => "ResolvedRefs",
            ConditionType::PartiallyInvalid => "PartiallyInvalid",
            ConditionType::Programmed => "Programmed",
        }
    }
}

/// Says aloud what a source complains of, each at the level of its severity.
pub(super) fn log<'a>(complaints: impl Iterator<Item = &'a Complaint>) {
    for complaint in complaints {
        match complaint.severity {
            Severity::Error => tracing::error!("{complaint}"),
            Severity::Warning => tracing::warn!("{complaint}"),
            Severity::Note => tracing::debug!("{complaint}"),
        }
    }
}

impl ConditionReason {
    /// As the API spells it. `ParentNotFound`, `Conflicted`, `ConsumerRoute` and `NotSupported` are none of its constants.
    pub fn name(self) -> &'static str {
        match self {
            ConditionReason::UnsupportedValue => "UnsupportedValue",
            ConditionReason::IncompatibleFilters => "IncompatibleFilters",
            ConditionReason::NoMatchingParent => "NoMatchingParent",
            ConditionReason::ParentNotFound => "ParentNotFound",
            ConditionReason::Conflicted => "Conflicted",
            ConditionReason::BackendNotFound => "BackendNotFound",
            ConditionReason::RefNotPermitted => "RefNotPermitted",
            ConditionReason::InvalidKind => "InvalidKind",
            ConditionReason::TargetNotFound => "TargetNotFound",
            ConditionReason::Invalid => "Invalid",
            ConditionReason::Ignored => "Ignored",
            ConditionReason::PartiallyProgrammed => "PartiallyProgrammed",
            ConditionReason::ConsumerRoute => "ConsumerRoute",
            ConditionReason::Overridden => "Overridden",
            ConditionReason::NotSupported => "NotSupported",
            ConditionReason::InvalidCaCertificateRef => "InvalidCACertificateRef",
            ConditionReason::NoValidCaCertificate => "NoValidCACertificate",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { file, document: 0 } => write!(f, "{}", OneLine(file)),
            Origin::File { file, document } => write!(f, "{}, document {document}", OneLine(file)),
            Origin::Api { generation } => write!(f, "generation {generation}"),
        }
    }
}

/// What somebody else has named, without a line break or another control character with which it could look like more than one
/// complaint.
struct OneLine<T>(T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.to_string().chars() {
            match char.is_control() {
                true => write!(f, "{}", char.escape_default())?,
                false => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

/// `file, document N: Kind namespace/name: field: reason`, without the parts that are unknown.
impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An object of the API is found by its name alone.
        if let Some(origin @ Origin::File { .. }) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        match &self.object {
            Some(key) if self.kind.is_empty() => write!(f, "{}: ", OneLine(key))?,
            Some(key) => write!(f, "{} {}: ", OneLine(&self.kind), OneLine(key))?,
            None if self.kind.is_empty() => {}
            None => write!(f, "{}: ", OneLine(&self.kind))?,
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", OneLine(&self.field))?;
        }
        write!(f, "{}", OneLine(&self.reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_look_like_another_complaint() {
        let complaint = Complaint {
            origin: Some(Origin::File { file: "a\nerror: b.yaml".into(), document: 1 }),
            kind: "AuthorizationPolicy\n".into(),
            object: Some(ObjectKey::new("shop", "x\ty")),
            field: "spec.a\nb".to_owned(),
            severity: Severity::Error,
            reason: "is\r\nwrong".to_owned(),
            condition: None,
            topic: None,
        };
        let told = "a\\nerror: b.yaml, document 1: AuthorizationPolicy\\n shop/x\\ty: spec.a\\nb: is\\r\\nwrong";
        assert_eq!(complaint.to_string(), told);
    }
}
