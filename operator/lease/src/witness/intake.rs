//! What a submission brings beside its question: tags, plans and the proof (L2).

use std::collections::BTreeSet;

use super::group::Group;
use super::receive::{Ignored, MAX_ENTRIES, MAX_GRANT_BYTES, MAX_GRANTS, MAX_REQUEST_BYTES, MAX_SIGNATURES};
use super::tag::{Earlier, Reading};
use super::{MAX_GROUPS_PER_HOME, StaleCause, Witness, WitnessEvent};
use regent_core::ids::{GroupKey, SiteName};
use regent_core::message::{Entry, Proof, Request, Submission, VerifiedRound, Vote};
use regent_core::plan::{Plan, PlanError, VerifiedPlan};
use regent_core::sign::Envelope;
use regent_core::time::Moment;

impl Witness {
    /// What a request's tag of ours says. One of a later start, or of an earlier one that had
    /// written more, gives our state away (L8).
    pub(super) fn read_tag(&mut self, request: &Request, now: Moment) -> Option<Moment> {
        match self.tags.read(request.tags.get(&self.site)?) {
            Reading::Issued(at) => Some(at),
            Reading::Later(start) => {
                self.turn_stale(now, StaleCause::TagOfLaterStart(start));
                None
            }
            Reading::Earlier(tag) => {
                self.read_earlier(request, tag, now);
                None
            }
            Reading::Foreign => None,
        }
    }

    /// A copy of the state that was made during an earlier start gives itself away by the count
    /// of writes only, to whoever has asked since; who hasn't is the last whom that state names.
    /// So a start goes on only with those who had an answer within D (L7), as holders have; the
    /// clocks of another boot can't tell.
    fn read_earlier(&mut self, request: &Request, tag: Earlier, now: Moment) {
        if tag.start >= self.recovered && tag.writes > self.found {
            self.turn_stale(now, StaleCause::TagOfLaterWrite(tag.writes));
            return;
        }
        let d = self.charter.lease_duration();
        if tag.at.is_none_or(|at| !at.after(d).passed_for_waiting(self.started)) {
            self.current.insert(request.site.clone());
        }
    }

    /// Registers the plans of a submission. Returns the groups whose record changed.
    pub(super) fn take_plans(
        &mut self,
        plans: &[Envelope],
        now: Moment,
        ignored: &mut Vec<Ignored>,
    ) -> (BTreeSet<GroupKey>, BTreeSet<GroupKey>) {
        let (mut offered, mut changed) = (BTreeSet::new(), BTreeSet::new());
        for envelope in plans {
            match self.take_plan(envelope, now, &mut offered) {
                Ok(Some(key)) => drop(changed.insert(key)),
                Ok(None) => {}
                Err(error) => ignored.push(Ignored::Plan(error)),
            }
        }
        (offered, changed)
    }

    fn take_plan(
        &mut self,
        envelope: &Envelope,
        now: Moment,
        offered: &mut BTreeSet<GroupKey>,
    ) -> Result<Option<GroupKey>, PlanError> {
        let claimed: Plan = envelope.peek()?;
        let key = claimed.group.clone();
        offered.insert(key.clone());
        let held = self.groups.get(&key);
        if held.is_some_and(Group::is_busy) {
            return Ok(None);
        }
        let held = held.and_then(|g| g.plan.as_ref());
        // What adds nothing costs no signature check: most plans arrive at a witness that has them.
        if held.is_some_and(|h| adds_nothing(h, &claimed, envelope)) {
            return Ok(None);
        }
        let plan = VerifiedPlan::open(envelope, &self.charter)?;
        let Some(plan) = VerifiedPlan::supersede(held, plan)? else {
            return Ok(None);
        };
        if !self.groups.contains_key(&key) {
            self.admit(&key)?;
        }
        let group = self.groups.entry(key.clone()).or_insert_with(|| Group::new(now));
        group.plan = Some(plan);
        Ok(Some(key))
    }

    fn admit(&self, key: &GroupKey) -> Result<(), PlanError> {
        let of_home = self.groups.keys().filter(|k| k.home == key.home).count();
        if of_home < MAX_GROUPS_PER_HOME {
            Ok(())
        } else {
            Err(PlanError::TooManyGroups { group: key.clone(), limit: MAX_GROUPS_PER_HOME })
        }
    }

