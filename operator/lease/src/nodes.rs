//! The list of nodes that may have had a certificate for a group (L12).
//!
//! A node is put on the list before its hub sends it a certificate for the group; so
//! whoever stops every listed node stops the group. When the list opens again after a
//! release, a node that wasn't on it first journals the epoch that ended: the other replica
//! may still collect a certificate of it, and a hub may not know yet that it ended. So it
//! is the node's own journal that keeps such a certificate from opening a gate, and not
//! what a hub has read.
//!
//! ```text
//!   reported --told the newest end, if there was one--> listed --told what it must know--> known
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use regent_core::ids::{Epoch, NodeName};
use regent_core::instruction::Instruction;
use regent_core::plan::{Plan, Protection};

/// A group's list, as the site's `ControlLease` keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeList {
    /// The nodes, and whether the guard of each has journaled that the group is `Protected`.
    pub nodes: BTreeMap<NodeName, bool>,
    /// No further node may be listed.
    pub closed: bool,
    /// The newest epoch that was released here.
    pub ended: Option<Epoch>,
}

/// What became of a node that asks to be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is on the list: tell it what follows ([`introduction`]).
    Listed,
    /// Its guard must journal first that this epoch is retired.
    TellFirst(Epoch),
    /// The list is closed: a release, or the way to `Protected`, is under way.
    Closed,
}

impl NodeList {
    /// Whether a node that reports pods of the group has to be listed, or told what it must
    /// know (`knows`: it was told since its journal began and the plan changed).
    pub fn misses(&self, node: &NodeName, knows: bool) -> bool {
        if self.nodes.contains_key(node) { !knows } else { !self.closed }
    }

    /// Lists a node that has journaled the retirement of `told`.
    pub fn admit(&mut self, node: &NodeName, told: Option<Epoch>) -> Admission {
        if self.nodes.contains_key(node) {
            return Admission::Listed;
        }
        if self.closed {
            return Admission::Closed;
        }
        match self.ended.filter(|ended| Some(*ended) > told) {
            Some(ended) => Admission::TellFirst(ended),
            None => {
                self.nodes.insert(node.clone(), false);
                Admission::Listed
            }
        }
    }

    /// Notes the end of an epoch, unless a later one's is noted, and opens the list: in one
    /// write, so that whoever lists a node from then on knows of it.
    pub fn end(&mut self, epoch: Epoch) {
        self.ended = self.ended.max(Some(epoch));
        self.closed = false;
    }

    /// Notes that a listed node's guard has journaled that the group is `Protected`.
    pub fn note_protects(&mut self, node: &NodeName) {
        if let Some(protects) = self.nodes.get_mut(node) {
            *protects = true;
        }
    }
}

/// What the guard of a listed node is told, in this order.
pub fn introduction(plan: &Plan) -> Vec<Instruction> {
    let limit = Instruction::Configure(Duration::from_millis(plan.thaw_limit_ms));
    let protect = (plan.protection == Protection::Protected).then_some(Instruction::Protect);
    [Instruction::Listed, limit].into_iter().chain(protect).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(text: &str) -> Epoch {
        text.parse().unwrap()
    }

    fn node() -> NodeName {
        NodeName("new".into())
    }

    #[test]
    fn l12_a_node_is_listed_only_after_it_was_told_the_newest_epoch_that_ended() {
        // Nobody was listed when it ended: the next node must know all the same.
        let mut list = NodeList { closed: true, ..NodeList::default() };
        list.end(epoch("3.1"));
        assert_eq!(list.admit(&node(), None), Admission::TellFirst(epoch("3.1")));
        assert_eq!(list.admit(&node(), Some(epoch("1.1"))), Admission::TellFirst(epoch("3.1")));
        assert!(list.nodes.is_empty());
        assert_eq!(list.admit(&node(), Some(epoch("3.1"))), Admission::Listed);
        assert_eq!(list.admit(&node(), None), Admission::Listed, "it is there already");
    }

    #[test]
    fn l12_a_closed_list_takes_nobody_and_a_new_group_s_takes_everybody() {
        let mut closed = NodeList { closed: true, ..NodeList::default() };
        assert_eq!(closed.admit(&node(), None), Admission::Closed);
        assert!(!closed.misses(&node(), false));
        assert_eq!(NodeList::default().admit(&node(), None), Admission::Listed);
    }

    #[test]
    fn a_late_note_of_an_earlier_end_takes_back_no_later_one() {
        let mut list = NodeList::default();
        for (ended, newest) in [("3.1", "3.1"), ("2.1", "3.1"), ("4.1", "4.1")] {
            list.end(epoch(ended));
            assert_eq!(list.ended, Some(epoch(newest)));
        }
    }

    #[test]
    fn a_listed_node_is_told_again_when_its_journal_is_new_also_while_the_list_is_closed() {
        let mut list = NodeList::default();
        assert!(list.misses(&node(), false));
        list.admit(&node(), None);
        list.closed = true;
        assert!(!list.misses(&node(), true));
        assert!(list.misses(&node(), false));
    }
}
