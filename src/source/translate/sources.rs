//! `sourceLabels` of VirtualServices: selections of clients by their labels. Which of them select a workload is part of the
//! workload, so that no request looks labels up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Context, is_of_other_revision};
use crate::base::{Bits, Str};
use crate::source::objects::{Labels, VirtualService, selects};

/// So many different ones may the VirtualServices of one namespace have: each costs every workload of the mesh a bit.
pub(super) const MOST: usize = 64;

/// All selections, numbered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sources(Arc<BTreeMap<Labels, u32>>);

impl Sources {
    pub(super) fn collect(cx: &Context<'_>) -> Self {
        let mut by_namespace: BTreeMap<&Str, BTreeSet<&Labels>> = BTreeMap::new();
        for (key, object) in cx.objects.all::<VirtualService>() {
            if is_of_other_revision(cx.settings, object) {
                continue;
            }
            let spec = &object.spec.0;
            let http = spec.http.iter().flat_map(|rule| &rule.matches).map(|it| &it.source_labels);
            let tls = spec.tls.iter().flat_map(|rule| &rule.matches).map(|it| &it.source_labels);
            let tcp = spec.tcp.iter().flat_map(|rule| &rule.matches).map(|it| &it.source_labels);
            for labels in http.chain(tls).chain(tcp).filter(|labels| !labels.is_empty()) {
                let known = by_namespace.entry(&key.namespace).or_default();
                if known.len() < MOST {
                    known.insert(labels);
                }
            }
        }
        let all: BTreeSet<&Labels> = by_namespace.into_values().flatten().collect();
        Self(Arc::new(all.into_iter().cloned().zip(0..).collect()))
    }

    /// `None`: there are too many.
    pub(super) fn number(&self, labels: &Labels) -> Option<u32> {
        self.0.get(labels).copied()
    }

    /// Those that select a workload with these labels.
    pub(super) fn selecting(&self, labels: Option<&Labels>) -> Bits {
        if self.0.is_empty() {
            return Bits::default();
        }
        let all = self.0.iter().filter(|(selection, _)| selects(selection, labels));
        all.map(|(_, number)| *number).collect()
    }
}
