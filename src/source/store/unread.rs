//! Files and folders that cannot be read: not permitted, too large, no regular file, or a link to nowhere.
//!
//! What such a file held when it was last read stays in force, as the last good version of a document does. Nobody knows what
//! one holds that was never read: it may be a security policy, so it denies what that may apply to, which is everything.

use super::RefusedPolicy;
use super::files::Builder;
use crate::base::{ObjectKey, Str};
use crate::source::Origin;
use crate::source::objects::Kind;

const LAST_READ: &str = "the objects that were last read from it stay in force";
const UNKNOWN: &str = "nobody knows whether it holds a security policy: until it can be read or is removed, all traffic is denied; \
                       check its permissions";

impl Builder<'_> {
    pub(super) fn keep_file(&mut self, file: &Str, reason: &str) {
        let origin = Origin::File { file: file.clone(), document: 0 };
        let known: Vec<Str> =
            self.previous.read.iter().filter(|name| is_within(name, file)).cloned().collect();
        let outcome = if known.is_empty() {
            self.deny_for(&origin, reason);
            UNKNOWN
        } else {
            self.keep_what_it_held(file);
            self.objects.read.extend(known);
            LAST_READ
        };
        let reason = format!("cannot be read ({reason}); {outcome}");
        self.complain(&origin, (Str::default(), None), "", reason);
    }

    fn keep_what_it_held(&mut self, file: &Str) {
        let comes_from = |origin: &Option<Origin>| {
            let of_file = |origin: &Origin| match origin {
                Origin::File { file: other, .. } => is_within(other, file),
                Origin::Api { .. } => false,
            };
            origin.as_ref().is_some_and(of_file)
        };
        let previous = self.previous;
        for (id, held) in previous.held.iter().filter(|(_, held)| comes_from(&held.origin)) {
            self.objects.held.entry(id.clone()).or_insert_with(|| held.clone());
        }
        let refused = previous.refused.iter().filter(|policy| comes_from(&policy.origin));
        self.objects.refused.extend(refused.cloned());
    }

    /// One policy stands for all that the file may hold.
    fn deny_for(&mut self, origin: &Origin, reason: &str) {
        self.objects.refused.push(RefusedPolicy {
            kind: Kind::AuthorizationPolicy,
            key: ObjectKey::new("", format!("unread ({origin})")),
            anywhere: true,
            document: None,
            why: format!("{origin} cannot be read ({reason}), and may hold a security policy"),
            origin: Some(origin.clone()),
        });
    }
}

/// The name is the file's own, or, where that is a folder, one inside of it.
fn is_within(name: &str, file: &str) -> bool {
    let rest = name.strip_prefix(file);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
