//! L4: what a witness refuses, in the order in which the rules are checked.

use super::Witness;
use super::group::{Asked, Group};
use regent_core::ids::{GroupKey, SiteName};
use regent_core::message::{Ask, Entry, Line, Refusal, Vote};
use regent_core::plan::{Protection, VerifiedPlan};
use regent_core::time::Moment;

/// A refusal, and when time alone may have ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct No {
    pub(super) reason: Refusal,
    pub(super) until: Option<Moment>,
}

impl From<Refusal> for No {
    fn from(reason: Refusal) -> Self {
        Self { reason, until: None }
    }
}

/// What is asked, by whom, and when it was received.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim<'a> {
    pub(super) site: &'a SiteName,
    pub(super) entry: &'a Entry,
    /// Whether the entry's epoch is to be granted. A query asks whether *some* epoch would be:
    /// who attempts after it climbs to one that each witness takes (L4.4, L4.5).
    pub(super) binding: bool,
    pub(super) now: Moment,
}

impl Witness {
    /// Whether the claim would be granted (L4). Looks, and changes nothing.
    pub(super) fn decide(&self, claim: Claim<'_>) -> Result<(), No> {
        let key = &claim.entry.group;
        let group = self.groups.get(key).ok_or(Refusal::UnknownGroup)?;
        let plan = group.plan.as_ref().ok_or(Refusal::UnknownGroup)?;
        if let Err(refusal) = self.may_ask(group, plan, claim.site, claim.entry.state, claim.now) {
            // Who left and gave its epoch away must learn that, or it would ask for it for ever.
            let gave = group.retires(claim.entry.epoch) && group.incumbent(key) == claim.site;
            return Err(if gave { Refusal::Retired } else { refusal }.into());
        }
        if let Some(due) = self.recovery_due() {
            let until = (!due.passed_for_waiting(claim.now)).then_some(due);
            return Err(No { reason: Refusal::Stale, until });
        }
        let asked = Vote { site: claim.site.clone(), epoch: claim.entry.epoch };
        if group.is_busy() && !group.renews(&asked) {
            return Err(Refusal::Busy.into());
        }
        let blocks = [
            self.waiting(group, claim),
            promised(group, claim),
            outranked_epoch(group, claim).map(No::from),
            (claim.binding && claim.entry.epoch.term > group.highest_term()).then(|| Refusal::TermLeap.into()),
            self.without_trigger(group, claim),
            self.behind_another(group, plan, claim),
            self.interlocked(group, key, claim.site, claim.now),
        ];
        let Some(first) = blocks.iter().flatten().next().copied() else {
            return Ok(());
        };
        // A candidate is told when everything that time can end will have ended, so that it
        // asks once and doesn't poll (L11).
        let until = first.until.and_then(|_| blocks.iter().flatten().filter_map(|no| no.until).reduce(Moment::max));
        Err(No { reason: first.reason, until })
    }

    /// L4.1, and who may go on although it fails it: a plan says where a group may be
    /// activated, not that it must stop where it runs. A proven incumbent that a newer plan
    /// leaves out, or whose country it forbids, keeps what it holds until that is elsewhere or
    /// has lapsed; whether it gets it is for the other rules, as ever.
    pub(super) fn may_ask(
        &self,
        group: &Group,
        plan: &VerifiedPlan,
        site: &SiteName,
        state: Protection,
        now: Moment,
    ) -> Result<(), Refusal> {
        match self.may_claim(plan, site, state) {
            Err(Refusal::NotInPlan | Refusal::UnlawfulCountry) if group.is_proven(site, &self.charter, now) => {
                behind_plan(plan, state).map_or(Ok(()), Err)
            }
            verdict => verdict,
        }
    }

