//! L12 at the witness: retiring an epoch, and dropping the promise once it has ended.

use super::Witness;
use super::decide::No;
use super::group::Promise;
use super::record::Retired;
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::message::Refusal;
use regent_core::time::Moment;

impl Witness {
    /// Retires an epoch. It comes from that epoch's own site and is not above the vote.
    /// Returns whether the record must be written before this is acknowledged.
    pub(super) fn retire(
        &mut self,
        site: &SiteName,
        key: &GroupKey,
        epoch: Epoch,
        successor: &SiteName,
        now: Moment,
    ) -> Result<bool, No> {
        self.owns(site, key, epoch)?;
        let group = self.groups.get(key).ok_or(Refusal::UnknownGroup)?;
        let vote = group.record.vote.as_ref().filter(|v| epoch <= v.epoch).ok_or(Refusal::NotYours)?;
        let is_vote = vote.epoch == epoch;
        let plan = group.plan.as_ref().ok_or(Refusal::UnknownGroup)?;
        // An heir that could never acquire would only cost everybody the time it is favoured.
        self.may_claim(plan, successor, plan.plan().protection)?;
        let stamped = group.is_stamped();
        let Some(group) = self.groups.get_mut(key) else {
            return Err(Refusal::UnknownGroup.into());
        };
        if group.retires(epoch) {
            // Once for each epoch: asking again favours nobody for longer.
            return Ok(!stamped);
        }
        group.record.retired = Some(Retired { epoch, successor: successor.clone() });
        if is_vote {
            let until = now.after(self.charter.lease_duration() * 2);
            group.favoured = Some(Promise { site: successor.clone(), until });
        }
        Ok(true)
    }

    /// Drops the promise to the site whose epoch has ended on every node. One that names
    /// an epoch below the vote drops nothing: it is older than what was promised since.
    pub(super) fn release(&mut self, site: &SiteName, key: &GroupKey, epoch: Epoch) -> Result<(), No> {
        self.owns(site, key, epoch)?;
        let group = self.groups.get_mut(key).ok_or(Refusal::UnknownGroup)?;
        if group.record.vote.as_ref().is_some_and(|v| v.epoch > epoch) {
            return Err(Refusal::HigherVote.into());
        }
        if group.promise.as_ref().is_some_and(|p| &p.site == site) {
            group.promise = None;
        }
        Ok(())
    }

    fn owns(&self, site: &SiteName, key: &GroupKey, epoch: Epoch) -> Result<(), Refusal> {
        if self.is_stale() {
            return Err(Refusal::Stale);
        }
        let group = self.groups.get(key).ok_or(Refusal::UnknownGroup)?;
        if group.is_busy() {
            return Err(Refusal::Busy);
        }
        let number = self.charter.site(site).map(|s| s.number);
        if number == Some(epoch.site) { Ok(()) } else { Err(Refusal::NotYours) }
    }
}
