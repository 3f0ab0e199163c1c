//! The nonces that a request covers.

use std::collections::BTreeMap;
use std::sync::Arc;

use regent_core::ids::NodeName;
use regent_core::merkle::{Path, Tree};
use regent_core::sign::Digest;
use regent_lease::guard::Nonce;

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
    pub(super) fn of(nonces: impl IntoIterator<Item = (NodeName, Nonce)>) -> Self {
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

    /// A node's nonce, and its place under the root.
    pub fn of_node(&self, node: &NodeName) -> Option<(Nonce, Path)> {
        let (index, nonce) = self.0.by_node.get(node)?;
        Some((*nonce, self.0.tree.path(*index)?))
    }

    /// The nodes that have a nonce in it.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.0.by_node.keys()
    }
}