    /// L4.1: who may claim a group at all under its plan.
    pub(super) fn may_claim(&self, plan: &VerifiedPlan, site: &SiteName, state: Protection) -> Result<(), Refusal> {
        let protected = plan.plan().protection == Protection::Protected;
        if plan.rank(site).is_none() {
            Err(Refusal::NotInPlan)
        } else if site != &plan.plan().group.home && !protected {
            Err(Refusal::NotProtectedYet)
        } else if let Some(refusal) = behind_plan(plan, state) {
            Err(refusal)
        } else if !plan.is_lawful(site, &self.charter) {
            Err(Refusal::UnlawfulCountry)
        } else {
            Ok(())
        }
    }

    /// L4.2 with L7 and L9: after a start only exactly the vote, and only to a site that this
    /// witness answered shortly before.
    fn waiting(&self, group: &Group, claim: Claim<'_>) -> Option<No> {
        let until = self.waits(claim.now)?;
        let asked = Vote { site: claim.site.clone(), epoch: claim.entry.epoch };
        let goes_on = group.record.vote.as_ref() == Some(&asked) && self.current.contains(claim.site);
        (!goes_on).then_some(No { reason: Refusal::Waiting, until: Some(until) })
    }

    /// L4.6: nobody but the incumbent without a trigger: lapse (L5) or retirement (L12).
    fn without_trigger(&self, group: &Group, claim: Claim<'_>) -> Option<No> {
        let refused = |until| Some(No { reason: Refusal::NoTrigger, until });
        if claim.site == group.incumbent(&claim.entry.group) || group.is_retired() {
            return None;
        }
        if group.is_new() {
            return refused(None);
        }
        let lapses = group.lapses_at(&self.charter);
        if lapses.passed_for_waiting(claim.now) { None } else { refused(Some(lapses)) }
    }

    /// L4.7: the proven incumbent comes first, then ready standbys by rank, then home, then
    /// standbys of which only a part is ready; for a while after a retirement, the named
    /// successor alone (L12).
    fn behind_another(&self, group: &Group, plan: &VerifiedPlan, claim: Claim<'_>) -> Option<No> {
        let now = claim.now;
        let refused = |until| Some(No { reason: Refusal::BetterClaimant, until: Some(until) });
        if group.is_retired()
            && let Some(favoured) = group.favoured.as_ref().filter(|f| !f.until.passed_for_waiting(now))
        {
            return if &favoured.site == claim.site { None } else { refused(favoured.until) };
        }
        // Nobody but home can get a new group, so nobody stands in its way.
        let proven = group.is_new() || !group.lapses_at(&self.charter).passed_for_waiting(now);
        let key = &claim.entry.group;
        let first = Some(group.incumbent(key)).filter(|_| proven && !group.is_retired());
        let span = self.charter.renewal_period() * 2;
        let waits = |asked: &Asked| !asked.at.after(span).passed_for_waiting(now);
        let place = |site: &SiteName, degraded: bool| match plan.rank(site) {
            _ if first == Some(site) => Some(Place::Incumbent),
            Some(_) if site == &key.home => Some(Place::Home),
            Some(rank) if degraded => Some(Place::Degraded(rank)),
            Some(rank) => Some(Place::Ready(rank)),
            None => None,
        };
        // One that is not in line here said it to others: taken as ready it costs time at most.
        let degraded = group.line.get(claim.site).is_some_and(|asked| waits(asked) && asked.degraded);
        let own = place(claim.site, degraded)?;
        let better = group.line.iter().filter(|(site, asked)| {
            *site != claim.site
                && waits(asked)
                && !group.retires(asked.epoch)
                && self.may_ask(group, plan, site, plan.plan().protection, now).is_ok()
                && place(site, asked.degraded).is_some_and(|p| p < own)
                // One that a brake holds can't get the group: it must not keep the holder from it.
                && self.interlocked(group, key, site, now).is_none()
        });
        better.map(|(_, asked)| asked.at.after(span)).reduce(Moment::max).and_then(refused)
    }

    /// L4.8 with L14: too many certified changes of holder within the hour.
    fn interlocked(&self, group: &Group, key: &GroupKey, site: &SiteName, now: Moment) -> Option<No> {
        let holder = group.record.certified.as_ref().map_or_else(|| group.incumbent(key), |c| &c.site);
        // The brake is for changes: it never stops who has the group, by vote or by certificate.
        if site == holder || site == group.incumbent(key) {
            return None;
        }
        self.holds_changes(group, key, now)
    }

