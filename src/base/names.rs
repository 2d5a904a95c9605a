//! Shared strings and the name of an object.

use std::collections::BTreeMap;
use std::fmt;

/// A reference-counted string: eight bytes, cloned without an allocation, literals without a count.
pub type Str = arcstr::ArcStr;

/// Labels with their values.
pub type LabelMap = BTreeMap<Str, Str>;

/// Namespace and name: what identifies an object of a known kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct ObjectKey {
    /// Empty for kinds that live outside namespaces.
    pub namespace: Str,
    pub name: Str,
}

impl ObjectKey {
    pub fn new(namespace: impl Into<Str>, name: impl Into<Str>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// `namespace/name`, as `kubectl` and Istio's log keys print it.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}
