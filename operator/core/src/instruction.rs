//! What a hub has the guard of a node do with a group. The agent between them carries it.

use std::fmt;
use std::time::Duration;

use crate::ids::Epoch;

/// One thing to do, confirmed once it is done and journaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Instruction {
    /// The node is on the group's list now.
    Listed,
    /// The group is `Protected`: fence from now on.
    Protect,
    /// Stop the group for good under this epoch and below (L12).
    Retire(Epoch),
    /// The group's `thawLimit`.
    Configure(Duration),
}

impl Instruction {
    /// Whether `wanted` is done when this is: nothing runs at or below a retired epoch, so a
    /// higher one's end is a lower one's too.
    pub fn covers(self, wanted: Self) -> bool {
        match (self, wanted) {
            (Self::Retire(done), Self::Retire(epoch)) => epoch <= done,
            (done, wanted) => done == wanted,
        }
    }
}

impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listed => f.write_str("Listed"),
            Self::Protect => f.write_str("Protect"),
            Self::Retire(epoch) => write!(f, "Retire({epoch})"),
            Self::Configure(limit) => write!(f, "Configure(thawLimit {limit:?})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_retirement_covers_another_instruction_than_itself() {
        let retire = |term| Instruction::Retire(Epoch { term, site: 1 });
        let limit = |s| Instruction::Configure(Duration::from_secs(s));
        assert!(retire(3).covers(retire(2)) && !retire(2).covers(retire(3)));
        let all = [Instruction::Listed, Instruction::Protect, retire(1), limit(8), limit(9)];
        for done in all {
            for wanted in all {
                assert_eq!(done.covers(wanted), done == wanted, "{done} and {wanted}");
            }
        }
    }
}
