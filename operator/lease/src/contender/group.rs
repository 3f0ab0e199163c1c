//! One group at this site: its role, and what is known of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::output::RoundId;
use super::release::Release;
use super::roles::{GIVE_UP, pause};
use super::votes::{Top, Votes};
use regent_core::charter::Charter;
use regent_core::ids::{Epoch, SiteName};
use regent_core::message::{Line, Refusal, Vote};
use regent_core::plan::{Plan, Protection, Trigger, VerifiedPlan, WhenNotReady};
use regent_core::time::Moment;

/// Why a site doesn't ask for a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum IdleReason {
    /// A standby, while the plan is not yet `Protected`.
    NotProtectedYet,
}

/// Why a candidate asks but doesn't take the group over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum HeldBack {
    /// The plan doesn't name this site: it goes on with what it holds and acquires nothing.
    NotInPlan,
    /// The group may not run in this site's country (I5): likewise.
    UnlawfulCountry,
    /// What this site would run is not held ready, or not all of it is and the plan says `Hold`.
    NotReady,
    /// The trigger is `Approval`, and nobody has approved.
    AwaitingApproval,
}

/// How much of what a site would run is held ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// Nothing would start.
    None,
    /// A part would.
    Some,
    /// All of it would; always so at home.
    All,
}

/// A certificate that this replica collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub epoch: Epoch,
    /// `A` from when the request was made (stopping).
    pub until: Moment,
}

/// What this site is to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// Not trying.
    Idle(IdleReason),
    /// Asks whether it would be granted.
    Candidate {
        /// When the q-th shortest wait has passed.
        again: Option<Moment>,
    },
    /// A quorum said that it would grant; it has been asked to.
    Attempting {
        epoch: Epoch,
        since: Moment,
        /// When the epoch was last raised.
        raised: Moment,
        /// Who said that it would.
        yes: BTreeSet<SiteName>,
        /// When to ask (again) without waiting for the next renewal.
        again: Option<Moment>,
        /// How often a witness was busy writing.
        busy: u32,
    },
    /// Gave up, and lets others try.
    Silent { until: Moment },
    /// Has, or had and goes on asking for, a certificate.
    Holder {
        /// What is asked for.
        epoch: Epoch,
        held: Held,
        /// When the epoch was last raised.
        raised: Option<Moment>,
        /// That the certificate ran out has been told.
        told: bool,
    },
    /// Gives the group to a successor.
    Releasing {
        release: Release,
        /// When the phase began.
        entered: Moment,
        /// When its request was last sent.
        sent: Option<Moment>,
    },
}

/// A witness's last word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub round: RoundId,
    pub epoch: Epoch,
    pub at: Moment,
    /// When it was asked.
    pub asked: Moment,
    /// What it was asked: a query stood in this line, a request in none.
    pub line: Option<Line>,
    pub refusal: Option<Refusal>,
    /// Until when a brake there would keep the group from any other site.
    pub braked: Option<Moment>,
    /// When it may grant.
    pub ready: Option<Moment>,
}

/// A witness that says yes and doesn't grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub until: Moment,
    pub times: u32,
}

/// Tells envelopes of a plan apart: a countersignature changes it without a new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PlanMark {
    pub version: u64,
    /// Grows with every change of the envelope here.
    pub change: u64,
}

/// A plan at a witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeldPlan {
    pub version: u64,
    /// The witness's count of starts.
    pub start: u64,
    /// When it first said so under that count.
    pub first: Moment,
    /// When the last request was made to which it said so.
    pub asked: Moment,
}

/// What this site knows of one group.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub plan: Arc<VerifiedPlan>,
    pub approved: bool,
    pub readiness: Readiness,
    pub role: Role,
    pub votes: Votes,
    pub views: BTreeMap<SiteName, View>,
    pub left_out: BTreeMap<SiteName, LeftOut>,
    /// Since when more than f witnesses, but fewer than q, would grant it to this candidate.
    pub stuck: Option<Moment>,
    /// Until when it asks beside the line, so that others come first.
    pub aside: Option<Moment>,
    pub mark: PlanMark,
    /// How often the envelope was offered to a witness that was not known to have it.
    pub offered: u32,
    /// Which plan each witness says that it holds.
    pub holds: BTreeMap<SiteName, HeldPlan>,
    /// Which plan each witness has seen.
    pub seen: BTreeMap<SiteName, PlanMark>,
    /// Epochs of ours up to here are over (L12).
    pub retired: Option<Epoch>,
    /// The highest epoch of ours that was certified to this replica.
    pub certified: Option<Epoch>,
}