    /// Whether a brake would hold any other site's claim.
    pub(super) fn holds_changes(&self, group: &Group, key: &GroupKey, now: Moment) -> Option<No> {
        let limits = self.charter.interlock;
        let of_group = group.brake.holds_until(limits.changes_per_group_hour, now);
        let party = self.charter.site(&key.home).and_then(|s| self.parties.get(&s.party));
        let of_party = party.and_then(|b| b.holds_until(limits.changes_per_party_hour, now));
        let until = [of_group, of_party].into_iter().flatten().reduce(Moment::max)?;
        Some(No { reason: Refusal::Interlock, until: Some(until) })
    }

    /// Puts a claimant in line (L4.7), as it says by a query; a request leaves it as it
    /// stands. One that is barred, retired or unlawful doesn't wait.
    pub(super) fn stand_in_line(&mut self, claim: Claim<'_>, ask: &Ask) {
        let says = match ask {
            Ask::Query { line: Line::Ready } => Some(false),
            Ask::Query { line: Line::Degraded } => Some(true),
            Ask::Grant => None,
            Ask::Query { line: Line::Beside } | Ask::Retire { .. } | Ask::Release { .. } => return,
        };
        let key: &GroupKey = &claim.entry.group;
        let Some(group) = self.groups.get(key).filter(|g| !g.retires(claim.entry.epoch)) else {
            return;
        };
        let Some(plan) = group.plan.as_ref() else {
            return;
        };
        if self.may_ask(group, plan, claim.site, claim.entry.state, claim.now).is_err() {
            return;
        }
        let span = self.charter.renewal_period() * 2;
        let before = group.line.get(claim.site).filter(|asked| !asked.at.after(span).passed_for_waiting(claim.now));
        let asked = Asked {
            at: before.map_or(claim.now, |b| b.at.max(claim.now)),
            epoch: claim.entry.epoch,
            degraded: says.unwrap_or(before.is_some_and(|b| b.degraded)),
        };
        if let Some(group) = self.groups.get_mut(key) {
            group.line.insert(claim.site.clone(), asked);
        }
    }
}

/// L4.7: what orders claimants, the first first. It is the same at every witness that holds
/// the same plan and heard the same questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// The proven incumbent.
    Incumbent,
    /// A standby whose all is ready, by rank.
    Ready(usize),
    /// Home: always ready, and last among those who are.
    Home,
    /// A standby of which only a part is ready, by rank.
    Degraded(usize),
}

/// L4.1: `Observed` is asked where the plan says `Protected`.
fn behind_plan(plan: &VerifiedPlan, state: Protection) -> Option<Refusal> {
    let behind = plan.plan().protection == Protection::Protected && state != Protection::Protected;
    behind.then_some(Refusal::StateBehindPlan)
}

/// L4.3: an unexpired promise goes to another site.
fn promised(group: &Group, claim: Claim<'_>) -> Option<No> {
    let promise = group.promise.as_ref().filter(|p| &p.site != claim.site)?;
    (!promise.until.passed_for_waiting(claim.now))
        .then_some(No { reason: Refusal::Promised, until: Some(promise.until) })
}

/// L4.4: epochs only grow, and a retired one never comes back.
fn outranked_epoch(group: &Group, claim: Claim<'_>) -> Option<Refusal> {
    let epoch = claim.entry.epoch;
    let outranks = |known: &Vote| epoch < known.epoch || (epoch == known.epoch && &known.site != claim.site);
    // What was shown binds as what was voted: a certificate bars what is below it.
    if group.highest().is_some_and(outranks) {
        claim.binding.then_some(Refusal::HigherVote)
    } else if group.retires(epoch) {
        // Also to a query: whose own vote this was learns so that it is over.
        Some(Refusal::Retired)
    } else {
        None
    }
}
