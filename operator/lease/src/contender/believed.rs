//! Who holds a group, as far as a site can tell by what witnesses said.

use serde::Serialize;

use super::group::Group;
use super::status::GroupStatus;
use regent_core::charter::Charter;
use regent_core::ids::SiteName;
use regent_core::message::{Refusal, Vote};
use regent_core::time::Moment;

/// A holder that q witnesses have named within so many periods is one that they see now.
const FRESH: u32 = 4;

/// A holder, by the witnesses' word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Believed {
    /// Whose vote it is: the newest that at least one honest witness stands behind.
    pub vote: Vote,
    /// A quorum said last that it lets nobody else have the group.
    pub kept: bool,
    /// A quorum has said so of late.
    pub fresh: bool,
}

impl Group {
    pub(super) fn believed(&self, now: Moment, charter: &Charter) -> Option<Believed> {
        let vote = self.votes.believed(charter.faulty_witnesses as usize)?;
        let keeps = |refusal| matches!(refusal, Some(Refusal::Promised | Refusal::NoTrigger));
        let keepers = self.views.values().filter(|v| keeps(v.refusal));
        let of_late = charter.renewal_period() * FRESH;
        let fresh = keepers.clone().filter(|v| !v.at.after(of_late).passed_for_stopping(now)).count();
        let q = charter.quorum();
        Some(Believed { vote, kept: keepers.count() >= q, fresh: fresh >= q })
    }
}

impl GroupStatus {
    /// Who is believed to hold the group.
    pub fn holder(&self) -> Option<&Vote> {
        self.believed.as_ref().map(|b| &b.vote)
    }

    /// Another site that holds the group: until q witnesses have said that they would let
    /// others have it.
    pub fn held_elsewhere(&self, here: &SiteName) -> Option<&SiteName> {
        let believed = self.believed.as_ref().filter(|b| b.kept && &b.vote.site != here)?;
        Some(&believed.vote.site)
    }

    /// Whether what is at this site is not what runs: another site is known to be the last
    /// holder, and nothing may be running here.
    pub fn has_left(&self, here: &SiteName) -> bool {
        !self.role.may_run() && self.holder().is_some_and(|vote| &vote.site != here)
    }
}
