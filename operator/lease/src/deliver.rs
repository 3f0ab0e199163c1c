//! From a round to what each node is shown of it (L13).
//!
//! A request signs two roots: over the nonces of the site's guards, and over its entries. A
//! node gets its own nonce and the granted entries of its own groups, each with its place
//! under those roots; so one round of signatures serves every node and every group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regent_core::ids::{GroupKey, NodeName};
use regent_core::merkle::{Path, Tree};
use regent_core::message::{Entry, NodeCertificate, Round, entry_tree};
use regent_core::sign::Digest;

use crate::guard::Nonce;

/// The newest nonce of each node at one moment, and their Merkle tree in the order of
/// the nodes' names. Cheap to clone: it waits with its round for the grants.
#[derive(Debug, Clone)]
pub struct NonceSet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tree: Tree,
    by_node: BTreeMap<NodeName, (usize, Nonce)>,
}

impl NonceSet {
    /// The set of these nonces.
    pub fn of(nonces: impl IntoIterator<Item = (NodeName, Nonce)>) -> Self {
        let sorted: BTreeMap<NodeName, Nonce> = nonces.into_iter().collect();
        let tree = Tree::over(sorted.values());
        let by_node = sorted.into_iter().enumerate().map(|(i, (node, nonce))| (node, (i, nonce))).collect();
        Self(Arc::new(Inner { tree, by_node }))
    }

    /// What the request signs.
    pub fn root(&self) -> Digest {
        self.0.tree.root()
    }

    /// How many nodes have a nonce in it.
    pub fn len(&self) -> usize {
        self.0.by_node.len()
    }

    /// Whether no node has.
    pub fn is_empty(&self) -> bool {
        self.0.by_node.is_empty()
    }

    /// The nodes that have a nonce in it.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.0.by_node.keys()
    }

    /// A node's nonce, and its place under the root.
    pub fn of_node(&self, node: &NodeName) -> Option<(Nonce, Path)> {
        let (index, nonce) = self.0.by_node.get(node)?;
        Some((*nonce, self.0.tree.path(*index)?))
    }
}

/// A round on its way to the nodes.
#[derive(Debug)]
pub struct Delivery<'a> {
    round: &'a Round,
    nonces: &'a NonceSet,
    /// The granted entries, each with its place under the request's root.
    granted: BTreeMap<&'a GroupKey, (&'a Entry, Path)>,
}

impl<'a> Delivery<'a> {
    /// `entries` are all entries of the request, in their order; `nonces` is the set whose
    /// root the request signed.
    pub fn new(round: &'a Round, entries: &[Entry], granted: &'a [Entry], nonces: &'a NonceSet) -> Self {
        let tree = entry_tree(entries);
        let place: BTreeMap<&GroupKey, usize> = entries.iter().enumerate().map(|(i, e)| (&e.group, i)).collect();
        let path = |entry: &'a Entry| Some((&entry.group, (entry, tree.path(*place.get(&entry.group)?)?)));
        Self { round, nonces, granted: granted.iter().filter_map(path).collect() }
    }

    /// What a node is shown, if it has a nonce in the round and one of `groups`, on whose
    /// lists it is (L12), was granted.
    pub fn to(&self, node: &NodeName, groups: &BTreeSet<GroupKey>) -> Option<NodeCertificate> {
        let mine = groups.iter().filter_map(|g| self.granted.get(g));
        let entries: Vec<(Entry, Path)> = mine.map(|(entry, path)| ((*entry).clone(), path.clone())).collect();
        let (nonce, nonce_path) = self.nonces.of_node(node).filter(|_| !entries.is_empty())?;
        Some(NodeCertificate { round: self.round.clone(), nonce: nonce.to_vec(), nonce_path, entries })
    }
}

#[cfg(test)]
mod tests {
    use regent_core::fixture::Federation;
    use regent_core::message::Ask;
    use regent_core::plan::Protection;

    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName(name.into())
    }

    fn entry(name: &str) -> Entry {
        Entry {
            group: format!("ie/{name}").parse().unwrap(),
            epoch: "1.1".parse().unwrap(),
            state: Protection::Protected,
        }
    }

    #[test]
    fn a_node_is_shown_its_own_nonce_and_the_granted_entries_of_its_own_groups() {
        let federation = Federation::new();
        let nonces = NonceSet::of([(node("n2"), [2; 32]), (node("n1"), [1; 32]), (node("n3"), [3; 32])]);
        let entries = [entry("bank"), entry("mail"), entry("shop")];
        let round = federation.round("ie", Ask::Grant, nonces.root(), &entries, &["fr", "de", "ch"]);
        let granted = [entries[0].clone(), entries[2].clone()];
        let delivery = Delivery::new(&round, &entries, &granted, &nonces);

        let groups = |names: &[&str]| names.iter().map(|n| entry(n).group).collect::<BTreeSet<_>>();
        let shown = delivery.to(&node("n2"), &groups(&["mail", "shop"])).unwrap();
        let verified = shown.round.verify(&federation.charter.clone().into()).unwrap();
        assert_eq!(shown.nonce, [2; 32]);
        assert!(verified.nonce_is_covered(&shown.nonce, &shown.nonce_path));
        let [(shop, path)] = shown.entries.as_slice() else { panic!("mail was not granted: {:?}", shown.entries) };
        assert_eq!(shop, &entries[2]);
        assert!(verified.entry_is_covered(shop, path));

        assert_eq!(delivery.to(&node("n1"), &groups(&["mail"])), None, "nothing of its own was granted");
        assert_eq!(delivery.to(&node("n4"), &groups(&["shop"])), None, "it has no nonce in the round");
    }
}
