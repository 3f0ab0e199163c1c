//! Merkle trees over short lists, as RFC 6962 hashes them (leaf prefix 0, node prefix 1).
//!
//! One signature of a site covers all its agents' nonces and all its groups; a guard
//! checks its own nonce and its own groups with a path of `log2(n)` hashes.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::sign::Digest;

/// An inclusion proof: RFC 6962, 2.1.1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// The leaf's place in the list.
    pub index: u32,
    /// The length of the list.
    pub count: u32,
    /// The hashes beside the way from the leaf to the root, the leaf's sibling first.
    pub siblings: Vec<Digest>,
}

fn leaf(data: &[u8]) -> Digest {
    Digest(Sha256::new().chain_update([0]).chain_update(data).finalize().into())
}

fn node(left: Digest, right: Digest) -> Digest {
    Digest(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// The largest power of two below `n` (for `n` of at least 2).
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

fn root_of(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => Digest::of(&[]),
        [one] => *one,
        many => {
            let (left, right) = many.split_at(split(many.len()));
            node(root_of(left), root_of(right))
        }
    }
}

/// A tree over a list, kept to answer paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    leaves: Vec<Digest>,
}

impl Tree {
    /// The tree over some items, in their order.
    pub fn over<I: IntoIterator<Item = T>, T: AsRef<[u8]>>(items: I) -> Self {
        Self { leaves: items.into_iter().map(|i| leaf(i.as_ref())).collect() }
    }

    /// The root; of an empty list, the hash of nothing.
    pub fn root(&self) -> Digest {
        root_of(&self.leaves)
    }

    /// The path of the item at `index`, or none beyond the end.
    pub fn path(&self, index: usize) -> Option<Path> {
        if index >= self.leaves.len() {
            return None;
        }
        let mut siblings = Vec::new();
        let (mut part, mut at) = (self.leaves.as_slice(), index);
        while part.len() > 1 {
            let (left, right) = part.split_at(split(part.len()));
            if at < left.len() {
                siblings.push(root_of(right));
                part = left;
            } else {
                siblings.push(root_of(left));
                at -= left.len();
                part = right;
            }
        }
        siblings.reverse();
        Some(Path { index: u32::try_from(index).ok()?, count: u32::try_from(self.leaves.len()).ok()?, siblings })
    }
}

impl Path {
    /// Whether `item` is at this path's place in the list with that root.
    pub fn proves(&self, item: &[u8], root: &Digest) -> bool {
        fn climb(index: u32, count: u32, siblings: &[Digest], at: Digest) -> Option<Digest> {
            if count <= 1 {
                return siblings.is_empty().then_some(at);
            }
            let (top, below) = siblings.split_last()?;
            let left = count.next_power_of_two() / 2;
            if index < left {
                Some(node(climb(index, left, below, at)?, *top))
            } else {
                Some(node(*top, climb(index - left, count - left, below, at)?))
            }
        }
        // A list of 2^31 and more would overflow the power of two above it.
        self.index < self.count
            && self.count <= 1 << 30
            && self.siblings.len() <= 32
            && climb(self.index, self.count, &self.siblings, leaf(item)).as_ref() == Some(root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_every_small_list_proves_its_item_and_no_other() {
        for n in 1..40usize {
            let items: Vec<[u8; 1]> = (0..n).map(|i| [i as u8]).collect();
            let tree = Tree::over(&items);
            let root = tree.root();
            for (i, item) in items.iter().enumerate() {
                let path = tree.path(i).unwrap();
                assert!(path.proves(item, &root), "{i} of {n}");
                assert!(!path.proves(&[200], &root));
                let moved = Path { index: (path.index + 1) % path.count, ..path.clone() };
                assert!(n == 1 || !moved.proves(item, &root), "{i} of {n} moved");
            }
            assert_eq!(tree.path(n), None);
        }
    }

    #[test]
    fn an_inner_node_is_no_leaf() {
        let tree = Tree::over([[1u8], [2u8]]);
        let mut inner = Vec::new();
        inner.extend(leaf(&[1]).0);
        inner.extend(leaf(&[2]).0);
        let path = Path { index: 0, count: 1, siblings: vec![] };
        assert!(!path.proves(&inner, &tree.root()));
    }
}
