//! Which groups are worth a look: those of which something is not as it was at the last one.
//!
//! A look is a function of what is watched, so the same again gives the same again. Nothing is
//! handed on from event to event that could be lost: each pass compares. It costs memory reads
//! alone, however many groups stand still.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use regent_api::{ControlLease, FailoverGroup};
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::plan::VerifiedPlan;
use regent_core::time::Moment;
use regent_lease::contender::RoleName;

/// A group is looked at this often whatever is the same: what others undo outside of what is
/// watched, as a namespace's label, is put right then.
const RESYNC: Duration = Duration::from_secs(60);

/// What a look at a group is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Inputs {
    /// The resourceVersion of the group's object and of its lease.
    pub versions: [Option<String>; 2],
    /// The plan.
    pub plan: Option<Arc<VerifiedPlan>>,
    /// The version of what it is made of: of its namespaces at home, of its bundle elsewhere.
    pub made_of: Made,
    /// What this replica is to it.
    pub role: Option<(RoleName, Option<Epoch>)>,
    /// Another site that holds it.
    pub elsewhere: Option<SiteName>,
    /// q witnesses hold the plan.
    pub registered: bool,
}

/// See [`Inputs::made_of`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Made {
    /// The version of the namespaces, once they are listed.
    Namespaces(Option<u64>),
    /// The revision that is held.
    Revision(Option<String>),
}

/// The versions of both objects, for [`Inputs::versions`].
pub(super) fn versions(object: Option<&FailoverGroup>, lease: Option<&ControlLease>) -> [Option<String>; 2] {
    [object.and_then(ResourceExt::resource_version), lease.and_then(ResourceExt::resource_version)]
}

/// The last look at each group.
#[derive(Debug, Default)]
pub(super) struct Looks(BTreeMap<GroupKey, Look>);

#[derive(Debug)]
struct Look {
    of: Inputs,
    /// Nothing was left to be tried again.
    calm: bool,
    at: Moment,
}

impl Looks {
    /// Whether a group is to be looked at.
    pub fn is_due(&self, group: &GroupKey, inputs: &Inputs, now: Moment) -> bool {
        let look = self.0.get(group).filter(|l| l.calm && &l.of == inputs);
        look.is_none_or(|l| l.at.after(RESYNC).passed_for_stopping(now))
    }

    /// A look has been taken; `calm` if nothing is to be tried again.
    pub fn note(&mut self, group: GroupKey, of: Inputs, calm: bool, at: Moment) {
        self.0.insert(group, Look { of, calm, at });
    }

    /// Forgets the groups that are not these.
    pub fn retain(&mut self, groups: &BTreeSet<GroupKey>) {
        self.0.retain(|group, _| groups.contains(group));
    }

    /// Forgets everything: another replica has led meanwhile.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Moment {
        Moment { boot_ns: s * 1_000_000_000, ..Moment::default() }
    }

    fn inputs(version: u64) -> Inputs {
        let made_of = Made::Namespaces(Some(version));
        Inputs { versions: [None, None], plan: None, made_of, role: None, elsewhere: None, registered: false }
    }

    #[test]
    fn a_group_is_looked_at_when_something_is_new_or_was_left_to_do_and_else_rarely() {
        let group: GroupKey = "ireland/shop".parse().unwrap();
        let mut looks = Looks::default();
        assert!(looks.is_due(&group, &inputs(1), at(0)), "it was never looked at");
        looks.note(group.clone(), inputs(1), true, at(0));
        assert!(!looks.is_due(&group, &inputs(1), at(59)));
        assert!(looks.is_due(&group, &inputs(2), at(59)), "its namespace has changed");
        assert!(looks.is_due(&group, &inputs(1), at(3600)), "whatever nobody watches is put right");
        looks.note(group.clone(), inputs(2), false, at(60));
        assert!(looks.is_due(&group, &inputs(2), at(61)), "a write failed");
        looks.retain(&BTreeSet::new());
        assert!(looks.is_due(&group, &inputs(2), at(61)));
    }
}