impl Group {
    pub(super) fn new(plan: Arc<VerifiedPlan>, approved: bool, readiness: Readiness) -> Self {
        Self {
            mark: PlanMark { version: plan.plan().version, change: 0 },
            offered: 0,
            holds: BTreeMap::new(),
            plan,
            approved,
            readiness,
            role: Role::Candidate { again: None },
            votes: Votes::default(),
            views: BTreeMap::new(),
            left_out: BTreeMap::new(),
            stuck: None,
            aside: None,
            seen: BTreeMap::new(),
            retired: None,
            certified: None,
        }
    }

    /// The plan that is known here.
    pub(super) fn plan(&self) -> &Plan {
        self.plan.plan()
    }

    /// The epoch that is asked for in requests, if any is.
    pub(super) fn asked(&self) -> Option<Epoch> {
        match &self.role {
            // Left to the other replica for a moment (see `Contender::set_stagger`).
            Role::Attempting { again: Some(_), busy: 0, .. } => None,
            Role::Attempting { epoch, .. } | Role::Holder { epoch, .. } => Some(*epoch),
            Role::Releasing { release, .. } if !release.is_final() => Some(release.epoch),
            Role::Releasing { .. } | Role::Idle(_) | Role::Candidate { .. } | Role::Silent { .. } => None,
        }
    }

    /// The epoch to ask for next.
    pub(super) fn target(&self, f: usize, own: (&SiteName, u32)) -> Epoch {
        self.votes.next_epoch(f, own, self.retired, self.certified)
    }

    /// Whether a witness's word counts now.
    pub(super) fn counts(&self, now: Moment, witness: &SiteName) -> bool {
        self.left_out.get(witness).is_none_or(|l| l.until.passed_for_waiting(now))
    }

    /// Witnesses that would grant to a site that stands in `line`, by their last word within
    /// `fresh`. What was said to one that asked as if all were ready doesn't count for one
    /// that must let ready sites go first.
    pub(super) fn yes(&self, now: Moment, fresh: Duration, line: Line) -> BTreeSet<SiteName> {
        let holds = |v: &View| line != Line::Degraded || v.line.is_none_or(|asked| asked == line);
        let says = |w: &SiteName, v: &View| {
            v.refusal.is_none() && holds(v) && !v.at.after(fresh).passed_for_stopping(now) && self.counts(now, w)
        };
        self.views.iter().filter(|(w, v)| says(w, v)).map(|(w, _)| w.clone()).collect()
    }

    /// L11: a candidate that someone honest would grant the group, but no quorum in 3 D (a link
    /// of its own is cut, or a liar or a brake refuses it), stands aside for a while: another one
    /// may have what it lacks. It goes on asking, and takes the group if a quorum says yes.
    pub(super) fn note_yes(&mut self, now: Moment, yes: usize, f: usize, d: Duration, rank: usize) {
        if yes <= f {
            self.stuck = None;
            return;
        }
        let since = *self.stuck.get_or_insert(now);
        if since.after(d * GIVE_UP).passed_for_waiting(now) {
            self.stuck = None;
            self.aside = Some(now.after(pause(d, rank)));
        }
    }

    /// Witnesses that count and have answered within `fresh`.
    pub(super) fn answered(&self, now: Moment, fresh: Duration) -> usize {
        let heard = |w: &SiteName, v: &View| !v.at.after(fresh).passed_for_stopping(now) && self.counts(now, w);
        self.views.iter().filter(|(w, v)| heard(w, v)).count()
    }

    /// When the q-th shortest wait has passed, of those named in answer to the query that was
    /// sent at `asked` (L11): an older answer's wait is of the past.
    pub(super) fn qth_ready(&self, now: Moment, q: usize, asked: Moment) -> Option<Moment> {
        let current = self.views.iter().filter(|(w, v)| v.asked.boot_ns >= asked.boot_ns && self.counts(now, w));
        let mut ready: Vec<Moment> = current.filter_map(|(_, v)| v.ready).collect();
        ready.sort_by_key(|m| m.boot_ns);
        ready.get(q.saturating_sub(1)).copied().filter(|at| at.boot_ns > asked.boot_ns)
    }

    /// Whether a witness that refused the epoch has a higher vote, or has retired it. Its vote
    /// counts and not its reason: one that has promised the group away names that first, and
    /// two sites that each go on asking at a minority would hold each other up for ever.
    pub(super) fn overtaken(&self, epoch: Epoch) -> bool {
        self.views.iter().filter(|(_, v)| v.epoch == epoch && v.refusal.is_some()).any(|(witness, v)| {
            v.refusal == Some(Refusal::Retired) || self.votes.of(witness).is_some_and(|vote| vote.epoch > epoch)
        })
    }

