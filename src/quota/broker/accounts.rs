//! What each namespace has at the broker, and which node has brought it there: bounds in sum, and for each node. A node may say that it
//! has limits and keys that nobody else knows, so it has its part of these bounds, and leaves the others theirs.

use std::collections::HashMap;

use crate::base::Str;

/// Limits of the services of one namespace that several nodes share, and those of them that one node may share.
const MAX_LIMITS: usize = 1024;
const MAX_LIMITS_OF_NODE: usize = 256;
/// Keys of all limits of the services of one namespace, and those of them that one node may bring up.
const MAX_KEYS: usize = 8192;
const MAX_KEYS_OF_NODE: usize = 2048;

/// By namespace.
#[derive(Default)]
pub(super) struct Accounts(HashMap<Str, Account>);

#[derive(Default)]
struct Account {
    all: Count,
    nodes: HashMap<Str, Count>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    limits: usize,
    keys: usize,
}

impl Accounts {
    /// These nodes begin to share a limit, `is_new` if nobody has shared it before. Whether they may.
    pub(super) fn share(&mut self, namespace: &Str, nodes: &[&Str], is_new: bool) -> bool {
        let account = self.0.entry(namespace.clone()).or_default();
        let has_its_part =
            |node: &&Str| account.nodes.get(*node).map_or(0, |it| it.limits) >= MAX_LIMITS_OF_NODE;
        let is_full = is_new && account.all.limits >= MAX_LIMITS;
        let may = !is_full && !nodes.iter().any(has_its_part);
        if may {
            account.all.limits += usize::from(is_new);
            for node in nodes {
                account.nodes.entry((*node).clone()).or_default().limits += 1;
            }
        }
        self.clear(namespace);
        may
    }

    /// These nodes share a limit no longer, and nobody does if they are the last ones.
    pub(super) fn unshare(&mut self, namespace: &Str, nodes: &[&Str], are_last: bool) {
        let Some(account) = self.0.get_mut(namespace) else { return };
        account.all.limits = account.all.limits.saturating_sub(usize::from(are_last));
        for node in nodes {
            account.change(node, |count| count.limits = count.limits.saturating_sub(1));
        }
        self.clear(namespace);
    }

    /// The node brings up a key. Whether it may.
    pub(super) fn add_key(&mut self, namespace: &Str, node: &Str) -> bool {
        let account = self.0.entry(namespace.clone()).or_default();
        let own = account.nodes.entry(node.clone()).or_default();
        let may = account.all.keys < MAX_KEYS && own.keys < MAX_KEYS_OF_NODE;
        if may {
            own.keys += 1;
            account.all.keys += 1;
        }
        self.clear(namespace);
        may
    }

    /// Keys that the node has brought up are forgotten.
    pub(super) fn forget_keys(&mut self, namespace: &Str, node: &Str, keys: usize) {
        let Some(account) = self.0.get_mut(namespace) else { return };
        account.all.keys = account.all.keys.saturating_sub(keys);
        account.change(node, |count| count.keys = count.keys.saturating_sub(keys));
        self.clear(namespace);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets a namespace that has nothing.
    fn clear(&mut self, namespace: &Str) {
        let is_empty = self.0.get(namespace).is_some_and(|it| it.all == Count::default());
        if is_empty {
            self.0.remove(namespace);
        }
    }
}

impl Account {
    fn change(&mut self, node: &Str, change: impl Fn(&mut Count)) {
        if let Some(count) = self.nodes.get_mut(node) {
            change(count);
            if *count == Count::default() {
                self.nodes.remove(node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_its_part_and_what_is_given_back_is_whole() {
        let (mut accounts, namespace) = (Accounts::default(), Str::from("shop"));
        let name = |node: usize| Str::from(format!("node-{node}"));
        let pair = |number: usize| [name(2 * number), name(2 * number + 1)];
        for number in 0..MAX_LIMITS / MAX_LIMITS_OF_NODE {
            let [one, other] = pair(number);
            for _ in 0..MAX_LIMITS_OF_NODE {
                assert!(accounts.share(&namespace, &[&one, &other], true), "{number}");
            }
            assert!(!accounts.share(&namespace, &[&one, &name(100)], true), "it has its part");
        }
        assert!(!accounts.share(&namespace, &[&name(100), &name(101)], true), "all are there");
        assert!(accounts.share(&namespace, &[&name(100)], false), "of those that are");
        assert!(accounts.share(&"other".into(), &[&name(0), &name(1)], true));
        accounts.unshare(&"other".into(), &[&name(0), &name(1)], true);
        accounts.unshare(&namespace, &[&name(100)], false);
        for number in 0..MAX_LIMITS / MAX_LIMITS_OF_NODE {
            let [one, other] = pair(number);
            for _ in 0..MAX_LIMITS_OF_NODE {
                accounts.unshare(&namespace, &[&one, &other], true);
            }
        }
        for number in 0..MAX_KEYS / MAX_KEYS_OF_NODE {
            assert!((0..MAX_KEYS_OF_NODE).all(|_| accounts.add_key(&namespace, &name(number))));
            assert!(!accounts.add_key(&namespace, &name(number)), "it has its part");
        }
        assert!(!accounts.add_key(&namespace, &name(50)), "all are there");
        for number in 0..MAX_KEYS / MAX_KEYS_OF_NODE {
            accounts.forget_keys(&namespace, &name(number), MAX_KEYS_OF_NODE);
        }
        assert!(accounts.is_empty());
    }
}