    /// L2: takes the certificate that a submission shows for what it proves, and no more.
    /// The holder had a quorum after the tag was issued; when it arrives is nothing.
    pub(super) fn take_proof(
        &mut self,
        submission: &Submission,
        proof: &Proof,
        now: Moment,
        wall_s: Option<u64>,
    ) -> Result<(), Ignored> {
        let entries = if proof.entries.is_empty() { &submission.entries } else { &proof.entries };
        let round = self.verify_proof(proof, entries)?;
        let issued = self.read_tag(&round.request, now);
        let issued = issued.filter(|at| at.passed_for_waiting(now));
        let excepted: Vec<BTreeSet<&GroupKey>> =
            round.grants.iter().map(|g| g.exceptions.iter().map(|e| &e.group).collect()).collect();
        let Some(number) = self.charter.site(&round.request.site).map(|s| s.number) else {
            return Ok(());
        };
        let mut covered_once = BTreeSet::new();
        // One certificate of each site is kept for witnesses that recover (L8): the newest
        // that says anything new, so that a renewal doesn't copy thousands of entries.
        let mut news = !self.shown.contains_key(&round.request.site);
        for entry in entries {
            let granted = excepted.iter().filter(|e| !e.contains(&entry.group)).count() >= self.charter.quorum();
            if granted && entry.epoch.site == number && covered_once.insert(&entry.group) {
                news |= self.prove(&round.request.site, entry, issued, now, wall_s);
            }
        }
        if news {
            let shown = Proof { round: proof.round.clone(), entries: entries.clone() };
            self.shown.insert(round.request.site.clone(), shown);
        }
        Ok(())
    }

    /// Verifies a round of bounded size and that these are its entries.
    pub(super) fn verify_proof(&self, proof: &Proof, entries: &[Entry]) -> Result<VerifiedRound, Ignored> {
        let round = &proof.round;
        let fits = |e: &Envelope, bytes| e.payload.len() <= bytes && e.signatures.len() <= MAX_SIGNATURES;
        let sizes_hold = entries.len() <= MAX_ENTRIES
            && round.grants.len() <= MAX_GRANTS
            && fits(&round.request, MAX_REQUEST_BYTES)
            && round.grants.iter().all(|g| fits(g, MAX_GRANT_BYTES));
        if !sizes_hold {
            return Err(Ignored::ProofTooLarge);
        }
        let verified = round.verify(&self.charter).map_err(Ignored::Proof)?;
        if verified.covers(entries) {
            Ok(verified)
        } else {
            Err(Ignored::Proof(regent_core::message::RoundError::WrongEntries))
        }
    }

    /// Returns whether the certificate is of a higher epoch than any before.
    fn prove(
        &mut self,
        site: &SiteName,
        entry: &Entry,
        issued: Option<Moment>,
        now: Moment,
        wall_s: Option<u64>,
    ) -> bool {
        let key = &entry.group;
        let Some(group) = self.groups.get_mut(key) else {
            return false;
        };
        let before = group.record.certified.as_ref().map(|c| c.epoch);
        let holder = Vote { site: site.clone(), epoch: entry.epoch };
        if let Some(until) = group.certify(holder, now, wall_s)
            && let Some(party) = self.charter.site(&key.home).map(|s| s.party.clone())
        {
            let brake = self.parties.entry(party).or_default();
            brake.forget(now);
            brake.count(until);
        }
        let news = group.record.certified.as_ref().map(|c| c.epoch) > before;
        // Another site's certificate says nothing about the incumbent (L5).
        let Some(issued) = issued.filter(|_| group.incumbent(key) == site) else {
            return news;
        };
        group.proven_at = group.proven_at.max(issued);
        if !group.lapses_at(&self.charter).passed_for_waiting(now)
            && let Some(reported) = group.reported.take()
            && group.record.vote.as_ref() == Some(&reported)
        {
            self.notices.push(now, WitnessEvent::Proven { group: key.clone(), epoch: reported.epoch });
        }
        news
    }
}

/// Whether the offered envelope holds neither a newer plan nor a signature that is new.
fn adds_nothing(held: &VerifiedPlan, claimed: &Plan, envelope: &Envelope) -> bool {
    let has = |keyid: &str| held.envelope().signatures.iter().any(|s| s.keyid == keyid);
    claimed.version == held.plan().version
        && envelope.digest() == held.envelope().digest()
        && envelope.signatures.iter().all(|s| has(&s.keyid))
}