    /// Whether a witness refused the epoch for a higher vote.
    pub(super) fn outvoted(&self, epoch: Epoch) -> bool {
        self.views.values().any(|v| v.epoch == epoch && v.refusal == Some(Refusal::HigherVote))
    }

    /// The highest vote that is believed.
    pub(super) fn higher_vote(&self, f: usize) -> Option<Vote> {
        match self.votes.top(f) {
            Top::Vote(vote) => Some(vote),
            Top::None | Top::Capped(_) => None,
        }
    }

    /// A witness says which version of the plan it holds.
    pub(super) fn note_holds(&mut self, now: Moment, witness: &SiteName, version: u64, start: u64, asked: Moment) {
        let fresh = HeldPlan { version, start, first: now, asked };
        let held = self.holds.entry(witness.clone()).or_insert(fresh);
        if held.version == version && held.start == start {
            held.asked = held.asked.max(asked);
        } else {
            *held = fresh;
        }
    }

    /// Whether q witnesses hold at least this version at one time: asked again after the
    /// q-th said so, their counts of starts unchanged.
    pub(super) fn is_registered(&self, version: u64, q: usize) -> bool {
        let mut held: Vec<&HeldPlan> = self.holds.values().filter(|h| h.version >= version).collect();
        held.sort_by_key(|h| h.first.boot_ns);
        let Some(qth) = held.get(q.saturating_sub(1)).map(|h| h.first) else { return false };
        held.iter().filter(|h| h.first.boot_ns <= qth.boot_ns && qth.passed_for_waiting(h.asked)).count() >= q
    }

    /// What forbids this site to ask at all, if something does.
    pub(super) fn idle(&self, site: &SiteName) -> Option<IdleReason> {
        let home = site == &self.plan().group.home;
        (!home && self.plan().protection == Protection::Observed).then_some(IdleReason::NotProtectedYet)
    }

    /// What keeps this site from taking the group over. It asks all the same, without
    /// waiting in line: another replica of it, or itself before a restart, may hold the group.
    pub(super) fn held_back(&self, charter: &Charter, site: &SiteName) -> Option<HeldBack> {
        if self.is_ours(charter, site) {
            None
        } else if self.plan().rank(site).is_none() {
            Some(HeldBack::NotInPlan)
        } else if charter.site(site).is_none_or(|s| !self.plan().allows_country(&s.country)) {
            Some(HeldBack::UnlawfulCountry)
        } else if self.readiness == Readiness::None
            || (self.readiness == Readiness::Some && self.plan().when_not_ready == WhenNotReady::Hold)
        {
            Some(HeldBack::NotReady)
        } else if self.plan().trigger == Trigger::Approval && !self.approved {
            Some(HeldBack::AwaitingApproval)
        } else {
            None
        }
    }

    /// Whether the group is this site's by the witnesses' votes: then it goes on with what it
    /// holds, whatever would keep it from taking a group over. A higher vote at a minority
    /// ends nothing: that is what raising the epoch is for (L10).
    fn is_ours(&self, charter: &Charter, site: &SiteName) -> bool {
        let voted = self.votes.for_site(site, self.retired) >= charter.quorum();
        voted
            || match self.votes.top(charter.faulty_witnesses as usize) {
                Top::Vote(vote) => &vote.site == site && Some(vote.epoch) > self.retired,
                Top::None => site == &self.plan().group.home,
                Top::Capped(_) => false,
            }
    }

    /// How this site stands in line (L4.7), if it is heard by a quorum.
    pub(super) fn line(&self, charter: &Charter, site: &SiteName) -> Line {
        if self.held_back(charter, site).is_some() {
            Line::Beside
        } else if self.readiness == Readiness::All || self.is_ours(charter, site) {
            Line::Ready
        } else {
            Line::Degraded
        }
    }

    /// How many others are served before this site at a lapse (L4.7). One that the plan leaves
    /// out can only be the incumbent, who comes first.
    pub(super) fn turn(&self, charter: &Charter, site: &SiteName) -> usize {
        let rank = self.plan().rank(site).unwrap_or_default();
        // Behind every standby and home.
        let behind = if self.line(charter, site) == Line::Degraded { self.plan().standbys.len() + 1 } else { 0 };
        rank + behind
    }

    /// Takes a witness's refusal of an epoch of ours as its end, if a witness named it as a
    /// vote of ours: one liar must not make us count up (L10).
    pub(super) fn note_retired(&mut self, site: &SiteName, witness: &SiteName) {
        let refused = self.views.get(witness).filter(|v| v.refusal == Some(Refusal::Retired)).map(|v| v.epoch);
        if let Some(epoch) = refused.filter(|e| self.votes.names(site, *e)) {
            self.retired = self.retired.max(Some(epoch));
        }
    }
}
